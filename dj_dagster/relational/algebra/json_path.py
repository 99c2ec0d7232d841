"""Paths into attributes of JSON: ``settings.device.channels[0]:int32``."""

from __future__ import annotations

import json
import re

from dj_dagster.relational.algebra.nodes import JSONPath

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_INDEX = r"\[(?:[0-9]+|last)\]"
_TYPE = r"(?:\s*:\s*(?P<type>[A-Za-z][\w ]*(?:\(\s*\d+\s*(?:,\s*\d+\s*)?\))?))?"
_WORD = r"[^\W\d]\w*"
_LOOSE = r'[^\s.\[\]:"*](?:[^.\[\]:"]*[^\s.\[\]:"])?'


def _path(key: str) -> re.Pattern[str]:
    steps = rf"(?:\.(?:{key}|{_QUOTED})|{_INDEX})+"
    return re.compile(rf"(?P<name>[A-Za-z_]\w*)(?P<path>{steps}){_TYPE}", re.DOTALL)


_IN_SQL, _ALONE = _path(_WORD), _path(_LOOSE)
_STEP = re.compile(rf"\.({_QUOTED})|\.({_LOOSE})|\[([0-9]+|last)\]", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def parse_json_path(text: str, *, alone: bool = False) -> JSONPath | None:
    """Return the path that a text expresses, None if it is not a path.

    Parameters
    ----------
    alone
        Whether the text can only be a path, so that keys may contain dashes, blanks and other
        signs. In SQL, where ``info.a - b`` is a difference, such a key is put in double quotes. In
        quotes a key may have any characters, with a backslash before quotes and backslashes.

    Examples
    --------
    >>> parse_json_path("settings.channels[0].gain:float")
    JSONPath(name='settings', path='$.channels[0].gain', returning='float')
    >>> parse_json_path("settings.f-stop", alone=True).path
    '$."f-stop"'
    >>> parse_json_path("a + b")
    """
    match = (_ALONE if alone else _IN_SQL).fullmatch(text.strip())
    if match is None:
        return None
    try:
        spelled = "".join(_spelled(step) for step in json_steps(match["path"]))
    except ValueError:
        return None
    kind = match["type"]
    return JSONPath(match["name"], f"${spelled}", kind.strip().lower() if kind else None)


def json_steps(path: str) -> tuple[str | int, ...]:
    """Return the keys and positions in a path; -1 is the last element.

    Raises
    ------
    ValueError
        If a key in quotes cannot be read.

    Examples
    --------
    >>> json_steps('$.device."f-stop"[0][last]')
    ('device', 'f-stop', 0, -1)
    """
    return tuple(_step(*match.groups()) for match in _STEP.finditer(path))


def _step(quoted: str | None, key: str | None, index: str | None) -> str | int:
    if index is not None:
        return -1 if index == "last" else int(index)
    name = str(key if quoted is None else json.loads(quoted, strict=False))
    name.encode()  # raises UnicodeError for half a surrogate pair, which no database takes
    return name


def _spelled(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{'last' if step < 0 else step}]"
    return f".{step if _PLAIN.fullmatch(step) else json.dumps(step, ensure_ascii=False)}"
