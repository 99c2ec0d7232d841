"""The rows of many tables that belong to the rows of one: below it, or above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dj_dagster.model.names import TableName
from dj_dagster.relational.algebra.algebra import (
    All,
    AnyOf,
    Base,
    Condition,
    Node,
    all_rows,
    restrict,
)
from dj_dagster.relational.database.catalog import dependency_graph
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.deleting import cascade, hierarchy
from dj_dagster.relational.deleting.carried import any_of, narrowed
from dj_dagster.relational.deleting.cascade import PartIntegrity
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.relatives import graph_above, parent_keys

Rows = dict[TableName, list[Node]]
"""The rows of each table, parents first, as one query or several that have none in common."""


def rows_below(
    connection: Connection, node: Node, root: TableName, part_integrity: PartIntegrity
) -> Rows:
    """Return a query's rows with all that a delete of them would take."""
    node = hierarchy.of_table(connection, node)
    return cascade.doomed_rows(connection, node, root, masters=part_integrity == "cascade")


def rows_above(connection: Connection, node: Node, root: TableName) -> Rows:
    """Return a query's rows with all that they refer to, directly or not.

    A table's foreign keys to itself are not followed.
    """
    graph = graph_above(connection, [root])
    found: Rows = {root: [hierarchy.of_table(connection, node)]}
    conditions: dict[TableName, list[Condition]] = {}
    for name in [root, *reversed(graph.ancestors(root))]:
        stored = connection.catalog.find(name)
        if stored is None:
            continue
        if name != root:
            restricted = restrict(all_rows(name, stored.heading), AnyOf(tuple(conditions[name])))
            found[name] = [restricted]
        for key in parent_keys(connection, name):
            if key.parent != name:
                condition = hierarchy.reference(found[name][0], key)
                conditions.setdefault(key.parent, []).append(condition)
    return dict(reversed(found.items()))


def rows_within(connection: Connection, seeds: Mapping[TableName, Sequence[Node]]) -> Rows:
    """Return the rows of some tables, and those below them that depend on these alone.

    A row belongs to it where each of its parents that is restricted belongs to it; of several
    foreign keys to one parent one is enough. A table's foreign keys to itself are not followed.

    Parameters
    ----------
    seeds
        Of each table queries of its rows, all of which hold.
    """
    incoming = {
        table.name: table
        for name in seeds
        for table in connection.catalog.related(name.schema, fresh=True)
    }
    graph = dependency_graph(incoming.values())
    found: Rows = {}
    for name in graph.topological_order():
        table, stored = incoming.get(name), connection.catalog.find(name)
        if table is None or stored is None:
            continue
        conditions = [c for node in seeds.get(name, ()) for c in hierarchy.base_of(node)[1]]
        parents = dict.fromkeys(key.parent for key in table.foreign_keys if key.parent != name)
        for parent in parents:
            if parent in found:
                keys = [key for key in table.foreign_keys if key.parent == parent]
                conditions.append(any_of([[narrowed(found[parent][0], key)] for key in keys]))
        if conditions or name in seeds:
            found[name] = [restrict(all_rows(name, stored.heading), All(tuple(conditions)))]
    graph.check_acyclic(found)
    return found


def count_rows(connection: Connection, rows: Rows) -> dict[TableName, int]:
    """Return the number of rows of each table, parents first."""
    return {
        name: sum(fetch.count(connection, node) for node in nodes) for name, nodes in rows.items()
    }


def joined(nodes: list[Node]) -> Node | None:
    """Return the rows of a table as one query, None where that is the whole table."""
    node = nodes[0] if len(nodes) == 1 else hierarchy.together(nodes)
    return None if isinstance(node, Base) else node
