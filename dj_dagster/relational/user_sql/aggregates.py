"""MySQL's aggregates in terms of SQLite and of this package's own functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dj_dagster.relational.user_sql.emission import (
    AGGREGATES,
    BITS,
    OWN,
    Emitted,
    Emitter,
    Piece,
    Translator,
    bare,
    is_leaf,
    lone_attribute,
    quoted,
    time_order,
    with_more,
)
from dj_dagster.relational.user_sql.kinds import (
    ANY,
    FLOAT,
    INT,
    TEXT,
    UNSIGNED,
    Kind,
    decimal_kind,
    fixed,
)
from dj_dagster.relational.user_sql.parsing import call_name
from dj_dagster.relational.user_sql.programs import SPREADS, Untranslatable

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr

_SPREAD_FUNCTIONS = {
    **dict.fromkeys(SPREADS, "dj_std"), "STDDEV_SAMP": "dj_stddev_samp",
    **dict.fromkeys(("VARIANCE", "VAR_POP"), "dj_variance"), "VAR_SAMP": "dj_var_samp",
}  # fmt: skip


def _called(translator: Translator, node: Expr) -> Emitted | None:
    name = call_name(node)
    if name in AGGREGATES:
        return _aggregate(translator, name, node.expressions)
    if name in OWN:
        pieces: list[Piece] = []
        for argument in node.expressions:
            pieces += [", ", *translator.plain(argument)]
        return Emitted((f"{name.lower()}(", *pieces[1:], ")"), ANY)
    return None


def _aggregate(translator: Translator, name: str, given: Sequence[Expr]) -> Emitted:
    from sqlglot import exp

    distinct = ""
    if len(given) == 1 and isinstance(given[0], exp.Distinct):
        distinct, given = "DISTINCT ", given[0].expressions
    if name == "COUNT":
        return _count(translator, distinct, given)
    if len(given) != 1:
        raise Untranslatable(f"{name}() of several values")
    value = translator.value(given[0])
    kind = value.kind
    if name in ("MIN", "MAX", "ANY_VALUE"):
        return _extreme(translator, "MIN" if name == "ANY_VALUE" else name, given[0], value)
    if name in BITS:
        number_ = translator.program(given[0], "whole")
        return Emitted((f"{BITS[name]}(", *number_.pieces, ")"), UNSIGNED)
    if kind.is_temporal:
        raise Untranslatable(f"{name}() of dates or times")
    if distinct and name in SPREADS:
        raise Untranslatable(f"{name}(DISTINCT)")
    if not kind.is_exact and kind.family not in ("float", "any"):
        kind = fixed(0) if kind.choices or kind.tag == "whole" else FLOAT
        value = translator.program(given[0], "float")
    is_made = _is_made(translator, given[0], kind) and not distinct
    if is_made:
        value = translator.program(given[0], "exact")
    scale = kind.scale if name == "SUM" else kind.scale + 4
    if name in SPREADS:
        kind = kind if kind in (ANY, FLOAT) else fixed(scale)
        return Emitted((f"{_SPREAD_FUNCTIONS[name]}({distinct}", *value.pieces, ")"), kind)
    exactly = kind.is_exact
    function = f"dj_{name.lower()}" if exactly else name.lower()
    function = "dj_exact_sum" if is_made and name == "SUM" else function
    if exactly:
        kind = decimal_kind(scale)
    elif kind.tag == "fixed":
        kind = fixed(scale)
    pieces = (f"{function}({distinct}", *value.pieces, ")")
    has_more = is_made or (exactly and name == "AVG")
    return with_more(pieces, kind) if has_more else Emitted(pieces, kind)


def _is_made(translator: Translator, node: Expr, kind: Kind) -> bool:
    """Whether values are exact numbers with possibly more digits than are shown."""
    return kind.family == "decimal" and not is_leaf(bare(node))


def _extreme(translator: Translator, name: str, node: Expr, value: Emitted) -> Emitted:
    """Return the least or greatest value of a group; enums are compared as texts."""
    kind = value.kind
    if kind.family == "null":
        raise Untranslatable(f"{name}() of NULL")
    order = "" if kind.choices else translator.order(node, kind)
    order = "decimal" if _is_made(translator, node, kind) else order
    if kind.choices:
        # In some places servers use the number of the enum, in others that of a text.
        kind = Kind("text", tag="unclear")
    if order:
        call = f"dj_{name.lower()}("
        if _is_made(translator, node, kind):
            pieces = (call, *translator.program(node, "exact").pieces, ", 'decimal')")
            return with_more(pieces, kind)
        attribute = lone_attribute(value.pieces)
        if order == "time" and attribute is not None:
            # This calls Python for each group, not for each row.
            found = (f"dj_ordered_time({name.lower()}(", *time_order(attribute))
            return Emitted((*found, f"), {kind.scale})"), kind)
        return Emitted((call, *value.pieces, f", {quoted(order)})"), kind)
    # Only with one argument it is an aggregate.
    return Emitted((f"{name.lower()}(", *value.pieces, ")"), kind)


def _count(translator: Translator, distinct: str, given: Sequence[Expr]) -> Emitted:
    from sqlglot import exp

    if len(given) == 1 and isinstance(given[0], exp.Star):
        return Emitted(("count(*)",), INT)
    pieces: list[Piece] = []
    for argument in given:
        pieces += [", ", *translator.value(argument).pieces]
    function = "count" if len(given) == 1 else "dj_count_distinct"
    word = distinct if len(given) == 1 else ""
    return Emitted((f"{function}({word}", *pieces[1:], ")"), INT)


def _group_concat(translator: Translator, node: Expr) -> Emitted:
    from sqlglot import exp

    this, order = node.this, []
    if isinstance(this, exp.Order):
        this, order = this.this, this.expressions
    distinct = isinstance(this, exp.Distinct)
    values = this.expressions if distinct else [this]
    if any(isinstance(part, exp.Concat) for part in values):
        values = [inner for part in values for inner in
                  (part.expressions if isinstance(part, exp.Concat) else [part])]  # fmt: skip
    if any(isinstance(part, exp.Order) for part in values):
        raise Untranslatable("GROUP_CONCAT() of this form")
    separator = node.args.get("separator")
    options = {
        "separator": "," if separator is None else separator.this,
        "distinct": distinct,
        "values": len(values),
        "descending": [bool(part.args.get("desc")) for part in order],
    }
    pieces: list[Piece] = [f"dj_group_concat({quoted(json.dumps(options))}"]
    for part in values:
        if translator.value(part).kind.family == "bytes":
            raise Untranslatable("GROUP_CONCAT() of bytes")
        pieces += [", ", *translator.program(part, "text").pieces]
    for part in order:
        pieces += [", ", *translator.ordered(part.this)]
    return Emitted((*pieces, ")"), TEXT)


EMITTERS: Mapping[str, Emitter] = {"Anonymous": _called, "GroupConcat": _group_concat}
