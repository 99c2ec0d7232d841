"""Making rows again that are there already: they are deleted with what depends on them first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dj_dagster.errors import PopulateError
from dj_dagster.model.names import Tier, parse_table_name
from dj_dagster.model.table_name import TableName
from dj_dagster.orchestration.maker import OwnMaker
from dj_dagster.orchestration.naming import class_name
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.relational.algebra.algebra import Matches, restrict
from dj_dagster.relational.deleting.cascade import cascade_counts
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.workflow.pending import source

ENTERED = (Tier.MANUAL, Tier.LOOKUP)

CHUNK = 100
"""Keys that are deleted together, just before they are made."""


def check_recompute(graph: TableGraph, node: TableNode, keys: Sequence[dict[str, Any]]) -> None:
    """Refuse where rows would be deleted too that people, or assets of theirs, have entered.

    Raises
    ------
    PopulateError
        Naming their tables, with how many rows of each.
    """
    rows: Any = node.table & list(keys)
    filled = {of_graph.name: _root(graph, of_graph).populated for of_graph in graph.nodes}
    lost = {
        name: count
        for name, count in cascade_counts(node.table.connection, rows.node, node.name).items()
        if count and not filled.get(name, not _is_entered(name))
    }
    if lost:
        found = ", ".join(f"{count} rows of {class_name(name)}" for name, count in lost.items())
        raise PopulateError(
            f"{node.title} is not made again: {found} depend on the rows that would be deleted, "
            "and no make brings them back. Delete them first, or choose other partitions."
        )


def delete_existing(node: TableNode, keys: Sequence[dict[str, Any]]) -> int:
    """Delete the rows of keys, with their parts and all that depends on them."""
    # A key without attributes is that of all rows.
    rows: Any = node.table & list(keys) if node.maker.key_names else node.table
    return rows.delete(prompt=False)


def existing_keys(
    node: TableNode, *restrictions: Any, limit: int | None = None, retry_errors: bool = False
) -> list[dict[str, Any]]:
    """Return the keys of a table that have rows, and those that are pending."""
    names = node.maker.key_names
    rows: Any = node.table
    if restrictions and isinstance(node.maker, OwnMaker):
        # By the parents' attributes too, as what is pending.
        chosen = source(node.maker.table, *restrictions)
        same_key = Matches(tuple(chosen.heading.primary_key), chosen)
        rows = QueryExpression(rows.connection, restrict(rows.node, same_key))
    else:
        for restriction in restrictions:
            rows = rows & restriction
    found = rows.proj().to_dicts(order_by=names or None)
    present = {tuple(row[name] for name in names): None for row in found}
    pending = node.pending(*restrictions, limit=limit, retry_errors=retry_errors)
    keys = [dict(zip(names, values, strict=True)) for values in present]
    return (keys + pending)[:limit]


def _root(graph: TableGraph, node: TableNode) -> TableNode:
    return node if node.master is None else graph.by_key[node.master]


def _is_entered(name: TableName) -> bool:
    parsed = parse_table_name(name.table)
    while parsed is not None and parsed.master is not None:
        parsed = parse_table_name(parsed.master)
    return parsed is not None and parsed.tier in ENTERED
