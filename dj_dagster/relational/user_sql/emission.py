"""SQLite's SQL for the parts of a user's text, and calls of this package's function for others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from dj_dagster.errors import QueryError
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.user_sql import temporal
from dj_dagster.relational.user_sql.arithmetic import check_truth
from dj_dagster.relational.user_sql.attributes import Plain
from dj_dagster.relational.user_sql.compiler import FUNCTIONS, SPELLINGS, compiled, is_known
from dj_dagster.relational.user_sql.kinds import (
    ANY,
    BYTES,
    EXACT,
    FLOAT,
    INT,
    JSON,
    SINGLE,
    TEXT,
    UNSIGNED,
    YEAR,
    Kind,
    Number,
    SqlValue,
    decimal_kind,
    exact,
    fixed,
    floating,
    number,
    rounded,
    text,
    true,
)
from dj_dagster.relational.user_sql.parsing import call_name, parse
from dj_dagster.relational.user_sql.programs import SPREADS, Call, Program, Untranslatable

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr

SQLiteValue = int | float | str | bytes | None
"""A value as SQLite has it."""

EXACT_DIGITS = 15
"""Number of digits up to which SQLite keeps decimals exactly as numbers; longer ones are text."""


def is_long(kind: AttributeType) -> bool:
    """Whether values of a type are decimals of too many digits, which SQLite holds as text."""
    return kind.family is Family.DECIMAL and (kind.size or 65) > EXACT_DIGITS


def quoted(value: str) -> str:
    """Return a text as a literal of SQLite."""
    return "'" + value.replace("'", "''") + "'"


def number_text(value: Number) -> str:
    """Return a number as a literal of SQLite."""
    if isinstance(value, float):
        return repr(value)
    value = Decimal(value)
    if value == value.to_integral_value():
        whole = int(value)
        return str(whole) if -(2**63) <= whole < 2**63 else repr(float(value))
    return repr(float(value))


def temporal_literal(found: datetime | timedelta, kind: Kind) -> str | None:
    """Return a date, moment or time as columns of a kind hold it, None if they cannot hold it."""
    if kind.family == "date" and isinstance(found, datetime):
        is_day = found == datetime(found.year, found.month, found.day)
        return quoted(found.date().isoformat()) if is_day else None
    if isinstance(found, timedelta) and not timedelta(0) <= found < timedelta(days=1):
        return None
    fits = temporal.round_to(found, kind.scale) == found
    return quoted(temporal.text(found, kind.scale)) if fits else None


def kind_of(kind: Plain) -> Kind:
    """Return the kind of an attribute's values from its type."""
    if kind is None:
        return ANY
    if isinstance(kind, Kind):
        return kind
    scale = kind.size or 0
    if kind.digits is not None and kind.digits <= EXACT_DIGITS and not kind.is_single:
        return fixed(kind.scale or 0)
    if kind.unsigned and kind.family is Family.INTEGER:
        return YEAR if kind.text == "year" else UNSIGNED
    found = {
        Family.INTEGER: INT, Family.BOOL: INT, Family.STRING: TEXT,
        Family.FLOAT: SINGLE if kind.is_single else FLOAT,
        Family.ENUM: Kind("text", 0, kind.values), Family.DATE: Kind("date"),
        Family.DATETIME: Kind("datetime", scale), Family.TIME: Kind("time", scale),
        Family.DECIMAL: decimal_kind(kind.scale or 0), Family.JSON: JSON,
    }  # fmt: skip
    return found.get(kind.family, BYTES)


def decoder(of: Kind) -> Call:
    """Return the function from SQLite's value to that of the expression."""
    match of.family:
        case "decimal":
            return lambda value: _with_digits(Decimal(str(value)), of.scale)
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


def _kept_digits(name: str, kind: Kind) -> Call:
    """Return the decoder of decimals that a subquery computes, which SQLite holds as numbers."""
    decode = decoder(kind)

    def run(value: SqlValue) -> SqlValue | None:
        if isinstance(value, float) and abs(value) * 10.0**kind.scale >= 10.0**EXACT_DIGITS:
            raise QueryError(
                f"SQL on SQLite: {value} of the computed attribute {name!r} may have more digits "
                f"than the {EXACT_DIGITS} that SQLite keeps in a number. Compute from it in the "
                f"same step, or CAST it AS DOUBLE."
            )
        return decode(value)

    return run


