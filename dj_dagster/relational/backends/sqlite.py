"""SQLite: one file holds all schemas; a table `session` of schema `lab` is ``"lab.session"``."""

from __future__ import annotations

import json
import platform
import re
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from getpass import getuser
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import ExecutableDDLElement

import dj_dagster.relational.backends.sqlite_file as catalog
from dj_dagster.errors import (
    AccessError,
    ConnectionFailedError,
    DataJointError,
    DuplicateError,
    IntegrityError,
    InvalidValueError,
    MissingAttributeError,
    MissingTableError,
    QueryError,
    QuerySyntaxError,
    TransientError,
    UnknownAttributeError,
)
from dj_dagster.model.heading import Attribute, Default, IndexDeclaration, Value, Values
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.algebra.nodes import parse_json_path
from dj_dagster.relational.backends import (
    common,
    sqlite_engine,
    sqlite_file,
    sqlite_functions,
)
from dj_dagster.relational.backends.base import Backend, Convert, Purpose
from dj_dagster.relational.backends.common import Element, Pieces, Select, cast_type
from dj_dagster.relational.stored import DumpedTable, InsertMode, RawTable
from dj_dagster.relational.user_sql import translation
from dj_dagster.relational.user_sql.attributes import Known, types_text
from dj_dagster.relational.user_sql.emission import EXACT_DIGITS, Piece, in_order, is_long
from dj_dagster.relational.user_sql.kinds import Kind
from dj_dagster.relational.values import shortest_single, single, with_scale

FEW = 20
"""Number of rows to compare with up to which they are passed as parameters."""

_CASTS = {
    "signed": "INTEGER",
    "unsigned": "INTEGER",
    "decimal": "NUMERIC",
    "float": "REAL",
    "char": "TEXT",
    "date": "TEXT",
    "datetime": "TEXT",
    "time": "TEXT",
}


