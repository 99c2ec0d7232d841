"""Functions of MySQL's SQL on JSON, which is text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from dj_dagster.errors import QueryError
from dj_dagster.relational.algebra.nodes import json_steps

_steps = lru_cache(maxsize=1000)(json_steps)
_MISSING = object()


def at(text: str | None, path: str) -> Any:
    """Return the value at a path; None without a value, or if the text is not JSON."""
    found = _found(text, path)
    return None if found is _MISSING else found


def _found(text: str | None, path: str) -> Any:
    try:
        value: Any = _MISSING if text is None else json.loads(text)
        step: Any
        for step in _steps(path):
            # As in MySQL, a value that is not an array counts as an array of one element.
            if step not in (0, -1) or isinstance(value, list):
                value = value[step]
    except (ValueError, TypeError, LookupError):
        return _MISSING
    return value


def dumped(value: object) -> str:
    """Return a value as JSON in the form that the database writes."""
    return json.dumps(value, ensure_ascii=False)


def _checked(path: str) -> str:
    if "*" in path or not path.startswith("$"):
        raise QueryError(f"SQL on SQLite: the JSON path {path!r} is not supported.")
    return path


def extract(text: str, *paths: str) -> str | None:
    """Return the value at a path as JSON; for several paths an array of the existing values."""
    found = [_found(text, _checked(path)) for path in paths]
    there = [value for value in found if value is not _MISSING]
    if not there:
        return None
    return dumped(there if len(paths) > 1 else there[0])


def unquote(text: str) -> str:
    """Return the text of a JSON string, anything else as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return text


def value(text: str, path: str) -> str | None:
    """Return a single value at a path as text; None for arrays and objects."""
    found = at(text, _checked(path))
    if isinstance(found, bool):
        return str(int(found))
    if found is None or isinstance(found, list | dict):
        return None
    return found if isinstance(found, str) else dumped(found)


def length(text: str, path: str = "$") -> int | None:
    """Return the number of elements; a single value counts as one."""
    found = _found(text, _checked(path))
    if found is _MISSING:
        return None
    return len(found) if isinstance(found, list | dict) else 1  # pyright: ignore[reportUnknownArgumentType]


def contains_path(text: str, which: str, *paths: str) -> bool:
    """Whether there is a value at one of the paths, or at all of them."""
    there = [_found(text, _checked(path)) is not _MISSING for path in paths]
    return any(there) if which.lower() == "one" else all(there)


def contains(text: str, candidate: str, path: str = "$") -> bool | None:
    """Whether the value at a path contains another, as MySQL defines it.

    Raises
    ------
    QueryError
        If the other is not JSON.
    """
    try:
        wanted: object = json.loads(candidate)
    except ValueError:
        raise QueryError(
            f"SQL on SQLite: JSON_CONTAINS() looks for {candidate!r:.60}, which is not JSON: write "
            f"a text in double quotes, such as '\"a word\"'."
        ) from None
    found = _found(text, _checked(path))
    return None if found is _MISSING else _contains(found, wanted)


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        is_array = isinstance(value, list)
        return is_array and all(_contains(value, item) for item in list[Any](wanted))
    if isinstance(value, list):
        return any(_contains(item, wanted) for item in list[Any](value))
    if isinstance(value, dict) and isinstance(wanted, dict):
        ours, theirs = dict[str, Any](value), dict[str, Any](wanted)
        return all(key in ours and _contains(ours[key], theirs[key]) for key in theirs)
    # True is not the number 1.
    return isinstance(value, bool) is isinstance(wanted, bool) and value == wanted


def depth(text: str) -> int | None:
    """Return the number of levels; a single value and an empty array have one."""
    found = _found(text, "$")
    return None if found is _MISSING else _depth(found)


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside), default=0)


def keys(text: str, path: str = "$") -> str | None:
    """Return the keys of an object in MySQL's order, None for other values."""
    found = _found(text, _checked(path))
    return dumped(sorted(found, key=_key_order)) if isinstance(found, dict) else None


def _key_order(key: str) -> tuple[int, bytes]:
    # MySQL sorts the keys of an object by their length first.
    return len(key.encode()), key.encode()


def made_object(pairs: Sequence[tuple[object, object]]) -> str:
    """Return an object as JSON, in MySQL's order of keys; the last of equal keys counts.

    Raises
    ------
    QueryError
        If a key is null.
    """
    if any(key is None for key, _ in pairs):
        raise QueryError("SQL on SQLite: JSON_OBJECT() takes no NULL as a key.")
    found = {str(key): value for key, value in pairs}
    return dumped(dict(sorted(found.items(), key=lambda pair: _key_order(pair[0]))))


def is_valid(text: str) -> bool:
    """Whether a text is JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def type_of(text: str) -> str | None:
    """Return the name of a JSON value's type."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    names = {bool: "BOOLEAN", int: "INTEGER", float: "DOUBLE", str: "STRING", list: "ARRAY",
             dict: "OBJECT", type(None): "NULL"}  # fmt: skip
    return names[type(found)]
