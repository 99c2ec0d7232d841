"""MySQL's expressions for SQLite: as they are where both agree, else by a function of ours.

The function is given the user's text and the types of its attributes; what it does follows from
them alone, so that a statement means the same in any process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any

from dj_dagster.errors import QueryError, QuerySyntaxError
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.relational.user_sql import precedence, temporal
from dj_dagster.relational.user_sql.functions import FUNCTIONS, SPELLINGS
from dj_dagster.relational.user_sql.operations import Untranslatable, node_name
from dj_dagster.relational.user_sql.parsing import SIMPLE, Parsed, call_name, parse
from dj_dagster.relational.user_sql.programs import Compiler
from dj_dagster.relational.user_sql.sqlite_values import (
    decoder,
    encoder,
    is_long,
    kind_of,
    number_text,
    quoted,
    runner,
    temporal_literal,
)
from dj_dagster.relational.user_sql.values import (
    ANY,
    FLOAT,
    INT,
    TEXT,
    UNSIGNED,
    Kind,
    decimal_kind,
    exact,
    fixed,
)

Run = Callable[[Sequence[Any]], Any]
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
    """SQL of a part of an expression.

    Attributes
    ----------
    exact
        The same with all its digits, for larger expressions; empty where it has no others.
    """

    pieces: tuple[Piece, ...]
    kind: Kind
    exact: tuple[Piece, ...] = ()


@dataclass(slots=True)
class Translation:
    """A user's text as SQL of SQLite.

    Attributes
    ----------
    programs
        What the function runs, by number.
    order
        How ``dj_order`` makes values of it that SQLite orders as MySQL orders these; empty where
        SQLite does so anyhow.
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
    translator = _Translator(source, types, kinds, found.programs)
    whole = translator.value(tree)
    pieces = whole.pieces
    is_sum = call_name(tree) == "SUM" and translator.is_short(tree.expressions[0])
    if whole.exact or is_sum:
        # Its many digits are a text otherwise, which no type of an attribute makes a number again.
        # A mean is no integer, whatever it comes to.
        pieces = ("CAST(", *pieces, " AS REAL)" if call_name(tree) == "AVG" else " AS NUMERIC)")
    if whole.kind.tag == "fixed":
        pieces = ("round(", *pieces, f", {whole.kind.scale})")
    found.pieces, found.kind = ("(", *pieces, ")"), whole.kind
    found.order = translator.order(tree, whole.kind)


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

    def unescaped(match: re.Match[str]) -> str:
        if match[0][0] == "`":
            return match[0]
        inside = re.sub(r"\\(.)|''|\"\"", lambda m: m[1] or m[0][0], match[0][1:-1])
        return quoted(inside)

    return f"({_STRING.sub(unescaped, parsed.source)})"


