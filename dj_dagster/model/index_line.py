"""Reading one index line: ``[unique] index(a, b(10), (expression))``."""

from __future__ import annotations

import re

from dj_dagster.model.declaration import IndexDeclaration
from dj_dagster.model.scanner import SourceLine

_INDEX = re.compile(r"(?P<unique>unique\s+)?index\s*(?=\()", re.IGNORECASE)
# A name, the first n characters of it, a path into its JSON with a type, or any expression.
_PART = re.compile(
    r"[a-z][a-z0-9_]*(?:\s*\([0-9]+\)|[.\[][^()]*(?:\([0-9, ]*\))?)?|\(.+\)", re.DOTALL
)
_FORM = "write 'index(a, b)' or 'unique index(a, b(10), (expression))' with attributes a and b"


def is_index(text: str) -> bool:
    """Return whether a line is meant as an index."""
    return _INDEX.match(text) is not None


def read_index(line: SourceLine) -> IndexDeclaration:
    """Return the index of a line.

    Raises
    ------
    DefinitionError
        When the line does not parse.

    Examples
    --------
    >>> read_index(SourceLine("unique index (first_name, last_name(10))", 1)).parts
    ('first_name', 'last_name(10)')
    """
    head = _INDEX.match(line.text)
    if head is None:
        raise line.error("this is not an index", 0, _FORM)
    closing = line.closing(head.end())
    parts = line.arguments(head.end(), closing)
    if not parts:
        raise line.error("the index names no attribute", head.end(), _FORM)
    for column, text in parts:
        if not _PART.fullmatch(text):
            raise line.error(f"{text!r} cannot be indexed", column, _FORM)
    line.expect_end(closing + 1, _FORM)
    return IndexDeclaration(tuple(text for _, text in parts), bool(head["unique"]), line.number)
