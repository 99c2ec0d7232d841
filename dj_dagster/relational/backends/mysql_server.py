"""A MySQL or MariaDB server: connections, errors, identity, rights, marks, and its catalogue.

MySQL has an identifier of the server. On MariaDB a hidden table with a random text is created. A
dump that is restored elsewhere contains the text but not the time at which the table was created,
which distinguishes a copy from its original.

InnoDB keeps the time of a table's last write in memory, to the second. It sets the time at commit,
also for rows changed through a foreign key, and loses it when the server restarts. MySQL also
counts the rows written to each table since the start, but before they are committed, so the counts
alone do not suffice. TRUNCATE is visible too: MySQL resets the time and MariaDB the estimated
number of rows.
"""

from __future__ import annotations

import re
import select
import ssl
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError

from dj_dagster.errors import (
    AccessError,
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
from dj_dagster.model.heading import IndexDeclaration
from dj_dagster.model.names import TableName
from dj_dagster.relational.backends import common
from dj_dagster.relational.stored import RawTable, Read, StoredColumn, WriteMarks

IDLE = 5.0
"""Seconds without use after which a connection is tested before it is used again."""


def watch(engine: sa.Engine) -> None:
    """Replace closed connections as they are taken from the pool.

    Querying the server each time would double the time of each query. A closed socket can be seen
    locally, unless the network has lost the message.
    """
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _check)


def share_tls_context(engine: sa.Engine) -> None:
    """Encrypt where the server supports it, with one context for all connections.

    PyMySQL makes a context for each connection and reads the system's certificates into it, which
    it does not check. This takes 20 ms of CPU per connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def connect(dialect: Any, record: object, args: Any, options: dict[str, Any]) -> Any:
        del record
        options = {**options, "ssl_disabled": True, "defer_connect": True}
        connection = dialect.loaded_dbapi.connect(*args, **options)
        connection.ssl, connection.ctx = True, context
        connection.connect()
        return connection

    event.listen(engine, "do_connect", connect)


def refuse_plain_text(engine: sa.Engine) -> None:
    """Refuse each new connection that is not encrypted.

    PyMySQL before 1.2 continues in plain text where a server does not offer TLS.
    """
    event.listen(engine, "connect", _check_tls)


def _check_tls(connection: Any, record: object) -> None:
    del record
    with connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
        found = cursor.fetchone()
    if not found or not found[1]:
        connection.close()
        raise ConnectionFailedError(
            f"The connection to {connection.host}:{connection.port} is not encrypted, although "
            "use_tls asks for TLS: the server offers none. Switch it on there, or set "
            "database.use_tls (DJ_USE_TLS) to False."
        )


def _note_use(connection: Any, record: Any) -> None:
    del connection
    record.info["used"] = time.monotonic()


def _check(connection: Any, record: Any, proxy: object) -> None:
    del proxy
    used = record.info.get("used")
    if used is None:
        return
    is_idle = time.monotonic() - used > IDLE
    if is_closed(connection) or (is_idle and not _answers(connection)):
        raise DisconnectionError("closed by the server")


def is_closed(connection: Any) -> bool:
    """Whether an idle driver's socket has data to read, which is the end of the connection."""
    socket = connection._sock
    if socket is None:
        return True
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    if not poll.poll(0):
        return False
    # TLS sends messages of its own before the answer to a query.
    return not isinstance(socket, ssl.SSLSocket) or not _answers(connection)


def _answers(connection: Any) -> bool:
    try:
        connection.ping(reconnect=False)
    except Exception:
        return False
    return True


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
    1049: MissingTableError,
    1146: MissingTableError,
    1205: TransientError,
    1213: TransientError,
    1412: TransientError,
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


def translate(error: DBAPIError) -> DataJointError | None:
    """Return this package's error for a driver's by the server's number, None without a number."""
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


_TABLE = "~identity"
# OPTIMIZE does not change the creation time of an Aria table.
_CREATE = """
CREATE TABLE IF NOT EXISTS {}.`~identity` (
    `one` tinyint NOT NULL PRIMARY KEY, `id` char(36) NOT NULL
) ENGINE = Aria COMMENT = 'tells this database from others that use its stores'
"""
_CREATED = """
SELECT UNIX_TIMESTAMP(create_time) FROM information_schema.tables
WHERE table_schema = %s AND table_name = %s
"""


