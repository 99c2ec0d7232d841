"""Plain data between backends and the rest: rows to insert, changes of a table, a dump."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import compress, groupby
from typing import Any, Literal

from dj_dagster.model.names import TableName


class _Default(Enum):
    DEFAULT = "DEFAULT"


DEFAULT = _Default.DEFAULT
"""Stands, among the values of a row to insert, for the column's default."""


@dataclass(frozen=True, slots=True)
class InsertStatement:
    """One statement of an insert.

    Attributes
    ----------
    sql
        With its values where `parameters` is None.
    parameters
        One tuple a row.
    count
        Number of rows.
    """

    sql: str | bytes
    parameters: Sequence[tuple[Any, ...]] | None
    count: int

    @property
    def is_atomic(self) -> bool:
        """Whether all rows are written or none, also outside a transaction."""
        return self.parameters is None or self.count == 1


InsertMode = Literal["insert", "skip", "replace"]


def statements_of(
    sql: Callable[[tuple[str, ...]], str],
    columns: tuple[str, ...],
    values: Sequence[Sequence[Any]],
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
    # One statement for each run of rows that leave the same columns out.
    for given, run in groupby(rows, lambda row: [value is not DEFAULT for value in row]):
        part = [tuple(compress(row, given)) for row in run]
        yield InsertStatement(sql(tuple(compress(columns, given))), part, len(part))


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """A column that an altered table gets, or that becomes another one.

    Attributes
    ----------
    old
        The name that it had, None for a new column.
    sql
        As CREATE TABLE has it.
    after
        The column behind which it comes, None for the first.
    """

    name: str
    old: str | None
    sql: str
    after: str | None


@dataclass(frozen=True, slots=True)
class TableChanges:
    """What `Backend.alter_table` has to do; names are as they are, ``sql`` as in CREATE TABLE.

    Attributes
    ----------
    comment
        None for the one that the table has.
    """

    name: TableName
    dropped_keys: Sequence[str]
    dropped_indexes: Sequence[str]
    dropped_columns: Sequence[str]
    columns: Sequence[ColumnChange]
    added_indexes: Sequence[str]
    added_keys: Sequence[str]
    comment: str | None


@dataclass(frozen=True, slots=True)
class DumpedTable:
    """A table in a dump.

    Attributes
    ----------
    sha256
        Of its rows as they are written, to compare with those of the restored table.
    """

    schema: str
    table: str
    file: str
    rows: int
    sha256: str
