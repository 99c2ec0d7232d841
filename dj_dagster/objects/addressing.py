"""Objects named by their row: where an object of an attribute lies in its store.

``{schema_prefix}/[partition key=value/…]{schema}/{table}/{key=value/…}{attribute}_{token}.ext``, as
DataJoint lays it out; the random token keeps two writers, and two versions, apart.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import quote

from dj_dagster.objects.store_settings import StoreSettings

_TOKEN_LETTERS = f"{string.ascii_letters}{string.digits}-_"
_SPECIAL = re.compile(r'[/\\:*?"<>|]')
_LONGEST = 100
_KEPT = 50


def object_path(
    settings: StoreSettings,
    schema: str,
    table: str,
    attribute: str,
    key: Mapping[str, Any],
    extension: str = "",
) -> str:
    """Return a path for a new object; each call gives another one.

    Parameters
    ----------
    key
        The primary key of the row, as far as it is known.
    extension
        With its dot: ``".npy"``.

    Examples
    --------
    >>> from dj_dagster.objects.store_settings import FileStoreSettings
    >>> settings = FileStoreSettings(protocol="file", location="/data", token_length=4)
    >>> object_path(settings, "lab", "__scan", "movie", {"subject": "a/b", "scan": 1}, ".tif")[:-8]
    '_schema/lab/__scan/subject=a%2Fb/scan=1/movie_'
    """
    first = [name for name in _pattern_names(settings.partition_pattern) if name in key]
    token = "".join(secrets.choice(_TOKEN_LETTERS) for _ in range(settings.token_length))
    return "/".join(
        [
            settings.schema_prefix.strip("/"),
            *(f"{name}={key_text(key[name])}" for name in first),
            schema,
            table,
            *(f"{name}={key_text(value)}" for name, value in key.items() if name not in first),
            f"{attribute}_{token}{extension}",
        ]
    )


def key_text(value: object) -> str:
    """Return a key's value as a part of a path.

    Examples
    --------
    >>> key_text(datetime(2024, 1, 31, 12)), key_text("50/50")
    ('2024-01-31T12-00-00', '50%2F50')
    """
    match value:
        case datetime():
            text = value.strftime("%Y-%m-%dT%H-%M-%S")
        case date():
            text = value.isoformat()
        case _:
            text = str(value)
    if _SPECIAL.search(text):
        text = quote(text, safe="")
    if len(text) > _LONGEST:
        digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        text = f"{text[:_KEPT]}_{digest[:8]}"
    return text


def _pattern_names(pattern: str | None) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(pattern or "") if name]
