"""Keys that are still to be made, found by ranges of the key.

A server reads two tables in a fraction of the time that it takes to look each key of one up in the
other. Digests of the keys are therefore compared by range, and only the ranges that differ are
looked at key by key.

Two sets of rows with equal digests in a range are alike there. Counts would not show this, because
a surplus row and a missing row cancel; nor would sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from dj_dagster.errors import PopulateError
from dj_dagster.model.heading import Attribute, Heading, Key, Value, Values
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra.condition import make_condition, refuse_oversights
from dj_dagster.relational.algebra.nodes import (
    NEVER,
    All,
    AnyOf,
    Base,
    Between,
    Condition,
    Equals,
    Matches,
    Negated,
    Node,
)
from dj_dagster.relational.algebra.operators import all_rows, restrict
from dj_dagster.relational.backends.common import Element
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.table import Table
from dj_dagster.relational.values import as_fetched
from dj_dagster.workflow.collation import matched
from dj_dagster.workflow.make import (
    KeySource,
    PopulatedTable,
    base,
    lacking,
    referred,
    without,
)

RANGES = 1000

Range = tuple[int, int]


@dataclass(frozen=True)
class Ranges:
    """Ranges of an integer, numbered by division towards zero, as databases divide.

    The division is without an offset, so that it cannot overflow for integers that are far apart.
    """

    width: int

    @classmethod
    def over(cls, low: int, high: int) -> Ranges:
        """Return about a thousand ranges from one value to another."""
        return cls((high - low) // RANGES + 1)

    def number(self, connection: Connection, column: Element) -> Element:
        """Return the SQL for the number of a value's range."""
        if self.width == 1:
            # MySQL cannot divide the least integer by one.
            return column
        # A literal number, because the GROUP BY expression must equal the selected one.
        return column.op(connection.backend.integer_division)(sa.literal_column(str(self.width)))

    def number_of(self, value: int) -> int:
        """Return the number of a value's range."""
        return value // self.width if value >= 0 else -(-value // self.width)

    def bounds(self, number: int) -> Range:
        """Return the values of a range, ends included; range 0 reaches to both sides of zero."""
        low = number if number > 0 else number - 1
        high = number if number < 0 else number + 1
        return low * self.width + (number <= 0), high * self.width - (number >= 0)


def is_integer(attribute: Attribute) -> bool:
    """Whether an attribute can be divided into ranges."""
    return attribute.family is Family.INTEGER


def extent(connection: Connection, node: Node, name: str) -> Range | None:
    """Return the least and the greatest value of an attribute, None without rows."""
    lowered = Lowering(connection.backend).lower(node)
    column = lowered.columns[name]
    select = sa.select(sa.func.min(column), sa.func.max(column))
    ((low, high),) = connection.rows(select.select_from(lowered.source).where(*lowered.where))
    return None if low is None else (whole(low), max(whole(low), whole(high)))


def whole(value: Value) -> int:
    """Return a number as an integer, 0 for other values, which SQLite may hold in any column."""
    try:
        return int(value)
    except (TypeError, ValueError, ArithmeticError):
        return 0


def digested(
    columns: Mapping[str, Element], heading: Heading, names: Sequence[str]
) -> list[tuple[Element, Attribute]]:
    """Return the columns of some attributes as `Backend.row_digest` takes them."""
    return [(columns[name], heading[name]) for name in names]


@dataclass(frozen=True)
class Digests:
    """The digests of some rows: their number, and digests of their keys and of all values."""

    count: int = 0
    keys: int = 0
    values: int = 0

    def __add__(self, other: Digests) -> Digests:
        return Digests(self.count + other.count, self.keys ^ other.keys, self.values ^ other.values)


def digests(
    connection: Connection, node: Node, ranges: Ranges | None, *parts: Sequence[str]
) -> dict[int, Digests]:
    """Return the digests of the rows of a query, by range.

    Parameters
    ----------
    ranges
        The ranges of the first attribute; None for a single range of all rows.
    *parts
        The attributes that each digest covers, first those of the key.
    """
    backend, lowered = connection.backend, Lowering(connection.backend).lower(node)
    number: Element = sa.literal_column("0")
    if ranges is not None:
        number = ranges.number(connection, lowered.columns[parts[0][0]])
    columns = [backend.digest_xor(digested(lowered.columns, node.heading, part)) for part in parts]
    select = sa.select(number, sa.func.count(), *columns).select_from(lowered.source)
    select = select.where(*lowered.where)
    found: dict[int, Digests] = {}
    for row in connection.rows(select if ranges is None else select.group_by(number)):
        some = Digests(*(int(value or 0) for value in row[1:]))
        found[whole(row[0])] = found.get(whole(row[0]), Digests()) + some
    return found


