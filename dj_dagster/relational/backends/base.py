"""The protocol of SQL backends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import ExecutableDDLElement

from dj_dagster.errors import DataJointError
from dj_dagster.model.heading import Attribute, Default, IndexDeclaration, Value, Values
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType
from dj_dagster.relational.backends.common import ALL_RIGHTS, Element, Rights, Select
from dj_dagster.relational.stored import (
    DumpedTable,
    InsertMode,
    InsertStatement,
    RawTable,
    Remaking,
    TableChanges,
    WriteMarks,
    statements_of,
)
from dj_dagster.relational.user_sql.attributes import Known
from dj_dagster.relational.user_sql.emission import Piece
from dj_dagster.relational.user_sql.kinds import Kind

Convert = Callable[[Value], Value]
Purpose = Literal["value", "order", "condition"]
Hinted = TypeVar("Hinted", Select, sa.Update)


class Backend(ABC):
    """The differences between databases; one instance serves one connection and holds no state.

    A new backend is a module of this folder, and a line in `BACKENDS` of the folder's
    ``__init__.py``. Code outside this folder does not ask for the kind of database. It reads the
    attributes below, each of which states a capability, and calls these methods.
    `dj_dagster.testing.BackendConformance` tests the requirements on them:

    Sessions
        Those of `create_engine` take parameters by their position, are in autocommit mode until
        `begin`, and end what it began by COMMIT or ROLLBACK. They read committed changes and those
        of their own transaction. A writer waits for another that holds its rows, and one of two
        that wait for each other gets an error that `translate` marks as transient.
    Tables
        CREATE TABLE and the statements that belong to it take effect as a whole or not at all.
        `reflect` returns tables as declared, also those of other clients: types by the comment's
        marker if it has one, otherwise by the column's own type.
    Values
        For each core type, a value from `encoder` comes back through `decoder` as the same value of
        the same type, and is found by conditions on it. `fetched` may change the selection of a
        column to ensure this.
    SQL of users
        It is MySQL's SQL and means the same on every database, or is refused by name; see
        `translated`.
    Errors
        `translate` names errors that users can act on: a duplicate, a missing parent, a missing
        table, a lost connection. A lost connection is never reported as a lesser error.
    Locks
        ``SELECT ... FOR UPDATE SKIP LOCKED`` leaves out the rows that another transaction has
        locked. A database with a single writer may leave it out of the SQL.
    Clock
        Only the database's own clock is used: `default_sql` writes CURRENT_TIMESTAMP with the
        digits of a second that the column keeps.

    Methods that are not abstract follow the SQL standard, or suit a database without the feature,
    and can be inherited where they are correct.
    """

    name: str
    """The name for users: ``"sqlite"``, ``"mysql"``."""

    begin: str
    """The statement that opens a transaction for writing."""

    begin_snapshot: tuple[str, ...]
    """The statements that open a transaction that reads all tables as of one moment."""

    indexes_in_table: bool = False
    """Whether CREATE TABLE can contain indexes, so that both are created together."""

    keeps_comments: bool = True
    """Whether the database itself keeps comments of columns."""

    alters_tables: bool = True
    """Whether ALTER TABLE can make all changes of `alter`; otherwise tables are rebuilt."""

    rolls_back_ddl: bool = False
    """Whether statements that change tables are part of a transaction."""

    integer_division: str = "DIV"
    """The operator that divides integers, towards zero."""

    has_server: bool = True
    """Whether it is reached over a network, with accounts and numbered sessions."""

    unreached: str = "Check that it runs and that DJ_DATABASE_URL, or DJ_HOST, names it."
    """Advice in the error of a database that cannot be reached."""

    session_id: str | None = None
    """The SQL of the server's number for the session, None without a server."""

    dumps_everything: bool = False
    """Whether `dump` and `load` always take all schemas together."""

    holds_old_era: bool = False
    """Whether schemas may be those of DataJoint 0.14, with the SQL of modules of that era."""

    uuid_is_text: bool = False
    """Whether SQL of users sees a UUID as its 36 characters, otherwise as 16 bytes."""

    looks_up_quickly: bool = False
    """Whether looking up a key of each row is faster than computing digests of the rows.

    For a million keys of two integers it takes 0.3 s, and 2.6 s with digests, on SQLite, whose
    digests are computed in Python.
    """

    has_infinity: bool = False
    """Whether a column of floats may hold an infinite number, even from another client."""

    most_nested: int | None = None
    """Subqueries within subqueries in a statement, about; deeper ones are named ahead."""

    row_order: str | None = None
    """The column outside of headings that numbers rows in insertion order, None without one."""

    tells_text_apart: bool = False
    """Whether texts are equal only if they are identical; otherwise a collation compares them."""

    keeps_lineage: bool = False
    """Whether schemas have DataJoint's ``~lineage`` table, which only DataJoint itself needs."""

    @abstractmethod
    def create_engine(self, url: sa.URL) -> sa.Engine:
        """Return an engine in autocommit mode; transactions are opened by `begin`."""

    def is_in_memory(self, engine: sa.Engine) -> bool:
        """Whether the database exists only in one session of this process."""
        del engine
        return False

    def is_closed(self, session: SAConnection) -> bool:
        """Whether an idle session is known to be cut off from the database."""
        del session
        return False

    def is_mixed(self, session: SAConnection) -> bool:
        """Whether what a session has read may be of two states of the database."""
        del session
        return False

    @abstractmethod
    def sql_table(self, name: TableName, *columns: sa.ColumnClause[Any]) -> sa.TableClause:
        """Return a table as an element of SQL."""

    @abstractmethod
    def full_name(self, name: TableName) -> str:
        """Return a table's name as it is written into SQL, quoted."""

    @abstractmethod
    def ddl_name(self, name: TableName) -> tuple[str, str | None]:
        """Return the ``(name, schema)`` of a table for `sqlalchemy.Table`."""

    @abstractmethod
    def column_type(self, attribute_type: AttributeType, default: Default | None = None) -> str:
        """Return the column type for an attribute type that is not a codec."""

    def default_sql(self, default: Default, attribute_type: AttributeType) -> str:
        """Return a column default as SQL: DataJoint quotes all literals, numbers too."""
        del attribute_type
        if default.is_expression:
            return default.value
        return "'" + default.value.replace("'", "''") + "'"

    def now(self, attribute_type: AttributeType) -> Element:
        """Return the database's time with the digits of a type."""
        text = f"CURRENT_TIMESTAMP({attribute_type.size or 0})"
        default = Default(text, is_expression=True)
        return sa.literal_column(self.default_sql(default, attribute_type))

    def default_element(self, default: Default, attribute_type: AttributeType) -> Element:
        """Return what an UPDATE gives an attribute for its default."""
        del default, attribute_type
        return sa.literal_column("DEFAULT")

    def index_part(self, part: str) -> str:
        """Return the SQL of a part of an index that is not an attribute: ``a(10)``, ``(expr)``."""
        return part

    def index_expression(self, part: str, dialect: sa.Dialect) -> str:
        """Return a part of an index that is SQL and not an attribute.

        Raises
        ------
        DefinitionError
            If the server lacks such indexes.
        """
        del dialect
        return part

    def definition_text(self, text: str) -> str:
        """Return a text of a definition as the server can keep it; `reflect` undoes it."""
        return text

    @abstractmethod
    def encoder(self, attribute_type: AttributeType) -> Convert | None:
        """Return the function from a checked value to the driver's, None if they are equal."""

    @abstractmethod
    def fetched(self, column: Element, kind: AttributeType) -> Element:
        """Return the expression that selects a column's values exactly as they are stored."""

    def undecoded(self, column: Element) -> Element:
        """Return the expression that selects text as bytes, where it may be invalid text."""
        return column

    def legible(self, values: Sequence[Value]) -> Values:
        """Return fetched values of `undecoded` columns, with valid text decoded."""
        return tuple(values)

    @abstractmethod
    def decoder(self, attribute_type: AttributeType) -> Convert | None:
        """Return the function from the driver's value to Python's, None if they are equal."""

    def untyped(self, value: Value) -> Value:
        """Return a value as the driver takes it, to be compared with one that is computed."""
        return value.bytes if isinstance(value, UUID) else value

    def computed_decoder(self) -> Convert | None:
        """Return the function from computed numbers to int or float, None if they already are."""
        return None

    @abstractmethod
    def json_value(self, column: Element, path: str, returning: str | None) -> Element:
        """Return the value at a path inside JSON; only MySQL returns objects and arrays too.

        Parameters
        ----------
        path
            The path in MySQL's syntax: ``$.device.channels[0]``.
        returning
            A type of SQL in lower case, such as ``signed`` or ``decimal(10,2)``; None for text.

        Raises
        ------
        QueryError
            If the type does not exist.
        """

    @abstractmethod
    def json_is(self, column: Element, path: str, value: str) -> Element:
        """Return the condition that the value at a path inside JSON is the given one.

        Numbers are compared exactly, objects regardless of the order of their keys, and true is not
        1. Without a value at the path, the condition is null.

        Parameters
        ----------
        path
            As MySQL has it.
        value
            As JSON.
        """

    def is_among(
        self, columns: Sequence[Element], rows: Sequence[Values]
    ) -> sa.ColumnElement[bool]:
        """Return the condition that the columns together have one of many values."""
        if len(columns) == 1:
            return columns[0].in_([row[0] for row in rows])
        return sa.tuple_(*columns).in_(rows)

    def is_beyond(
        self, columns: Sequence[Element], last: Sequence[Value]
    ) -> sa.ColumnElement[bool]:
        """Return the condition that selects the rows after one, in a form that uses an index."""
        return sa.tuple_(*columns) > sa.tuple_(*last) if len(columns) > 1 else columns[0] > last[0]

    def translated(
        self, text: str, types: Mapping[str, Known], purpose: Purpose
    ) -> Sequence[Piece] | None:
        """Translate a user's SQL, which is MySQL's, to the database's own.

        Parameters
        ----------
        types
            The types of the attributes that the text names, by name; for a computed one that is
            what `kind` returned.
        purpose
            The role of the text in the query.

        Returns
        -------
        sequence
            The parts of the text, with attributes given by name; None for a text that the database
            understands as it is.
        """
        del text, types, purpose
        return None

    def kind(self, text: str, types: Mapping[str, Known]) -> Kind | None:
        """Return the kind of a user's SQL if `translated` needs it for SQL with its values."""
        del text, types
        return None

    def sorts(self, kind: AttributeType) -> bool:
        """Whether a column of a type is ordered as MySQL orders it; else `translated` does."""
        del kind
        return True

    def along_key(self, statement: Hinted, target: sa.TableClause) -> Hinted:
        """Return a statement on a table of jobs in a form that locks only the rows of its keys."""
        del target
        return statement

    def knows_md5(self, session: SAConnection) -> bool:
        """Whether SQL of users can call MD5()."""
        del session
        return True

    @abstractmethod
    def own_statement(
        self, sql: str, *, filled: bool, is_table: Callable[[TableName], bool]
    ) -> str:
        """Return a user's statement with the database's own placeholders and names of tables.

        Parameters
        ----------
        filled
            Whether the SQL has placeholders, ``%s``, with other per cent signs doubled.
        is_table
            Whether the database has a table.
        """

    @abstractmethod
    def user(self, connection: SAConnection) -> str:
        """Return the connected user as ``user@host``."""

    @abstractmethod
    def identity(self, connection: SAConnection, schema: str, *, create: bool) -> str | None:
        """Return an identity of a schema's database that no other database has, not even a copy.

        It outlives the database's tables, and a copy of the database gets another one.

        Parameters
        ----------
        create
            Whether to create the table that the identity needs; otherwise the result may be None.
        """

    def rights(self, connection: SAConnection) -> Rights:
        """Return the user's rights to read: all, unless a backend overrides this."""
        del connection
        return ALL_RIGHTS

    def rounds_seconds(self, connection: SAConnection) -> bool:
        """Return whether the server rounds the digits of a second that a column does not keep."""
        del connection
        return False

    def is_writable(self, session: SAConnection) -> bool:
        """Return whether the database takes writes; a server refuses each by the user's rights."""
        del session
        return True

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
        """Drop tables, children given first, with the backend's own records of them."""

    @abstractmethod
    def table_options(self, comment: str) -> dict[str, Any]:
        """Return the keyword arguments of `sqlalchemy.Table` for a new table."""

    def locked(
        self, session: SAConnection, name: TableName, read: Iterable[TableName]
    ) -> AbstractContextManager[None]:
        """Lock a table for a session in a block, wherever `alters_tables`; others are only read."""
        del session, name, read
        raise NotImplementedError

    def alter_table(self, session: SAConnection, changes: TableChanges) -> None:
        """Change a table in place, wherever `alters_tables`."""
        del session, changes
        raise NotImplementedError

    def remaking(self, session: SAConnection) -> AbstractContextManager[Remaking]:
        """Commit the changes of a block together or not at all, unless `alters_tables`.

        In the block, a table that others refer to can be dropped and replaced by another.
        """
        del session
        raise NotImplementedError

    def create_table(
        self, connection: SAConnection, name: TableName, statements: Sequence[ExecutableDDLElement]
    ) -> bool:
        """Run CREATE TABLE and its further statements; return False if the table exists already."""
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
        """Record facts that the database's DDL cannot keep; by default none.

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

        Primary keys are left out. Parts are written as in definitions: ``a``, ``a(10)``, ``(SQL)``.
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
        """Return the size in bytes of tables and their indexes, as far as the database knows it."""

    @abstractmethod
    def row_digest(self, columns: Sequence[tuple[Element, Attribute]]) -> sa.ColumnElement[int]:
        """Return a number of at most 60 bits that changes with the values of a row.

        It is the same in all processes. For bytes in the table itself only the length counts.
        """

    @abstractmethod
    def digest_xor(self, columns: Sequence[tuple[Element, Attribute]]) -> sa.ColumnElement[int]:
        """Return the digests of a group of rows with different keys, combined in one number."""

    @abstractmethod
    def write_marks(self, engine: sa.Engine, names: Collection[TableName]) -> WriteMarks:
        """Return an object that reports which tables any client of the database has written.

        Parameters
        ----------
        engine
            The engine of the connection that will use it.
        """

    def limit_waiting(self, connection: SAConnection, seconds: int | None) -> None:
        """Limit the time that statements wait for a locked table; None for the default.

        Readers of a file never wait.
        """
        del connection, seconds

    def tables_behind(self, connection: SAConnection, view: TableName) -> set[TableName]:
        """Return the tables whose marks show writes to a view or table, none if they are not known.

        The result is the view or table itself where marks cover the whole database.
        """
        del connection
        return {view}

    @abstractmethod
    def insert_from(
        self,
        target: sa.TableClause,
        names: Sequence[str],
        select: Select,
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
        values: Sequence[Sequence[Value]],
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
        """Write schemas into an empty folder, as the session's open snapshot shows them.

        The session cannot be used for anything else afterwards.

        Returns
        -------
        list
            The tables for `load`; empty where the dump is a single file.
        """

    @abstractmethod
    def load(
        self,
        session: SAConnection,
        folder: Path,
        schemas: Sequence[str],
        tables: Sequence[DumpedTable],
    ) -> None:
        """Load a dump of `dump` into a database without `occupied` tables."""

    def loads(self, dumped_by: str) -> bool:
        """Whether `load` can read what the backend of a name has dumped."""
        return dumped_by == self.name

    @abstractmethod
    def occupied(self, session: SAConnection, schemas: Sequence[str]) -> list[str]:
        """Return the existing tables that prevent `load`."""

    def streaming(self, session: SAConnection) -> AbstractContextManager[None]:
        """Return the context that a session needs while it streams rows."""
        del session
        return nullcontext()

    def stop_query(self, engine: sa.Engine, session: SAConnection) -> None:
        """End a query whose remaining rows are not wanted; by default there is nothing to do.

        Parameters
        ----------
        engine
            Provides the connection for the command.
        """
        del engine, session

    def uptime(self, connection: SAConnection) -> int | None:
        """Return the whole seconds since a server started; None without a server."""
        del connection

    def processes(self, connection: SAConnection) -> str | None:
        """Return the name of the table of a server's connections; None without a server.

        Its columns are those of ``information_schema.processlist`` of MySQL.
        """
        del connection

    def end_process(self, session: SAConnection, number: int) -> None:
        """End one of the `processes` of a server."""
        del session, number
        raise NotImplementedError

    def set_password(self, session: SAConnection, password: str) -> None:
        """Change the password of the connected user of a server."""
        del session, password
        raise NotImplementedError

    def clashing(self, error: DataJointError) -> set[str] | None:
        """Return the columns with the duplicate values, None if an error does not name them.

        Parameters
        ----------
        error
            A `DuplicateError` of `translate`.
        """
        del error
        return None

    @abstractmethod
    def translate(self, error: DBAPIError) -> DataJointError | None:
        """Return this package's error for a driver's, None if it is not known."""
