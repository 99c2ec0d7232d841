"""Window functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dj_dagster.relational.user_sql.emission import Emitted, Emitter, Piece, Translator
from dj_dagster.relational.user_sql.parsing import call_name
from dj_dagster.relational.user_sql.programs import Untranslatable, node_name
from dj_dagster.relational.user_sql.values import FLOAT, INT, decimal_kind

_RANKS = {
    **dict.fromkeys(("ROW_NUMBER", "RANK", "DENSE_RANK", "NTILE"), INT),
    **dict.fromkeys(("PERCENT_RANK", "CUME_DIST"), FLOAT),
}
_NEIGHBOURS = ("LAG", "LEAD", "FIRST_VALUE", "LAST_VALUE", "NTH_VALUE")


def _window(translator: Translator, node: Any) -> Emitted:
    name = call_name(node.this)
    given = node.this.expressions
    pieces: list[Piece] = []
    for argument in given:
        pieces += [", ", *translator.plain(argument)]
    kind = _RANKS.get(name)
    if kind is None and (name in _NEIGHBOURS or name in ("MIN", "MAX")):
        kind = translator.value(given[0]).kind
        if name in ("MIN", "MAX") and (kind.choices or translator.order(given[0], kind)):
            raise Untranslatable(f"{name} OVER of times, enums or decimals of many digits")
    elif kind is None and name in ("SUM", "AVG"):
        kind = translator.value(given[0]).kind
        scale = kind.scale + (4 if name == "AVG" else 0)
        kind = decimal_kind(scale) if kind.is_exact else kind
    elif kind is None and name == "COUNT":
        kind = INT
        pieces = [", ", "*"] if _has_star(given) else pieces
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
    if kind.family == "decimal":
        call = (f"round(", *call, f", {kind.scale})")  # noqa: F541
    return Emitted(call, kind)


def _has_star(given: Sequence[Any]) -> bool:
    return len(given) == 1 and type(given[0]).__name__ == "Star"


EMITTERS: Mapping[str, Emitter] = {"Window": _window}
