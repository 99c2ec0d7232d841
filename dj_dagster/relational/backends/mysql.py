"""MySQL and MariaDB: one database for each schema, in the layout of DataJoint 2.3.

Membership in many values is written into the statement, because ten thousand parameters of
SQLAlchemy and the driver take longer than the rest of the query.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import ExecutableDDLElement

from dj_dagster.errors import ConfigurationError, DataJointError, DefinitionError
from dj_dagster.model.heading import Attribute, Default, IndexDeclaration, Value, Values
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.algebra.nodes import parse_json_path
from dj_dagster.relational.backends import common, mysql_server, mysql_statements
from dj_dagster.relational.backends.base import Backend, Convert, Hinted
from dj_dagster.relational.backends.common import (
    MYSQL_CASTS,
    Element,
    LongPieces,
    Pieces,
    Rights,
    Select,
    cast_type,
    demands_tls,
    leaves_tls_open,
    shown_url,
    without_secrets,
)
from dj_dagster.relational.backends.mysql_json import json_at, json_is
from dj_dagster.relational.backends.mysql_server import ServerMarks
from dj_dagster.relational.stored import (
    ColumnChange,
    DumpedTable,
    InsertMode,
    InsertStatement,
    RawTable,
    TableChanges,
)
from dj_dagster.relational.values import in_column, shortest_single

_CORE_TYPES = {
    "int8": "tinyint",
    "int16": "smallint",
    "int32": "int",
    "int64": "bigint",
    "float32": "float",
    "float64": "double",
    "bool": "tinyint",
    "uuid": "binary(16)",
    "bytes": "longblob",
    "json": "json",
}
_SERVER_SCHEMAS = {"information_schema", "mysql", "performance_schema", "sys"}


class MySQLBackend(Backend):
    """MySQL 8 and later, MariaDB 10.7 and later, through PyMySQL."""

    name = "mysql"
    begin = "START TRANSACTION"
    # A lower level of isolation, which may be a server's default, does not give a snapshot.
    begin_snapshot = (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
    )
    indexes_in_table = True
    keeps_lineage = True
    holds_old_era = True
    session_id = "CONNECTION_ID()"

    def create_engine(self, url: sa.URL) -> sa.Engine:
        """Return an engine in strict SQL mode, as DataJoint sets it."""
        modes = "ONLY_FULL_GROUP_BY,NO_ZERO_IN_DATE,NO_ZERO_DATE,STRICT_ALL_TABLES"
        address, secrets = without_secrets(url)
        options = {"sql_mode": modes, "charset": "utf8mb4", "connect_timeout": 10, **secrets}
        try:
            engine = sa.create_engine(
                address.set(drivername="mysql+pymysql"),
                isolation_level="AUTOCOMMIT",
                paramstyle="format",
                skip_autocommit_rollback=True,
                enable_from_linting=False,
                # Values may be private.
                hide_parameters=True,
                max_overflow=-1,
                pool_recycle=3600,
                connect_args=options,
            )
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"{shown_url(url)} needs the driver {error.name}: pip install 'dj-dagster[mysql]'"
            ) from error
        mysql_server.watch(engine)
        if demands_tls(url):
            mysql_server.refuse_plain_text(engine)
        elif leaves_tls_open(url):
            mysql_server.share_tls_context(engine)
        return engine

    def is_closed(self, session: SAConnection) -> bool:
        """Check the socket, which avoids a round trip."""
        return mysql_server.is_closed(session.connection.dbapi_connection)

    def full_name(self, name: TableName) -> str:
        """Quote the database and the table as DataJoint does."""
        return name.quoted

    def ddl_name(self, name: TableName) -> tuple[str, str | None]:
        """Return the schema as the name of a database."""
        return name.table, name.schema

    def sql_table(self, name: TableName, *columns: sa.ColumnClause[Any]) -> sa.TableClause:
        """Return the table as ``schema.table``."""
        return sa.table(name.table, *columns, schema=name.schema)

    def column_type(self, attribute_type: AttributeType, default: Default | None = None) -> str:
        """Map core types to native ones, which pass through."""
        del default
        return _CORE_TYPES.get(attribute_type.text, attribute_type.text)

    def default_sql(self, default: Default, attribute_type: AttributeType) -> str:
        """Double backslashes, which are escapes in MySQL's strings."""
        sql = super().default_sql(default, attribute_type)
        return sql if default.is_expression else sql.replace("\\", "\\\\")

    def index_part(self, part: str) -> str:
        """Index a path into JSON by its value, as DataJoint does."""
        path = parse_json_path(part)
        if path is None:
            return part
        kind = f" returning {cast_type(path.returning, MYSQL_CASTS)}" if path.returning else ""
        quoted = path.path.replace("\\", "\\\\").replace("'", "''")
        return f"(json_value(`{path.name}`, _utf8mb4'{quoted}'{kind}))"

    def encoder(self, attribute_type: AttributeType) -> Convert | None:
        """Leave dates and decimals as they are, which PyMySQL takes.

        PyMySQL writes times with six digits or without any, but MySQL compares rows of values with
        times as text.
        """
        match attribute_type.family:
            case Family.TIME:
                digits = attribute_type.size or 0
                return lambda value: (
                    value if isinstance(value, str) else common.time_text(value, digits)
                )
            case Family.UUID:
                return lambda value: value.bytes
            case Family.JSON:
                return json.dumps
            case Family.FLOAT if (places := attribute_type.scale) is not None:
                return lambda v: in_column(v, places) if v == round(v, places) else v
            case _:
                return None

    def fetched(self, column: Element, kind: AttributeType) -> Element:
        """Widen floats: the server would print only six digits of those of 32 bits.

        Computed ones of 64 bits can have 32 on one of the servers. A difference is used, since a
        sum would lose the sign of -0.
        """
        is_float = kind.family is Family.FLOAT
        return column - sa.literal_column("0e0") if is_float else column

    def decoder(self, attribute_type: AttributeType) -> Convert | None:
        """Undo `encoder`; times come as durations."""
        match attribute_type.family:
            case Family.UUID:
                return lambda value: UUID(bytes=value)
            case Family.JSON:
                return json.loads
            case Family.BOOL:
                return bool
            case Family.TIME:
                return common.as_time
            case Family.FLOAT if attribute_type.is_single:
                return shortest_single
            case Family.FLOAT if (places := attribute_type.scale) is not None:
                return lambda value: round(value, places)
            case _:
                return None

    def own_statement(
        self, sql: str, *, filled: bool, is_table: Callable[[TableName], bool]
    ) -> str:
        """Double per cent signs, which the driver takes for placeholders in any case."""
        del is_table
        return sql if filled else sql.replace("%", "%%")

    def user(self, connection: SAConnection) -> str:
        """Query the server, which may know the user under another host than the client."""
        return connection.exec_driver_sql("SELECT CURRENT_USER()").scalar_one()

    def computed_decoder(self) -> Convert | None:
        """Convert decimals, the results of sums and averages, to int or float."""
        return _plain_number

    def json_value(self, column: Element, path: str, returning: str | None) -> Element:
        """Cast the text: MariaDB lacks RETURNING. MySQL returns objects and arrays as JSON."""
        value = json_at("json_value", column, path)
        if returning is None:
            return value
        kind = sa.literal_column(cast_type(returning, MYSQL_CASTS))
        return Pieces(["CAST", Pieces([value, " AS ", kind])])

    def json_is(self, column: Element, path: str, value: str) -> Element:
        """Let the server compare; see the function `json_is`."""
        return json_is(column, path, value)

    def is_among(
        self, columns: Sequence[Element], rows: Sequence[Values]
    ) -> sa.ColumnElement[bool]:
        """Write many values into the statement; see the function `among`."""
        written = among(columns, rows)
        return super().is_among(columns, rows) if written is None else written

    def is_beyond(
        self, columns: Sequence[Element], last: Sequence[Value]
    ) -> sa.ColumnElement[bool]:
        """Compare column by column: for comparisons of whole rows, servers scan the table."""
        ways = [
            sa.and_(*[c == v for c, v in zip(columns[:n], last, strict=False)], column > last[n])
            for n, column in enumerate(columns)
        ]
        return sa.or_(*ways)

    def along_key(self, statement: Hinted, target: sa.TableClause) -> Hinted:
        """Use the primary key: through the index of statuses it would lock the jobs of others."""
        hint = "FORCE INDEX (PRIMARY)"
        if isinstance(statement, sa.Select):
            return statement.with_hint(target, hint)
        return statement.with_hint(hint, target)

    def knows_md5(self, session: SAConnection) -> bool:
        """Whether the server is MariaDB, or MySQL before 9.6."""
        known = session.dialect.server_version_info or ()
        return getattr(session.dialect, "is_mariadb", False) or known < (9, 6)

    def identity(self, connection: SAConnection, schema: str, *, create: bool) -> str | None:
        """Read the server's identity on MySQL, and that of a hidden table on MariaDB."""
        return mysql_server.identity(connection, schema, create=create)

    def rights(self, connection: SAConnection) -> Rights:
        """Read the user's grants, including those of the active roles."""
        return mysql_server.rights(connection)

    def schema_names(self, connection: SAConnection) -> list[str]:
        """Return the databases that are the users' own."""
        names = connection.exec_driver_sql("SHOW DATABASES").scalars()
        return sorted(name for name in names if name.lower() not in _SERVER_SCHEMAS)

    def create_schema(self, connection: SAConnection, schema: str) -> None:
        """Create the database."""
        connection.execute(sa.schema.CreateSchema(schema, if_not_exists=True))

    def drop_schema(self, connection: SAConnection, schema: str) -> None:
        """Drop the database."""
        connection.execute(sa.schema.DropSchema(schema, if_exists=True))

    def drop_tables(self, connection: SAConnection, names: Sequence[TableName]) -> None:
        """Drop the tables in one statement."""
        quote = connection.dialect.identifier_preparer.quote
        tables = ", ".join(f"{quote(name.schema)}.{quote(name.table)}" for name in names)
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {tables}")

    def table_options(self, comment: str) -> dict[str, Any]:
        """Make tables of InnoDB with a comment."""
        return {"mysql_engine": "InnoDB", "comment": comment or None}

    @contextmanager
    def locked(
        self, session: SAConnection, name: TableName, read: Iterable[TableName]
    ) -> Generator[None]:
        """Use LOCK TABLES, which lets the session use only these tables, by these names."""
        table = self.full_name(name)
        others = (f"{self.full_name(other)} READ" for other in dict.fromkeys(read) if other != name)
        tables = ", ".join([f"{table} WRITE", f"{table} AS t1 WRITE", *others])
        session.exec_driver_sql(f"LOCK TABLES {tables}".replace("%", "%%"))
        try:
            yield
        finally:
            try:
                session.exec_driver_sql("UNLOCK TABLES")
            except SQLAlchemyError:
                # The server unlocks them when the connection ends.
                session.invalidate()

    def alter_table(self, session: SAConnection, changes: TableChanges) -> None:
        """Run one ALTER TABLE, after one for each column of `TableChanges.floats`."""
        quote = session.dialect.identifier_preparer.quote_identifier
        table = self.full_name(changes.name).replace("%", "%%")
        clauses = [
            *(f"DROP FOREIGN KEY {quote(name)}" for name in changes.dropped_keys),
            *(f"DROP INDEX {quote(name)}" for name in changes.dropped_indexes),
            *(f"DROP COLUMN {quote(name)}" for name in changes.dropped_columns),
            *(_column_clause(column, quote) for column in changes.columns),
            *(f"ADD {index}" for index in changes.added_indexes),
            *(f"ADD {key}" for key in changes.added_keys),
        ]
        if changes.comment is not None:
            clauses.append(f"COMMENT = {changes.comment}")
        shown = session.exec_driver_sql(f"SHOW CREATE TABLE {table}").fetchall()[0][1].splitlines()
        before = {
            column: line.strip(" ,").replace("%", "%%")
            for column in changes.floats
            for line in shown
            if line.startswith(f"  {quote(column)} ")
        }
        try:
            for column, definition in before.items():
                _widen_floats(session, self.sql_table(changes.name, sa.column(column)), definition)
            session.exec_driver_sql(f"ALTER TABLE {table} {', '.join(clauses)}")
        except SQLAlchemyError:
            for definition in before.values():
                with suppress(SQLAlchemyError):
                    session.exec_driver_sql(f"ALTER TABLE {table} MODIFY COLUMN {definition}")
            raise

    def create_table(
        self, connection: SAConnection, name: TableName, statements: Sequence[ExecutableDDLElement]
    ) -> bool:
        """Use IF NOT EXISTS, which leaves a warning where the table exists."""
        del name
        warnings = 0
        for statement in statements:
            result = connection.execute(statement)
            warnings += getattr(result.context.cursor, "warning_count", 0)
        return not warnings

    def index_expression(self, part: str, dialect: sa.Dialect) -> str:
        """Refuse it on MariaDB, which can index only columns."""
        if getattr(dialect, "is_mariadb", False):
            raise DefinitionError(
                f"MariaDB has no indexes of expressions, such as {part}. Index the attributes, or "
                "keep the value in an attribute of its own and index that."
            )
        return part

    def definition_text(self, text: str) -> str:
        """Escape characters of more than three bytes, which servers lose in definitions."""
        return mysql_server.escaped(text)

    def rounds_seconds(self, connection: SAConnection) -> bool:
        """Read the SQL mode, whose defaults differ: MySQL rounds and MariaDB truncates."""
        maria = getattr(connection.dialect, "is_mariadb", False)
        mode = str(connection.exec_driver_sql("SELECT @@sql_mode").scalar())
        return "TIME_ROUND_FRACTIONAL" in mode if maria else "TIME_TRUNCATE" not in mode

    def reflect(self, connection: SAConnection, schema: str) -> list[RawTable]:
        """Read information_schema, three statements for the whole database."""
        return mysql_server.tables(connection, schema)

    def indexes(
        self, connection: SAConnection, schema: str, table: str | None = None
    ) -> dict[str, dict[str, IndexDeclaration]]:
        """Read information_schema."""
        return mysql_server.indexes(connection, schema, table)

    def foreign_key_names(
        self, connection: SAConnection, name: TableName
    ) -> dict[tuple[TableName, tuple[str, ...]], str]:
        """Read information_schema."""
        return mysql_server.foreign_key_names(connection, name)

    def schema_edges(self, connection: SAConnection) -> set[tuple[str, str]]:
        """Read information_schema."""
        return mysql_server.schema_edges(connection)

    def size_on_disk(self, connection: SAConnection, names: Sequence[TableName]) -> int:
        """Read the server's estimates."""
        return mysql_server.size_on_disk(connection, names)

    def row_digest(self, columns: Sequence[tuple[Element, Attribute]]) -> sa.ColumnElement[int]:
        """Use a checksum of the values as text."""
        return row_digest(columns)

    def digest_xor(self, columns: Sequence[tuple[Element, Attribute]]) -> sa.ColumnElement[int]:
        """Use the exclusive or, which costs less than a sum."""
        return sa.func.bit_xor(self.row_digest(columns))

    def write_marks(self, engine: sa.Engine, names: Collection[TableName]) -> ServerMarks:
        """Read information_schema and, on MySQL, performance_schema."""
        del engine
        return ServerMarks(names)

    def limit_waiting(self, connection: SAConnection, seconds: int | None) -> None:
        """Set the lock timeout, by default a year on MySQL and a day on MariaDB."""
        limit = "DEFAULT" if seconds is None else seconds
        connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {limit}")

    def tables_behind(self, connection: SAConnection, view: TableName) -> set[TableName]:
        """Read the tables from the text of the view."""
        return mysql_server.tables_behind(connection, view)

    def insert_from(
        self,
        target: sa.TableClause,
        names: Sequence[str],
        select: Select,
        key: tuple[str, ...],
        mode: InsertMode,
    ) -> sa.Executable:
        """Skip as `insert_sql` does."""
        return mysql_statements.from_select(target, names, select, key, mode)

    def insert_sql(
        self, name: TableName, columns: tuple[str, ...], key: tuple[str, ...], mode: InsertMode
    ) -> str:
        """Skip by an update that changes nothing: INSERT IGNORE would swallow other errors too."""
        return mysql_statements.one_row(name, columns, key, mode)

    def insert_statements(
        self,
        name: TableName,
        columns: tuple[str, ...],
        values: Sequence[Sequence[Value]],
        count: int,
        key: tuple[str, ...],
        mode: InsertMode,
    ) -> Iterator[InsertStatement]:
        """Write many rows into the text of each statement, which saves round trips."""
        return mysql_statements.many_rows(name, columns, values, count, key, mode)

    def translate(self, error: DBAPIError) -> DataJointError | None:
        """Decide by the server's error number."""
        return mysql_server.translate(error)

    def dump(
        self, session: SAConnection, folder: Path, schemas: Sequence[str]
    ) -> list[DumpedTable]:
        """Write SQL, one file for each table."""
        return mysql_statements.dump(session, folder, schemas)

    def load(
        self,
        session: SAConnection,
        folder: Path,
        schemas: Sequence[str],
        tables: Sequence[DumpedTable],
    ) -> None:
        """Run the SQL, and compare the rows."""
        mysql_statements.load(session, folder, schemas, tables)

    def occupied(self, session: SAConnection, schemas: Sequence[str]) -> list[str]:
        """Return the tables of the schemas."""
        return mysql_statements.occupied(session, schemas)

    def uptime(self, connection: SAConnection) -> int | None:
        """Ask the server."""
        return mysql_server.uptime(connection)

    def processes(self, connection: SAConnection) -> str | None:
        """Return a table that can be read regardless of other connections' statements."""
        return mysql_server.processes(connection)

    def end_process(self, session: SAConnection, number: int) -> None:
        """Kill the connection."""
        session.exec_driver_sql(f"KILL {number}")

    def set_password(self, session: SAConnection, password: str) -> None:
        """Set the password; on MariaDB with PASSWORD(), without which it expects a hash."""
        value = "PASSWORD(%s)" if getattr(session.dialect, "is_mariadb", False) else "%s"
        session.exec_driver_sql(f"SET PASSWORD = {value}", (password,))

    def stop_query(self, engine: sa.Engine, session: SAConnection) -> None:
        """Kill the query: the server would send all its rows before the connection is free."""
        number = session.connection.dbapi_connection.thread_id()  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        with suppress(SQLAlchemyError), engine.connect() as killer:
            killer.exec_driver_sql(f"KILL QUERY {number}")


