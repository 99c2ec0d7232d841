"""References: what a JSON column holds of an object in a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dj_dagster.errors import ObjectError
from dj_dagster.objects.previews import byte_text


def read_reference(reference: object) -> Mapping[str, Any]:
    """Return a reference's fields, its `path` among them.

    Raises
    ------
    ObjectError
        If it is not one.
    """
    fields: Any = reference
    if isinstance(reference, str | bytes):
        try:
            fields = json.loads(reference)
        except (ValueError, RecursionError) as error:
            raise ObjectError(f"{reference!r:.80} is not a reference to an object.") from error
    if not isinstance(fields, Mapping) or not isinstance(fields.get("path"), str):
        raise ObjectError(f"{reference!r:.80} is not a reference to an object: it has no path.")
    return fields


def reference_text(reference: object) -> str:
    """Return the words for an object that a reference names: what it is, how large, where.

    Raises
    ------
    ObjectError
        If it is no reference.

    Examples
    --------
    >>> reference_text({"path": "a/b.h5", "store": "raw", "ext": ".h5", "size": 1200})
    '.h5 file, 1.2 kB in raw'
    """
    fields = read_reference(reference)
    ext, count, size = fields.get("ext"), fields.get("item_count"), fields.get("size")
    what = f"{ext} " if ext else ""
    if fields.get("is_dir"):
        what += "folder" if count is None else f"folder of {count} file{'s' * (count != 1)}"
    elif "hash" not in fields:
        what += "file"
    amount = [] if size is None else [byte_text(int(size))]
    place = f" in {fields['store']}" if fields.get("store") else ""
    return ", ".join([*filter(None, [what]), *amount]) + place
