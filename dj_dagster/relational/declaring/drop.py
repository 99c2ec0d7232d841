"""Dropping of tables with all tables that refer to them, their job queues and records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from dj_dagster.errors import DataJointError, IntegrityError, QueryError
from dj_dagster.model.names import NOTES_TABLE, TableName
from dj_dagster.relational.algebra.nodes import all_rows
from dj_dagster.relational.confirmation import Confirm, listed
from dj_dagster.relational.database.catalog import dependency_graph
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring import lineage
from dj_dagster.relational.declaring.declare import ddl_block
from dj_dagster.relational.deleting.cascade import PartIntegrity, master_of
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.relatives import part_names


def drop_table(
    connection: Connection,
    name: TableName,
    confirm: Confirm | None,
    part_integrity: PartIntegrity = "enforce",
) -> bool:
    """Drop a table with all tables that refer to it, and return whether they were dropped.

    Parameters
    ----------
    confirm
        Called first with the names and numbers of rows of all tables; None to proceed.
    part_integrity
        Whether a part may be dropped without its master: ``"enforce"`` refuses it, ``"ignore"``
        allows it.

    Raises
    ------
    DataJointError
        If a part would be dropped without its master; nothing is dropped then.
    QueryError
        Inside a transaction, which MySQL would commit.
    """
    if part_integrity not in ("enforce", "ignore"):
        raise ValueError(
            f"part_integrity is {part_integrity!r}: drop takes 'enforce' or 'ignore'. To drop a "
            "part with its master, drop the master."
        )
    _refuse_in_transaction(connection, name)
    doomed = with_descendants(connection, name)
    if part_integrity == "enforce":
        _check_parts(connection, doomed)
    if confirm is not None and not confirm(_summary(connection, doomed)):
        return False
    _drop(connection, doomed)
    return True


def drop_alone(connection: Connection, name: TableName) -> None:
    """Drop one table that is not referred to by others, without asking.

    Raises
    ------
    IntegrityError
        If other tables refer to it.
    QueryError
        Inside a transaction, which MySQL would commit.
    """
    _refuse_in_transaction(connection, name)
    others = with_descendants(connection, name)[1:]
    if others:
        raise IntegrityError(
            f"{name} cannot be dropped alone: {', '.join(map(str, others))} refer to it. "
            "Use drop(), which drops them as well, or drop them first."
        )
    _drop(connection, [name])


def with_descendants(connection: Connection, name: TableName) -> list[TableName]:
    """Return a table and all tables that refer to it, directly or not, parents first.

    Parts are included with their masters, even without a foreign key to them.
    """
    graph = dependency_graph(connection.catalog.related(name.schema, fresh=True))
    doomed = [name]
    # The list grows during the iteration.
    for table in doomed if name in graph else ():
        below = [*graph.children(table), *part_names(connection, table)]
        doomed += [other for other in below if other in graph and other not in doomed]
    graph.check_acyclic(doomed)
    return [name, *(table for table in graph.topological_order() if table in doomed[1:])]


def _drop(connection: Connection, tables: Sequence[TableName]) -> None:
    """Drop tables, given parents first, with their job queues and records."""
    doomed = [*_job_queues(connection, tables), *reversed(tables)]
    schemas = dict.fromkeys(name.schema for name in tables)
    try:
        with ddl_block(connection) as session:
            connection.backend.drop_tables(session, doomed)
        for schema in schemas:
            gone = [t.table for t in doomed if t.schema == schema]
            lineage.forget(connection, schema, gone)
            _forget_notes(connection, schema, gone)
    finally:
        for schema in schemas:
            connection.catalog.forget(schema)


def _forget_notes(connection: Connection, schema: str, tables: Sequence[str]) -> None:
    """Remove the notes on the origin of tables' rows; see `dj_dagster.workflow.notes`."""
    name = TableName(schema, NOTES_TABLE)
    if connection.catalog.find(name) is None:
        return
    target = connection.backend.sql_table(name, sa.column("table_name"))
    connection.execute(sa.delete(target).where(target.c.table_name.in_(tables)))


def _job_queues(connection: Connection, tables: Sequence[TableName]) -> list[TableName]:
    """Return the job queues that do not serve other tables; ``_x`` and ``__x`` share a queue."""
    queues: dict[TableName, None] = {}
    for name in tables:
        bare = name.table.lstrip("_")
        known = connection.catalog.tables(name.schema)
        sharing = {TableName(name.schema, f"{prefix}{bare}") for prefix in ("_", "__")}
        queue = TableName(name.schema, f"~~{bare}")
        if name in sharing and queue in known and not sharing & known.keys() - set(tables):
            queues[queue] = None
    return list(queues)


def _check_parts(connection: Connection, doomed: Sequence[TableName]) -> None:
    for name in doomed:
        master = master_of(name)
        if master is None or master in doomed or connection.catalog.find(master) is None:
            continue
        if name == doomed[0]:
            raise DataJointError(
                f"{name} is a part of {master.table}: drop its master, which takes the parts "
                "along, or pass part_integrity='ignore'."
            )
        raise DataJointError(
            f"Dropping {doomed[0]} would drop the part {name} but not its master {master.table}. "
            f"Drop {master} first, or pass part_integrity='ignore'."
        )


def _summary(connection: Connection, tables: Iterable[TableName]) -> str:
    counts: dict[TableName, int] = {}
    for name in tables:
        stored = connection.catalog.find(name)
        if stored is not None:
            counts[name] = fetch.count(connection, all_rows(name, stored.heading))
    return listed("Dropping these tables with their rows", counts)


def _refuse_in_transaction(connection: Connection, name: TableName) -> None:
    if connection.in_transaction or connection.write_buffer is not None:
        raise QueryError(f"{name} cannot be dropped inside a transaction or a make.")
