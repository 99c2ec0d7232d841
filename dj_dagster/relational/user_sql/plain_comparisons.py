"""Comparisons that SQLite makes as MySQL does; others are left to the function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dj_dagster.relational.user_sql import temporal
from dj_dagster.relational.user_sql.emission import (
    Emitted,
    Emitter,
    Piece,
    Translator,
    bare,
    is_simple,
    literal_of,
)
from dj_dagster.relational.user_sql.programs import Untranslatable, check_null
from dj_dagster.relational.user_sql.sqlite_values import (
    number_text,
    quoted,
    temporal_literal,
)
from dj_dagster.relational.user_sql.values import INT, Kind, exact

_COMPARISONS = {"EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
_MIRRORED = {"EQ": "EQ", "NEQ": "NEQ", "LT": "GT", "LTE": "GTE", "GT": "LT", "GTE": "LTE"}


def _logic(translator: Translator, node: Any) -> Emitted:
    word = " AND " if type(node).__name__ == "And" else " OR "
    one, other = _truth(translator, node.this), _truth(translator, node.expression)
    return Emitted(("(", *one, word, *other, ")"), INT)


def _not(translator: Translator, node: Any) -> Emitted:
    return Emitted(("(NOT ", *_truth(translator, node.this), ")"), INT)


def _truth(translator: Translator, node: Any) -> tuple[Piece, ...]:
    value = translator.value(node)
    return value.pieces if value.kind.is_condition else translator.program(node, "truth").pieces


def _is(translator: Translator, node: Any) -> Emitted | None:
    from sqlglot import exp

    if not isinstance(node.expression, exp.Null):
        return None
    check_null(node.this)
    return Emitted(("(", *translator.value(node.this).pieces, " IS NULL)"), INT)


def _comparison(translator: Translator, node: Any) -> Emitted | None:
    operator = type(node).__name__
    one, other = bare(node.this), bare(node.expression)
    if not is_simple(one):
        one, other, operator = other, one, _MIRRORED[operator]
    pair = _pair(translator, one, other, by_order=operator not in ("EQ", "NEQ"))
    if pair is None:
        return None
    first, second = pair
    return Emitted(("(", *first, f" {_COMPARISONS[operator]} ", *second, ")"), INT)


def _pair(
    translator: Translator, one: Any, other: Any, *, by_order: bool = False
) -> tuple[tuple[Piece, ...], tuple[Piece, ...]] | None:
    """Return the two sides if SQLite compares them as MySQL does, otherwise None."""
    if not is_simple(one):
        return None
    left = translator.value(one)
    if left.exact or left.kind.tag == "fixed" or (by_order and left.kind.family == "time"):
        return None
    if is_simple(other):
        right = translator.value(other)
        same = left.kind == right.kind and left.kind.family != "json"
        numbers = _is_plain_number(left.kind) and _is_plain_number(right.kind)
        texts = left.kind.family == right.kind.family == "text"
        both = (
            (same or numbers or texts) and translator.is_short(one) and translator.is_short(other)
        )
        return (left.pieces, right.pieces) if both and not right.exact else None
    literal = literal_of(other)
    written = None if literal is None else _literal_for(translator, one, left.kind, literal)
    return None if written is None else (left.pieces, (written,))


def _literal_for(translator: Translator, node: Any, kind: Kind, literal: Any) -> str | None:
    """Return a literal in the form that SQLite needs for equality with a value."""
    family = kind.family
    if family in ("int", "float", "decimal"):
        if not translator.is_short(node):
            return None
        return number_text(exact(literal) if isinstance(literal, str) else literal)
    if not isinstance(literal, str):
        return None
    if family == "text":
        return None if "\0" in literal else quoted(literal)
    if family == "bytes" and translator.is_uuid(node):
        return quoted(literal)
    if not kind.is_temporal:
        return None
    if family == "time" and not temporal.is_clock(literal):
        raise Untranslatable(f"comparing a time with {literal!r}")
    found = temporal.duration(literal) if family == "time" else temporal.moment(literal)
    if found is None:
        raise Untranslatable(f"{literal!r} as a date or time")
    return temporal_literal(found, kind)


def _between(translator: Translator, node: Any) -> Emitted | None:
    this = bare(node.this)
    low = _pair(translator, this, bare(node.args["low"]), by_order=True)
    high = _pair(translator, this, bare(node.args["high"]), by_order=True)
    if low is None or high is None:
        return None
    return Emitted(("(", *low[0], " BETWEEN ", *low[1], " AND ", *high[1], ")"), INT)


def _in(translator: Translator, node: Any) -> Emitted | None:
    this = bare(node.this)
    if node.args.get("query") or not node.expressions:
        return None
    pairs = [_pair(translator, this, bare(other)) for other in node.expressions]
    pieces: list[Piece] = []
    for pair in pairs:
        if pair is None:
            return None
        pieces += [", ", *pair[1]]
    return Emitted(("(", *translator.value(this).pieces, " IN (", *pieces[1:], "))"), INT)


def _like(translator: Translator, node: Any) -> Emitted | None:
    this, pattern = bare(node.this), literal_of(bare(node.expression))
    if not is_simple(this) or not isinstance(pattern, str) or not pattern.isascii():
        return None
    left = translator.value(this)
    if left.kind.family != "text" or left.kind.tag or node.args.get("negate"):
        return None
    like = f" LIKE {quoted(pattern)} ESCAPE '\\')"
    return None if "\0" in pattern else Emitted(("(", *left.pieces, like), INT)


def _is_plain_number(kind: Kind) -> bool:
    return kind.family in ("int", "float", "decimal")


EMITTERS: Mapping[str, Emitter] = {
    "And": _logic, "Or": _logic, "Not": _not, "Is": _is, **dict.fromkeys(_COMPARISONS, _comparison),
    "Between": _between, "In": _in, "Like": _like,
}  # fmt: skip