def identity(connection: SAConnection, schema: str, *, create: bool) -> str | None:
    """Return the identity of the database that a schema is in; None where it is not known."""
    server = connection.exec_driver_sql("SHOW VARIABLES LIKE 'server_uuid'").first()
    if server is not None:
        return str(server[1])
    found = _stored(connection, schema)
    if found is None and create:
        _store(connection, schema)
        found = _stored(connection, schema)
    created = connection.exec_driver_sql(_CREATED, (schema, _TABLE)).scalar()
    return None if found is None or created is None else f"{found}-{int(created):x}"


def _stored(connection: SAConnection, schema: str) -> str | None:
    with _perhaps():
        query = f"SELECT id FROM {_quoted(connection, schema)}.`{_TABLE}`"
        return connection.exec_driver_sql(query).scalar()
    return None


def _store(connection: SAConnection, schema: str) -> None:
    place = _quoted(connection, schema)
    with _perhaps():
        connection.exec_driver_sql(_CREATE.format(place))
        # The first row is kept, even if another process adds one.
        connection.exec_driver_sql(f"INSERT IGNORE INTO {place}.`{_TABLE}` VALUES (1, UUID())")


def _quoted(connection: SAConnection, schema: str) -> str:
    return connection.dialect.identifier_preparer.quote(schema).replace("%", "%%")


@contextmanager
def _perhaps() -> Generator[None]:
    """Suppress errors of a missing table or of missing privileges in a block."""
    try:
        yield
    except DBAPIError as error:
        if not isinstance(translate(error), MissingTableError | AccessError):
            raise


_NAME = r"(`(?:[^`]|``)+`|\*)"
_GRANT = re.compile(rf"(GRANT|REVOKE) (.+?) ON (?:TABLE )?{_NAME}\.{_NAME} (?:TO|FROM) ")
_PRIVILEGE = re.compile(r"([A-Z][A-Z _]*[A-Z])( \([^)]*\))?(?:, ?|$)")


def rights(connection: SAConnection) -> common.Rights:
    """Read the grants of the user and of the active roles."""
    literal = _setting(connection, "partial_revokes") == "ON"
    return read_grants(_grants(connection), literal=literal)


def read_grants(grants: Iterable[str], *, literal: bool = False) -> common.Rights:
    r"""Return the rights that lines of ``SHOW GRANTS`` give, ignoring other lines.

    Parameters
    ----------
    literal
        Whether ``%`` and ``_`` in a schema's name are literal characters.

    Examples
    --------
    >>> found = read_grants(["GRANT SELECT, INSERT (`a`) ON `lab\\_%`.* TO `me`@`%`"])
    >>> found.shows_tables("lab_x"), found.shows_tables("labs"), found.shows_schemas
    (True, False, False)
    """
    everywhere = set[str]()
    schemas: list[tuple[re.Pattern[str], frozenset[str]]] = []
    tables: dict[TableName, frozenset[str]] = {}
    revoked: dict[str, frozenset[str]] = {}
    for line in grants:
        found = _GRANT.match(line)
        if found is None:
            continue
        given = frozenset(_privileges(found[2]))
        schema, table = (None if n == "*" else common.unquoted_name(n) for n in found.group(3, 4))
        if found[1] == "REVOKE":
            revoked[schema or ""] = given
        elif schema is None:
            everywhere |= given
        elif table is None:
            schemas.append((_pattern(schema, literal=literal), given))
        else:
            name = TableName(schema, table)
            tables[name] = tables.get(name, frozenset()) | given
    return common.Rights(frozenset(everywhere), tuple(schemas), tables, revoked)


def _grants(connection: SAConnection) -> Iterator[str]:
    role = connection.exec_driver_sql("SELECT CURRENT_ROLE()").scalar()
    maria = getattr(connection.dialect, "is_mariadb", False)
    if maria or role in (None, "NONE"):
        yield from connection.exec_driver_sql("SHOW GRANTS").scalars()
        if role is not None and maria:
            yield from connection.exec_driver_sql("SHOW GRANTS FOR CURRENT_ROLE").scalars()
        return
    # The server quotes the names itself; the driver takes per cent signs for placeholders.
    statement = f"SHOW GRANTS FOR CURRENT_USER() USING {role}".replace("%", "%%")
    yield from connection.exec_driver_sql(statement).scalars()