class _Translator:
    def __init__(
        self,
        source: str,
        types: str,
        kinds: Mapping[str, str | None],
        programs: list[Run],
    ) -> None:
        self._call = f"({quoted(source)}, {quoted(types)}, "
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
        return Emitted((Attribute(name),), kind_of(self._types[name]))

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
        if isinstance(inner, exp.Column) and kind_of(self._types[self._name(inner)]).choices:
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
        pair = self._pair(one, other, by_order=operator not in ("EQ", "NEQ"))
        if pair is None:
            return None
        first, second = pair
        return Emitted(("(", *first, f" {_COMPARISONS[operator]} ", *second, ")"), INT)

    def _pair(
        self, one: Any, other: Any, *, by_order: bool = False
    ) -> tuple[tuple[Piece, ...], tuple[Piece, ...]] | None:
        """Return two sides that SQLite compares as MySQL does, None where it does not."""
        if not _is_simple(one):
            return None
        left = self.value(one)
        if left.exact or left.kind.tag == "fixed" or (by_order and left.kind.family == "time"):
            return None
        if _is_simple(other):
            right = self.value(other)
            same = left.kind == right.kind and left.kind.family != "json"
            numbers = _is_plain_number(left.kind) and _is_plain_number(right.kind)
            texts = left.kind.family == right.kind.family == "text"
            both = (same or numbers or texts) and self.is_short(one) and self.is_short(other)
            return (left.pieces, right.pieces) if both and not right.exact else None
        literal = _literal(other)
        written = None if literal is None else self._literal_for(one, left.kind, literal)
        return None if written is None else (left.pieces, (written,))

    def is_short(self, node: Any) -> bool:
        """Whether a column's values are held by SQLite as what they are."""
        from sqlglot import exp

        if not isinstance(node, exp.Column):
            return True
        kind = self._types[self._name(node)]
        return kind is None or not is_long(kind)

    def _literal_for(self, node: Any, kind: Kind, literal: Any) -> str | None:
        """Return a literal as SQLite would have to have it to be equal to a value."""
        family = kind.family
        if family in ("int", "float", "decimal"):
            if not self.is_short(node):
                return None
            return number_text(exact(literal) if isinstance(literal, str) else literal)
        if not isinstance(literal, str):
            return None
        if family == "text":
            return None if "\0" in literal else quoted(literal)
        if family == "bytes" and self._is_uuid(node):
            return quoted(literal)
        if not kind.is_temporal:
            return None
        found = temporal.duration(literal) if family == "time" else temporal.moment(literal)
        if found is None:
            raise Untranslatable(f"{literal!r} as a date or time")
        return temporal_literal(found, kind)

    def _is_uuid(self, node: Any) -> bool:
        kind = self._types[self._name(node)]
        return kind is not None and kind.family is Family.UUID

    def _between(self, node: Any) -> Emitted | None:
        this = _bare(node.this)
        low = self._pair(this, _bare(node.args["low"]), by_order=True)
        high = self._pair(this, _bare(node.args["high"]), by_order=True)
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
        if left.kind.family != "text" or left.kind.tag or node.args.get("negate"):
            return None
        like = f" LIKE {quoted(pattern)} ESCAPE '\\')"
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
        return (quoted(literal),) if isinstance(literal, str) else self.value(node).pieces

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
            return self._extreme("MIN" if name == "ANY_VALUE" else name, given[0], value)
        if name in _BITS:
            number_ = self._program(given[0], "whole")
            return Emitted((f"{_BITS[name]}(", *number_.pieces, ")"), UNSIGNED)
        if kind.is_temporal:
            raise Untranslatable(f"{name}() of dates or times")
        if not kind.is_exact and kind.family not in ("float", "any"):
            kind = fixed(0) if kind.choices or kind.tag == "whole" else FLOAT
            value = self._program(given[0], "float")
        is_made = self._is_made(given[0], kind) and not distinct
        if is_made:
            value = self._program(given[0], "exact")
        scale = kind.scale if name == "SUM" else kind.scale + 4
        if name in _SPREADS:
            kind = kind if kind in (ANY, FLOAT) else fixed(scale)
            return Emitted((f"{_SPREADS[name]}({distinct}", *value.pieces, ")"), kind)
        exactly = kind.is_exact
        function = f"dj_{name.lower()}" if exactly else name.lower()
        if exactly:
            kind = decimal_kind(scale)
        elif kind.tag == "fixed":
            kind = fixed(scale)
        pieces = (f"{function}({distinct}", *value.pieces, ")")
        has_more = is_made or (exactly and name == "AVG")
        return _with_more(pieces, kind) if has_more else Emitted(pieces, kind)

    def _is_made(self, node: Any, kind: Kind) -> bool:
        """Whether values are exact numbers that may have more digits than are shown."""
        return kind.family == "decimal" and not _is_leaf(_bare(node))

    def _extreme(self, name: str, node: Any, value: Emitted) -> Emitted:
        """Return the least or the greatest value of a group; of enums it is a text's."""
        kind = value.kind
        order = "" if kind.choices else self.order(node, kind)
        order = "decimal" if self._is_made(node, kind) else order
        if kind.choices:
            # Servers take its number in some places, in others a text's.
            kind = Kind("text", tag="unclear")
        if order:
            call = f"dj_{name.lower()}("
            if self._is_made(node, kind):
                pieces = (call, *self._program(node, "exact").pieces, ", 'decimal')")
                return _with_more(pieces, kind)
            return Emitted((call, *value.pieces, f", {quoted(order)})"), kind)
        # Of one argument only it is an aggregate.
        return Emitted((f"{name.lower()}(", *value.pieces, ")"), kind)

    def order(self, node: Any, kind: Kind) -> str:
        """Return how values are to be ordered; see `Translation`."""
        if kind.family == "time" or (kind.family == "decimal" and not self.is_short(_bare(node))):
            return kind.family
        is_sorted = list(kind.choices) == sorted(kind.choices)
        return "" if is_sorted else json.dumps(kind.choices, ensure_ascii=False)

    def _ordered(self, node: Any) -> tuple[Piece, ...]:
        """Return what SQLite is to order by."""
        value = self.value(node)
        return in_order(value.pieces, self.order(node, value.kind))

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
        pieces: list[Piece] = [f"dj_group_concat({quoted(json.dumps(options))}"]
        for part in values:
            pieces += [", ", *self._program(part, "text").pieces]
        for part in order:
            pieces += [", ", *self._ordered(part.this)]
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
            if name in ("MIN", "MAX") and (kind.choices or self.order(given[0], kind)):
                raise Untranslatable(f"{name} OVER of times, enums or decimals of many digits")
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
            terms += [", ", *self._ordered(part.this), word]
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
            emitted = Emitted(emitted.exact or emitted.pieces, emitted.kind)
            if emitted.pieces not in given:
                given[emitted.pieces] = len(given)
                decoders.append(decoder(emitted.kind))
                if type(leaf).__name__ == "Column" and self._is_uuid(leaf):
                    raise Untranslatable("a UUID in a larger expression")
            places[id(leaf)] = (given[emitted.pieces], emitted.kind)
        program = Compiler(places).compile(node)
        encode, kind = encoder(program, mode)
        place = len(self._programs)
        self._programs.append(runner(program, decoders, encode))
        function = "dj_mysql" if all(map(_is_pure, node.walk())) else "dj_mysql_now"
        pieces: list[Piece] = [f"{function}{self._call}{place}"]
        for leaf in given:
            pieces += [", ", *leaf]
        return Emitted((*pieces, ")"), kind)

    def _leaves(self, node: Any) -> Iterator[Any]:
        if _is_leaf(node):
            yield node
            return
        for child in node.iter_expressions():
            yield from self._leaves(child)


def in_order(pieces: tuple[Piece, ...], order: str) -> tuple[Piece, ...]:
    """Return what SQLite is to order by, of an expression; see `Translation`."""
    return ("dj_order(", *pieces, f", {quoted(order)})") if order else pieces


def _with_more(exact: tuple[Piece, ...], kind: Kind) -> Emitted:
    """Return what has more digits than those of its kind."""
    return Emitted(("dj_shown(", *exact, f", {kind.scale})"), kind, exact)


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


def _is_plain_number(kind: Kind) -> bool:
    return kind.family in ("int", "float", "decimal")


def _parsed_type(written: str) -> AttributeType:
    return parse_type("bytes" if written == "<codec>" else written)


_t: Any = _Translator
_EMITTERS: dict[str, Any] = {
    "Column": _t._column, "Paren": _t._paren, "And": _t._logic, "Or": _t._logic, "Not": _t._not,
    "Is": _t._is, **dict.fromkeys(_COMPARISONS, _t._comparison), "Between": _t._between,
    "In": _t._in, "Like": _t._like, "GroupConcat": _t._group_concat, "Window": _t._window,
}  # fmt: skip
