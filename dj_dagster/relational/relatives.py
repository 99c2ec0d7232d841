"""The tables that a table is related to by foreign keys, across schemas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from dj_dagster.model.graph import DependencyGraph
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.deleting.delete import master_of
from dj_dagster.relational.stored import ForeignKey, StoredTable


class ForeignKeyInfo(TypedDict):
    """The facts about a foreign key that `Table.parents` and `Table.children` return.

    Attributes
    ----------
    primary
        Whether all its attributes lie in the child's primary key.
    attr_map
        ``{child attribute: parent attribute}``.
    aliased
        Whether it renames an attribute.
    multi
        Whether several rows of the child can refer to one row of the parent: the foreign key is
        less than the child's whole key.
    """

    primary: bool
    attr_map: dict[str, str]
    aliased: bool
    multi: bool


def info(foreign_key: ForeignKey, child: StoredTable | None) -> ForeignKeyInfo:
    """Return a foreign key as plain data; `child` is the table that it belongs to."""
    return {
        "primary": foreign_key.primary,
        "attr_map": dict(foreign_key.attributes),
        "aliased": is_renaming(foreign_key),
        "multi": not (child is not None and is_whole_key(foreign_key, child)),
    }


def is_renaming(foreign_key: ForeignKey) -> bool:
    """Whether a foreign key gives the parent's attributes other names."""
    return any(own != parent for own, parent in foreign_key.attributes.items())


def is_whole_key(foreign_key: ForeignKey, child: StoredTable) -> bool:
    """Whether a foreign key is the child's whole key, so that each parent's row has at most one."""
    names = {name for name, attr in child.heading.all_attributes.items() if attr.in_key}
    return set(foreign_key.attributes) == names


def parent_keys(
    connection: Connection, name: TableName, primary: bool | None = None
) -> list[ForeignKey]:
    """Return the foreign keys of a table.

    Parameters
    ----------
    primary
        True for those within its primary key, False for the others; None for all.
    """
    found = connection.catalog.find(name)
    keys = found.foreign_keys if found else ()
    return [key for key in keys if primary is None or key.primary == primary]


def child_keys(
    connection: Connection, name: TableName, primary: bool | None = None
) -> list[ForeignKey]:
    """Return the foreign keys that refer to a table, from all schemas; see `parent_keys`."""
    keys = keys_into(connection, name.schema).get(name, [])
    return [key for key in keys if primary is None or key.primary == primary]


def keys_into(connection: Connection, schema: str) -> dict[TableName, list[ForeignKey]]:
    """Return the foreign keys into a schema's tables, and into those that depend on it, by parent.

    Each call queries the server, so look up many tables in the result of one call.
    """
    keys: dict[TableName, list[ForeignKey]] = {}
    for child in connection.catalog.related(schema):
        for key in () if is_hidden(child.name) else child.foreign_keys:
            keys.setdefault(key.parent, []).append(key)
    return keys


def ancestors(connection: Connection, name: TableName) -> list[TableName]:
    """Return a table and all tables that it refers to, directly or not, parents last."""
    graph = graph_above(connection, [name])
    return [name, *reversed(graph.ancestors(name))]


def descendants(connection: Connection, name: TableName) -> list[TableName]:
    """Return a table and all tables that refer to it, directly or not, parents first."""
    graph = DependencyGraph()
    graph.add_table(name)
    for table in connection.catalog.related(name.schema):
        if not is_hidden(table.name):
            for key in table.foreign_keys:
                graph.add_edge(key.parent, table.name)
    return [name, *graph.descendants(name)]


def part_names(connection: Connection, master: TableName) -> list[TableName]:
    """Return the part tables of a table, in order of their creation."""
    return [name for name in connection.catalog.names(master.schema) if master_of(name) == master]


def graph_above(connection: Connection, names: Iterable[TableName]) -> DependencyGraph:
    """Return the graph of some tables and of all tables that they refer to, directly or not."""
    graph = DependencyGraph()
    waiting = list(dict.fromkeys(names))
    seen = set(waiting)
    # The list grows while it is walked.
    for name in waiting:
        graph.add_table(name)
        for key in parent_keys(connection, name):
            graph.add_edge(key.parent, name)
            if key.parent not in seen:
                seen.add(key.parent)
                waiting.append(key.parent)
    return graph


def is_hidden(name: TableName) -> bool:
    """Whether a table serves the pipeline itself and is hidden from users, such as a job table."""
    return name.table.startswith("~")
