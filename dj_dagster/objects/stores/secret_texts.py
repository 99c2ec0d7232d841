"""Secret texts of settings: used as any other text, but masked when a setting is displayed."""

from __future__ import annotations

import re
from typing import Any, TypeVar, cast

PLAIN_SETTINGS = frozenset(
    {
        *("default", "filepath_default", "protocol", "endpoint", "bucket", "container"),
        *("location", "subfolding", "partition_pattern", "hash_prefix", "schema_prefix"),
        *("filepath_prefix", "proxy_server", "project", "account_name", "stage"),
    }
)
"""Settings of stores that are not secret; any others, such as adapters' own, may be."""

_SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|credential|connection_string", re.IGNORECASE)
_SECRET_URL = re.compile(r"://[^/]*@|://.*\?")
"""An account in a URL, or a query that may hold one."""

T = TypeVar("T")


class SecretText(str):
    """A text that `repr` masks, alone or in a dict or list; `str` and formats show it.

    Examples
    --------
    >>> {"password": SecretText("sesame")}, f"{SecretText('sesame')}"
    ({'password': '***'}, 'sesame')
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def with_hidden_secrets(name: str, value: T, *, in_store: bool = False) -> T:
    """Return a setting with its secret texts as `SecretText`; dicts and lists stay the same object.

    Parameters
    ----------
    in_store
        Whether the setting belongs to a store, where all texts but those named in `PLAIN_SETTINGS`
        are secret.

    Examples
    --------
    >>> with_hidden_secrets("custom", {"user": "ada", "api_key": "sesame"})
    {'user': 'ada', 'api_key': '***'}
    """
    if isinstance(value, SecretText):
        return value
    if isinstance(value, str):
        is_secret = name not in PLAIN_SETTINGS if in_store else bool(_SECRET_NAME.search(name))
        is_secret = is_secret or bool(_SECRET_URL.search(value))
        return cast("T", SecretText(value)) if is_secret else value
    if isinstance(value, dict):
        fields = cast("dict[Any, Any]", value)
        for key, inner in list(fields.items()):
            hidden = with_hidden_secrets(str(key), inner, in_store=in_store)
            if hidden is not inner:
                fields[key] = hidden
    elif isinstance(value, list):
        items = cast("list[Any]", value)
        items[:] = [with_hidden_secrets(name, inner, in_store=in_store) for inner in items]
    return value
