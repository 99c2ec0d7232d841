"""Rows that refer to other rows of their own table: their order of deletion, and those above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Heading, Values
from dj_dagster.model.names import TableName
from dj_dagster.relational.algebra.nodes import (
    Aggregated,
    All,
    AnyOf,
    Base,
    Condition,
    Grouped,
    In,
    Joined,
    Matches,
    Node,
    Projected,
    Restricted,
    Topped,
    United,
)
from dj_dagster.relational.algebra.operators import restrict
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.sql.select import Window
from dj_dagster.relational.stored import ForeignKey

_KINDS: Mapping[type[Node], str] = {
    Aggregated: "an aggregation",
    Grouped: "groups of rows",
    Joined: "a join",
    United: "a union",
}


def base_of(node: Node) -> tuple[Base, tuple[Condition, ...]]:
    """Return the table of a query and the conditions on its rows.

    Raises
    ------
    QueryError
        If the query is more than rows of one table, or more than conditions on them.
    """
    conditions: list[Condition] = []
    while isinstance(node, Restricted):
        conditions.append(node.condition)
        node = node.source
    if not isinstance(node, Base):
        raise QueryError(_not_of_one_table(node))
    return node, tuple(conditions)


def table_of(node: Node) -> TableName:
    """Return the table whose rows a query selects.

    Raises
    ------
    QueryError
        If the query is more than rows of one table, or has its key under other names.
    """
    return _source(node).name


def of_table(connection: Connection, node: Node) -> Node:
    """Return rows of one table as restrictions of it alone, by their keys if necessary.

    Keys are used for queries that conditions cannot express, such as the first rows in some order.

    Raises
    ------
    QueryError
        If the query is more than rows of one table, or has its key under other names.
    """
    plain = _unprojected(node)
    if plain is not None:
        return plain
    base = _source(node)
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
    """Return rows restricted by their keys if there are at most `limit`, otherwise as they are."""
    keys = fetch.rows(connection, node, key_names(node), Window(limit=limit + 1))
    return node if len(keys) > limit else _with_keys(node, list(keys))


def layers(connection: Connection, node: Node, own: Sequence[ForeignKey]) -> list[Node]:
    """Return rows with all rows that depend on them by a table's foreign keys to itself.

    Parameters
    ----------
    own
        The foreign keys of the table to itself.

    Returns
    -------
    list of Node
        Disjoint queries; no row refers to a row of an earlier query in the list.

    Raises
    ------
    QueryError
        If rows refer to each other in a circle.
    """
    table = base_of(node)[0]
    depth: dict[Values, int] = {}
    level, keys = 0, _keys(connection, node)
    seen: dict[frozenset[Values], int] = {}
    while keys:
        # Repeated rows would be repeated forever.
        if (now := frozenset(keys)) in seen or level > len(depth):
            since = seen.get(now, 0)
            again = {key for key, last in depth.items() if last >= since}
            circle = sorted(_circling(connection, table, again, own))
            raise QueryError(
                f"Rows of {table.name} refer to each other in a circle: "
                f"{', '.join(map(str, circle[:3]))}{', …' if len(circle) > 3 else ''}. "
                "Replace one by a row that refers to none, then delete."
            )
        depth |= dict.fromkeys(keys, level)
        seen[now] = level
        above = _with_keys(table, keys)
        below = AnyOf(tuple(dependence(above, foreign_key) for foreign_key in own))
        level, keys = level + 1, _keys(connection, restrict(table, below))
    by_depth: dict[int, list[Values]] = {}
    for key, level in depth.items():
        by_depth.setdefault(level, []).append(key)
    return [_with_keys(table, by_depth[level]) for level in sorted(by_depth, reverse=True)]


def with_referred(connection: Connection, node: Node, own: Sequence[ForeignKey]) -> Node:
    """Return rows with all rows of their table that they refer to, directly or not.

    Parameters
    ----------
    own
        The foreign keys of the table to itself.
    """
    table, conditions = base_of(node)
    found: dict[Values, None] = {}
    rows = node
    while own:
        above = AnyOf(tuple(reference(rows, foreign_key) for foreign_key in own))
        new = [key for key in _keys(connection, restrict(table, above)) if key not in found]
        if not new:
            break
        found |= dict.fromkeys(new)
        rows = _with_keys(table, new)
    referred = In(tuple(key_names(table)), tuple(found))
    return restrict(table, AnyOf((All(conditions), referred))) if found else node


def together(rows: Sequence[Node]) -> Node:
    """Return the rows of all layers."""
    conditions = [condition for node in rows for condition in base_of(node)[1]]
    keys = [key for found in conditions if isinstance(found, In) for key in found.values]
    return _with_keys(rows[0], keys)


def key_names(node: Node) -> list[str]:
    """Return the attributes of the primary key, hidden ones too."""
    return [name for name, attr in node.heading.all_attributes.items() if attr.in_key]


def _circling(
    connection: Connection, table: Node, keys: set[Values], own: Sequence[ForeignKey]
) -> set[Values]:
    """Return the rows in circles, by removing rows that no remaining row refers to."""
    while True:
        below = _with_keys(table, list(keys))
        above = AnyOf(tuple(reference(below, foreign_key) for foreign_key in own))
        left = keys.intersection(_keys(connection, restrict(table, above)))
        if left == keys:
            return keys
        keys = left


def _unprojected(node: Node) -> Node | None:
    """Return restricted rows of a table without projections, None for other queries.

    A restriction on the projected attributes holds for the table as well.
    """
    conditions: list[Condition] = []
    while not isinstance(node, Base):
        if isinstance(node, Restricted):
            conditions.append(node.condition)
        elif not isinstance(node, Projected) or any(o != n for n, o in node.columns.items()):
            return None
        node = node.source
    for condition in reversed(conditions):
        node = restrict(node, condition)
    return node


def _source(node: Node) -> Base:
    """Return the only table whose rows a query has, with its key under the original names."""
    query, renamed = node, set[str]()
    while isinstance(query, Restricted | Projected | Topped):
        if isinstance(query, Projected):
            renamed |= {new for new, old in query.columns.items() if old != new}
        query = query.source
    if not isinstance(query, Base):
        raise QueryError(_not_of_one_table(query))
    if any(name in renamed or name not in node.heading for name in key_names(query)):
        raise QueryError(
            f"The query has the key of {query.name} under other names: rows are deleted by its own "
            "names. Leave the key as it is, or restrict the table: (Table & query).delete()."
        )
    return query


def _not_of_one_table(node: Node) -> str:
    names = ", ".join(sorted(map(str, node.tables)))
    return (
        f"Only rows of one table can be deleted, and this is {_KINDS.get(type(node), 'a query')} "
        f"of {names}. Restrict the table that is to lose rows: (Table & query).delete()."
    )


def _keys(connection: Connection, node: Node) -> list[Values]:
    return list(fetch.rows(connection, node, key_names(node)))


def _with_keys(node: Node, keys: Sequence[Values]) -> Node:
    return restrict(base_of(node)[0], In(tuple(key_names(node)), tuple(keys)))
