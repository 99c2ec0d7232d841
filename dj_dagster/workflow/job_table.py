"""Creating the hidden table ``~~name`` that holds a computed table's jobs."""

from __future__ import annotations

import contextlib

from dj_dagster.definition import parse_definition
from dj_dagster.errors import PopulateError
from dj_dagster.model.names import TableName
from dj_dagster.relational.declaring import declare
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.table import Table
from dj_dagster.workflow.key_source import own_key_source
from dj_dagster.workflow.make import Makes, has_own_key_source

_DEFINITION = """
# Job queue for `{schema}`.`{table}`
{key}
---
status : enum('pending', 'reserved', 'success', 'error', 'ignore')
priority : int8  # lower is sooner
created_time = CURRENT_TIMESTAMP(3) : datetime(3)
scheduled_time = CURRENT_TIMESTAMP(3) : datetime(3)
reserved_time = null : datetime(3)
completed_time = null : datetime(3)
duration = null : float64  # seconds
error_message = '' : varchar(2047)
error_stack = null : <blob>
user = '' : varchar(255)
host = '' : varchar(255)
pid = 0 : int32
connection_id = 0 : int64
version = '' : varchar(64)
index(status, priority, scheduled_time)
"""


def queue_name(table: TableName) -> TableName:
    """Return the name of a computed table's job queue.

    Examples
    --------
    >>> queue_name(TableName("lab", "__spike_sort")).table
    '~~spike_sort'
    """
    return TableName(table.schema, f"~~{table.table.lstrip('_')}")


def planned_key(table: Table) -> list[str]:
    """Return what tells the jobs of a table apart: the part of its key from foreign keys.

    Where the table's own `key_source` has another key, that: DataJoint has no queue then that could
    hold its keys.
    """
    inherited = {name for key in table.foreign_keys if key.primary for name in key.attributes}
    derived = [name for name in table.primary_key if name in inherited]
    if isinstance(table, Makes) and has_own_key_source(table):
        # A source that cannot be used says so when it is asked for keys.
        with contextlib.suppress(PopulateError):
            key = own_key_source(table).primary_key
            return derived if set(key) == set(derived) else key
    return derived


def create_queue(table: Table) -> StoredTable:
    """Create a table's job queue, unless another process has.

    Raises
    ------
    PopulateError
        If the table's keys are not those of other tables, so that there are none to reserve.
    """
    name, key = queue_name(table.name), planned_key(table)
    if not key:
        raise PopulateError(
            f"{table.name} cannot reserve jobs: no attribute of its primary key comes from a "
            "foreign key. Populate it without reserve_jobs, or define key_source."
        )
    types = {attribute: table.heading[attribute].type for attribute in key}
    lines = [f"{attribute} : {kind.text}" for attribute, kind in types.items() if kind is not None]
    schema, plain = table.name
    text = _DEFINITION.format(schema=schema, table=plain, key="\n".join(lines))
    definition = parse_definition(text, table=str(name))

    def no_parents(item: object) -> StoredTable:
        raise PopulateError(f"A job queue has no foreign keys: {item!r}")

    table.connection.catalog.forget(schema)
    declare.ensure_table(table.connection, name, definition, no_parents)
    stored = table.connection.catalog.find(name)
    if stored is None:
        raise PopulateError(f"The job queue {name} was dropped while it was created: try again.")
    return stored