class SQLiteBackend(Backend):
    """SQLite, foreign keys enforced, write-ahead log, writers queued for up to 30 s."""

    name = "sqlite"
    begin = "BEGIN IMMEDIATE"
    # The snapshot of the file is that of the first read.
    begin_snapshot = ("BEGIN", "SELECT count(*) FROM sqlite_master")
    integer_division = "/"
    alters_tables = False
    keeps_comments = False
    rolls_back_ddl = True
    checks_values = False
    has_server = False
    unreached = (
        "Check that DJ_DATABASE_URL names its file, that this user may read it and, to change it, "
        "may write the file and its folder: SQLite needs files beside it."
    )
    dumps_everything = True
    uuid_is_text = True
    tells_text_apart = True
    looks_up_quickly = True
    has_infinity = True
    # Its parser has a stack of 100 places, of which each subquery takes several: 13 were too many.
    most_nested = 8
    row_order = "_rowid_"

    def create_engine(self, url: sa.URL) -> sa.Engine:
        """Return an engine, and create the folder of the database file."""
        return sqlite_engine.create(url)

    def is_closed(self, session: SAConnection) -> bool:
        """Check whether the session's file has been replaced by another."""
        return sqlite_engine.is_replaced(session)

    def is_mixed(self, session: SAConnection) -> bool:
        """Check whether a file that is read without locks has been written meanwhile."""
        return sqlite_engine.is_written(session)

    def full_name(self, name: TableName) -> str:
        """Quote the whole name with backticks, which SQLite accepts too.

        Double quotes delimit strings, here as in MySQL.
        """
        return translation.joined_name(name)

    def ddl_name(self, name: TableName) -> tuple[str, str | None]:
        """Put the schema into the table's name, since all schemas share one file."""
        return str(name), None

    def sql_table(self, name: TableName, *columns: sa.ColumnClause[Any]) -> sa.TableClause:
        """Return the table as ``"schema.table"``."""
        return sa.table(".".join(name), *columns)

    def column_type(self, attribute_type: AttributeType, default: Default | None = None) -> str:
        """Return a type with the wanted affinity."""
        return column_type(attribute_type, default)

    def default_sql(self, default: Default, attribute_type: AttributeType) -> str:
        """Write the current time with the digits of `datetime_text`, in local time as on MySQL.

        A float of 32 bits is written as such a value is stored.
        """
        if not default.is_expression:
            if attribute_type.is_single:
                default = replace(default, value=repr(single(float(default.value))))
            return super().default_sql(default, attribute_type)
        digits = attribute_type.size or 0
        width = 20 + digits if digits else 19
        return f"(substr(strftime('%Y-%m-%d %H:%M:%f', 'now', 'localtime') || '000', 1, {width}))"

    def default_element(self, default: Default, attribute_type: AttributeType) -> Element:
        """Return the default itself, since SQLite lacks SET name = DEFAULT."""
        return sa.literal_column(self.default_sql(default, attribute_type))

    def index_part(self, part: str) -> str:
        """Index a path into JSON by its value."""
        path = parse_json_path(part)
        if path is not None:
            quoted = path.path.replace("'", "''")
            return f"(json_extract(\"{path.name}\", '{quoted}'))"
        return part

    def encoder(self, attribute_type: AttributeType) -> Convert | None:
        """Return the conversion to text for temporal, uuid, json and decimal values."""
        return encoder(attribute_type)

    def untyped(self, value: Value) -> Value:
        """Give decimals as numbers too."""
        return _number(value) if isinstance(value, Decimal) else super().untyped(value)

    def fetched(self, column: Element, kind: AttributeType) -> Element:
        """Return the column itself."""
        del kind
        return column

    def undecoded(self, column: Element) -> Element:
        """Select text as bytes: SQLite keeps any text, but the driver refuses all except UTF-8."""
        is_text = sa.func.typeof(column) == sa.literal_column("'text'")
        return sa.case((is_text, sa.cast(column, sa.LargeBinary)), else_=column)

    def legible(self, values: Sequence[Value]) -> Values:
        """Decode values that are UTF-8."""
        return tuple(map(sqlite_functions.legible, values))

    def decoder(self, attribute_type: AttributeType) -> Convert | None:
        """Undo `encoder`."""
        return decoder(attribute_type)

    def json_value(self, column: Element, path: str, returning: str | None) -> Element:
        """Extract the value and cast it to the nearest type."""
        kind = sa.literal_column(cast_type(returning or "char", _CASTS))
        if not path.isascii() or "\\" in path:
            # SQLite compares keys as they are written, possibly with escapes.
            value = sa.func.dj_json_value(column, path)
            return Pieces(["CAST", Pieces([value, " AS ", kind])])
        path = path.replace("[last]", "[#-1]")
        whole = sa.func.json_type(column, path).in_(("object", "array"))
        value = Pieces(["CAST", Pieces([sa.func.json_extract(column, path), " AS ", kind])])
        return sa.case((whole, sa.null()), else_=value)

    def json_is(self, column: Element, path: str, value: str) -> Element:
        """Compare in Python: SQLite handles neither the equality of objects nor escapes in keys."""
        return sa.func.dj_json_is(column, path, value) == sa.true()

    def is_among(
        self, columns: Sequence[Element], rows: Sequence[Values]
    ) -> sa.ColumnElement[bool]:
        """Pass many values as one JSON text: SQLite limits the parameters of a statement."""
        if len(rows) <= FEW or any(_is_lost_in_json(value) for row in rows for value in row):
            return super().is_among(columns, rows)
        given = sa.func.json_each(json.dumps(rows, default=str)).table_valued("value")
        values = [sa.func.json_extract(given.c.value, f"$[{n}]") for n in range(len(columns))]
        side = columns[0] if len(columns) == 1 else sa.tuple_(*columns)
        return side.in_(sa.select(*values).correlate(None))

    def translated(
        self, text: str, types: Mapping[str, Known], purpose: Purpose
    ) -> Sequence[Piece]:
        """Use own functions where SQLite's results differ from MySQL's; see `user_sql`."""
        known = types_text(types)
        found = translation.translate(text, known)
        if purpose == "condition" and not found.kind.is_condition:
            end = "\n" if "--" in text or "#" in text else ""  # of a comment
            found = translation.translate(f"({text}{end}) IS TRUE", known)
        return in_order(found.pieces, found.order if purpose == "order" else "")

    def kind(self, text: str, types: Mapping[str, Known]) -> Kind:
        """Return the kind that the translation finds."""
        return translation.translate(text, types_text(types)).kind

    def sorts(self, kind: AttributeType) -> bool:
        """Exclude enums, times and long decimals, which are stored as texts."""
        return kind.family not in (Family.ENUM, Family.TIME) and not is_long(kind)

    def own_statement(
        self, sql: str, *, filled: bool, is_table: Callable[[TableName], bool]
    ) -> str:
        """Write question marks for placeholders, single per cent signs, and names of one part."""
        sql = sql.replace("%s", "?").replace("%%", "%") if filled else sql
        return translation.with_own_names(sql, is_table)

    def user(self, connection: SAConnection) -> str:
        """Return the process's user, since a file does not have users of its own."""
        del connection
        return f"{getuser()}@{platform.node()}"

    def identity(self, connection: SAConnection, schema: str, *, create: bool) -> str | None:
        """Join a random row of the file and the file's number, which a copy does not share."""
        del schema
        return catalog.identity(connection, create=create)

    def is_writable(self, session: SAConnection) -> bool:
        """Return whether the file can be written."""
        return sqlite_file.is_writable(session)

    def schema_names(self, connection: SAConnection) -> list[str]:
        """Return the schemas in the catalog."""
        return catalog.schema_names(connection)

    def create_schema(self, connection: SAConnection, schema: str) -> None:
        """Note the schema in the catalog.

        Raises
        ------
        DataJointError
            If another schema differs only in case: SQLite would identify their tables.
        """
        catalog.add_schema(connection, schema)

    def drop_schema(self, connection: SAConnection, schema: str) -> None:
        """Drop the schema's tables one by one in any order, all of them or none."""
        with self.remaking(connection):
            for name, _ in catalog.view_statements(connection, schema):
                connection.exec_driver_sql(f'DROP VIEW IF EXISTS "{name}"')
            for name in catalog.table_names(connection, schema):
                connection.exec_driver_sql(f'DROP TABLE IF EXISTS "{name}"')
            catalog.remove_schema(connection, schema)

    def drop_tables(self, connection: SAConnection, names: Sequence[TableName]) -> None:
        """Drop the tables one by one, with their comments in the catalog."""
        for name in names:
            connection.exec_driver_sql(f'DROP TABLE IF EXISTS "{name}"')
            catalog.remove_comments(connection, name)

    def table_options(self, comment: str) -> dict[str, Any]:
        """Return options without comments, which go into the catalog."""
        del comment
        return {}

    def remaking(self, session: SAConnection) -> AbstractContextManager[sqlite_file.FileRemaking]:
        """Switch foreign keys off during the block, which does not work inside a transaction."""
        return sqlite_file.remaking(session, self.begin)

    def create_table(
        self, connection: SAConnection, name: TableName, statements: Sequence[ExecutableDDLElement]
    ) -> bool:
        """Check first; the transaction keeps others from creating the table in between."""
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        if connection.exec_driver_sql(query, (str(name),)).first():
            return False
        return super().create_table(connection, name, statements)

    def after_create(
        self,
        connection: SAConnection,
        name: TableName,
        comment: str,
        column_comments: dict[str, str],
    ) -> None:
        """Keep the comments in the catalog."""
        catalog.add_comments(connection, name, {"": comment, **column_comments})

    def reflect(self, connection: SAConnection, schema: str) -> list[RawTable]:
        """Read pragmas and catalog, by five statements for the schema and one for each view."""
        tables = catalog.tables(connection, schema)
        return [*tables, *sqlite_file.views(connection, schema, tables)]

    def indexes(
        self, connection: SAConnection, schema: str, table: str | None = None
    ) -> dict[str, dict[str, IndexDeclaration]]:
        """Read pragmas, and the statements that made indexes of expressions."""
        return catalog.indexes(connection, schema, table)

    def schema_edges(self, connection: SAConnection) -> set[tuple[str, str]]:
        """Read the pragmas of the whole file."""
        return catalog.schema_edges(connection)

    def size_on_disk(self, connection: SAConnection, names: Sequence[TableName]) -> int:
        """Count the pages of the file."""
        return catalog.size_on_disk(connection, names)

    def row_digest(self, columns: Sequence[tuple[Element, Attribute]]) -> sa.ColumnElement[int]:
        """Call a function that this package registers with each connection."""
        return sa.func.row_digest(*sqlite_functions.arguments(columns))

    def digest_xor(self, columns: Sequence[tuple[Element, Attribute]]) -> sa.ColumnElement[int]:
        """Call an aggregate that this package registers with each connection."""
        return sa.func.row_digest_xor(*sqlite_functions.arguments(columns))

    def write_marks(self, engine: sa.Engine, names: Collection[TableName]) -> sqlite_file.FileMarks:
        """Watch the file's count of commits."""
        return sqlite_file.FileMarks(engine, names, in_memory=self.is_in_memory(engine))

    def is_in_memory(self, engine: sa.Engine) -> bool:
        """Whether no file was named."""
        return isinstance(engine.pool, sa.SingletonThreadPool)

    def insert_from(
        self,
        target: sa.TableClause,
        names: Sequence[str],
        select: Select,
        key: tuple[str, ...],
        mode: InsertMode,
    ) -> sa.Executable:
        """Skip as `insert_sql` does."""
        del key
        # Without a WHERE, SQLite would take ON CONFLICT for the condition of a join.
        statement = sqlite.insert(target).from_select(names, select.where(sa.true()))
        if mode == "skip":
            return statement.on_conflict_do_nothing()
        return statement.prefix_with("OR REPLACE") if mode == "replace" else statement

    def insert_sql(
        self, name: TableName, columns: tuple[str, ...], key: tuple[str, ...], mode: InsertMode
    ) -> str:
        """Skip where any unique index clashes; other errors still raise."""
        del key
        return _insert_sql(name, columns, mode)

    def dump(
        self, session: SAConnection, folder: Path, schemas: Sequence[str]
    ) -> list[DumpedTable]:
        """Copy the file with all its schemas."""
        del schemas
        sqlite_file.dump(session, folder)
        return []

    def load(
        self,
        session: SAConnection,
        folder: Path,
        schemas: Sequence[str],
        tables: Sequence[DumpedTable],
    ) -> None:
        """Replace the whole database by the copy."""
        del schemas, tables
        sqlite_file.load(session, folder)

    def occupied(self, session: SAConnection, schemas: Sequence[str]) -> list[str]:
        """Return all tables of the file."""
        del schemas
        return sqlite_file.occupied(session)

    def clashing(self, error: DataJointError) -> set[str] | None:
        """Read the columns of the index, which the message names."""
        failed = re.search(r"UNIQUE constraint failed: (.+)", str(error))
        return {text.rpartition(".")[2] for text in failed[1].split(", ")} if failed else None

    def translate(self, error: DBAPIError) -> DataJointError | None:
        """Decide by SQLite's messages; its error codes do not distinguish these errors."""
        return translate(error)