Why = Literal["present", "missing", "reserved"]


def progress(source: KeySource, *restrictions: object) -> tuple[int, int]:
    """Return the number of keys that remain to be made, and the number of all keys."""
    table, keys = source.table, source.restricted(*restrictions)
    compared = _compared(source, restrictions)
    total = compared.count
    if total is None:
        total = fetch.count(table.connection, keys)
    lacked = _narrowed(keys, compared)
    if lacked is None:
        return 0, total
    return fetch.count(table.connection, lacking(lacked, rows_of(table))), total


def unmade_keys(
    source: KeySource,
    *restrictions: object,
    held: Node | None = None,
    limit: int | None = None,
) -> list[Key]:
    """Return keys of the key source that are not in the table, in their order.

    Parameters
    ----------
    held
        A query for keys to leave out.
    limit
        The number of keys, at most.
    """
    table, keys = source.table, source.restricted(*restrictions)
    lacked = _narrowed(keys, _compared(source, restrictions))
    if lacked is None:
        return []
    node = lacking(lacked, rows_of(table))
    node = node if held is None else without(node, held)
    names = node.heading.primary_key
    found = fetch.keys(table.connection, node, names, "KEY", limit)
    return [dict(zip(names, row, strict=True)) for row in found]


def orphans(table: Table) -> int:
    """Return the number of rows that refer to a missing row.

    Clients that do not enforce foreign keys leave such rows, as SQLite's own client and restored
    dumps do.
    """
    conditions: list[Condition] = []
    for foreign_key in table.foreign_keys:
        names = tuple(foreign_key.attributes)
        alone = Negated(Matches(names, referred(table.connection, foreign_key)))
        given = [Negated(Equals(name, None)) for name in names if table.heading[name].nullable]
        conditions.append(All((alone, *given)))
    return fetch.count(table.connection, restrict(rows_of(table), AnyOf(tuple(conditions))))


@dataclass(frozen=True, slots=True)
class Looked:
    """The result of a look at some keys, by the values of the keys.

    Attributes
    ----------
    idle
        The reasons why keys are not pending.
    spelled
        The pending keys that the key source spells differently, as it spells them.
    """

    idle: Mapping[Values, Why]
    spelled: Mapping[Values, Key]

    def why(self, key: Key) -> Why | None:
        """Return the reason why a key is not pending, None if it is."""
        return self.idle.get(tuple(key.values()))

    def as_given(self, key: Key) -> Key:
        """Return a key as `make` is to be given it."""
        return self.spelled.get(tuple(key.values()), key) if self.spelled else key


def look_at(source: KeySource, keys: list[Key], *, in_source: bool = True) -> Looked:
    """Look whether keys are pending.

    Parameters
    ----------
    in_source
        Whether to look the keys up in the key source too.
    """
    table = source.table
    names = tuple(keys[0]) if keys else ()
    rows = [tuple(key.values()) for key in keys]
    if not in_source:
        return Looked(dict.fromkeys(present(table, names, rows), "present"), {})
    # One statement for a batch that is wholly pending, as most are.
    known = matched(table.connection, lacking(source.keys, rows_of(table)), names, rows)
    rest = [row for row in rows if row not in known]
    there = present(table, names, rest) if rest else set[Values]()
    idle: dict[Values, Why] = {row: "present" if row in there else "missing" for row in rest}
    differing = {row: spelled for row, spelled in known.items() if row != spelled}
    if differing:
        # One key in several spellings is to be made once.
        first = {spelled: row for row, spelled in reversed(known.items())}
        idle |= {row: "reserved" for row, spelled in known.items() if first[spelled] != row}
    return Looked(idle, {row: dict(zip(names, own, strict=True)) for row, own in differing.items()})


def given(source: KeySource, keys: list[Key], *restrictions: object) -> set[Values]:
    """Return the values of those of some keys that are in the restricted key source."""
    names = tuple(keys[0]) if keys else ()
    rows = [tuple(key.values()) for key in keys]
    return set(matched(source.table.connection, source.restricted(*restrictions), names, rows))


def present(table: Table, names: Sequence[str], rows: Iterable[Values]) -> set[Values]:
    """Return those of some keys that are in a table.

    Parameters
    ----------
    names
        The attributes of the keys.
    """
    return set(matched(table.connection, rows_of(table), names, rows))


