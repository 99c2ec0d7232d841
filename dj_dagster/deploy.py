"""What is done to schemas when programs are deployed, under DataJoint's name for it."""

from __future__ import annotations

from typing import Any

from dj_dagster.errors import DataJointError
from dj_dagster.model.job_settings import PROVENANCE
from dj_dagster.model.names import Tier, parse_table_name
from dj_dagster.model.table_name import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.headings import marker
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Table

_COMMENT = marker(PROVENANCE.type, PROVENANCE.comment)


def add_prov_column(target: Schema | type[Table] | Table, dry_run: bool = True) -> dict[str, Any]:
    """Add the hidden attribute ``_prov`` to manual tables that lack it.

    Rows that are there keep null in it. New ones are noted as long as the setting
    ``provenance.capture`` is on.

    Parameters
    ----------
    target
        A table, or a schema for all of its manual tables.
    dry_run
        Whether it is only told what would be done.

    Returns
    -------
    dict
        As DataJoint's: ``tables_analyzed``, ``tables_modified``, ``columns_added``, the statements
        as ``ddl``, and ``details`` of each table.

    Raises
    ------
    DataJointError
        If `target` is neither a schema nor a table.
    """
    connection, names = _tables(target)
    statements: list[str] = []
    details: list[dict[str, str]] = []
    for name in names:
        if _has_column(connection, name):
            details.append({"table": str(name), "status": "already_present"})
            continue
        statements.append(_statement(connection, name))
        details.append({"table": str(name), "status": "pending" if dry_run else "added"})
        if not dry_run:
            _add(connection, name, statements[-1])
    done = 0 if dry_run else len(statements)
    return {
        "tables_analyzed": len(names),
        "tables_modified": done,
        "columns_added": done,
        "ddl": statements,
        "details": details,
    }


def _tables(target: Any) -> tuple[Connection, list[TableName]]:
    if isinstance(target, Schema):
        names = [TableName(target.name, table) for table in target.list_tables()]
        connection = target.connection
    else:
        table = target() if isinstance(target, type) and issubclass(target, Table) else target
        if not isinstance(table, Table):
            raise DataJointError(f"add_prov_column takes a schema or a table, not {target!r}.")
        connection, names = table.connection, [table.name]
        connection.catalog.forget(table.database)
    return connection, [name for name in names if _is_manual(name)]


def _is_manual(name: TableName) -> bool:
    parsed = parse_table_name(name.table)
    return parsed is not None and parsed.tier is Tier.MANUAL


def _has_column(connection: Connection, name: TableName) -> bool:
    stored = connection.catalog.find(name)
    return stored is None or PROVENANCE.name in stored.heading.all_attributes


def _statement(connection: Connection, name: TableName) -> str:
    backend = connection.backend
    comment = f" COMMENT '{_COMMENT}'" if backend.keeps_comments else ""
    kind = backend.column_type(PROVENANCE.type)
    column = f"`{PROVENANCE.name}` {kind} DEFAULT NULL{comment}"
    return f"ALTER TABLE {backend.full_name(name)} ADD COLUMN {column}"


def _add(connection: Connection, name: TableName, statement: str) -> None:
    stored = connection.catalog.find(name)
    try:
        with connection.cursor() as session:
            session.exec_driver_sql(statement)
            comment = stored.heading.comment if stored is not None else ""
            comments = {PROVENANCE.name: _COMMENT}
            connection.backend.after_create(session, name, comment, comments)
    finally:
        connection.catalog.forget(name.schema)
