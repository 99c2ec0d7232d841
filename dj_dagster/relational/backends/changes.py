"""Changes of tables, as backends make and tell them: altered, made anew, written, dumped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.model.names import TableName

Read = Callable[[Callable[[SAConnection], Any]], Any]


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


class Remaking(ABC):
    """What making a table anew takes beside CREATE TABLE and INSERT."""

    @abstractmethod
    def translation(
        self, name: str, pairs: Sequence[tuple[Any, Any]]
    ) -> AbstractContextManager[sa.TableClause]:
        """Give a table of this session alone, with columns `old` and `new`, of pairs of values."""

    @abstractmethod
    def rename(self, made: TableName, name: TableName) -> None:
        """Give a new table its name."""

    @abstractmethod
    def unmatched(self, name: TableName) -> Sequence[str]:
        """Return the parent of each row of a table whose parent's row is not there."""


class WriteMarks(ABC):
    """The marks by which a database tells that tables were written, as they were last seen."""

    @abstractmethod
    def written(self, read: Read) -> frozenset[TableName]:
        """Return the tables that may have been written since the last call; at first all.

        It costs the same however large the tables are. A table too many is looked at in vain; one
        too few is a change that is not seen before the next sweep.

        Parameters
        ----------
        read
            Returns what a function returns that is given a session of the connection.
        """


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
