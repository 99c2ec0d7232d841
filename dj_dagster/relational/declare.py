"""Creating schemas and tables that do not exist yet."""

from __future__ import annotations

import sqlalchemy as sa

from dj_dagster.errors import DataJointError, DefinitionError, MissingTableError, QueryError
from dj_dagster.model.declaration import ForeignKeyDeclaration, TableDefinition
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.table_name import TableName
from dj_dagster.relational.connection import Connection
from dj_dagster.relational.ddl import (
    FindParent,
    Place,
    PlannedTable,
    create_statements,
    nowhere,
    plan_table,
)
from dj_dagster.relational.headings import split_comment
from dj_dagster.relational.stored import StoredTable

_LINEAGE = ("table_name", "attribute_name", "lineage")
_CREATE_LINEAGE = """
CREATE TABLE IF NOT EXISTS {} (
    table_name varchar(64) NOT NULL COMMENT 'table name within the schema',
    attribute_name varchar(64) NOT NULL COMMENT 'attribute name',
    lineage varchar(255) NOT NULL COMMENT 'origin: schema.table.attribute',
    PRIMARY KEY (table_name, attribute_name)) ENGINE=InnoDB
"""


def ensure_schema(connection: Connection, schema: str, *, create: bool = True) -> None:
    """Create a schema unless it exists.

    Raises
    ------
    DataJointError
        If it does not exist and must not be created.
    """
    # What is known of it may be old: other processes declare and drop tables too.
    connection.catalog.forget(schema)
    with connection.cursor() as session:
        if schema in connection.backend.schema_names(session):
            return
        if not create:
            raise DataJointError(
                f"There is no schema {schema!r} in {connection.url}. "
                "Check its name, or pass create_schema=True."
            )
        connection.backend.create_schema(session, schema)


def drop_schema(connection: Connection, schema: str) -> None:
    """Drop a schema with all its tables.

    Raises
    ------
    QueryError
        If tables of other schemas refer to them.
    """
    with connection.cursor() as session:
        edges = connection.backend.foreign_keys_into(session, [schema])
        others = sorted({child for child, _ in edges} - {schema})
        if others:
            raise QueryError(
                f"The schema {schema} cannot be dropped, for tables of {', '.join(others)} refer "
                "to it. Drop those first."
            )
        connection.backend.drop_schema(session, schema)
    connection.catalog.forget(schema)


def ensure_table(
    connection: Connection,
    name: TableName,
    definition: TableDefinition,
    find: FindParent,
    *,
    create: bool = True,
    place: Place = nowhere,
) -> None:
    """Create a table unless it exists; one that exists is left as it is.

    Parameters
    ----------
    find
        Returns the table that a foreign key refers to.
    place
        Puts the place of a line of the definition into the errors raised for it.

    Raises
    ------
    DefinitionError
        If the definition refers to what is not there.
    MissingTableError
        If the table does not exist and must not be created.
    QueryError
        Inside a transaction, which MySQL would commit.
    """
    if connection.catalog.find(name) is not None:
        return
    if not create:
        raise MissingTableError(
            f"The table {name} is not in {connection.url}, and create_tables is False."
        )
    if connection.in_transaction:
        raise QueryError(f"The table {name} cannot be declared inside a transaction.")
    create_table(connection, plan_table(name, definition, find, connection.codecs, place))


def create_table(connection: Connection, plan: PlannedTable) -> None:
    """Create a planned table with its comments and lineage."""
    backend = connection.backend
    comments = {column.name: column.full_comment for column in plan.columns}
    with connection.transaction(), connection.cursor() as session:
        for statement in create_statements(plan, backend):
            session.execute(statement)
        backend.after_create(session, plan.name, plan.comment, comments)
    if backend.keeps_lineage and not plan.name.table.startswith("~~"):
        _write_lineage(connection, plan)
    connection.catalog.forget(plan.name.schema)


def own_key(
    name: TableName,
    definition: TableDefinition,
    find: FindParent,
    connection: Connection,
) -> StoredTable:
    """Return a table that does not exist yet as far as ``-> self`` needs it: its primary key."""
    for item in definition.key:
        if isinstance(item, ForeignKeyDeclaration) and item.target == "self":
            raise DefinitionError(f"In {name} -> self cannot be part of the primary key.")
    plan = plan_table(name, TableDefinition(key=definition.key), find, connection.codecs)
    attributes = [
        Attribute(
            column.name,
            column.stored_as,
            in_key=True,
            comment=split_comment(column.comment)[1],
            lineage=plan.lineage[column.name],
        )
        for column in plan.columns
    ]
    return StoredTable(name, Heading(attributes), plan.foreign_keys)


def _write_lineage(connection: Connection, plan: PlannedTable) -> None:
    """Keep DataJoint's record of where attributes come from; we derive it from foreign keys."""
    columns = [sa.column(name) for name in _LINEAGE]
    name = TableName(plan.name.schema, "~lineage")
    table = connection.backend.sql_table(name, *columns)
    quoted = str(sa.select(sa.text("1")).select_from(table).compile(connection.engine))
    rows = [(plan.name.table, attribute, origin) for attribute, origin in plan.lineage.items()]
    with connection.cursor() as session:
        session.exec_driver_sql(_CREATE_LINEAGE.format(quoted.partition("FROM ")[2]))
        sql = connection.backend.insert_sql(name, _LINEAGE, _LINEAGE[:2], "replace")
        if rows:
            session.exec_driver_sql(sql, rows)
