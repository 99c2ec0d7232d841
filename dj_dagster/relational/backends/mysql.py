"""MySQL and MariaDB: one database a schema, laid out as DataJoint 2.3 lays it out."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError

import dj_dagster.relational.backends.temporal as temporal
from dj_dagster.errors import (
    AccessError,
    ConfigurationError,
    ConnectionFailedError,
    DataJointError,
    DuplicateError,
    IntegrityError,
    InvalidValueError,
    LostConnectionError,
    MissingAttributeError,
    MissingTableError,
    QueryError,
    QuerySyntaxError,
    TransientError,
    UnknownAttributeError,
)
from dj_dagster.model.declaration import Default
from dj_dagster.model.scanner import unquote
from dj_dagster.model.table_name import TableName
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.backends.base import Backend, Convert, InsertMode
from dj_dagster.relational.backends.reported import Reference, Rows, grouped, raw_table
from dj_dagster.relational.stored import RawTable, StoredColumn

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
_IDLE = 5.0
"""Seconds after which a pooled connection is tried before it is used again."""

_SERVER_SCHEMAS = {"information_schema", "mysql", "performance_schema", "sys"}

_TABLES = """
SELECT table_name, table_comment FROM information_schema.tables
WHERE table_schema = %s AND table_type = 'BASE TABLE' ORDER BY create_time, table_name
"""
_COLUMNS = """
SELECT table_name, column_name, column_type, is_nullable, column_default, column_comment, extra
FROM information_schema.columns WHERE table_schema = %s ORDER BY table_name, ordinal_position
"""
_KEYS = """
SELECT table_name, constraint_name, column_name, referenced_table_schema, referenced_table_name,
       referenced_column_name
FROM information_schema.key_column_usage WHERE table_schema = %s
ORDER BY table_name, constraint_name, ordinal_position
"""
_NOW = re.compile(r"(?:current_timestamp|now)(?:\(([0-9]*)\))?", re.IGNORECASE)
_EDGES = """
SELECT DISTINCT table_schema, referenced_table_schema FROM information_schema.key_column_usage
WHERE referenced_table_schema IS NOT NULL
"""


class MySQLBackend(Backend):
    """MySQL 8 and later, MariaDB 10.6 and later, through PyMySQL."""

    name = "mysql"
    begin = "START TRANSACTION"
    indexes_in_table = True
    keeps_lineage = True

    def create_engine(self, url: sa.URL) -> sa.Engine:
        """Return an engine in strict SQL mode, as DataJoint sets it."""
        modes = "ONLY_FULL_GROUP_BY,NO_ZERO_IN_DATE,NO_ZERO_DATE,STRICT_ALL_TABLES"
        try:
            engine = sa.create_engine(
                url.set(drivername="mysql+pymysql"),
                isolation_level="AUTOCOMMIT",
                skip_autocommit_rollback=True,
                enable_from_linting=False,
                max_overflow=-1,
                pool_recycle=3600,
                connect_args={"sql_mode": modes, "charset": "utf8mb4", "connect_timeout": 10},
            )
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"{url.render_as_string()} needs the driver {error.name}: "
                "pip install 'dj-dagster[mysql]'"
            ) from error
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", _try_idle)
        return engine

    def ddl_name(self, name: TableName) -> tuple[str, str | None]:
        """Spell a schema as a database."""
        return name.table, name.schema

    def sql_table(self, name: TableName, *columns: sa.ColumnClause[Any]) -> sa.TableClause:
        """Return ``schema.table``."""
        return sa.table(name.table, *columns, schema=name.schema)

    def column_type(self, attribute_type: AttributeType, default: Default | None = None) -> str:
        """Map core types to native ones, which pass through."""
        del default
        return _CORE_TYPES.get(attribute_type.text, attribute_type.text)

    def default_sql(self, default: Default, attribute_type: AttributeType) -> str:
        """Double backslashes, which MySQL takes for escapes in a string."""
        sql = super().default_sql(default, attribute_type)
        return sql if default.is_expression else sql.replace("\\", "\\\\")

    def encoder(self, attribute_type: AttributeType) -> Convert | None:
        """PyMySQL takes dates and decimals as they are."""
        match attribute_type.family:
            case Family.UUID:
                return lambda value: value.bytes
            case Family.JSON:
                return json.dumps
            case _:
                return None

    def fetched(self, column: sa.ColumnElement[Any], kind: AttributeType) -> sa.ColumnElement[Any]:
        """Widen float columns, which the server would print with six digits only."""
        single = kind.family is Family.FLOAT and kind.size == 32
        return column + sa.literal_column("0e0") if single else column

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
                return temporal.as_time
            case _:
                return None

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

    def table_options(self, comment: str) -> dict[str, Any]:
        """Tables are InnoDB and keep their comment."""
        return {"mysql_engine": "InnoDB", "comment": comment or None}

    def reflect(self, connection: SAConnection, schema: str) -> list[RawTable]:
        """Read information_schema, three statements for the whole database."""
        # The tables come first: of one that is declared meanwhile the columns would be missing.
        tables = connection.exec_driver_sql(_TABLES, (schema,)).fetchall()
        columns = grouped(connection.exec_driver_sql(_COLUMNS, (schema,)))
        keys = grouped(connection.exec_driver_sql(_KEYS, (schema,)))
        return [
            _raw_table(TableName(schema, name), comment, columns[name], keys[name])
            for name, comment in tables
            if name in columns
        ]

    def foreign_keys_into(
        self, connection: SAConnection, schemas: Sequence[str]
    ) -> set[tuple[str, str]]:
        """Read the foreign keys of all databases that the user may see."""
        edges = {(child, parent) for child, parent in connection.exec_driver_sql(_EDGES)}
        return {(child, parent) for child, parent in edges if parent in schemas}

    def insert_sql(
        self, name: TableName, columns: tuple[str, ...], key: tuple[str, ...], mode: InsertMode
    ) -> str:
        """Skip by an update that changes nothing: INSERT IGNORE would swallow other errors too."""
        return _insert_sql(name, columns, key, mode)

    def translate(self, error: DBAPIError) -> DataJointError | None:
        """Decide by the server's error number."""
        cause = error.orig
        number = cause.args[0] if cause is not None and cause.args else None
        if not isinstance(number, int):
            return None
        if number == _PACKET_TOO_LARGE:
            return InvalidValueError(
                "A row is larger than the server takes: keep large objects in a store, as "
                f"<blob@>, or raise the server's max_allowed_packet ({number})"
            )
        text = str(cause.args[1]) if cause is not None and len(cause.args) > 1 else ""
        text = text or "the connection was closed"
        return _ERRORS.get(number, QueryError)(f"{text} ({number})")


