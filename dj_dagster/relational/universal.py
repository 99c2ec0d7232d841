"""U: the universal set, from which a query takes the combinations that it has."""

from __future__ import annotations

from typing import Any, NoReturn

from dj_dagster.errors import QueryError
from dj_dagster.relational.algebra.aggregation import aggregate_by, distinct
from dj_dagster.relational.algebra.algebra import Node
from dj_dagster.relational.algebra.condition import HasNode, Universal, query_node
from dj_dagster.relational.algebra.joining import AS_BEFORE, with_key
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.expression import QueryExpression


class U(Universal):
    """All possible values of some attributes.

    Parameters
    ----------
    *primary_key
        Names of the attributes; none for a single group of everything.

    Examples
    --------
    ::

        dj.U("species") & Subject                       # the species that there are
        dj.U("species").aggr(Subject, n="count(*)")     # and how many of each
        dj.U().aggr(Subject, n="count(*)")              # one row
    """

    def __init__(self, *primary_key: str) -> None:
        names: tuple[Any, ...] = primary_key
        if not all(isinstance(name, str) for name in names):
            raise QueryError(f"U takes names of attributes, not {primary_key!r}.")
        self._names = tuple(dict.fromkeys(primary_key))

    @property
    def primary_key(self) -> list[str]:
        """The names of the attributes."""
        return list(self._names)

    def __repr__(self) -> str:
        return f"U({', '.join(map(repr, self._names))})"

    def __and__(self, query: Any) -> QueryExpression:
        """Return the distinct combinations that a query has; they are the key of the result."""
        node = self._query(query)
        return QueryExpression(query.connection, distinct(node, self._names))

    def aggr(self, group: Any, **computed: str) -> QueryExpression:
        """Return the distinct combinations with what is computed from the rows of each.

        Parameters
        ----------
        group
            A query that has the attributes.
        **computed
            ``n="count(*)"``.
        """
        node = self._query(group)
        return QueryExpression(group.connection, aggregate_by(node, self._names, computed))

    aggregate = aggr

    def __mul__(self, other: Any) -> QueryExpression:
        if isinstance(other, HasNode) and _connection(other).era == "0.14":
            return QueryExpression(_connection(other), with_key(query_node(other), self._names))
        raise QueryError(
            f"{self!r} has no rows to join: * is no longer supported. Write {self!r} & query for "
            f"distinct combinations; the query alone, or with proj, for its rows. {AS_BEFORE}"
        )

    def __sub__(self, other: Any) -> NoReturn:
        raise QueryError(
            f"{self!r} - query would be infinite. Subtract from what there is: "
            f"({self!r} & query) - other."
        )

    def _query(self, query: Any) -> Node:
        if not isinstance(query, HasNode):
            raise QueryError(f"{self!r} & needs a query, not {query!r}.")
        return query_node(query)


def _connection(query: Any) -> Connection:
    return (query() if isinstance(query, type) else query).connection
