"""Steps that bring older schemas up to date, with the names that DataJoint gives them.

``dj-dagster migrate`` gives today's layout to a schema that DataJoint 0.14 declared, see
`dj_dagster.workflow.migration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dj_dagster.errors import DataJointError
from dj_dagster.model.heading import AttributeDeclaration
from dj_dagster.model.job_settings import JOB_METADATA
from dj_dagster.model.names import TableName, Tier, parse_table_name
from dj_dagster.relational.database.catalog import marker
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Table


def add_hidden_columns(
    target: object,
    attributes: Sequence[AttributeDeclaration],
    tiers: frozenset[Tier],
    *,
    dry_run: bool,
    present: str,
) -> dict[str, Any]:
    """Add attributes to a table, or to the tables of a schema, if they are of certain tiers.

    Parameters
    ----------
    dry_run
        Whether the statements are only returned, not run.
    present
        The status of a table that has the attributes.

    Returns
    -------
    dict
        ``tables_analyzed``; the statements as ``ddl``; and ``details`` of each table: its name as
        ``table``, its ``status``, and the number of ``columns`` that it lacked.

    Raises
    ------
    DataJointError
        If `target` is neither a schema nor a table.
    """
    connection, names = _tables(target)
    names = [name for name in names if _tier(name) in tiers]
    statements: list[str] = []
    details: list[dict[str, str | int]] = []
    for name in names:
        lacking = _lacking(connection, name, attributes)
        status = present if not lacking else "pending" if dry_run else "added"
        details.append({"table": str(name), "status": status, "columns": len(lacking)})
        made = [_statement(connection, name, attribute) for attribute in lacking]
        statements += made
        if lacking and not dry_run:
            _add(connection, name, lacking, made)
    return {"tables_analyzed": len(names), "ddl": statements, "details": details}


def _tables(target: object) -> tuple[Connection, list[TableName]]:
    table = schema_or_table(target)
    if isinstance(table, Schema):
        names = [TableName(table.name, each) for each in table.list_tables()]
        return table.connection, names
    table.connection.catalog.forget(table.database)
    return table.connection, [table.name]


def schema_or_table(target: object) -> Schema | Table:
    """Return a schema or table unchanged, and an instance for a table's class.

    Raises
    ------
    DataJointError
        If `target` is neither a schema nor a table.
    """
    found = target() if isinstance(target, type) and issubclass(target, Table) else target
    if not isinstance(found, Schema | Table):
        raise DataJointError(f"The target must be a Schema or Table, not {target!r}.")
    return found


def _tier(name: TableName) -> Tier | None:
    parsed = parse_table_name(name.table)
    return parsed and parsed.tier


def _lacking(
    connection: Connection, name: TableName, attributes: Sequence[AttributeDeclaration]
) -> list[AttributeDeclaration]:
    stored = connection.catalog.find(name)
    known = stored.heading.all_attributes if stored is not None else {}
    return [attribute for attribute in attributes if attribute.name not in known]


def _comment(attribute: AttributeDeclaration) -> str:
    return marker(attribute.type, attribute.comment)


def _statement(connection: Connection, name: TableName, attribute: AttributeDeclaration) -> str:
    backend = connection.backend
    comment = f" COMMENT '{_comment(attribute)}'" if backend.keeps_comments else ""
    default = "NOT NULL DEFAULT ''" if attribute.default is not None else "DEFAULT NULL"
    quoted = connection.engine.dialect.identifier_preparer.quote_identifier(attribute.name)
    column = f"{quoted} {backend.column_type(attribute.type)} {default}{comment}"
    return f"ALTER TABLE {backend.full_name(name)} ADD COLUMN {column}"


def _add(
    connection: Connection,
    name: TableName,
    attributes: Sequence[AttributeDeclaration],
    statements: Sequence[str],
) -> None:
    stored = connection.catalog.find(name)
    try:
        with connection.cursor() as session:
            for statement in statements:
                session.exec_driver_sql(statement)
            comment = stored.heading.comment if stored is not None else ""
            comments = {attribute.name: _comment(attribute) for attribute in attributes}
            connection.backend.after_create(session, name, comment, comments)
    finally:
        connection.catalog.forget(name.schema)


def add_job_metadata_columns(
    target: Schema | type[Table] | Table, dry_run: bool = True
) -> dict[str, Any]:
    """Add the hidden attributes ``_job_start_time`` and so on to computed tables that lack them.

    Existing rows have null in them. `populate` fills them from now on, whatever the setting
    ``jobs.add_job_metadata`` is.

    Parameters
    ----------
    target
        A table, or a schema for all of its computed and imported tables.
    dry_run
        Whether the statements are only returned, not run.

    Returns
    -------
    dict
        As DataJoint's: ``tables_analyzed``; ``tables_modified`` and ``columns_added``, which count
        planned changes in a dry run; the statements as ``ddl``; and ``details`` of each table.

    Raises
    ------
    DataJointError
        If `target` is neither a schema nor a table.
    """
    tiers = frozenset({Tier.COMPUTED, Tier.IMPORTED})
    report = add_hidden_columns(
        target, JOB_METADATA, tiers, dry_run=dry_run, present="already_migrated"
    )
    modified = sum(table["columns"] > 0 for table in report["details"])
    return {**report, "tables_modified": modified, "columns_added": len(report["ddl"])}


def rebuild_lineage(schema: Schema, dry_run: bool = True) -> dict[str, Any]:
    """Write the table ``~lineage`` of a schema anew; see `Schema.rebuild_lineage`.

    Parameters
    ----------
    dry_run
        Whether nothing is written.

    Returns
    -------
    dict
        The number of attributes with a lineage, as ``lineage_entries``.
    """
    if not dry_run:
        schema.rebuild_lineage()
    return {"lineage_entries": len(schema.lineage)}
