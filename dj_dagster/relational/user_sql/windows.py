"""Window functions in SQLite's SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dj_dagster.relational.user_sql.emission import Emitted, Piece, Translator
from dj_dagster.relational.user_sql.kinds import FLOAT, INT, decimal_kind, value_kind
from dj_dagster.relational.user_sql.parsing import call_name
from dj_dagster.relational.user_sql.programs import Untranslatable, node_name

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr

_RANKS = {
    **dict.fromkeys(("ROW_NUMBER", "RANK", "DENSE_RANK", "NTILE"), INT),
    **dict.fromkeys(("PERCENT_RANK", "CUME_DIST"), FLOAT),
}
_NEIGHBOURS = ("LAG", "LEAD", "FIRST_VALUE", "LAST_VALUE", "NTH_VALUE")


def window(translator: Translator, node: Expr) -> Emitted:
    """Return a window function with its window."""
    name = call_name(node.this)
    given = node.this.expressions
    pieces: list[Piece] = [", ", "*"] if name == "COUNT" and _has_star(given) else []
    for argument in [] if pieces else given:
        pieces += [", ", *translator.plain(argument)]
    kind = _RANKS.get(name)
    if kind is None and (name in _NEIGHBOURS or name in ("MIN", "MAX")):
        kind = value_kind(translator.value(given[0]).kind)
        if name in ("MIN", "MAX") and (kind.choices or translator.order(given[0], kind)):
            raise Untranslatable(f"{name} OVER of times, enums or decimals of many digits")
    elif kind is None and name in ("SUM", "AVG"):
        kind = translator.value(given[0]).kind
        scale = kind.scale + (4 if name == "AVG" else 0)
        kind = decimal_kind(scale) if kind.is_exact else replace(kind, single=False)
    elif kind is None and name == "COUNT":
        kind = INT
    if kind is None or (given and type(given[0]).__name__ == "Distinct"):
        raise Untranslatable(f"{name or node_name(node.this)} OVER")
    if node.args.get("spec") or node.args.get("alias"):
        raise Untranslatable("frames of windows (ROWS, RANGE)")
    over: list[Piece] = []
    for part in node.args.get("partition_by") or []:
        over += [", ", *translator.value(part).pieces]
    over = [" PARTITION BY ", *over[1:]] if over else []
    order = node.args.get("order")
    terms: list[Piece] = []
    for part in order.expressions if order else []:
        word = " DESC" if part.args.get("desc") else ""
        terms += [", ", *translator.ordered(part.this), word]
    over += [" ORDER BY ", *terms[1:]] if terms else []
    call = (f"{name.lower()}(", *pieces[1:], ") OVER (", *over, ")")
    if kind.family == "decimal" and kind.scale:
        call = ("round(", *call, f", {kind.scale})")
    return Emitted(call, kind)


def _has_star(given: Sequence[Expr]) -> bool:
    return len(given) == 1 and type(given[0]).__name__ == "Star"