def _uuid_bytes(value: str) -> bytes:
    """Return the bytes that servers hold for a UUID, which is text in SQLite."""
    return UUID(value).bytes


def _with_digits(value: Decimal, scale: int) -> Decimal:
    # Means have more digits internally than are shown.
    return value if -int(value.as_tuple()[2]) > scale else rounded(value, scale)


def runner(
    program: Program, decoders: Sequence[Call], encode: Callable[[SqlValue], SQLiteValue]
) -> SQLiteRun:
    """Return a function that runs a program with values of SQLite and returns one of SQLite."""

    def run(values: Sequence[SQLiteValue]) -> SQLiteValue:
        row = [
            None if value is None else decode(value)
            for value, decode in zip(values, decoders, strict=True)
        ]
        found = program.run(row)
        return None if found is None else encode(found)

    return run


def encoder(program: Program, mode: str) -> tuple[Callable[[SqlValue], SQLiteValue], Kind]:
    """Return the function from an expression's value to SQLite's, and its kind."""
    kind = program.kind
    if mode == "truth":
        check_truth(kind)
        return (lambda value: int(bool(true(value, kind)))), INT
    if mode == "text":
        return (lambda value: _utf8(text(value, kind))), TEXT
    if mode == "exact":
        return (lambda value: str(value)), kind
    if mode == "float":
        return (lambda value: float(number(value, kind))), FLOAT
    if mode == "whole":
        return (lambda value: _int64(int(rounded(Decimal(exact(value, kind)), 0)))), INT
    return (lambda value: _encoded(value, kind)), kind


def _encoded(value: SqlValue, kind: Kind) -> SQLiteValue:
    match value:
        case int():
            return _int64(int(value))
        case Decimal():
            value = rounded(value, kind.scale) if kind.family == "decimal" else value
            whole = value == value.to_integral_value() and not kind.scale
            return _int64(int(value)) if whole else float(value)
        case date() | timedelta():
            return temporal.text(value, kind.scale)
        case str():
            return _utf8(value)
        case _:
            return value


def _utf8(value: str) -> str:
    try:
        return value if value.isascii() else value.encode().decode()
    except UnicodeEncodeError:
        raise QueryError("SQL on SQLite: bytes that are not UTF-8 become a text.") from None


def _int64(value: int) -> int:
    if -(2**63) <= value < 2**63:
        return value
    raise QueryError(f"SQLite holds no integer of more than 64 bits: {value}.")


SQLiteRun = Callable[[Sequence[SQLiteValue]], SQLiteValue]
BITS = {"BIT_AND": "dj_bit_and", "BIT_OR": "dj_bit_or", "BIT_XOR": "dj_bit_xor"}
AGGREGATES = frozenset({"COUNT", "SUM", "AVG", "MIN", "MAX", "ANY_VALUE", *SPREADS, *BITS})
_TEXT_AGGREGATES = frozenset({"GROUP_CONCAT", "JSON_ARRAYAGG", "JSON_OBJECTAGG"})

