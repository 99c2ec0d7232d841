"""MySQL's expressions for SQLite: as they are where both agree, else by a function of ours.

The function is given the user's text and the types of its attributes; what it does follows from
them alone, so that a statement means the same in any process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from dj_dagster.errors import QueryError, QuerySyntaxError
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.relational.user_sql import precedence, temporal
from dj_dagster.relational.user_sql.functions import FUNCTIONS, SPELLINGS
from dj_dagster.relational.user_sql.operations import Program, Untranslatable, node_name
from dj_dagster.relational.user_sql.parsing import SIMPLE, Parsed, call_name, parse
from dj_dagster.relational.user_sql.programs import Compiler
from dj_dagster.relational.user_sql.values import (
    ANY,
    BYTES,
    FLOAT,
    INT,
    JSON,
    TEXT,
    Kind,
    decimal_kind,
    exact,
    number,
    rounded,
    text,
)

Run = Callable[[Sequence[Any]], Any]
EXACT_DIGITS = 15
"""SQLite keeps decimals of up to this many digits exactly as numbers."""

_COMPARISONS = {"EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
_MIRRORED = {"EQ": "EQ", "NEQ": "NEQ", "LT": "GT", "LTE": "GTE", "GT": "LT", "GTE": "LTE"}
_SPREADS = {
    **dict.fromkeys(("STD", "STDDEV", "STDDEV_POP"), "dj_std"),
    "STDDEV_SAMP": "dj_stddev_samp",
    **dict.fromkeys(("VARIANCE", "VAR_POP"), "dj_variance"),
    "VAR_SAMP": "dj_var_samp",
}
_BITS = {"BIT_AND": "dj_bit_and", "BIT_OR": "dj_bit_or", "BIT_XOR": "dj_bit_xor"}
AGGREGATES = frozenset({"COUNT", "SUM", "AVG", "MIN", "MAX", "ANY_VALUE", *_SPREADS, *_BITS})
_RANKS = {
    **dict.fromkeys(("ROW_NUMBER", "RANK", "DENSE_RANK", "NTILE"), INT),
    **dict.fromkeys(("PERCENT_RANK", "CUME_DIST"), FLOAT),
}
_NEIGHBOURS = ("LAG", "LEAD", "FIRST_VALUE", "LAST_VALUE", "NTH_VALUE")
_OWN = frozenset(
    ("STRFTIME", "JULIANDAY", "UNIXEPOCH", "PRINTF", "TYPEOF", "RANDOM", "RANDOMBLOB", "TOTAL")
)
"""Functions of SQLite that MySQL does not have, so that they cannot mean anything else."""

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


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute in translated SQL, by its name."""

    name: str


Piece = str | Attribute


@dataclass(frozen=True, slots=True)
class Emitted:
    """SQL of a part of an expression."""

    pieces: tuple[Piece, ...]
    kind: Kind


@dataclass(slots=True)
class Translation:
    """A user's text as SQL of SQLite.

    Attributes
    ----------
    programs
        What the function runs, by number.
    """

    pieces: tuple[Piece, ...] = ()
    kind: Kind = ANY
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
        Of the attributes that it names; see `types_text`.

    Raises
    ------
    QueryError
        If some of it has no meaning there, by name.
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
    whole = _Translator(source, types, kinds, found.programs).value(tree)
    pieces = whole.pieces
    if call_name(tree) in ("SUM", "AVG") and type(tree.this).__name__ != "Column":
        # Its many digits are a text otherwise, which no type of an attribute makes a number again.
        # A mean is no integer, whatever it comes to.
        pieces = ("CAST(", *pieces, " AS REAL)" if call_name(tree) == "AVG" else " AS NUMERIC)")
    found.pieces, found.kind = ("(", *pieces, ")"), whole.kind


def evaluate(source: str, types: str, place: int, *values: Any) -> Any:
    """Return the value of part of a user's text, for SQLite; see `translate`."""
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
    """Return a text with a SELECT in it, whose meaning does not depend on the database."""
    for tree in parsed.trees:
        for node in tree.walk():
            name = type(node).__name__
            call = call_name(node)
            if name not in _PLAIN_NODES or (call and call not in _PLAIN_CALLS):
                raise Untranslatable(f"{node_name(node)} beside a SELECT")

    def quoted(match: re.Match[str]) -> str:
        if match[0][0] == "`":
            return match[0]
        inside = re.sub(r"\\(.)|''|\"\"", lambda m: m[1] or m[0][0], match[0][1:-1])
        return _quoted(inside)

    return f"({_STRING.sub(quoted, parsed.source)})"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


