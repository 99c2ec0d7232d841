"""Ranges of an integer key, and digests of the rows in each.

Two sets of rows with equal digests in a range are alike there. Counts would not show this, because
a surplus row and a missing row cancel; nor would sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra.nodes import Node
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.sql.lowering import Lowering

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

    def number(self, connection: Connection, column: sa.ColumnElement[Any]) -> Any:
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


def whole(value: Any) -> int:
    """Return a number as an integer, 0 for other values, which SQLite may hold in any column."""
    try:
        return int(value)
    except (TypeError, ValueError, ArithmeticError):
        return 0


def digested(columns: Mapping[str, Any], heading: Heading, names: Sequence[str]) -> list[Any]:
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
    number: Any = sa.literal_column("0")
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