def _widen_floats(session: SAConnection, table: sa.TableClause, definition: str) -> None:
    """Give a table's only column here 64 bits, and its values the digits that they were read with.

    Ended between its statements, it leaves a column that a further `alter` completes, because its
    comment still has the type of 32 bits.

    Parameters
    ----------
    definition
        The column as the server shows it.
    """
    (column,) = table.c
    names = session.dialect.identifier_preparer
    query = sa.select(column - sa.literal_column("0e0")).distinct().where(column.is_not(None))
    values = session.execute(query).scalars().all()
    pairs = [(value, short) for value in values if (short := shortest_single(value)) != value]
    floats = sa.table("dj_floats", sa.column("old"), sa.column("new"), schema=table.schema)
    made = names.format_table(floats).replace("%", "%%")
    # Before the table is changed, for users may not be allowed to do this. One of these may be left
    # in the session where the change failed.
    session.exec_driver_sql(f"DROP TEMPORARY TABLE IF EXISTS {made}")
    session.exec_driver_sql(
        f"CREATE TEMPORARY TABLE {made} (old double PRIMARY KEY, new double NOT NULL)"
    )
    if pairs:
        session.execute(sa.insert(floats), [{"old": old, "new": new} for old, new in pairs])
    name = names.format_table(table).replace("%", "%%")
    wide = re.sub(r"(?<=` )float(\(\d+(,\d+)?\))?", "double", definition, count=1)
    session.exec_driver_sql(f"ALTER TABLE {name} MODIFY COLUMN {wide}")
    session.execute(
        sa.update(table).where(column == floats.c.old).values({column.name: floats.c.new})
    )
    session.exec_driver_sql(f"DROP TEMPORARY TABLE {made}")


