"""Where the attributes of a schema's tables come from, for people and for DataJoint."""

from __future__ import annotations

import sqlalchemy as sa

from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring import lineage


def schema_lineage(connection: Connection, schema: str) -> dict[str, str]:
    """Return the origin of each key attribute and each attribute of a foreign key.

    Both are spelled ``schema.table.attribute``; of other attributes nothing is returned.
    """
    return {
        f"{name}.{attribute}": origin
        for name, origins in _origins(connection, schema).items()
        for attribute, origin in origins.items()
    }


def rebuild(connection: Connection, schema: str) -> None:
    """Write the table ``~lineage`` of a schema anew, where the database keeps one."""
    if not connection.backend.keeps_lineage:
        return
    connection.catalog.forget(schema)
    name = TableName(schema, "~lineage")
    if connection.catalog.raw(name) is not None:
        table = connection.backend.sql_table(name, sa.column("table_name"))
        # DataJoint has rows for its job queues as well.
        connection.execute(sa.delete(table).where(~table.c.table_name.startswith("~")))
    for table_name, found in _origins(connection, schema).items():
        lineage.write(connection, table_name, found)


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
