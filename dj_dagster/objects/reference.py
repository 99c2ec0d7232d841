"""References: what a JSON column holds of an object in a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dj_dagster.errors import ObjectError


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
        except ValueError as error:
            raise ObjectError(f"{reference!r:.80} is not a reference to an object.") from error
    if not isinstance(fields, Mapping) or not isinstance(fields.get("path"), str):
        raise ObjectError(f"{reference!r:.80} is not a reference to an object: it has no path.")
    return fields