class _Translator:
    def __init__(
        self,
        source: str,
        types: str,
        kinds: Mapping[str, str | None],
        programs: list[Run],
    ) -> None:
        self._call = f"({_quoted(source)}, {_quoted(types)}, "
        self._types = {
            name: None if kind is None else _parsed_type(kind) for name, kind in kinds.items()
        }
        self._programs = programs
        self._folded = {name.lower(): name for name in kinds}

    def value(self, node: Any) -> Emitted:
        """Return an expression as SQL."""
        method = _EMITTERS.get(type(node).__name__)
        found = method(self, node) if method is not None else None
        if found is None and call_name(node):
            found = self._called(node)
        return found or self._program(node)

    def _column(self, node: Any) -> Emitted:
        name = self._name(node)
        return Emitted((Attribute(name),), _kind_of(self._types[name]))

    def _name(self, node: Any) -> str:
        if node.table:
            raise Untranslatable(f"the name of another table, {node.sql('mysql')}")
        name = node.name
        found = name if name in self._types else self._folded.get(name.lower())
        if found is None:
            raise Untranslatable(f"the name {name!r}")
        return found

    def _paren(self, node: Any) -> Emitted:
        inner = self.value(node.this)
        return Emitted(("(", *inner.pieces, ")"), inner.kind)

    def _logic(self, node: Any) -> Emitted:
        word = " AND " if type(node).__name__ == "And" else " OR "
        one, other = self._truth(node.this), self._truth(node.expression)
        return Emitted(("(", *one, word, *other, ")"), INT)

    def _not(self, node: Any) -> Emitted:
        return Emitted(("(NOT ", *self._truth(node.this), ")"), INT)

    def _truth(self, node: Any) -> tuple[Piece, ...]:
        from sqlglot import exp

        inner = node.this if isinstance(node, exp.Paren) else node
        if isinstance(inner, exp.Column) and _kind_of(self._types[self._name(inner)]).choices:
            return self._program(inner, "float").pieces
        return self.value(node).pieces

    def _is(self, node: Any) -> Emitted | None:
        from sqlglot import exp

        if not isinstance(node.expression, exp.Null):
            return None
        return Emitted(("(", *self.value(node.this).pieces, " IS NULL)"), INT)

    def _comparison(self, node: Any) -> Emitted | None:
        operator = type(node).__name__
        one, other = _bare(node.this), _bare(node.expression)
        if not _is_simple(one):
            one, other, operator = other, one, _MIRRORED[operator]
        pair = self._pair(one, other)
        if pair is None:
            return None
        first, second = pair
        return Emitted(("(", *first, f" {_COMPARISONS[operator]} ", *second, ")"), INT)

    def _pair(self, one: Any, other: Any) -> tuple[tuple[Piece, ...], tuple[Piece, ...]] | None:
        """Return two sides that SQLite compares as MySQL does, None where it does not."""
        if not _is_simple(one):
            return None
        left = self.value(one)
        if _is_simple(other):
            right = self.value(other)
            same = left.kind == right.kind and left.kind.family != "json"
            numbers = _is_plain_number(left.kind) and _is_plain_number(right.kind)
            texts = left.kind.family == right.kind.family == "text"
            both = (same or numbers or texts) and self._is_short(one) and self._is_short(other)
            return (left.pieces, right.pieces) if both else None
        literal = _literal(other)
        written = None if literal is None else self._literal_for(one, left.kind, literal)
        return None if written is None else (left.pieces, (written,))

    def _is_short(self, node: Any) -> bool:
        """Whether a column's values are held by SQLite as what they are."""
        from sqlglot import exp

        if not isinstance(node, exp.Column):
            return True
        kind = self._types[self._name(node)]
        is_long = kind is not None and kind.family is Family.DECIMAL and (kind.size or 65) > 15
        return not is_long

    def _literal_for(self, node: Any, kind: Kind, literal: Any) -> str | None:
        """Return a literal as SQLite would have to have it to be equal to a value."""
        family = kind.family
        if family in ("int", "float", "decimal"):
            if not self._is_short(node):
                return None
            return _number_text(exact(literal) if isinstance(literal, str) else literal)
        if not isinstance(literal, str):
            return None
        if family == "text":
            return None if "\0" in literal else _quoted(literal)
        if family == "bytes" and self._is_uuid(node):
            return _quoted(literal)
        if not kind.is_temporal:
            return None
        found = temporal.duration(literal) if family == "time" else temporal.moment(literal)
        if found is None:
            raise Untranslatable(f"{literal!r} as a date or time")
        return _temporal_literal(found, kind)

    def _is_uuid(self, node: Any) -> bool:
        kind = self._types[self._name(node)]
        return kind is not None and kind.family is Family.UUID

    def _between(self, node: Any) -> Emitted | None:
        this = _bare(node.this)
        low = self._pair(this, _bare(node.args["low"]))
        high = self._pair(this, _bare(node.args["high"]))
        if low is None or high is None:
            return None
        return Emitted(("(", *low[0], " BETWEEN ", *low[1], " AND ", *high[1], ")"), INT)

    def _in(self, node: Any) -> Emitted | None:
        this = _bare(node.this)
        if node.args.get("query") or not node.expressions:
            return None
        pairs = [self._pair(this, _bare(other)) for other in node.expressions]
        pieces: list[Piece] = []
        for pair in pairs:
            if pair is None:
                return None
            pieces += [", ", *pair[1]]
        return Emitted(("(", *self.value(this).pieces, " IN (", *pieces[1:], "))"), INT)

    def _like(self, node: Any) -> Emitted | None:
        this, pattern = _bare(node.this), _literal(_bare(node.expression))
        if not _is_simple(this) or not isinstance(pattern, str) or not pattern.isascii():
            return None
        left = self.value(this)
        if left.kind.family != "text" or node.args.get("negate"):
            return None
        like = f" LIKE {_quoted(pattern)} ESCAPE '\\')"
        return None if "\0" in pattern else Emitted(("(", *left.pieces, like), INT)

    def _called(self, node: Any) -> Emitted | None:
        name = call_name(node)
        if name in AGGREGATES:
            return self._aggregate(name, node.expressions)
        if name in _OWN:
            pieces: list[Piece] = []
            for argument in node.expressions:
                pieces += [", ", *self._plain(argument)]
            return Emitted((f"{name.lower()}(", *pieces[1:], ")"), ANY)
        return None

    def _plain(self, node: Any) -> tuple[Piece, ...]:
        literal = _literal(node)
        return (_quoted(literal),) if isinstance(literal, str) else self.value(node).pieces

    def _aggregate(self, name: str, given: Sequence[Any]) -> Emitted:
        from sqlglot import exp

        distinct = ""
        if len(given) == 1 and isinstance(given[0], exp.Distinct):
            distinct, given = "DISTINCT ", given[0].expressions
        if name == "COUNT":
            return self._count(distinct, given)
        if len(given) != 1:
            raise Untranslatable(f"{name}() of several values")
        value = self.value(given[0])
        kind = value.kind
        if name in ("MIN", "MAX", "ANY_VALUE"):
            function = "min" if name == "ANY_VALUE" else name.lower()
            # Of one argument only it is an aggregate.
            return Emitted((f"{function}({distinct}", *value.pieces, ")"), kind)
        if name in _BITS:
            number_ = self._program(given[0], "whole")
            return Emitted((f"{_BITS[name]}(", *number_.pieces, ")"), INT)
        if kind.is_temporal:
            raise Untranslatable(f"{name}() of dates or times")
        if not kind.is_exact and kind.family not in ("float", "any"):
            value, kind = self._program(given[0], "float"), FLOAT
        if name in _SPREADS:
            return Emitted((f"{_SPREADS[name]}({distinct}", *value.pieces, ")"), FLOAT)
        exactly = kind.is_exact
        function = f"dj_{name.lower()}" if exactly else name.lower()
        if exactly:
            kind = decimal_kind(kind.scale + 4 if name == "AVG" else kind.scale)
        return Emitted((f"{function}({distinct}", *value.pieces, ")"), kind)

    def _count(self, distinct: str, given: Sequence[Any]) -> Emitted:
        from sqlglot import exp

        if len(given) == 1 and isinstance(given[0], exp.Star):
            return Emitted(("count(*)",), INT)
        pieces: list[Piece] = []
        for argument in given:
            pieces += [", ", *self.value(argument).pieces]
        function = "count" if len(given) == 1 else "dj_count_distinct"
        word = distinct if len(given) == 1 else ""
        return Emitted((f"{function}({word}", *pieces[1:], ")"), INT)

    def _group_concat(self, node: Any) -> Emitted:
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
        pieces: list[Piece] = [f"dj_group_concat({_quoted(json.dumps(options))}"]
        for part in values:
            pieces += [", ", *self._program(part, "text").pieces]
        for part in order:
            pieces += [", ", *self.value(part.this).pieces]
        return Emitted((*pieces, ")"), TEXT)

    def _window(self, node: Any) -> Emitted:
        name = call_name(node.this)
        given = node.this.expressions
        pieces: list[Piece] = []
        for argument in given:
            pieces += [", ", *self._plain(argument)]
        kind = _RANKS.get(name)
        if kind is None and (name in _NEIGHBOURS or name in ("MIN", "MAX")):
            kind = self.value(given[0]).kind
        elif kind is None and name in ("SUM", "AVG"):
            kind = self.value(given[0]).kind
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
            over += [", ", *self.value(part).pieces]
        over = [" PARTITION BY ", *over[1:]] if over else []
        order = node.args.get("order")
        terms: list[Piece] = []
        for part in order.expressions if order else []:
            word = " DESC" if part.args.get("desc") else ""
            terms += [", ", *self.value(part.this).pieces, word]
        over += [" ORDER BY ", *terms[1:]] if terms else []
        call = (f"{name.lower()}(", *pieces[1:], ") OVER (", *over, ")")
        if kind.family == "decimal":
            call = (f"round(", *call, f", {kind.scale})")  # noqa: F541
        return Emitted(call, kind)

    def _program(self, node: Any, mode: str = "value") -> Emitted:
        """Return a call of the function that runs an expression."""
        places: dict[int, tuple[int, Kind]] = {}
        given: dict[tuple[Piece, ...], int] = {}
        decoders: list[Callable[[Any], Any]] = []
        for leaf in self._leaves(node):
            emitted = self.value(leaf)
            if emitted.pieces not in given:
                given[emitted.pieces] = len(given)
                decoders.append(_decoder(self._leaf_type(leaf), emitted.kind))
            places[id(leaf)] = (given[emitted.pieces], emitted.kind)
        program = Compiler(places).compile(node)
        encode, kind = _encoder(program, mode)
        place = len(self._programs)
        self._programs.append(_runner(program, decoders, encode))
        function = "dj_mysql" if all(map(_is_pure, node.walk())) else "dj_mysql_now"
        pieces: list[Piece] = [f"{function}{self._call}{place}"]
        for leaf in given:
            pieces += [", ", *leaf]
        return Emitted((*pieces, ")"), kind)

    def _leaf_type(self, node: Any) -> AttributeType | None:
        from sqlglot import exp

        kind = self._types[self._name(node)] if isinstance(node, exp.Column) else None
        if kind is not None and kind.family is Family.UUID:
            raise Untranslatable("a UUID in a larger expression")
        return kind

    def _leaves(self, node: Any) -> Iterator[Any]:
        if _is_leaf(node):
            yield node
            return
        for child in node.iter_expressions():
            yield from self._leaves(child)


