"""Paths into attributes of JSON: ``settings.device.channels[0]:int32``."""

from __future__ import annotations

import re

from dj_dagster.relational.algebra.algebra import JSONPath

_PATH = re.compile(
    r"(?P<name>[a-z][a-z0-9_]*)"
    r"(?P<path>(?:\.(?:[A-Za-z_]\w*|\"[^\"\\]*\")|\[(?:[0-9]+|last)\])+)"
    r"(?:\s*:\s*(?P<type>[A-Za-z][\w ]*(?:\(\s*\d+\s*(?:,\s*\d+\s*)?\))?))?"
)


def parse_json_path(text: str) -> JSONPath | None:
    """Return the path that a text spells, None if it spells none.

    Examples
    --------
    >>> parse_json_path("settings.channels[0].gain:float")
    JSONPath(name='settings', path='$.channels[0].gain', returning='float')
    >>> parse_json_path("a + b")
    """
    match = _PATH.fullmatch(text.strip())
    if match is None:
        return None
    kind = match["type"]
    return JSONPath(match["name"], f"${match['path']}", kind.strip().lower() if kind else None)
