"""The table ``~log``, in which DataJoint 0.14 records declarations, changes and deletions."""

from __future__ import annotations

import platform
from collections.abc import Callable

import sqlalchemy as sa

from dj_dagster.definition import parse_definition
from dj_dagster.errors import (
    ConnectionFailedError,
    DataJointError,
    DefinitionError,
    TransientError,
)
from dj_dagster.model.heading import ForeignKeyDeclaration, Value
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.plan import create_statements, plan_table
from dj_dagster.relational.old_layout import in_old_layout
from dj_dagster.relational.stored import StoredTable

LOG = "~log"

_DEFINITION = """
# event logging table for `{schema}`
id : int unsigned auto_increment           # event order id
---
timestamp = CURRENT_TIMESTAMP : timestamp  # event timestamp
version : varchar(12)                      # datajoint version
user : varchar(255)                        # user@host
host = "" : varchar(255)                   # system hostname
event = "" : varchar(255)                  # event message
"""
_VERSION = "dj_dagster"
_LONGEST = 255


def keeps_log(connection: Connection, schema: str) -> bool:
    """Whether events of a schema are recorded.

    They are in schemas of DataJoint 0.14, and for its code in those of SQLite.
    """
    if connection.backend.holds_old_era:
        return connection.catalog.is_old(schema)
    return connection.era == "0.14"


def ensure_log(connection: Connection, schema: str) -> TableName:
    """Create a schema's ``~log`` as 0.14 does, unless it is there; return its name."""
    name = TableName(schema, LOG)
    if connection.catalog.raw(name) is not None:
        return name
    definition = parse_definition(_DEFINITION.format(schema=schema), table=LOG)
    plan = plan_table(name, definition, _without_parents, connection.codecs)
    backend = connection.backend
    if backend.holds_old_era:
        plan = in_old_layout(connection, plan)
    with connection.cursor() as session:
        if backend.create_table(session, name, list(create_statements(plan, backend))):
            comments = {column.name: column.full_comment for column in plan.columns}
            backend.after_create(session, name, plan.comment, comments)
    connection.catalog.forget(schema)
    return name


def log_change(
    connection: Connection, verb: str, table: TableName, chosen: Callable[[], str] = str
) -> None:
    """Record what was done to a table, unless it is hidden; errors are those of `log_event`.

    Parameters
    ----------
    chosen
        A function that returns the SQL which chooses the rows, called only if it is recorded.
    """
    if not table.table.startswith("~") and keeps_log(connection, table.schema):
        log_event(connection, table.schema, f"{verb} {table.quoted}{chosen()}")


def log_event(connection: Connection, schema: str, event: str) -> None:
    """Record an event, where the schema has a log and it takes the event.

    A user may lack the right to write there, or another program may have made another table of that
    name. In a transaction, which MySQL would commit, the table is not created.

    Raises
    ------
    TransientError, ConnectionFailedError
        If the transaction has failed with the log.
    """
    if not keeps_log(connection, schema):
        return
    inside = connection.holds_transaction or connection.write_buffer is not None
    if inside and connection.catalog.raw(TableName(schema, LOG)) is None:
        return
    values: dict[str, Value] = {
        "version": _VERSION,
        "user": connection.get_user()[:_LONGEST],
        "host": platform.node()[:_LONGEST],
        "event": event[:_LONGEST],
    }
    try:
        name = ensure_log(connection, schema)
        table = connection.backend.sql_table(name, *map(sa.column, values))
        connection.execute(sa.insert(table).values(values))
    except (TransientError, ConnectionFailedError):
        raise
    except DataJointError:
        # What is recorded has been done, whether or not it is recorded.
        return


def _without_parents(item: ForeignKeyDeclaration) -> StoredTable:
    raise DefinitionError(f"{LOG} refers to no table, such as {item.target}.")