def _is_leaf(node: Any) -> bool:
    name = type(node).__name__
    return name in ("Column", "Window", "GroupConcat") or call_name(node) in AGGREGATES | _OWN


def _is_pure(node: Any) -> bool:
    name = call_name(node)
    function = FUNCTIONS.get(SPELLINGS.get(name, name))
    if type(node).__name__ in ("CurrentDate", "CurrentTime", "CurrentTimestamp", "Localtime",
                               "Localtimestamp"):  # fmt: skip
        return False
    return function is None or function.pure


def _has_star(given: Sequence[Any]) -> bool:
    return len(given) == 1 and type(given[0]).__name__ == "Star"


def _bare(node: Any) -> Any:
    while type(node).__name__ == "Paren":
        node = node.this
    return node


def _is_simple(node: Any) -> bool:
    return type(node).__name__ == "Column" or call_name(node) in AGGREGATES


def _literal(node: Any) -> Any:
    """Return the value of a literal, numbers as `Decimal` or float; None for no literal."""
    name = type(node).__name__
    if name == "Neg":
        value = _literal(node.this)
        return None if value is None or isinstance(value, str) else -value
    if name == "Boolean":
        return Decimal(int(node.this))
    if name != "Literal":
        return None
    if node.is_string:
        return node.this
    return float(node.this) if "e" in node.this.lower() else Decimal(node.this)


