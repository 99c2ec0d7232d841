"""The protocol of SQL backends, and the statements by which they insert rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from itertools import compress, groupby
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import ExecutableDDLElement

from dj_dagster.errors import DataJointError
from dj_dagster.model.declaration import Default, IndexDeclaration
from dj_dagster.model.heading import Attribute
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType
from dj_dagster.relational.backends.changes import DumpedTable, Remaking, TableChanges, WriteMarks
from dj_dagster.relational.backends.common import ALL_RIGHTS, Rights
from dj_dagster.relational.stored import RawTable
from dj_dagster.relational.user_sql.emission import Piece

Convert = Callable[[Any], Any]
Purpose = Literal["value", "order", "condition"]
Hinted = TypeVar("Hinted", sa.Select[Any], sa.Update)


class Backend(ABC):
    """The differences between databases; one instance serves one connection and holds no state.

    A new backend is a module of this folder, and a line in `BACKENDS` of the folder's
    ``__init__.py``. Nothing above this folder asks which database there is. It asks for the
    attributes below, each of which says what a database can do, and calls these methods.
    `dj_dagster.testing.BackendConformance` tries what they must make true:

    Sessions
        Those of `create_engine` take parameters by their position, are in autocommit mode until
        `begin`, and end what it began by COMMIT or ROLLBACK. They read what is committed, in their
        own transaction also what is not. A writer that is in the way of another makes it wait, and
        of two that wait for each other one gets an error that `translate` calls transient.
    Tables
        CREATE TABLE and all that belongs to it is there as a whole or not at all. `reflect` returns
        what was declared, as does any other client's table of the same database: types by the
        comment's marker where there is one, and by the column's own type else.
    Values
        What `encoder` gives to the driver comes back through `decoder` as the same value of the
        same type, in each core type, and is found by conditions on it. `fetched` may change how a
        column is selected so that this holds.
    SQL of users
        It is MySQL's, and means the same everywhere, or is refused by name; see `translated`.
    Errors
        `translate` names what users can act on: a duplicate, a parent that is not there, a table
        that is not there, a lost connection. A lost connection is never told for less.
    Locks
        ``SELECT ... FOR UPDATE SKIP LOCKED`` leaves out the rows that another transaction has
        locked. Where a whole database has one writer it may be left out of the SQL.
    Clock
        The database's own is the only one: `default_sql` spells CURRENT_TIMESTAMP, with the digits
        of a second that the column keeps.

    What is not abstract is the SQL standard's way, or what a database without the thing in question
    needs, and is inherited where that is right.
    """

    name: str
    """What users call it: ``"sqlite"``, ``"mysql"``."""

    begin: str
    """The statement that opens a transaction that is going to write."""

    begin_snapshot: tuple[str, ...]
    """The statements that open one that reads all tables as they are at one moment."""

    indexes_in_table: bool = False
    """Whether CREATE TABLE can hold indexes, so that table and indexes come to be as one."""

    keeps_comments: bool = True
    """Whether the database itself keeps comments of columns."""

    alters_tables: bool = True
    """Whether ALTER TABLE can do all that `alter` needs; else tables are made anew."""

    rolls_back_ddl: bool = False
    """Whether statements that change tables are part of a transaction."""

    integer_division: str = "DIV"
    """The operator that divides integers, towards zero."""

    has_server: bool = True
    """Whether it is reached over a network: it has accounts, and numbers for its sessions."""

    session_id: str | None = None
    """The SQL of the number that the server has given to the session, None where it gives none."""

    dumps_everything: bool = False
    """Whether `dump` and `load` take all schemas together, whichever are asked for."""

    holds_old_era: bool = False
    """Whether schemas may be those of DataJoint 0.14, whose SQL the modules of that era write."""

    uuid_is_text: bool = False
    """Whether SQL of users finds a UUID as its 36 characters; else as 16 bytes."""

    looks_up_quickly: bool = False
    """Whether it looks a key of each row up sooner than it takes digests of the rows.

    Of a million keys of two integers: 0.3 s against 2.6 s on SQLite, whose digests are Python.
    """

    has_infinity: bool = False
    """Whether a column of floats may hold an infinite number, from whatever client."""

    row_order: str | None = None
    """The column, not part of any heading, that numbers rows as they come, where there is one."""

    tells_text_apart: bool = False
    """Whether texts are equal only if they are written alike; else a collation compares them."""

    keeps_lineage: bool = False
    """Whether schemas have DataJoint's ``~lineage`` table, which only DataJoint itself needs."""

    @abstractmethod
    def create_engine(self, url: sa.URL) -> sa.Engine:
        """Return an engine in autocommit mode; transactions are opened by `begin`."""

    def is_in_memory(self, engine: sa.Engine) -> bool:
        """Whether no other process or session can see the database, as it is in none but ours."""
        del engine
        return False

    def is_closed(self, session: SAConnection) -> bool:
        """Whether a session that nothing was asked of is known to lead nowhere any more."""
        del session
        return False

    @abstractmethod
    def sql_table(self, name: TableName, *columns: sa.ColumnClause[Any]) -> sa.TableClause:
        """Return the SQL spelling of a table."""

    @abstractmethod
    def full_name(self, name: TableName) -> str:
        """Return a table's name as it is written into SQL, quoted."""

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

    def index_expression(self, part: str, dialect: sa.Dialect) -> str:
        """Return a part of an index that is SQL and not an attribute.

        Raises
        ------
        DefinitionError
            If the server has no such indexes.
        """
        del dialect
        return part

    def definition_text(self, text: str) -> str:
        """Return a text of a definition as the server can keep it; `reflect` undoes it."""
        return text

    @abstractmethod
    def encoder(self, attribute_type: AttributeType) -> Convert | None:
        """Return what turns a checked Python value into the driver's, None for nothing to do."""

    def fetched(self, column: sa.ColumnElement[Any], kind: AttributeType) -> sa.ColumnElement[Any]:
        """Return what to select so that a column's values arrive as they are stored."""
        del kind
        return column

    def undecoded(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return what to select so that text arrives as bytes, where it may be none."""
        return column

    def legible(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return what came of `undecoded` columns, with text for the bytes that are text."""
        return tuple(values)

    @abstractmethod
    def decoder(self, attribute_type: AttributeType) -> Convert | None:
        """Return what turns the driver's value into a Python value, None for nothing to do."""

    def computed_decoder(self) -> Convert | None:
        """Return what makes int or float of numbers that queries compute, None if they are."""
        return None

    @abstractmethod
    def json_value(
        self, column: sa.ColumnElement[Any], path: str, returning: str | None
    ) -> sa.ColumnElement[Any]:
        """Return the value at a path inside JSON; only MySQL gives one for objects and arrays.

        Parameters
        ----------
        path
            As MySQL has it: ``$.device.channels[0]``.
        returning
            A type of SQL in lower case, such as ``signed`` or ``decimal(10,2)``; None for text.

        Raises
        ------
        QueryError
            If there is no such type.
        """

    @abstractmethod
    def json_is(
        self, column: sa.ColumnElement[Any], path: str, value: str
    ) -> sa.ColumnElement[Any]:
        """Return the condition that the value at a path inside JSON is the given one.

        Numbers are compared exactly, objects whatever the order of their keys, and true is not 1.
        Where there is nothing at the path, that is null.

        Parameters
        ----------
        path
            As MySQL has it.
        value
            As JSON.
        """

    def is_among(
        self, columns: Sequence[sa.ColumnElement[Any]], rows: Sequence[tuple[Any, ...]]
    ) -> sa.ColumnElement[bool]:
        """Return the condition that the columns together have one of many values."""
        if len(columns) == 1:
            return columns[0].in_([row[0] for row in rows])
        return sa.tuple_(*columns).in_(rows)

    def is_beyond(
        self, columns: Sequence[sa.ColumnElement[Any]], last: Sequence[Any]
    ) -> sa.ColumnElement[bool]:
        """Return the condition to come after a row, spelled so that an index is used for it."""
        return sa.tuple_(*columns) > sa.tuple_(*last) if len(columns) > 1 else columns[0] > last[0]

    def translated(
        self, text: str, types: Mapping[str, AttributeType | None], purpose: Purpose
    ) -> Sequence[Piece] | None:
        """Return SQL of a user, who writes MySQL's, in the database's own words.

        Parameters
        ----------
        types
            Of the attributes that the text names.
        purpose
            What is made of it.

        Returns
        -------
        sequence
            Parts of the text, attributes by their name among them; None for a text that the
            database understands as it is.
        """
        del text, types, purpose
        return None

    def sorts(self, kind: AttributeType) -> bool:
        """Whether a column of a type is ordered as MySQL orders it; else `translated` does."""
        del kind
        return True

    def along_key(self, statement: Hinted, target: sa.TableClause) -> Hinted:
        """Return a statement on a table of jobs, made to lock no row but those of its keys."""
        del target
        return statement

    def knows_md5(self, session: SAConnection) -> bool:
        """Whether SQL of users can have MD5()."""
        del session
        return True

    @abstractmethod
    def own_placeholders(self, sql: str, *, filled: bool) -> str:
        """Return SQL as the driver takes it.

        Parameters
        ----------
        filled
            Whether it has placeholders, ``%s``, and other per cent signs are doubled.
        """

    @abstractmethod
    def user(self, connection: SAConnection) -> str:
        """Return who is connected, as ``user@host``."""

    @abstractmethod
    def identity(self, connection: SAConnection, schema: str, *, create: bool) -> str | None:
        """Return what tells the database of a schema from all others, its copies included.

        It stays when the database is dropped to its last table, and a copy has another one.

        Parameters
        ----------
        create
            Whether what it takes is put into the schema; without it None may be the answer.
        """

    def rights(self, connection: SAConnection) -> Rights:
        """Return what the user may read: everything, unless a backend says otherwise."""
        del connection
        return ALL_RIGHTS

    def rounds_seconds(self, connection: SAConnection) -> bool:
        """Return whether the server rounds the digits of a second that a column does not keep."""
        del connection
        return False

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
    def drop_tables(self, connection: SAConnection, names: Sequence[TableName]) -> None:
        """Drop tables, children given first, with what is kept about them."""

    @abstractmethod
    def table_options(self, comment: str) -> dict[str, Any]:
        """Return the keyword arguments of `sqlalchemy.Table` for a new table."""

    def alter_table(self, session: SAConnection, changes: TableChanges) -> None:
        """Change a table in place, wherever `alters_tables`."""
        del session, changes
        raise NotImplementedError

    def remaking(self, session: SAConnection) -> AbstractContextManager[Remaking]:
        """Commit what happens inside together, or nothing of it, unless `alters_tables`.

        A table to which others refer can be dropped there, and another take its place.
        """
        del session
        raise NotImplementedError

    def create_table(
        self, connection: SAConnection, name: TableName, statements: Sequence[ExecutableDDLElement]
    ) -> bool:
        """Run CREATE TABLE and what follows it; return False if the table exists already."""
        del name
        for statement in statements:
            connection.execute(statement)
        return True

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
        """Return all tables and views of a schema, hidden ones too.

        The number of statements does not grow with the number of tables.
        """

    @abstractmethod
    def indexes(
        self, connection: SAConnection, schema: str, table: str | None = None
    ) -> dict[str, dict[str, IndexDeclaration]]:
        """Return the indexes of a schema's tables, or of one, by table and then by their name.

        Primary keys are left out. Parts are spelled as in definitions: ``a``, ``a(10)``, ``(SQL)``.
        """

    def foreign_key_names(
        self, connection: SAConnection, name: TableName
    ) -> dict[tuple[TableName, tuple[str, ...]], str]:
        """Return the names of a table's foreign keys by their parent and their own columns."""
        del connection, name
        return {}

    @abstractmethod
    def schema_edges(self, connection: SAConnection) -> set[tuple[str, str]]:
        """Return ``(child schema, parent schema)`` of all foreign keys that the user may see."""

    checks_values: bool = True
    """Whether the database refuses values that do not fit their column."""

    @abstractmethod
    def size_on_disk(self, connection: SAConnection, names: Sequence[TableName]) -> int:
        """Return the bytes that tables take with their indexes, as far as the database knows."""

    @abstractmethod
    def row_digest(
        self, columns: Sequence[tuple[sa.ColumnElement[Any], Attribute]]
    ) -> sa.ColumnElement[int]:
        """Return a number of at most 60 bits that is another one when values of a row are.

        It is the same in all processes. Of bytes that the table holds itself the length counts.
        """

    @abstractmethod
    def digest_xor(
        self, columns: Sequence[tuple[sa.ColumnElement[Any], Attribute]]
    ) -> sa.ColumnElement[int]:
        """Return the digests of a group of rows, which differ by their keys, in one number."""

    @abstractmethod
    def write_marks(self, engine: sa.Engine, names: Collection[TableName]) -> WriteMarks:
        """Return what tells which of some tables are written, by any client of the database.

        Parameters
        ----------
        engine
            Of the connection that will ask.
        """

    def limit_waiting(self, connection: SAConnection, seconds: int | None) -> None:
        """Limit how long statements wait for a table that somebody has locked, None for the usual.

        Readers of a file never wait.
        """
        del connection, seconds

    def tables_behind(self, connection: SAConnection, view: TableName) -> set[TableName]:
        """Return the tables whose marks tell of a view or table, none where that is not known.

        It is itself where marks are those of the whole database.
        """
        del connection
        return {view}

    @abstractmethod
    def insert_from(
        self,
        target: sa.TableClause,
        names: Sequence[str],
        select: sa.Select[Any],
        key: tuple[str, ...],
        mode: InsertMode,
    ) -> sa.Executable:
        """Return the INSERT of a query's rows."""

    @abstractmethod
    def insert_sql(
        self, name: TableName, columns: tuple[str, ...], key: tuple[str, ...], mode: InsertMode
    ) -> str:
        """Return the INSERT of one row of `columns`, positional parameters in that order."""

    def insert_statements(
        self,
        name: TableName,
        columns: tuple[str, ...],
        values: Sequence[Sequence[Any]],
        count: int,
        key: tuple[str, ...],
        mode: InsertMode,
    ) -> Iterator[InsertStatement]:
        """Return the statements that insert rows, in their order.

        Parameters
        ----------
        values
            One sequence a column, in which `DEFAULT` may occur.
        count
            Number of rows.
        """
        return statements_of(
            lambda given: self.insert_sql(name, given, key, mode), columns, values, count
        )

    @abstractmethod
    def dump(
        self, session: SAConnection, folder: Path, schemas: Sequence[str]
    ) -> list[DumpedTable]:
        """Write schemas into an empty folder, as the session's open snapshot has them.

        The session is of no use for anything else then.

        Returns
        -------
        list
            What `load` takes; nothing where all is in one file.
        """

    @abstractmethod
    def load(
        self,
        session: SAConnection,
        folder: Path,
        schemas: Sequence[str],
        tables: Sequence[DumpedTable],
    ) -> None:
        """Bring back what `dump` has written, where `occupied` finds nothing."""

    def loads(self, dumped_by: str) -> bool:
        """Whether `load` can read what the backend of a name has dumped."""
        return dumped_by == self.name

    @abstractmethod
    def occupied(self, session: SAConnection, schemas: Sequence[str]) -> list[str]:
        """Return the tables that are in the way of `load`."""

    def streaming(self, session: SAConnection) -> AbstractContextManager[None]:
        """Return what has to be open while a session gives rows a chunk at a time."""
        del session
        return nullcontext()

    def stop_query(self, engine: sa.Engine, session: SAConnection) -> None:
        """End the query whose rows a session no longer wants (nothing to do where none are sent).

        Parameters
        ----------
        engine
            Gives the connection over which that can be said.
        """
        del engine, session

    def uptime(self, connection: SAConnection) -> int | None:
        """Return the whole seconds since a server started; None where there is no server."""
        del connection

    def processes(self, connection: SAConnection) -> str | None:
        """Return the name of the table of a server's connections; None where there is no server.

        Its columns are those of ``information_schema.processlist`` of MySQL.
        """
        del connection

    def end_process(self, session: SAConnection, number: int) -> None:
        """End one of the `processes` of a server."""
        del session, number
        raise NotImplementedError

    def set_password(self, session: SAConnection, password: str) -> None:
        """Give the user who is connected to a server another password."""
        del session, password
        raise NotImplementedError

    def clashing(self, error: DataJointError) -> set[str] | None:
        """Return the columns in which a row is there already, None if an error does not name them.

        Parameters
        ----------
        error
            A `DuplicateError` of `translate`.
        """
        del error
        return None

    @abstractmethod
    def translate(self, error: DBAPIError) -> DataJointError | None:
        """Return our error for a driver's, or None when nothing particular is known of it."""


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
