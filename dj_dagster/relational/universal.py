"""The universal set: all possible values of some attributes."""

from __future__ import annotations

from typing import NoReturn

from dj_dagster.errors import QueryError
from dj_dagster.relational.algebra.condition import HasNode, Universal, query_node
from dj_dagster.relational.algebra.operators import AS_BEFORE, aggregate_by, distinct, with_key
from dj_dagster.relational.expression import QueryExpression


class U(Universal):
    """All possible values of some attributes.

    Parameters
    ----------
    *primary_key
        Names of the attributes; without names, all rows form a single group.

    Examples
    --------
    ::

        dj.U("species") & Subject                       # the species that there are
        dj.U("species").aggr(Subject, n="count(*)")     # and how many of each
        dj.U().aggr(Subject, n="count(*)")              # one row
    """

    def __init__(self, *primary_key: str) -> None:
        if not all(isinstance(name, str) for name in primary_key):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise QueryError(f"U takes names of attributes, not {primary_key!r}.")
        self._names = tuple(dict.fromkeys(primary_key))

    @property
    def primary_key(self) -> list[str]:
        """The names of the attributes."""
        return list(self._names)

    def __repr__(self) -> str:
        return f"U({', '.join(map(repr, self._names))})"

    def __and__(self, query: object) -> QueryExpression:
        """Return the distinct combinations in a query; they are the key of the result."""
        found = self._query(query)
        return QueryExpression(found.connection, distinct(found.node, self._names))

    def aggr(self, group: object, **computed: str) -> QueryExpression:
        """Return the distinct combinations with values computed from the rows of each.

        Parameters
        ----------
        group
            A query that has the attributes.
        **computed
            ``n="count(*)"``.
        """
        found = self._query(group)
        node = aggregate_by(found.node, self._names, computed)
        return QueryExpression(found.connection, node)

    aggregate = aggr

    def join(self, other: object, left: bool = False) -> QueryExpression:
        """Return the query with the attributes in its key too, for code of DataJoint 0.14.

        `left` has no effect.

        Raises
        ------
        QueryError
            In code of DataJoint 2.x.
        """
        del left
        if isinstance(other, HasNode):
            found = self._query(other)
            if found.connection.era == "0.14":
                return QueryExpression(found.connection, with_key(found.node, self._names))
        raise QueryError(
            f"{self!r} has no rows to join: * is no longer supported. Write {self!r} & query for "
            f"distinct combinations; the query alone, or with proj, for its rows. {AS_BEFORE}"
        )

    def __mul__(self, other: object) -> QueryExpression:
        return self.join(other)

    def __sub__(self, other: object) -> NoReturn:
        raise QueryError(
            f"{self!r} - query would be infinite. Subtract from what there is: "
            f"({self!r} & query) - other."
        )

    def _query(self, operand: object) -> QueryExpression:
        if isinstance(operand, HasNode):
            # Refuses the class of a table that no schema has declared.
            query_node(operand)
        query = operand() if isinstance(operand, type) else operand
        if not isinstance(query, QueryExpression):
            raise QueryError(f"{self!r} & needs a query, not {operand!r}.")
        return query