def _number_text(value: Any) -> str | None:
    if isinstance(value, float):
        return repr(value)
    value = Decimal(value)
    if value == value.to_integral_value():
        whole = int(value)
        return str(whole) if -(2**63) <= whole < 2**63 else repr(float(value))
    return repr(float(value))


def _temporal_literal(found: Any, kind: Kind) -> str | None:
    """Return a date, moment or time as columns of a kind hold it, None if they hold no such."""
    if kind.family == "date":
        is_day = found == datetime(found.year, found.month, found.day)
        return _quoted(found.date().isoformat()) if is_day else None
    if kind.family == "time" and not timedelta(0) <= found < timedelta(days=1):
        return None
    fits = temporal.round_to(found, kind.scale) == found
    return _quoted(temporal.text(found, kind.scale)) if fits else None


def _is_plain_number(kind: Kind) -> bool:
    return kind.family in ("int", "float", "decimal")


def _parsed_type(written: str) -> AttributeType:
    return parse_type("bytes" if written == "<codec>" else written)


def _kind_of(kind: AttributeType | None) -> Kind:
    """Return what is known of an attribute's values from its type."""
    if kind is None:
        return ANY
    scale = kind.size or 0
    found = {
        Family.INTEGER: INT, Family.BOOL: INT, Family.FLOAT: FLOAT, Family.STRING: TEXT,
        Family.ENUM: Kind("text", 0, kind.values), Family.DATE: Kind("date"),
        Family.DATETIME: Kind("datetime", scale), Family.TIME: Kind("time", scale),
        Family.DECIMAL: decimal_kind(kind.scale or 0), Family.JSON: JSON,
    }  # fmt: skip
    return found.get(kind.family, BYTES)