OWN = frozenset(
    ("STRFTIME", "JULIANDAY", "UNIXEPOCH", "PRINTF", "TYPEOF", "RANDOM", "RANDOMBLOB", "TOTAL")
)
"""Functions of SQLite that MySQL lacks, so that their meaning is unambiguous."""


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
        The same with all its digits, for larger expressions; empty if there are no more digits.
    """

    pieces: tuple[Piece, ...]
    kind: Kind
    exact: tuple[Piece, ...] = ()


class Translator:
    """Translates the parts of one text.

    Parameters
    ----------
    written
        The types of its attributes, as `types_text` writes them.
    types
        The types of the attributes in the tree that is translated.
    programs
        Collects the programs that the function runs.
    emitters
        The functions that translate nodes, by the name of the node's class; the result None asks
        for a program.
    """

    def __init__(
        self,
        source: str,
        written: str,
        types: Mapping[str, Plain],
        programs: list[SQLiteRun],
        emitters: Mapping[str, Emitter],
    ) -> None:
        self._call = f"({quoted(source)}, {quoted(written)}, "
        self.types = types
        self._programs = programs
        self._emitters = emitters
        self._folded = {name.lower(): name for name in types}

    def value(self, node: Expr) -> Emitted:
        """Return an expression as SQL."""
        emitter = self._emitters.get(type(node).__name__)
        found = emitter(self, node) if emitter is not None else None
        return found or self.program(node)

    def name(self, node: Expr) -> str:
        """Return the attribute that a column names."""
        if node.text("table"):
            raise Untranslatable(f"the name of another table, {node.sql('mysql')}")
        name = node.name
        found = name if name in self.types else self._folded.get(name.lower())
        if found is None:
            raise Untranslatable(f"the name {name!r}")
        return found

    def is_short(self, node: Expr) -> bool:
        """Whether SQLite holds a column's values in their own type."""
        known = self._known(node)
        # What a subquery sums may be text.
        is_open = isinstance(known, Kind) and known.family == "decimal"
        return not is_open and not self.is_text(node)

    def is_text(self, node: Expr) -> bool:
        """Whether a node is a column of decimals that SQLite holds as text."""
        known = self._known(node)
        return isinstance(known, AttributeType) and is_long(known)

    def is_uuid(self, node: Expr) -> bool:
        """Whether a node is a column whose values are UUIDs."""
        known = self._known(node)
        return isinstance(known, AttributeType) and known.family is Family.UUID

    def _known(self, node: Expr) -> Plain:
        return self.types[self.name(node)] if type(node).__name__ == "Column" else None

    def plain(self, node: Expr) -> tuple[Piece, ...]:
        """Return an argument of a function that SQLite has too."""
        literal = literal_of(node)
        return (quoted(literal),) if isinstance(literal, str) else self.value(node).pieces

    def order(self, node: Expr, kind: Kind) -> str:
        """Return the order of values; see `translation.Translation`."""
        if kind.family == "time" or (kind.family == "decimal" and not self.is_short(bare(node))):
            return kind.family
        is_sorted = list(kind.choices) == sorted(kind.choices)
        return "" if is_sorted else json.dumps(kind.choices, ensure_ascii=False)

    def ordered(self, node: Expr) -> tuple[Piece, ...]:
        """Return the SQL by which SQLite orders."""
        value = self.value(node)
        return in_order(value.pieces, self.order(node, value.kind))

    def program(self, node: Expr, mode: str = "value") -> Emitted:
        """Return a call of the function that runs an expression."""
        places: dict[int, tuple[int, Kind]] = {}
        given: dict[tuple[Piece, ...], int] = {}
        decoders: list[Call] = []
        for leaf in self._leaves(node):
            emitted = self.value(leaf)
            emitted = Emitted(emitted.exact or emitted.pieces, emitted.kind)
            if emitted.pieces not in given:
                given[emitted.pieces] = len(given)
                decoders.append(self._decoder(leaf, emitted.kind))
            places[id(leaf)] = (given[emitted.pieces], emitted.kind)
        program = compiled(node, places)
        encode, kind = encoder(program, mode)
        place = len(self._programs)
        self._programs.append(runner(program, decoders, encode))
        function = "dj_mysql" if all(map(_is_pure, node.walk())) else "dj_mysql_now"
        pieces: list[Piece] = [f"{function}{self._call}{place}"]
        for leaf in given:
            pieces += [", ", *leaf]
        return Emitted((*pieces, ")"), kind)

    def _decoder(self, leaf: Expr, kind: Kind) -> Call:
        if self.is_uuid(leaf):
            return _uuid_bytes
        is_computed = isinstance(self._known(leaf), Kind) and kind.family == "decimal"
        return _kept_digits(leaf.name, kind) if is_computed else decoder(kind)

    def _leaves(self, node: Expr) -> Iterator[Expr]:
        if is_leaf(node):
            yield node
            return
        for child in node.iter_expressions():
            yield from self._leaves(child)


Emitter = Callable[["Translator", "Expr"], "Emitted | None"]


def outside_aggregates(text: str) -> Iterator[str]:
    """Yield the attributes of a text that are outside of all aggregates and possible aggregates.

    >>> sorted(outside_aggregates("a + max(b) + other(c)"))
    ['a']
    """
    waiting = list(parse(text).trees)
    # The list grows during the iteration.
    for node in waiting:
        name = call_name(node)
        if type(node).__name__ == "Column":
            yield node.name
        elif not is_leaf(node) and (not name or is_known(name)):
            waiting += node.iter_expressions()


_CALL = re.compile(r"\w\s*\(")