@lru_cache(maxsize=1000)
def _insert_sql(name: TableName, columns: tuple[str, ...], mode: InsertMode) -> str:
    statement = sqlite.insert(sa.table(str(name), *map(sa.column, columns)))
    if mode == "skip":
        statement = statement.on_conflict_do_nothing()
    elif mode == "replace":
        statement = statement.prefix_with("OR REPLACE")
    dialect = sqlite.dialect()
    sqlite_engine.reserve_words(dialect)
    return str(statement.compile(dialect=dialect, column_keys=list(columns)))


def _is_lost_in_json(value: object) -> bool:
    """Whether SQLite's JSON cannot hold a value exactly."""
    return isinstance(value, bytes | float) or (isinstance(value, str) and "\0" in value)


_COLUMN_TYPES = {
    Family.INTEGER: "INTEGER",
    Family.BOOL: "INTEGER",
    Family.FLOAT: "REAL",
    Family.STRING: "TEXT",
    Family.ENUM: "TEXT",
    Family.DATE: "TEXT",
    Family.DATETIME: "TEXT",
    Family.TIME: "TEXT",
    Family.UUID: "TEXT",
    Family.JSON: "TEXT",
    Family.BYTES: "BLOB",
}


def column_type(attribute_type: AttributeType, default: Default | None = None) -> str:
    """Return a column type with the wanted affinity."""
    if default is not None and _COLUMN_TYPES.get(attribute_type.family) == "INTEGER":
        # SQLite would number the rows of an INTEGER PRIMARY KEY, regardless of its default.
        return "INT"
    if attribute_type.family is Family.DECIMAL:
        return "NUMERIC" if (attribute_type.size or 0) <= EXACT_DIGITS else "TEXT"
    return _COLUMN_TYPES[attribute_type.family]


