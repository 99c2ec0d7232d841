"""Pattern matching by LIKE and REGEXP."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dj_dagster.errors import QueryError
from dj_dagster.relational.user_sql.programs import (
    CallForm,
    Form,
    Program,
    ProgramOf,
    Untranslatable,
    both,
    heeds_case,
    pair,
)
from dj_dagster.relational.user_sql.values import INT, text


def matches(pattern: str, value: str, *, heeds_case: bool = False) -> bool:
    """Whether a text has a match of a regular expression, usually regardless of case.

    Raises
    ------
    QueryError
        If Python and MySQL may read the expression differently, or it is not valid.
    """
    if "[[" in pattern or "(?" in pattern or "\\" in pattern.replace("\\.", ""):
        has_classes = "[:" in pattern
        pattern = re.sub(r"\[:(\w+):\]", lambda m: _CLASSES.get(m[1], m[0]), pattern)
        if "[:" in pattern or "[[" in pattern or (has_classes and not value.isascii()):
            raise QueryError(f"SQL on SQLite: the regular expression {pattern!r} is not supported.")
    try:
        return re.search(pattern, value, 0 if heeds_case else re.IGNORECASE) is not None
    except re.error as error:
        raise QueryError(f"SQL on SQLite: {pattern!r} is no regular expression: {error}") from error


_CLASSES = {"alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "space": r"\s",
            "upper": "A-Z", "lower": "a-z", "xdigit": "0-9a-fA-F"}  # fmt: skip


def like_pattern(pattern: str, escape: str, *, heeds_case: bool = False) -> re.Pattern[str]:
    """Return the expression that matches texts LIKE a pattern, usually regardless of case."""
    parts: list[str] = []
    escaped = False
    for char in pattern:
        if escaped or char not in ("%", "_", escape):
            parts.append(re.escape(char))
            escaped = False
        elif char == escape:
            escaped = True
        else:
            parts.append(".*" if char == "%" else ".")
    flags = re.S if heeds_case else re.I | re.S
    return re.compile("".join(parts) + (re.escape(escape) if escaped else ""), flags)


def _like(program_of: ProgramOf, node: Any) -> Program:
    from sqlglot import exp

    escape = "\\"
    if isinstance(node, exp.Escape):
        escape = program_of(node.expression).literal
        node = node.this
        if not isinstance(node, exp.Like) or not isinstance(escape, str) or len(escape) > 1:
            raise Untranslatable("ESCAPE")
    one, other = both(program_of, node)
    negate = bool(node.args.get("negate"))
    is_bytes = "bytes" in (one.kind.family, other.kind.family)
    case = is_bytes or heeds_case("LIKE", one, other)

    def run(a: Any, b: Any) -> int:
        pattern = like_pattern(text(b, other.kind), escape, heeds_case=case)
        return int((pattern.fullmatch(text(a, one.kind)) is not None) is not negate)

    return pair(one, other, run, INT)


def _regexp(program_of: ProgramOf, node: Any) -> Program:
    return _matched(*both(program_of, node))


def _matched(one: Program, other: Program) -> Program:
    if "bytes" in (one.kind.family, other.kind.family):
        raise Untranslatable("REGEXP of bytes")
    case = heeds_case("REGEXP", one, other)

    def run(a: Any, b: Any) -> int:
        return int(matches(text(b, other.kind), text(a, one.kind), heeds_case=case))

    return pair(one, other, run, INT)


def _regexp_call(program_of: ProgramOf, given: Sequence[Any]) -> Program:
    if len(given) != 2:
        raise Untranslatable("REGEXP_LIKE() with a match type")
    one, other = (program_of(part) for part in given)
    return _matched(one, other)


FORMS: Mapping[str, Form] = {"Like": _like, "Escape": _like, "RegexpLike": _regexp}
CALLS: Mapping[str, CallForm] = {"REGEXP_LIKE": _regexp_call}
