"""Deleting rows together with all rows that depend on them."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable

import sqlalchemy as sa

from dj_dagster.errors import DataJointError, QueryError
from dj_dagster.model.names import Tier, parse_table_name
from dj_dagster.model.table_name import TableName
from dj_dagster.relational import hierarchy, write
from dj_dagster.relational.algebra import (
    ALWAYS,
    All,
    AnyOf,
    Base,
    Condition,
    Node,
    all_rows,
    restrict,
    tables_of,
)
from dj_dagster.relational.catalog import dependency_graph
from dj_dagster.relational.connection import Connection
from dj_dagster.relational.lowering import Lowering
from dj_dagster.relational.stored import ForeignKey

Confirm = Callable[[str], bool]


def delete_cascade(
    connection: Connection, node: Node, table: TableName, confirm: Confirm | None
) -> int:
    """Delete a query's rows and their dependents, children first, in one transaction.

    Parameters
    ----------
    node
        The rows to delete, of the table alone.
    confirm
        Asked before the commit with a text of what was deleted; None to go ahead.

    Raises
    ------
    DataJointError
        If rows of a part table would be deleted without their master's. Nothing is deleted then.

    Returns
    -------
    int
        Number of rows deleted from `table` itself; 0 if the user declined.
    """
    _refuse_lone_part(table)
    inside = connection.in_transaction or connection.write_buffer is not None
    if confirm is not None and inside:
        raise QueryError("delete cannot ask inside a transaction or make: pass prompt=False.")
    try:
        with write.at_once(connection):
            counts = _delete_all(connection, _cascade(connection, node, table))
            if confirm is not None and any(counts.values()):
                _ask(confirm, counts)
    except _DeclinedError:
        return 0
    return counts.get(table, 0)


def delete_rows(connection: Connection, node: Node, table: TableName) -> int:
    """Delete a query's rows from one table and return their number."""
    base, conditions = hierarchy.base_of(node)
    if table in tables_of(All(conditions)):
        # MySQL refuses to delete from a table that the condition reads.
        base, conditions = hierarchy.base_of(hierarchy.fixed(connection, node))
    lowering = Lowering(connection.backend)
    target, over = lowering.target(base)
    where = [lowering.where(condition, over, base.heading) for condition in conditions]
    return connection.execute(sa.delete(target).where(*where))


def ask_on_terminal(summary: str) -> bool:
    """Show what a delete would do and ask.

    Raises
    ------
    DataJointError
        If nobody is there to be asked.
    """
    if not sys.stdin.isatty():
        raise DataJointError(
            f"{summary}\nThe delete was to be confirmed, but there is no terminal to ask on. "
            "Pass prompt=False, or set dj.config['safemode'] = False."
        )
    print(summary)
    return input("Commit the delete? [yes, No]: ").strip().lower() in ("y", "yes")


class _DeclinedError(DataJointError):
    """The user said no; leaving the transaction by an exception rolls it back."""


def _ask(confirm: Confirm, counts: dict[TableName, int]) -> None:
    if not confirm(_summary(counts)):
        raise _DeclinedError


def _delete_all(
    connection: Connection, doomed: dict[TableName, list[Node]]
) -> dict[TableName, int]:
    """Delete rows of several tables, given parents first; return how many of each."""
    counts = {
        name: sum(delete_rows(connection, rows, name) for rows in layers)
        for name, layers in reversed(doomed.items())
    }
    _check_parts(counts)
    return counts


def _cascade(connection: Connection, node: Node, root: TableName) -> dict[TableName, list[Node]]:
    """Return the rows to delete by table, parents before children.

    A table has one query, or several to be deleted in their order if its rows refer to each other.
    """
    tables = connection.catalog.related(root.schema, fresh=True)
    graph = dependency_graph(tables)
    # The graph may name parents in schemas that do not depend on the root's.
    incoming = defaultdict(tuple[ForeignKey, ...], {t.name: t.foreign_keys for t in tables})
    if node.tables & {*graph.descendants(root)}:
        # The root is chosen by rows that go first.
        node = hierarchy.fixed(connection, node)
    doomed: dict[TableName, list[Node]] = {}
    for name in graph.topological_order():
        rows = node if name == root else _dependents(connection, name, incoming[name], doomed)
        own = [foreign_key for foreign_key in incoming[name] if foreign_key.parent == name]
        if rows is not None:
            doomed[name] = hierarchy.layers(connection, rows, own) if own else [rows]
    return doomed


def _dependents(
    connection: Connection,
    name: TableName,
    foreign_keys: Iterable[ForeignKey],
    doomed: dict[TableName, list[Node]],
) -> Node | None:
    """Return the rows of a table that depend on rows to be deleted, None if none can."""
    conditions: list[Condition] = []
    for foreign_key in foreign_keys:
        layers = doomed.get(foreign_key.parent)
        if layers:
            parent = hierarchy.together(layers) if len(layers) > 1 else layers[0]
            complete = isinstance(parent, Base) and not foreign_key.nullable
            conditions.append(ALWAYS if complete else hierarchy.dependence(parent, foreign_key))
    stored = connection.catalog.find(name) if conditions else None
    if stored is None:
        return None
    condition = ALWAYS if ALWAYS in conditions else AnyOf(tuple(conditions))
    return restrict(all_rows(name, stored.heading), condition)


def _refuse_lone_part(table: TableName) -> None:
    parsed = parse_table_name(table.table)
    if parsed is not None and parsed.master is not None:
        raise DataJointError(
            f"{table} is a part of {parsed.master}: delete the rows of its master, which takes the "
            "parts along, or use delete_quick()."
        )


def _check_parts(counts: dict[TableName, int]) -> None:
    for name, count in counts.items():
        parsed = parse_table_name(name.table)
        if count and parsed is not None and parsed.tier is Tier.PART and parsed.master is not None:
            master = TableName(name.schema, parsed.master)
            if not counts.get(master):
                raise DataJointError(
                    f"The delete would take {count} rows of the part {name} but none of its master "
                    f"{master}. Delete from {master} first."
                )


def _summary(counts: dict[TableName, int]) -> str:
    lines = [f"{count:8d}  {name}" for name, count in reversed(counts.items()) if count]
    return "\n".join(["Deleting", *lines])