def encoder(attribute_type: AttributeType) -> Convert | None:
    """Return the function from a checked value to the driver's, None if they are equal."""
    digits = attribute_type.size or 0
    match attribute_type.family:
        case Family.INTEGER:
            return _int64
        case Family.DECIMAL if digits <= EXACT_DIGITS:
            # Unlike a text, a number equals what is computed from the column.
            return _number
        case Family.DECIMAL | Family.UUID:
            return str
        case Family.DATE:
            return lambda value: value if isinstance(value, str) else value.isoformat()
        case Family.DATETIME:
            return lambda value: common.datetime_text(value, digits)
        case Family.TIME:
            return lambda value: common.time_text(value, digits)
        case Family.JSON:
            return json.dumps
        case _:
            return None


def decoder(attribute_type: AttributeType) -> Convert | None:
    """Return the inverse of the function that `encoder` returns."""
    match attribute_type.family:
        case Family.DECIMAL:
            scale = attribute_type.scale or 0
            return lambda value: with_scale(_finite(Decimal(str(value))), scale)
        case Family.UUID:
            return UUID
        case Family.DATE:
            return common.date_or_zero
        case Family.DATETIME:
            return common.datetime_or_zero
        case Family.TIME:
            return common.as_time
        case Family.FLOAT if attribute_type.is_single:
            return lambda value: shortest_single(float(value))
        case Family.JSON:
            return json.loads
        case Family.BOOL:
            return common.as_bool
        case _:
            return None