def is_present(table: PopulatedTable, key: Mapping[str, Value]) -> bool:
    """Return whether the table has a row of a key."""
    node = restrict(rows_of(table), make_condition(key, table.heading))
    return fetch.exists(table.connection, node)


def has_parents(table: PopulatedTable, key: Mapping[str, Value]) -> bool:
    """Return whether all rows that a key refers to are there."""
    for foreign_key in table.foreign_keys:
        parent = base(table.connection, foreign_key.parent)
        names = foreign_key.attributes
        if not names or parent is None or not names.keys() <= key.keys():
            continue
        of_key = {name: key[child] for child, name in names.items()}
        node = restrict(parent, make_condition(of_key, parent.heading))
        if not fetch.exists(table.connection, node):
            return False
    return True


def typed(source: KeySource, keys: Iterable[Mapping[str, Value]]) -> list[Key]:
    """Return keys with the attributes of the key source alone, as values of their types.

    Raises
    ------
    PopulateError
        If a key lacks one of them, or is not a mapping.
    QueryError
        If the keys are a query that a restriction does not restrict; see `refuse_oversights`.
    """
    table, heading = source.table, source.keys.heading
    if isinstance(keys, QueryExpression):
        refuse_oversights(keys.node, f"populate {table.name}")
    result: list[Key] = []
    each: Iterable[Any] = [keys] if isinstance(keys, str | Mapping) else keys
    for key in each:
        if key is keys or not hasattr(key, "keys"):
            raise PopulateError(
                f"{table.name} cannot be populated by keys={key!r}: write a list of keys, such as "
                f"{[dict.fromkeys(heading.primary_key, 1)]}."
            )
        lacking = [name for name in heading.primary_key if name not in key]
        if lacking:
            raise PopulateError(f"The key {dict(key)} for {table.name} lacks {', '.join(lacking)}.")
        result.append({name: as_fetched(key[name], heading[name]) for name in heading.primary_key})
    return result


def rows_of(table: Table) -> Base:
    """Return the query for all rows of a table."""
    return all_rows(table.name, table.heading)


def _compared(source: KeySource, restrictions: Sequence[object]) -> Compared:
    """Compare the keys with the table's by ranges, where that helps.

    If the foreign keys ensure that each row of the table has a key in the key source, most ranges
    of keys can be left out. Orphaned rows, which some clients leave, cannot hide unmade keys.
    """
    table, names = source.table, source.names
    whole = not restrictions and bool(names) and set(names) == set(table.primary_key)
    if not whole or source.is_own or table.connection.backend.looks_up_quickly:
        return Compared()
    return compare(table.connection, source.keys, rows_of(table))


def _narrowed(keys: Node, compared: Compared) -> Node | None:
    """Return a selection of keys that contains all unmade ones, None if all keys are made."""
    if compared.differing == NEVER:
        return None
    return keys if compared.differing is None else restrict(keys, compared.differing)


@dataclass(frozen=True, slots=True)
class Compared:
    """The ranges in which the keys of two queries differ.

    Attributes
    ----------
    differing
        The condition on keys to be in a range in which those of the two queries differ.
    count
        The number of keys of the first query, if known.
    """

    differing: Condition | None = None
    count: int | None = None


def compare(connection: Connection, keys: Node, made: Node) -> Compared:
    """Compare the keys of two queries by the ranges that they are in.

    Parameters
    ----------
    keys, made
        Two queries with the same primary key.

    Returns
    -------
    Compared
        Without a condition if the ranges do not help: the key does not begin with an integer, or
        all of them differ.
    """
    first = keys.heading.primary_key[0]
    if not is_integer(keys.heading[first]):
        return Compared()
    found = extent(connection, keys, first)
    if found is None:
        return Compared(NEVER, 0)
    ranges = Ranges.over(*found)
    # Made keys are read first, so that rows that come meanwhile cannot hide unmade keys.
    done = digests(connection, made, ranges, keys.heading.primary_key)
    wanted = digests(connection, keys, ranges, keys.heading.primary_key)
    count = sum(each.count for each in wanted.values())
    numbers = [number for number in sorted(wanted) if done.get(number) != wanted[number]]
    if not numbers:
        return Compared(NEVER, count)
    if len(numbers) == len(wanted):
        return Compared(None, count)
    bounds = _merged([ranges.bounds(number) for number in numbers])
    return Compared(AnyOf(tuple(Between(first, low, high) for low, high in bounds)), count)


def _merged(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for low, high in ranges:
        if merged and merged[-1][1] + 1 == low:
            merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return merged
