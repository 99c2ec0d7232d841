"""Ranges of the first attribute of a key, a thousand or so, and what stands for the rows in each.

A server reads two tables in a fraction of the time that it takes to look each key of one up in the
other. Only the ranges that differ are then looked at key by key. What is compared are digests of
the keys themselves: in counts a key too many and one too few cancel, and so they do in sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra.nodes import NEVER, AnyOf, Condition, Node, SQLText
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.sql.lowering import Lowering

RANGES = 1000

Range = tuple[int, int]


@dataclass(frozen=True)
class Ranges:
    """Numbers the values of an integer by division, towards zero as databases divide.

    Nothing is subtracted before, so that integers may lie as far apart as integers can.
    """

    width: int

    @classmethod
    def over(cls, low: int, high: int) -> Ranges:
        """Return about a thousand ranges from one value to another."""
        return cls((high - low) // RANGES + 1)

    def number(self, connection: Connection, column: sa.ColumnElement[Any]) -> Any:
        """Return the SQL of a value's range."""
        if self.width == 1:
            # MySQL cannot divide the least integer by one.
            return column
        # A number as it is, for what is grouped by must read as what is selected.
        return column.op(connection.backend.integer_division)(sa.literal_column(str(self.width)))

    def number_of(self, value: int) -> int:
        """Return a value's range."""
        return value // self.width if value >= 0 else -(-value // self.width)

    def bounds(self, number: int) -> Range:
        """Return the values of a range, ends included; that of zero reaches to both sides."""
        low = number if number > 0 else number - 1
        high = number if number < 0 else number + 1
        return low * self.width + (number <= 0), high * self.width - (number >= 0)


def is_integer(attribute: Attribute) -> bool:
    """Whether ranges can be made of an attribute."""
    return attribute.family is Family.INTEGER


def extent(connection: Connection, node: Node, name: str) -> Range | None:
    """Return the least and the greatest value of an attribute, None without rows."""
    lowered = Lowering(connection.backend).lower(node)
    column = lowered.columns[name]
    select = sa.select(sa.func.min(column), sa.func.max(column))
    ((low, high),) = connection.rows(select.select_from(lowered.source).where(*lowered.where))
    return None if low is None else (whole(low), max(whole(low), whole(high)))


def whole(value: Any) -> int:
    """Return a number as an integer, 0 for what is none: SQLite keeps anything anywhere."""
    try:
        return int(value)
    except (TypeError, ValueError, ArithmeticError):
        return 0


def digested(columns: Mapping[str, Any], heading: Heading, names: Sequence[str]) -> list[Any]:
    """Return the columns of some attributes as `Backend.row_digest` takes them."""
    return [(columns[name], heading[name]) for name in names]


@dataclass(frozen=True, slots=True)
class Compared:
    """Where the keys of two queries differ.

    Attributes
    ----------
    differing
        The condition on keys to be in a range in which those of the two queries differ.
    count
        How many keys the first query has, where that is known.
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
    # What is made comes first: rows that come meanwhile must not hide keys that are not.
    done = _digests(connection, made, keys.heading.primary_key, ranges)
    wanted = _digests(connection, keys, keys.heading.primary_key, ranges)
    count = sum(count for count, _ in wanted.values())
    numbers = [number for number in sorted(wanted) if done.get(number) != wanted[number]]
    if not numbers:
        return Compared(NEVER, count)
    if len(numbers) == len(wanted):
        return Compared(None, count)
    bounds = _merged([ranges.bounds(number) for number in numbers])
    texts = (SQLText(f"`{first}` BETWEEN {a} AND {b}") for a, b in bounds)
    return Compared(AnyOf(tuple(texts)), count)


def _digests(
    connection: Connection, node: Node, names: Sequence[str], ranges: Ranges
) -> dict[int, tuple[int, int]]:
    lowered = Lowering(connection.backend).lower(node)
    number = ranges.number(connection, lowered.columns[names[0]])
    digest = connection.backend.digest_xor(digested(lowered.columns, node.heading, names))
    select = sa.select(number, sa.func.count(), digest).select_from(lowered.source)
    rows = connection.rows(select.where(*lowered.where).group_by(number))
    found: dict[int, tuple[int, int]] = {}
    for number, count, digest in rows:
        before = found.get(whole(number), (0, 0))
        found[whole(number)] = before[0] + count, before[1] ^ int(digest)
    return found


def _merged(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for low, high in ranges:
        if merged and merged[-1][1] + 1 == low:
            merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return merged
