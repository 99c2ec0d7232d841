"""Tables and writes as plain data: what backends report, and what they are given to write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from itertools import compress, groupby
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Default, Heading, Value, Values
from dj_dagster.model.names import TableName


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """A column as the database reports it; `comment` carries the ``:type:`` marker."""

    name: str
    sql_type: str
    nullable: bool
    default: Default | None
    comment: str
    auto_increment: bool = False


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key with both ends resolved.

    Attributes
    ----------
    attributes
        ``{child attribute: parent attribute}`` in the parent's key order.
    primary
        Whether all child attributes lie in the child's primary key.
    """

    child: TableName
    parent: TableName
    attributes: dict[str, str]
    primary: bool = False
    nullable: bool = False
    unique: bool = False


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table as the database reports it.

    Attributes
    ----------
    external
        By column, the store that it points into through a table of DataJoint 0.14; these foreign
        keys are not among the others.
    is_view
        Whether it is a view of the database, which can only be read and whose key is not known.
    """

    name: TableName
    comment: str
    columns: tuple[StoredColumn, ...]
    primary_key: tuple[str, ...]
    foreign_keys: tuple[ForeignKey, ...]
    unique: tuple[tuple[str, ...], ...] = ()
    external: dict[str, str] = field(default_factory=dict[str, str])
    is_view: bool = False


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table of the database whose columns have been given their attribute types."""

    name: TableName
    heading: Heading
    foreign_keys: tuple[ForeignKey, ...]
    is_view: bool = False

    def check_table(self, doing: str) -> None:
        """Refuse an operation that views do not support.

        Raises
        ------
        QueryError
            If this is a view.
        """
        if self.is_view:
            raise QueryError(
                f"{self.name} is a view of the database, which can only be read: {doing} the "
                "tables that it selects from, or change the view itself in SQL."
            )


Read = Callable[[Callable[[SAConnection], Any]], Any]


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """A column that an altered table gets, or an existing column that changes.

    Attributes
    ----------
    old
        The former name, None for a new column.
    sql
        The column as in CREATE TABLE.
    after
        The column before it, None for the first column.
    """

    name: str
    old: str | None
    sql: str
    after: str | None


@dataclass(frozen=True, slots=True)
class TableChanges:
    """The changes for `Backend.alter_table`; names are unquoted, ``sql`` is as in CREATE TABLE.

    Attributes
    ----------
    floats
        Columns of 32-bit floats whose new type shows more digits than they have. Servers would
        then show further ones: 0.1 is stored as 0.10000000149011612.
    comment
        The new comment, None to keep the present one.
    """

    name: TableName
    floats: Sequence[str]
    dropped_keys: Sequence[str]
    dropped_indexes: Sequence[str]
    dropped_columns: Sequence[str]
    columns: Sequence[ColumnChange]
    added_indexes: Sequence[str]
    added_keys: Sequence[str]
    comment: str | None


class Remaking(ABC):
    """The operations for rebuilding a table besides CREATE TABLE and INSERT."""

    @abstractmethod
    def translation(
        self, name: str, pairs: Sequence[Values]
    ) -> AbstractContextManager[sa.TableClause]:
        """Give a temporary table of pairs of values, with the columns `old` and `new`."""

    @abstractmethod
    def replace(self, name: TableName, made: TableName) -> None:
        """Drop a table and give its name and triggers to a new one."""

    @abstractmethod
    def unmatched(self, name: TableName) -> Sequence[str]:
        """Return the parent for each row of a table whose parent's row is missing."""


class WriteMarks(ABC):
    """The marks by which a database shows writes to tables, as of the last call."""

    @abstractmethod
    def written(self, read: Read) -> frozenset[TableName]:
        """Return the tables that may have been written since the last call; at first all.

        The cost does not depend on the size of the tables. A superfluous table is examined in vain;
        a missing one is a change that is not seen before the next sweep.

        Parameters
        ----------
        read
            Calls a function with a session of the connection and returns its result.
        """


@dataclass(frozen=True, slots=True)
class DumpedTable:
    """A table in a dump.

    Attributes
    ----------
    sha256
        Checksum of its rows as they are written, to compare with the restored table.
    """

    schema: str
    table: str
    file: str
    rows: int
    sha256: str


class _Default(Enum):
    DEFAULT = "DEFAULT"


DEFAULT = _Default.DEFAULT
"""The value that stands for the column's default in a row to insert."""


@dataclass(frozen=True, slots=True)
class InsertStatement:
    """One statement of an insert.

    Attributes
    ----------
    sql
        The SQL, which contains the values if `parameters` is None.
    parameters
        One tuple a row.
    count
        Number of rows.
    """

    sql: str | bytes
    parameters: Sequence[Values] | None
    count: int

    @property
    def is_atomic(self) -> bool:
        """Whether all rows are written or none, even outside a transaction."""
        return self.parameters is None or self.count == 1


InsertMode = Literal["insert", "skip", "replace"]


def statements_of(
    sql: Callable[[tuple[str, ...]], str],
    columns: tuple[str, ...],
    values: Sequence[Sequence[Value]],
    count: int,
) -> Iterator[InsertStatement]:
    """Return the statements that insert rows, with parameters, in their order.

    Parameters
    ----------
    sql
        Returns the INSERT of one row of some of the columns.
    values
        One sequence a column, in which `DEFAULT` may occur.
    count
        Number of rows.
    """
    rows = list(zip(*values, strict=True)) if values else [()] * count
    if not any(DEFAULT in column for column in values):
        yield InsertStatement(sql(columns), rows, count)
        return
    # One statement for each run of rows that omit the same columns.
    for given, run in groupby(rows, lambda row: [value is not DEFAULT for value in row]):
        part = [tuple(compress(row, given)) for row in run]
        yield InsertStatement(sql(tuple(compress(columns, given))), part, len(part))