def _decoder(kind: AttributeType | None, of: Kind) -> Callable[[Any], Any]:
    """Return what makes a value of the expression of one that SQLite has."""
    del kind
    match of.family:
        case "decimal":
            return lambda value: rounded(Decimal(str(value)), of.scale)
        case "float":
            return float
        case "date":
            return lambda value: date.fromisoformat(value[:10])
        case "datetime":
            return temporal.moment
        case "time":
            return temporal.duration
        case _:
            return lambda value: value


def _runner(
    program: Program, decoders: Sequence[Callable[[Any], Any]], encode: Callable[[Any], Any]
) -> Callable[[Sequence[Any]], Any]:
    def run(values: Sequence[Any]) -> Any:
        row = [
            None if value is None else decode(value)
            for value, decode in zip(values, decoders, strict=True)
        ]
        found = program.run(row)
        return None if found is None else encode(found)

    return run


def _encoder(program: Program, mode: str) -> tuple[Callable[[Any], Any], Kind]:
    """Return what makes a value for SQLite of an expression's, and its kind."""
    kind = program.kind
    if mode == "text":
        return (lambda value: text(value, kind)), TEXT
    if mode == "float":
        return (lambda value: float(number(value, kind))), FLOAT
    if mode == "whole":
        return (lambda value: _int64(int(rounded(Decimal(exact(value, kind)), 0)))), INT
    return (lambda value: _encoded(value, kind)), kind


def _encoded(value: Any, kind: Kind) -> Any:
    match value:
        case int():
            return _int64(int(value))
        case Decimal():
            value = rounded(value, kind.scale) if kind.family == "decimal" else value
            whole = value == value.to_integral_value() and not kind.scale
            return _int64(int(value)) if whole else float(value)
        case date() | timedelta():
            return temporal.text(value, kind.scale)
        case _:
            return value


def _int64(value: int) -> int:
    if -(2**63) <= value < 2**63:
        return value
    raise QueryError(f"SQLite holds no integer of more than 64 bits: {value}.")


_t: Any = _Translator
_EMITTERS: dict[str, Any] = {
    "Column": _t._column, "Paren": _t._paren, "And": _t._logic, "Or": _t._logic, "Not": _t._not,
    "Is": _t._is, **dict.fromkeys(_COMPARISONS, _t._comparison), "Between": _t._between,
    "In": _t._in, "Like": _t._like, "GroupConcat": _t._group_concat, "Window": _t._window,
}  # fmt: skip