def _note_use(connection: Any, record: Any) -> None:
    del connection
    record.info["used"] = time.monotonic()


def _try_idle(connection: Any, record: Any, proxy: object) -> None:
    """Replace a connection that the server has closed; a ping each time would double each query."""
    del proxy
    if time.monotonic() - record.info.get("used", time.monotonic()) > _IDLE:
        try:
            connection.ping(reconnect=False)
        except Exception as error:
            raise DisconnectionError("closed by the server") from error


@lru_cache(maxsize=1000)
def _insert_sql(
    name: TableName, columns: tuple[str, ...], key: tuple[str, ...], mode: InsertMode
) -> str:
    given = [sa.column(column) for column in dict.fromkeys((*columns, *key))]
    table = sa.table(name.table, *given, schema=name.schema)
    statement = mysql.insert(table)
    if mode == "skip":
        statement = statement.on_duplicate_key_update({key[0]: table.c[key[0]]})
    dialect = mysql.dialect(paramstyle="format")
    sql = str(statement.compile(dialect=dialect, column_keys=list(columns)))
    return sql.replace("INSERT", "REPLACE", 1) if mode == "replace" else sql


_PACKET_TOO_LARGE = 1153
_ERRORS: dict[int, type[DataJointError]] = {
    1044: AccessError,
    1045: AccessError,
    1142: AccessError,
    1143: AccessError,
    1370: AccessError,
    1040: ConnectionFailedError,
    1203: ConnectionFailedError,
    1048: MissingAttributeError,
    1364: MissingAttributeError,
    1054: UnknownAttributeError,
    1062: DuplicateError,
    1064: QuerySyntaxError,
    1146: MissingTableError,
    1205: TransientError,
    1213: TransientError,
    1216: IntegrityError,
    1217: IntegrityError,
    1451: IntegrityError,
    1452: IntegrityError,
    1264: InvalidValueError,
    1265: InvalidValueError,
    1292: InvalidValueError,
    1366: InvalidValueError,
    1406: InvalidValueError,
    1690: InvalidValueError,
    4025: InvalidValueError,
    2002: ConnectionFailedError,
    2003: ConnectionFailedError,
    2005: ConnectionFailedError,
    0: LostConnectionError,
    1053: LostConnectionError,
    1927: LostConnectionError,
    2006: LostConnectionError,
    2013: LostConnectionError,
    4031: LostConnectionError,
}


def _raw_table(name: TableName, comment: str, columns: Rows, keys: Rows) -> RawTable:
    stored = [
        StoredColumn(
            column,
            kind,
            nullable == "YES",
            _default(default),
            text or "",
            "auto_increment" in extra.lower(),
        )
        for column, kind, nullable, default, text, extra in columns
    ]
    constraints = grouped(keys)
    key = [column for column, *_ in constraints.pop("PRIMARY", [])]
    references: list[Reference] = []
    unique: list[tuple[str, ...]] = []
    for rows in constraints.values():
        _, schema, table, _ = rows[0]
        if table is None:
            unique.append(tuple(column for column, *_ in rows))
        else:
            attributes = {column: parent for column, _, _, parent in rows}
            references.append((TableName(schema, table), attributes))
    return raw_table(name, comment, stored, key, references, unique)


def _default(text: str | None) -> Default | None:
    """Read a default as MariaDB reports it, as SQL; MySQL reports texts without their quotes."""
    if text is None or text.upper() == "NULL":
        return None
    if now := _NOW.fullmatch(text):
        return Default(f"CURRENT_TIMESTAMP({now[1]})" if now[1] else "CURRENT_TIMESTAMP", True)
    if len(text) > 1 and text.startswith("'") and text.endswith("'"):
        return Default(unquote(text))
    return Default(text)