def _column_clause(column: ColumnChange, quote: Callable[[str], str]) -> str:
    place = f"AFTER {quote(column.after)}" if column.after is not None else "FIRST"
    if column.old is None:
        return f"ADD COLUMN {column.sql} {place}"
    if column.old != column.name:
        return f"CHANGE COLUMN {quote(column.old)} {column.sql} {place}"
    return f"MODIFY COLUMN {column.sql} {place}"


def _plain_number(value: Value) -> Value:
    if not isinstance(value, Decimal):
        return value
    return int(value) if value.as_tuple().exponent == 0 else float(value)


FEW = 20
"""Number of rows up to which they are passed as parameters, so that statements stay alike."""

_LITERALS: dict[type, Callable[[Any], str]] = {
    int: str,
    str: lambda text: "'" + text.replace("'", "''") + "'",
    bytes: lambda value: f"x'{value.hex()}'",
    date: lambda value: f"'{value.isoformat()}'",
    datetime: lambda value: f"'{value.isoformat(' ')}'",
    Decimal: lambda value: f"{value:f}",
}


def among(columns: Sequence[Element], rows: Sequence[Values]) -> sa.ColumnElement[bool] | None:
    """Return the condition that the columns together have one of many values.

    None for few rows, and for values that the driver handles better.
    """
    if len(rows) <= FEW:
        return None
    texts = [_literals([row[n] for row in rows]) for n in range(len(columns))]
    given = [text for text in texts if text is not None]
    if len(given) < len(columns):
        return None
    if len(given) == 1:
        return LongPieces([columns[0], f" IN ({','.join(given[0])})"])
    values = "),(".join(map(",".join, zip(*given, strict=True)))
    return LongPieces([sa.tuple_(*columns), f" IN (({values}))"])