def _privileges(text: str) -> Iterator[str]:
    """Yield the privileges on whole tables, without those on single columns."""
    for name, columns in _PRIVILEGE.findall(text):
        if not columns:
            yield name


def _pattern(schema: str, *, literal: bool) -> re.Pattern[str]:
    if literal:
        return re.compile(re.escape(schema))
    parts = {"%": ".*", "_": "."}
    tokens = re.findall(r"\\.|.", schema, re.DOTALL)
    return re.compile("".join(parts.get(token) or re.escape(token[-1]) for token in tokens))


def _setting(connection: SAConnection, name: str) -> str | None:
    row = connection.exec_driver_sql("SHOW VARIABLES LIKE %s", (name,)).first()
    return None if row is None else str(row[1])


def uptime(connection: SAConnection) -> int:
    """Return the whole seconds since the server started."""
    return int(connection.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Uptime'").one()[1])


_PROCESSES = "performance_schema.processlist"


def processes(connection: SAConnection) -> str:
    """Return the name of the table of the server's connections that can be read at any time.

    MySQL cannot read its ``information_schema.processlist``, not even one column of it, while the
    statement of any connection holds bytes that are not text (error 3854). The other table is empty
    where the performance schema is off, and does not exist on MariaDB.
    """
    if not getattr(connection.dialect, "is_mariadb", False):
        with _perhaps():
            query = f"SELECT 1 FROM {_PROCESSES} WHERE id = CONNECTION_ID()"
            if connection.exec_driver_sql(query).first() is not None:
                return _PROCESSES
    return "information_schema.processlist"


SETTLED = timedelta(seconds=2)
"""Age of a time of the server at which further writes in its second are ruled out."""

_TABLES = """
SELECT TABLE_NAME, UPDATE_TIME, CREATE_TIME, TABLE_ROWS > 0, NOW()
FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s
"""
_COUNTS = """
SELECT OBJECT_NAME, COUNT_INSERT, COUNT_UPDATE, COUNT_DELETE
FROM performance_schema.table_io_waits_summary_by_table
WHERE OBJECT_TYPE = 'TABLE' AND OBJECT_SCHEMA = %s
"""
# Otherwise MySQL answers from cached statistics. A hint in a query cannot set this variable.
_FRESH = "SET SESSION information_schema_stats_expiry = 0"


class ServerMarks(WriteMarks):
    """Compares the server's marks of the tables with the last ones.

    Parameters
    ----------
    names
        The tables; one that does not exist yet counts as written once it exists.
    """

    def __init__(self, names: Collection[TableName]) -> None:
        self._names = frozenset(names)
        self._schemas = sorted({name.schema for name in names})
        self._marks: dict[TableName, Any] = {}
        self._started: datetime | None = None

    def written(self, read: Read) -> frozenset[TableName]:
        """Return the tables with a changed mark, all of them after a restart of the server."""
        marks = read(lambda session: _read(session, self._schemas))
        restarted = self._restarted(marks.started)
        written = {
            name
            for name in self._names
            if restarted or name not in self._marks or self._marks[name] != marks.tables.get(name)
        }
        self._started = marks.started or self._started
        self._marks = {
            name: marks.tables.get(name) for name in self._names if name not in marks.unsettled
        }
        return frozenset(written)

    def _restarted(self, started: datetime | None) -> bool:
        """Whether the server has restarted since the last call, which loses the times of writes."""
        if started is None:
            return False
        return self._started is None or abs(started - self._started) > SETTLED


@dataclass
class _Marks:
    """The marks of the tables of some schemas at one moment.

    Attributes
    ----------
    tables
        By table a value that changes when the table is written.
    unsettled
        Tables that were written just now: further writes may not change their mark.
    started
        The time at which the server started; None without any table.
    """

    tables: dict[TableName, tuple[Any, ...]] = field(default_factory=dict)
    unsettled: set[TableName] = field(default_factory=set)
    started: datetime | None = None


def _read(session: SAConnection, schemas: Collection[str]) -> _Marks:
    """Return the marks of all tables in some schemas, by one or two statements for each."""
    marks, now = _Marks(), None
    maria = getattr(session.dialect, "is_mariadb", False)
    if not maria and "answers afresh" not in session.info:
        session.exec_driver_sql(_FRESH)
        session.info["answers afresh"] = True
    for schema in schemas:
        # Counts are read before times, since rows are counted before they are committed.
        counts = {} if maria else _counts(session, schema)
        for table, updated, created, filled, now in session.exec_driver_sql(_TABLES, (schema,)):
            name = TableName(schema, table)
            marks.tables[name] = updated, created, filled, *counts.get(table, ())
            if updated is not None and updated > now - SETTLED:
                marks.unsettled.add(name)
    if now is not None:
        marks.started = now - timedelta(seconds=uptime(session))
    return marks


def _counts(session: SAConnection, schema: str) -> dict[str, tuple[int, ...]]:
    """Return the numbers of inserted, updated and deleted rows, where the user may read them."""
    if session.info.get("counts") is False:
        return {}
    try:
        rows = session.exec_driver_sql(_COUNTS, (schema,)).fetchall()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        session.info["counts"] = False
        return {}
    return {table: tuple(counts) for table, *counts in rows}


_REPORTED_TABLES = """
SELECT table_name, IF(table_type = 'VIEW', '', table_comment), table_type = 'VIEW'
FROM information_schema.tables
WHERE table_schema = %s AND table_type IN ('BASE TABLE', 'VIEW')
ORDER BY create_time, CAST(UPPER(table_name) AS BINARY)
"""
_SIZE = """
SELECT data_length + index_length FROM information_schema.tables
WHERE table_schema = %s AND table_name = %s
"""
_COLUMNS = """
SELECT table_name, column_name, column_type, is_nullable, column_default, column_comment,
       CONCAT(extra, IF(version() LIKE '%%MariaDB%%', ' quoted', ''))
FROM information_schema.columns WHERE table_schema = %s ORDER BY table_name, ordinal_position
"""
_KEYS = """
SELECT table_name, constraint_name, column_name, referenced_table_schema, referenced_table_name,
       referenced_column_name
FROM information_schema.key_column_usage WHERE table_schema = %s
ORDER BY table_name, constraint_name, ordinal_position
"""
_INDEXES = """
SELECT table_name, index_name, non_unique, column_name, sub_part, {}
FROM information_schema.statistics
WHERE table_schema = %s AND (%s IS NULL OR table_name = %s) AND index_name <> 'PRIMARY'
ORDER BY table_name, index_name, seq_in_index
"""
_CONSTRAINTS = """
SELECT constraint_name, column_name, referenced_table_schema, referenced_table_name
FROM information_schema.key_column_usage
WHERE table_schema = %s AND table_name = %s AND referenced_table_name IS NOT NULL
ORDER BY constraint_name, ordinal_position
"""
_VIEW = """
SELECT view_definition FROM information_schema.views WHERE table_schema = %s AND table_name = %s
"""
_EXISTS = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
_SELECTED = re.compile(r"\b(?:from|join)\s+\(*(`(?:[^`]|``)+`)\.(`(?:[^`]|``)+`)", re.IGNORECASE)
_BEYOND = re.compile("[\U00010000-\U0010ffff]")
_ESCAPED = re.compile(r"\\U([0-9a-f]{8})")
_EDGES = """
SELECT DISTINCT table_schema, referenced_table_schema FROM information_schema.key_column_usage
WHERE referenced_table_schema IS NOT NULL
"""


def tables(connection: SAConnection, schema: str) -> list[RawTable]:
    """Return all tables and views of a database, by three statements."""
    # Tables are read first; otherwise a table declared meanwhile would lack its columns.
    tables = connection.exec_driver_sql(_REPORTED_TABLES, (schema,)).fetchall()
    columns = common.grouped(connection.exec_driver_sql(_COLUMNS, (schema,)))
    keys = common.grouped(connection.exec_driver_sql(_KEYS, (schema,)))
    return [
        replace(
            _table(TableName(schema, name), _unescaped(comment), columns[name], keys[name]),
            is_view=bool(is_view),
        )
        for name, comment, is_view in tables
        if name in columns
    ]


def tables_behind(connection: SAConnection, view: TableName) -> set[TableName]:
    """Return the tables that a view selects from, also through other views; a table itself.

    The result is empty if the user may not see the text of one of the views, or one of the tables.
    """
    found, met, waiting = set[TableName](), {view}, [view]
    while waiting:
        name = waiting.pop()
        text = connection.exec_driver_sql(_VIEW, tuple(name)).scalar()
        if text is None:
            if name != view and connection.exec_driver_sql(_EXISTS, tuple(name)).first() is None:
                return set()
            found.add(name)
            continue
        # The server writes each table with its schema.
        tables = {TableName(*map(common.unquoted_name, match)) for match in _SELECTED.findall(text)}
        if not tables:
            return set()
        waiting += tables - met
        met |= tables
    return found


def escaped(text: str) -> str:
    r"""Return a text without characters of four bytes, which servers turn into question marks.

    >>> escaped("face \N{GRINNING FACE}")
    'face \\U0001f600'
    """
    return _BEYOND.sub(lambda match: f"\\U{ord(match[0]):08x}", text)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def indexes(
    connection: SAConnection, schema: str, table: str | None = None
) -> dict[str, dict[str, IndexDeclaration]]:
    """Return the indexes by table and name; only MySQL has indexes of expressions."""
    maria = getattr(connection.dialect, "is_mariadb", False)
    query = _INDEXES.format("NULL" if maria else "expression")
    rows = common.grouped(connection.exec_driver_sql(query, (schema, table, table)))
    return {
        name: {index: _index(parts) for index, parts in common.grouped(found).items()}
        for name, found in rows.items()
    }


def foreign_key_names(
    connection: SAConnection, name: TableName
) -> dict[tuple[TableName, tuple[str, ...]], str]:
    """Return the names of a table's foreign keys by parent and columns."""
    rows = common.grouped(connection.exec_driver_sql(_CONSTRAINTS, tuple(name)))
    return {
        (TableName(*columns[0][1:]), tuple(column for column, *_ in columns)): constraint
        for constraint, columns in rows.items()
    }


def schema_edges(connection: SAConnection) -> set[tuple[str, str]]:
    """Return ``(child, parent)`` of databases for all foreign keys that the user can see."""
    return {(child, parent) for child, parent in connection.exec_driver_sql(_EDGES)}


def _table(name: TableName, note: str, columns: common.Reported, keys: common.Reported) -> RawTable:
    stored = [
        StoredColumn(
            column,
            kind,
            nullable == "YES",
            common.reported_default(default, kind, extra),
            _unescaped(text or ""),
            "auto_increment" in extra.lower(),
        )
        for column, kind, nullable, default, text, extra in columns
    ]
    constraints = common.grouped(keys)
    key = [column for column, *_ in constraints.pop("PRIMARY", [])]
    references: list[common.Reference] = []
    unique: list[tuple[str, ...]] = []
    # Numbered names in the order of their numbers: ibfk_2 before ibfk_10.
    for constraint in sorted(constraints, key=lambda given: (len(given), given)):
        rows = constraints[constraint]
        _, schema, table, _ = rows[0]
        if table is None:
            unique.append(tuple(column for column, *_ in rows))
        else:
            attributes = {column: parent for column, _, _, parent in rows}
            references.append((TableName(schema, table), attributes))
    return common.raw_table(name, note, stored, key, references, unique)


def size_on_disk(connection: SAConnection, names: Sequence[TableName]) -> int:
    """Return the size in bytes of tables and their indexes, as the server last counted it."""
    found = (connection.exec_driver_sql(_SIZE, tuple(name)).scalar() for name in names)
    return sum(int(size or 0) for size in found)


def _index(rows: common.Reported) -> IndexDeclaration:
    parts = [
        # The server escapes quotes in an expression with backslashes.
        f"({expression})".replace("\\'", "'")
        if expression
        else f"{column}({size})"
        if size
        else column
        for _, column, size, expression in rows
    ]
    return IndexDeclaration(tuple(parts), unique=not rows[0][0])
