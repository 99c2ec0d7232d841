"""Rows that refer to other rows of their table, which have to be deleted from the leaves up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Heading
from dj_dagster.relational.algebra.algebra import (
    AnyOf,
    Base,
    Condition,
    In,
    Matches,
    Node,
    Projected,
    Restricted,
    restrict,
)
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.stored import ForeignKey

Key = tuple[Any, ...]


def base_of(node: Node) -> tuple[Base, tuple[Condition, ...]]:
    """Return the table of a query and the conditions on its rows.

    Raises
    ------
    QueryError
        If the query is more than rows of one table.
    """
    conditions: list[Condition] = []
    while isinstance(node, Restricted):
        conditions.append(node.condition)
        node = node.source
    if not isinstance(node, Base):
        raise QueryError(f"Only rows of a table can be deleted, not of a {type(node).__name__}.")
    return node, tuple(conditions)


def of_table(connection: Connection, node: Node) -> Node:
    """Return rows of one table as restrictions of it alone, by their keys if need be.

    That is for queries such as the first rows in some order, which no condition can tell.

    Raises
    ------
    QueryError
        If the query is more than rows of one table.
    """
    if isinstance(node, Base | Restricted) and isinstance(_first_other(node), Base):
        return node
    base = _single_source(node)
    if base is None or any(name not in node.heading for name in key_names(base)):
        raise QueryError(f"Only rows of a table can be deleted, not of a {type(node).__name__}.")
    keys = fetch.rows(connection, node, key_names(base))
    return restrict(base, In(tuple(key_names(base)), tuple(keys)))


def dependence(parent: Node, foreign_key: ForeignKey) -> Condition:
    """Return the condition under which a child's row refers to rows of its parent."""
    columns = foreign_key.attributes
    heading = Heading(replace(parent.heading[old], name=new) for new, old in columns.items())
    query = Projected(heading, parent.tables, parent, dict(columns))
    return Matches(tuple(columns), query)


def reference(child: Node, foreign_key: ForeignKey) -> Condition:
    """Return the condition under which a parent's row is referred to by a row of its child."""
    columns = {parent: own for own, parent in foreign_key.attributes.items()}
    heading = Heading(replace(child.heading[own], name=name) for name, own in columns.items())
    return Matches(tuple(columns), Projected(heading, child.tables, child, columns))


def fixed(connection: Connection, node: Node) -> Node:
    """Return the same rows restricted by their keys, which later deletes cannot change."""
    return _with_keys(node, _keys(connection, node))


def fixed_if_few(connection: Connection, node: Node, limit: int) -> Node:
    """Return rows restricted by their keys if there are at most so many, else as they are."""
    keys = fetch.rows(connection, node, key_names(node), limit=limit + 1)
    return node if len(keys) > limit else _with_keys(node, list(keys))


def layers(connection: Connection, node: Node, own: Sequence[ForeignKey]) -> list[Node]:
    """Return rows with all that depend on them by a table's foreign keys to itself.

    Parameters
    ----------
    own
        Those foreign keys.

    Returns
    -------
    list of Node
        Disjoint; no row refers to one that comes before it in the list.

    Raises
    ------
    QueryError
        If rows refer to each other in a circle.
    """
    table = base_of(node)[0]
    depth: dict[Key, int] = {}
    level, keys = 0, _keys(connection, node)
    while keys:
        depth |= dict.fromkeys(keys, level)
        if level > len(depth):
            raise QueryError(
                f"Rows of {table.name} refer to each other in a circle, such as {keys[0]}. "
                "Replace one by a row that refers to none, then delete."
            )
        above = _with_keys(table, keys)
        below = AnyOf(tuple(dependence(above, foreign_key) for foreign_key in own))
        level, keys = level + 1, _keys(connection, restrict(table, below))
    by_depth: dict[int, list[Key]] = {}
    for key, level in depth.items():
        by_depth.setdefault(level, []).append(key)
    return [_with_keys(table, by_depth[level]) for level in sorted(by_depth, reverse=True)]


def together(rows: Sequence[Node]) -> Node:
    """Return the rows of all layers."""
    conditions = [condition for node in rows for condition in base_of(node)[1]]
    keys = [key for found in conditions if isinstance(found, In) for key in found.values]
    return _with_keys(rows[0], keys)


def key_names(node: Node) -> list[str]:
    """Return the attributes of the primary key, hidden ones too."""
    return [name for name, attr in node.heading.all_attributes.items() if attr.in_key]


def _first_other(node: Node) -> Node:
    while isinstance(node, Restricted):
        node = node.source
    return node


def _single_source(node: Node) -> Base | None:
    """Return the one table that a query passes on the rows of."""
    while not isinstance(node, Base):
        source: object = getattr(node, "source", None)
        if not isinstance(source, Node):
            return None
        node = source
    return node


def _keys(connection: Connection, node: Node) -> list[Key]:
    return list(fetch.rows(connection, node, key_names(node)))


def _with_keys(node: Node, keys: Sequence[Key]) -> Node:
    return restrict(base_of(node)[0], In(tuple(key_names(node)), tuple(keys)))