def _finite(value: Decimal) -> Decimal:
    if value.is_finite():
        return value
    raise ValueError(f"{value} is not a finite number")


def _number(value: Decimal) -> int | float:
    is_whole = abs(value) < 2**63 and value == value.to_integral_value()
    return int(value) if is_whole else float(value)


def _int64(value: int) -> int:
    if -(2**63) <= value < 2**63:
        return value
    raise InvalidValueError(f"SQLite holds no integer of more than 64 bits: {value}")


_ERRORS: dict[str, type[DataJointError]] = {
    "UNIQUE constraint failed": DuplicateError,
    "FOREIGN KEY constraint failed": IntegrityError,
    "NOT NULL constraint failed": MissingAttributeError,
    "database is locked": TransientError,
    "unable to open database file": ConnectionFailedError,
    "file is not a database": ConnectionFailedError,
    "readonly database": AccessError,
    "no such table": MissingTableError,
    "no such column": UnknownAttributeError,
    "syntax error": QuerySyntaxError,
    "Could not decode to UTF-8": InvalidValueError,
    "unrecognized token": QuerySyntaxError,
}


def translate(error: DBAPIError) -> DataJointError | None:
    """Return this package's error for a driver's by its message, None if it is not SQLite's."""
    cause = error.orig
    text = str(cause)
    if not isinstance(cause, sqlite3.Error):
        return None
    if "user-defined" in text and (told := sqlite_functions.failure()) is not None:
        return told
    if "string or blob too big" in text:
        # SQLite gives this message also for a number that a function has returned.
        return InvalidValueError(
            "SQLite holds no integer of more than 64 bits, sums and unsigned ones of bit_and, "
            "bit_or and bit_xor among them, and no text or bytes of more than 1 GB."
        )
    for phrase, kind in _ERRORS.items():
        if phrase in text:
            return kind(text)
    return QueryError(text)