def _literals(values: Sequence[Value]) -> list[str] | None:
    """Return values of one type as SQL."""
    kinds = set(map(type, values))
    kind = kinds.pop()
    if kinds or kind not in _LITERALS:
        return None
    if kind is str:
        text = "".join(values)
        if "\\" in text:
            # The meaning of a backslash depends on the server's settings.
            return None
        if "'" not in text:
            return [f"'{value}'" for value in values]
    return list(map(_LITERALS[kind], values))


_AS_HEX = (Family.STRING, Family.ENUM, Family.UUID, Family.JSON, Family.CODEC)


def row_digest(columns: Sequence[tuple[Element, Attribute]]) -> sa.Function[int]:
    """Return a checksum of the checksum's digits.

    A checksum alone is linear: after an exchange of two values between rows, the combined checksum
    of both rows is unchanged. MD5 costs more, and MySQL 9.6 and later lack it.
    """
    text = sa.func.concat_ws(",", *(_text(column, attribute) for column, attribute in columns))
    return sa.func.crc32(sa.func.crc32(text))


def _text(column: Element, attribute: Attribute) -> Element:
    family = attribute.family
    if attribute.holds_bytes:
        value = sa.func.length(column)
    elif family in _AS_HEX or family is None:
        # Texts of two collations cannot be joined, and a text with a comma would read as two texts.
        value = sa.func.hex(column)
    elif family is Family.FLOAT:
        # A float of 32 bits would be written with only six digits.
        value = column + sa.literal_column("0e0")
    else:
        value = column
    return sa.func.ifnull(value, "-") if attribute.nullable else value
