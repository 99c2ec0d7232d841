"""A query's SQL in parts, under DataJoint's names, for programs that put statements together."""

from __future__ import annotations

from typing import Protocol

from dj_dagster.relational.algebra.nodes import Base, Node, Projected, Restricted
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.sessions import QueryResult
from dj_dagster.relational.fetching.fetch import sql_text
from dj_dagster.relational.sql.lowering import names_in, restriction_texts


class Runnable(Protocol):
    """A query with the connection that it runs on."""

    @property
    def connection(self) -> Connection:
        """The connection."""
        ...

    @property
    def node(self) -> Node:
        """The query as plain data."""
        ...


def cursor(self: Runnable, as_dict: bool = False) -> QueryResult:
    """Run the query, and return its rows as the database has them, without decoding.

    Parameters
    ----------
    as_dict
        Whether rows come as dicts instead of tuples.
    """
    sql = sql_text(self.connection, self.node, self.node.heading.names)
    return self.connection.query(sql.replace("%", "%%"), as_dict=as_dict)


@property
def support(self: Runnable) -> list[str]:
    """The source of the rows: its table's full name, or SQL in parentheses."""
    return [_support(self)]


def from_clause(self: Runnable) -> str:
    """Return what follows ``FROM`` in the query's SQL.

    Examples
    --------
    ::

        query = Session & "duration > 60"
        sql = f"SELECT count(*) FROM {query.from_clause()}{query.where_clause()}"
        query.connection.query(sql.replace("%", "%%"))
    """
    source = _support(self)
    return f"{source} AS `$0`" if source.startswith("(") else source


def where_clause(self: Runnable) -> str:
    """Return the restrictions as ``" WHERE (...)"``; an empty text without restrictions."""
    texts = restriction_texts(self.connection, self.node)
    return f" WHERE ({')AND('.join(texts)})" if texts else ""


@property
def restriction_attributes(self: Runnable) -> set[str]:
    """The names of the attributes in the restrictions."""
    node, names = self.node, set[str]()
    while isinstance(node, Restricted):
        names |= names_in(self.connection, node.condition) & set(node.heading.names)
        node = node.source
    return names


def _support(query: Runnable) -> str:
    source = _unrestricted(query.node)
    if isinstance(source, Base):
        return query.connection.full_name(source.name)
    return f"({sql_text(query.connection, source, source.heading.names)})"


def _unrestricted(node: Node) -> Node:
    """Return what a query's restrictions choose from; a table also where some names are left out.

    Those of a table behind such a choice of names would be lost.
    """
    while isinstance(node, Restricted):
        node = node.source
    if isinstance(node, Projected) and isinstance(node.source, Base):
        return node.source if all(new == old for new, old in node.columns.items()) else node
    return node
