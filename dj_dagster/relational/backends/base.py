"""What a SQL backend must say about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError

from dj_dagster.errors import DataJointError
from dj_dagster.model.declaration import Default
from dj_dagster.model.table_name import TableName
from dj_dagster.model.types import AttributeType
from dj_dagster.relational.stored import RawTable

Convert = Callable[[Any], Any]
InsertMode = Literal["insert", "skip", "replace"]


class Backend(ABC):
    """The differences between databases; one instance serves one connection and holds no state."""

    name: str
    """What users call it: ``"sqlite"``, ``"mysql"``."""

    begin: str
    """The statement that opens a transaction that is going to write."""

    indexes_in_table: bool = False
    """Whether CREATE TABLE can hold indexes, so that table and indexes come to be as one."""

    keeps_lineage: bool = False
    """Whether schemas have DataJoint's ``~lineage`` table, which only DataJoint itself needs."""

    @abstractmethod
    def create_engine(self, url: sa.URL) -> sa.Engine:
        """Return an engine in autocommit mode; transactions are opened by `begin`."""

    @abstractmethod
    def sql_table(self, name: TableName, *columns: sa.ColumnClause[Any]) -> sa.TableClause:
        """Return the SQL spelling of a table."""

    @abstractmethod
    def ddl_name(self, name: TableName) -> tuple[str, str | None]:
        """Return the ``(name, schema)`` by which `sqlalchemy.Table` spells a table."""

    @abstractmethod
    def column_type(self, attribute_type: AttributeType, default: Default | None = None) -> str:
        """Return the column type for an attribute type that is no codec."""

    def default_sql(self, default: Default, attribute_type: AttributeType) -> str:
        """Return a column default as SQL: DataJoint quotes all literals, numbers too."""
        del attribute_type
        if default.is_expression:
            return default.value
        return "'" + default.value.replace("'", "''") + "'"

    def index_part(self, part: str) -> str:
        """Return the SQL of what an index line names besides attributes: ``a(10)``, ``(expr)``."""
        return part

    @abstractmethod
    def encoder(self, attribute_type: AttributeType) -> Convert | None:
        """Return what turns a checked Python value into the driver's, None for nothing to do."""

    def fetched(self, column: sa.ColumnElement[Any], kind: AttributeType) -> sa.ColumnElement[Any]:
        """Return what to select so that a column's values arrive as they are stored."""
        del kind
        return column

    @abstractmethod
    def decoder(self, attribute_type: AttributeType) -> Convert | None:
        """Return what turns the driver's value into a Python value, None for nothing to do."""

    def is_among(
        self, columns: Sequence[sa.ColumnElement[Any]], rows: Sequence[tuple[Any, ...]]
    ) -> sa.ColumnElement[bool]:
        """Return the condition that the columns together have one of many values."""
        if len(columns) == 1:
            return columns[0].in_([row[0] for row in rows])
        return sa.tuple_(*columns).in_(rows)

    @abstractmethod
    def schema_names(self, connection: SAConnection) -> list[str]:
        """Return the schemas that exist."""

    @abstractmethod
    def create_schema(self, connection: SAConnection, schema: str) -> None:
        """Create a schema unless it exists."""

    @abstractmethod
    def drop_schema(self, connection: SAConnection, schema: str) -> None:
        """Drop a schema with all its tables."""

    @abstractmethod
    def table_options(self, comment: str) -> dict[str, Any]:
        """Return the keyword arguments of `sqlalchemy.Table` for a new table."""

    def after_create(
        self,
        connection: SAConnection,
        name: TableName,
        comment: str,
        column_comments: dict[str, str],
    ) -> None:
        """Keep what the database's own DDL cannot (nothing, unless a backend says otherwise).

        Parameters
        ----------
        column_comments
            By column, each with its type in front unless it is inherited.
        """
        del connection, name, comment, column_comments

    @abstractmethod
    def reflect(self, connection: SAConnection, schema: str) -> list[RawTable]:
        """Return all tables of a schema, hidden ones too, in a bounded number of statements."""

    @abstractmethod
    def foreign_keys_into(
        self, connection: SAConnection, schemas: Sequence[str]
    ) -> set[tuple[str, str]]:
        """Return ``(child schema, parent schema)`` of foreign keys into the given schemas."""

    @abstractmethod
    def insert_sql(
        self, name: TableName, columns: tuple[str, ...], key: tuple[str, ...], mode: InsertMode
    ) -> str:
        """Return the INSERT of one row of `columns`, positional parameters in that order."""

    @abstractmethod
    def translate(self, error: DBAPIError) -> DataJointError | None:
        """Return our error for a driver's, or None when nothing particular is known of it."""
