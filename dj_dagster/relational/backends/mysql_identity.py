"""What tells a server from others: MySQL has a number of its own, MariaDB gets a hidden table.

The table holds a random text. When a dump is restored elsewhere the text comes along, and the time
at which the table was created does not, so that a copy is told from what it is a copy of.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError

from dj_dagster.errors import AccessError, MissingTableError
from dj_dagster.relational.backends.mysql_errors import translate

_TABLE = "~identity"
# Of an Aria table OPTIMIZE leaves the time alone.
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
    """Return the identity of the database that a schema is in; None where it cannot be told."""
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
        # The row that came first stays, whoever adds one.
        connection.exec_driver_sql(f"INSERT IGNORE INTO {place}.`{_TABLE}` VALUES (1, UUID())")


def _quoted(connection: SAConnection, schema: str) -> str:
    return connection.dialect.identifier_preparer.quote(schema).replace("%", "%%")


@contextmanager
def _perhaps() -> Generator[None]:
    """Leave a block in silence where there is no table, or the user may not touch it."""
    try:
        yield
    except DBAPIError as error:
        if not isinstance(translate(error), MissingTableError | AccessError):
            raise
