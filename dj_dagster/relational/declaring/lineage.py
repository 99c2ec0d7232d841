"""Origins of attributes, also kept for DataJoint in a table ``~lineage`` of each schema.

Only DataJoint itself needs that table: here origins are derived from foreign keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection

_COLUMNS = {
    "table_name": (64, "table name within the schema"),
    "attribute_name": (64, "attribute name"),
    "lineage": (255, "origin: schema.table.attribute"),
}
_KEY = ("table_name", "attribute_name")


def ensure(connection: Connection, schema: str) -> None:
    """Create the table ``~lineage`` of a schema unless it exists."""
    record = TableName(schema, "~lineage")
    if connection.catalog.raw(record) is None:
        _create(connection, record)


def write(connection: Connection, table: TableName, origins: Mapping[str, str]) -> None:
    """Record the origin of a table's attributes, ``{attribute: schema.table.attribute}``.

    Earlier records of the table are removed.
    """
    record = TableName(table.schema, "~lineage")
    if connection.catalog.raw(record) is None:
        _create(connection, record)
    else:
        forget(connection, table.schema, [table.table])
    rows = [(table.table, attribute, origin) for attribute, origin in origins.items()]
    if rows:
        sql = connection.backend.insert_sql(record, tuple(_COLUMNS), _KEY, "replace")
        with connection.cursor() as session:
            session.exec_driver_sql(sql, rows)


def forget(connection: Connection, schema: str, tables: Iterable[str]) -> None:
    """Remove the records of tables, if the schema has any."""
    record = TableName(schema, "~lineage")
    if connection.catalog.raw(record) is not None:
        noted = connection.backend.sql_table(record, sa.column("table_name"))
        with connection.cursor() as session:
            for table in tables:
                session.execute(sa.delete(noted).where(noted.c.table_name == table))


def _create(connection: Connection, record: TableName) -> None:
    name, schema = connection.backend.ddl_name(record)
    columns = [
        sa.Column(name, sa.String(length), nullable=False, comment=comment)
        for name, (length, comment) in _COLUMNS.items()
    ]
    table = sa.Table(
        name,
        sa.MetaData(),
        *columns,
        sa.PrimaryKeyConstraint(*_KEY),
        schema=schema,
        **connection.backend.table_options(""),
    )
    with connection.cursor() as session:
        session.execute(sa.schema.CreateTable(table, if_not_exists=True))
    connection.catalog.forget(record.schema)


def schema_lineage(connection: Connection, schema: str) -> dict[str, str]:
    """Return the origin of each key attribute and each attribute of a foreign key.

    Both are written ``schema.table.attribute``; other attributes are left out.
    """
    return {
        f"{name}.{attribute}": origin
        for name, origins in _origins(connection, schema).items()
        for attribute, origin in origins.items()
    }


def rebuild(connection: Connection, schema: str) -> None:
    """Rewrite the table ``~lineage`` of a schema, where the database has one."""
    if not connection.backend.keeps_lineage:
        return
    connection.catalog.forget(schema)
    name = TableName(schema, "~lineage")
    if connection.catalog.raw(name) is not None:
        table = connection.backend.sql_table(name, sa.column("table_name"))
        # DataJoint has rows for its job queues as well.
        connection.execute(sa.delete(table).where(~table.c.table_name.startswith("~")))
    for table_name, found in _origins(connection, schema).items():
        write(connection, table_name, found)


def _origins(connection: Connection, schema: str) -> dict[TableName, dict[str, str]]:
    return {
        name: {
            attribute.name: attribute.lineage
            for attribute in stored.heading.all_attributes.values()
            if attribute.lineage is not None
        }
        for name, stored in connection.catalog.tables(schema).items()
        if not name.table.startswith("~")
    }