def lone_aggregate(text: str) -> str | None:
    """Return the name of an aggregate over all rows in a text, None without one.

    >>> lone_aggregate("a + max(b)"), lone_aggregate("max(b) over ()")
    ('MAX', None)
    """
    # Most texts have no calls, and the parser takes a moment to import.
    waiting = list(parse(text).trees) if _CALL.search(text) else []
    for node in waiting:
        name = call_name(node) or ("GROUP_CONCAT" if type(node).__name__ == "GroupConcat" else "")
        if name in AGGREGATES | _TEXT_AGGREGATES:
            return name
        if type(node).__name__ not in ("Window", "Subquery", "Exists", "Select"):
            waiting += node.iter_expressions()
    return None


def in_order(pieces: tuple[Piece, ...], order: str) -> tuple[Piece, ...]:
    """Return the SQL by which SQLite orders an expression; see `translation.Translation`."""
    if not order:
        return pieces
    name = lone_attribute(pieces)
    if name is not None and order != "decimal":
        # This takes a fraction of the time of a call of Python for each row.
        return time_order(name) if order == "time" else _enum_order(name, order)
    return ("dj_order(", *pieces, f", {quoted(order)})")


def lone_attribute(pieces: tuple[Piece, ...]) -> Attribute | None:
    """Return the attribute if pieces consist of it alone, otherwise None."""
    inside = [piece for piece in pieces if piece not in ("(", ")")]
    return inside[0] if len(inside) == 1 and isinstance(inside[0], Attribute) else None


def _enum_order(name: Attribute, choices: str) -> tuple[Piece, ...]:
    places = (f" WHEN {quoted(text)} THEN {n}" for n, text in enumerate(json.loads(choices)))
    return ("(CASE ", name, *places, " END)")


def time_order(name: Attribute) -> tuple[Piece, ...]:
    """Return a time with three digits of hours, or the seconds of a negative one.

    SQLite then orders them as times, with numbers before texts. Most times need little work.
    """
    return (
        "(CASE WHEN ", name, " < '0' THEN -(abs(CAST(", name, " AS INTEGER)) * 3600 + CAST(substr(",
        name, ", instr(", name, ", ':') + 1, 2) AS INTEGER) * 60 + CAST(substr(", name, ", instr(",
        name, ", ':') + 4) AS REAL)) WHEN substr(", name, ", 3, 1) = ':' THEN '0' || ", name,
        " WHEN substr(", name, ", 2, 1) = ':' THEN '00' || ", name, " ELSE ", name, " END)",
    )  # fmt: skip


def with_more(exact: tuple[Piece, ...], kind: Kind) -> Emitted:
    """Return SQL that shows the digits of a kind, and keeps further ones in `exact`."""
    return Emitted(("dj_shown(", *exact, f", {kind.scale})"), kind, exact)


def is_leaf(node: Expr) -> bool:
    """Whether a node's value comes from SQLite and is passed to the function."""
    name = type(node).__name__
    return name in ("Column", "Window", "GroupConcat") or call_name(node) in AGGREGATES | OWN


def _is_pure(node: Expr) -> bool:
    name = call_name(node)
    function = FUNCTIONS.get(SPELLINGS.get(name, name))
    if type(node).__name__ in ("CurrentDate", "CurrentTime", "CurrentTimestamp", "Localtime",
                               "Localtimestamp"):  # fmt: skip
        return False
    return function is None or function.pure


def bare(node: Expr) -> Expr:
    """Return a node without its parentheses."""
    while type(node).__name__ == "Paren":
        node = node.this
    return node


def is_simple(node: Expr) -> bool:
    """Whether a node is an attribute or an aggregate."""
    return type(node).__name__ == "Column" or call_name(node) in AGGREGATES


def literal_of(node: Expr) -> str | Decimal | float | None:
    """Return the value of a literal, numbers as `Decimal` or float; None for other nodes."""
    name = type(node).__name__
    if name == "Neg":
        value = literal_of(node.this)
        # Unlike the operator, this does not round to 28 digits.
        if isinstance(value, Decimal):
            return EXACT.minus(value)
        return None if value is None or isinstance(value, str) else -value
    if name == "Boolean":
        return Decimal(int(node.this))
    if name != "Literal":
        return None
    if node.is_string:
        return node.this
    return floating(float(node.this)) if "e" in node.this.lower() else Decimal(node.this)
