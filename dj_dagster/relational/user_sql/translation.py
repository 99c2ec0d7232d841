"""Translation of MySQL's expressions for SQLite, by a function where the two differ.

The function gets the user's text and the types of its attributes. Its result depends on them alone,
so that a statement means the same in any process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from dj_dagster.errors import QueryError, QuerySyntaxError
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.relational.user_sql import aggregates, plain_comparisons, precedence, windows
from dj_dagster.relational.user_sql.emission import (
    Attribute,
    Emitted,
    Emitter,
    Piece,
    Run,
    Translator,
)
from dj_dagster.relational.user_sql.parsing import SIMPLE, Parsed, call_name, parse
from dj_dagster.relational.user_sql.programs import Untranslatable, node_name
from dj_dagster.relational.user_sql.sqlite_values import kind_of, quoted
from dj_dagster.relational.user_sql.values import ANY, INT, Kind

_PLAIN_NODES = frozenset((
    "Select", "From", "Where", "Group", "Having", "Order", "Ordered", "Limit", "Offset",
    "Join", "Table", "TableAlias", "Alias", "Subquery", "Union", "Intersect", "Except",
    "Column", "Identifier", "Star", "Literal", "Null", "Boolean", "Paren", "And", "Or", "Not",
    "EQ", "NEQ", "LT", "LTE", "GT", "GTE", "Is", "In", "Between", "Exists", "Distinct", "Add",
    "Sub", "Mul", "Neg", "Tuple", "Anonymous", "With", "CTE",
))  # fmt: skip
_PLAIN_CALLS = frozenset(
    ["COUNT", "MIN", "MAX", "SUM", "AVG", "COALESCE", "IFNULL", "NULLIF", "ABS"]
)
_TIMES = (Family.DATE, Family.DATETIME, Family.TIME)
_TEMPORAL = re.compile("date|time|day|now|interval|as time", re.IGNORECASE)
_STRING = re.compile(r"\"(?:[^\"\\]|\\.|\"\")*\"|'(?:[^'\\]|\\.|'')*'|`[^`]*`", re.DOTALL)


@dataclass(slots=True)
class Translation:
    """A user's text as SQL of SQLite.

    Attributes
    ----------
    programs
        The programs that the function runs, by number.
    order
        The argument with which ``dj_order`` makes keys that SQLite orders as MySQL orders the
        values; empty if SQLite orders the values themselves in this way.
    """

    pieces: tuple[Piece, ...] = ()
    kind: Kind = ANY
    order: str = ""
    programs: list[Run] = field(default_factory=list)


def types_text(types: Mapping[str, AttributeType | None]) -> str:
    """Return the types of attributes as one text."""
    found = {name: kind and _type_text(kind) for name, kind in sorted(types.items())}
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def _type_text(kind: AttributeType) -> str:
    return "<codec>" if kind.family is Family.CODEC else kind.text


@lru_cache(maxsize=5000)
def translate(source: str, types: str) -> Translation:
    """Return a user's text as SQL of SQLite.

    Parameters
    ----------
    types
        The types of the attributes that it names; see `types_text`.

    Raises
    ------
    QueryError
        If a part of it cannot be translated; the message names the part.
    """
    found = Translation()
    try:
        _fill(found, source, types)
    except Untranslatable as error:
        raise QueryError(
            f"SQLite cannot do this of MySQL's SQL: {error} (in {source!r}). Compute it in "
            f"Python, or write it in another way."
        ) from error
    except RecursionError as error:
        raise QueryError(f"SQLite: {source[:200]!r}... is nested too deeply.") from error
    return found


def _fill(found: Translation, source: str, types: str) -> None:
    kinds: dict[str, str | None] = json.loads(types)
    simple = _simple(source, kinds)
    if simple is not None:
        found.pieces, found.kind = simple, INT
        return
    parsed = parse(f"({source})" if SIMPLE.fullmatch(source) else source)
    if not parsed.trees:
        raise QuerySyntaxError("There is a syntax error, or SQLite cannot do what is written")
    if parsed.nested:
        found.pieces = (_passed(parsed),)
        return
    if len(parsed.trees) > 1:
        raise Untranslatable("a list of expressions")
    tree = next(iter(parsed.trees))
    precedence.check(tree)
    translator = Translator(source, types, kinds, found.programs, _EMITTERS)
    whole = translator.value(tree)
    pieces = whole.pieces
    is_sum = call_name(tree) == "SUM" and translator.is_short(tree.expressions[0])
    if whole.exact or is_sum:
        # Otherwise its many digits would be a text, which the type of an attribute does not turn
        # into a number again. A mean is not an integer, even if its value is whole.
        pieces = ("CAST(", *pieces, " AS REAL)" if call_name(tree) == "AVG" else " AS NUMERIC)")
    if whole.kind.tag == "fixed":
        pieces = ("round(", *pieces, f", {whole.kind.scale})")
    found.pieces, found.kind = ("(", *pieces, ")"), whole.kind
    found.order = translator.order(tree, whole.kind)


def evaluate(source: str, types: str, place: int, *values: Any) -> Any:
    """Return the value of a part of a user's text, for SQLite; see `translate`."""
    return translate(source, types).programs[place](values)


def inferred_type(source: str, types: Mapping[str, AttributeType | None]) -> AttributeType | None:
    """Return the type of a user's expression if it is a date or a time, else None."""
    named = [kind for name, kind in types.items() if name in source]
    if not _TEMPORAL.search(source) and not any(kind and kind.family in _TIMES for kind in named):
        return None
    known = {name: types[name] for name in types if name in parse(source).words}
    try:
        kind = translate(source, types_text(known)).kind
    except QueryError:
        return None
    if not kind.is_temporal:
        return None
    return parse_type(f"{kind.family}({kind.scale})" if kind.scale else kind.family)


def _simple(source: str, kinds: Mapping[str, str | None]) -> tuple[Piece, ...] | None:
    """Return a comparison of an integer with integers, None if it is not one."""
    match = SIMPLE.fullmatch(source)
    name = next(iter(kinds), None)
    kind = kinds[name] if name is not None else None
    if match is None or name is None or kind is None:
        return None
    if parse_type(kind).family is not Family.INTEGER:
        return None
    if (match[3].lower() == "between") is not (" and " in " ".join(match[4].lower().split())):
        return None
    return ("(", Attribute(name), f" {match[3]} {match[4]})")


def _passed(parsed: Parsed) -> str:
    """Return a text that contains a SELECT, if its meaning does not depend on the database."""
    for tree in parsed.trees:
        for node in tree.walk():
            name = type(node).__name__
            call = call_name(node)
            if name not in _PLAIN_NODES or (call and call not in _PLAIN_CALLS):
                raise Untranslatable(f"{node_name(node)} beside a SELECT")

    def unescaped(match: re.Match[str]) -> str:
        if match[0][0] == "`":
            return match[0]
        inside = re.sub(r"\\(.)|''|\"\"", lambda m: m[1] or m[0][0], match[0][1:-1])
        return quoted(inside)

    return f"({_STRING.sub(unescaped, parsed.source)})"


def _column(translator: Translator, node: Any) -> Emitted:
    name = translator.name(node)
    return Emitted((Attribute(name),), kind_of(translator.types[name]))


def _paren(translator: Translator, node: Any) -> Emitted:
    inner = translator.value(node.this)
    return Emitted(("(", *inner.pieces, ")"), inner.kind)


_EMITTERS: Mapping[str, Emitter] = {
    "Column": _column, "Paren": _paren,
    **aggregates.EMITTERS, **plain_comparisons.EMITTERS, **windows.EMITTERS,
}  # fmt: skip
