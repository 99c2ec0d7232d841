"""SQLite's SQL for the parts of a user's text, and calls of this package's function for others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.relational.user_sql.calls import is_known
from dj_dagster.relational.user_sql.compiler import compiled
from dj_dagster.relational.user_sql.functions import FUNCTIONS, SPELLINGS
from dj_dagster.relational.user_sql.parsing import call_name, parse
from dj_dagster.relational.user_sql.programs import SPREADS, Untranslatable
from dj_dagster.relational.user_sql.sqlite_values import decoder, encoder, is_long, quoted, runner
from dj_dagster.relational.user_sql.values import Kind

Run = Callable[[Sequence[Any]], Any]
BITS = {"BIT_AND": "dj_bit_and", "BIT_OR": "dj_bit_or", "BIT_XOR": "dj_bit_xor"}
AGGREGATES = frozenset({"COUNT", "SUM", "AVG", "MIN", "MAX", "ANY_VALUE", *SPREADS, *BITS})

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
    types
        The types of its attributes, as `types_text` writes them; `kinds` is the parsed form.
    programs
        Collects the programs that the function runs.
    emitters
        The functions that translate nodes, by the name of the node's class; the result None asks
        for a program.
    """

    def __init__(
        self,
        source: str,
        types: str,
        kinds: Mapping[str, str | None],
        programs: list[Run],
        emitters: Mapping[str, Emitter],
    ) -> None:
        self._call = f"({quoted(source)}, {quoted(types)}, "
        self.types = {
            name: None if kind is None else _parsed_type(kind) for name, kind in kinds.items()
        }
        self._programs = programs
        self._emitters = emitters
        self._folded = {name.lower(): name for name in kinds}

    def value(self, node: Any) -> Emitted:
        """Return an expression as SQL."""
        emitter = self._emitters.get(type(node).__name__)
        found = emitter(self, node) if emitter is not None else None
        return found or self.program(node)

    def name(self, node: Any) -> str:
        """Return the attribute that a column names."""
        if node.table:
            raise Untranslatable(f"the name of another table, {node.sql('mysql')}")
        name = node.name
        found = name if name in self.types else self._folded.get(name.lower())
        if found is None:
            raise Untranslatable(f"the name {name!r}")
        return found

    def is_short(self, node: Any) -> bool:
        """Whether SQLite holds a column's values in their own type."""
        from sqlglot import exp

        if not isinstance(node, exp.Column):
            return True
        kind = self.types[self.name(node)]
        return kind is None or not is_long(kind)

    def is_uuid(self, node: Any) -> bool:
        """Whether a column's values are UUIDs."""
        kind = self.types[self.name(node)]
        return kind is not None and kind.family is Family.UUID

    def plain(self, node: Any) -> tuple[Piece, ...]:
        """Return an argument of a function that SQLite has too."""
        literal = literal_of(node)
        return (quoted(literal),) if isinstance(literal, str) else self.value(node).pieces

    def order(self, node: Any, kind: Kind) -> str:
        """Return the order of values; see `translation.Translation`."""
        if kind.family == "time" or (kind.family == "decimal" and not self.is_short(bare(node))):
            return kind.family
        is_sorted = list(kind.choices) == sorted(kind.choices)
        return "" if is_sorted else json.dumps(kind.choices, ensure_ascii=False)

    def ordered(self, node: Any) -> tuple[Piece, ...]:
        """Return the SQL by which SQLite orders."""
        value = self.value(node)
        return in_order(value.pieces, self.order(node, value.kind))

    def program(self, node: Any, mode: str = "value") -> Emitted:
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
                if type(leaf).__name__ == "Column" and self.is_uuid(leaf):
                    raise Untranslatable("a UUID in a larger expression")
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

    def _leaves(self, node: Any) -> Iterator[Any]:
        if is_leaf(node):
            yield node
            return
        for child in node.iter_expressions():
            yield from self._leaves(child)


Emitter = Callable[["Translator", Any], "Emitted | None"]


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


def is_leaf(node: Any) -> bool:
    """Whether a node's value comes from SQLite and is passed to the function."""
    name = type(node).__name__
    return name in ("Column", "Window", "GroupConcat") or call_name(node) in AGGREGATES | OWN


def _is_pure(node: Any) -> bool:
    name = call_name(node)
    function = FUNCTIONS.get(SPELLINGS.get(name, name))
    if type(node).__name__ in ("CurrentDate", "CurrentTime", "CurrentTimestamp", "Localtime",
                               "Localtimestamp"):  # fmt: skip
        return False
    return function is None or function.pure


def bare(node: Any) -> Any:
    """Return a node without its parentheses."""
    while type(node).__name__ == "Paren":
        node = node.this
    return node


def is_simple(node: Any) -> bool:
    """Whether a node is an attribute or an aggregate."""
    return type(node).__name__ == "Column" or call_name(node) in AGGREGATES


def literal_of(node: Any) -> Any:
    """Return the value of a literal, numbers as `Decimal` or float; None for other nodes."""
    name = type(node).__name__
    if name == "Neg":
        value = literal_of(node.this)
        return None if value is None or isinstance(value, str) else -value
    if name == "Boolean":
        return Decimal(int(node.this))
    if name != "Literal":
        return None
    if node.is_string:
        return node.this
    return float(node.this) if "e" in node.this.lower() else Decimal(node.this)


def _parsed_type(written: str) -> AttributeType:
    return parse_type("bytes" if written == "<codec>" else written)
