"""Query expressions: the operators that build query trees."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

from dj_dagster.errors import QueryError
from dj_dagster.relational import algebra
from dj_dagster.relational.algebra import Negated, Node
from dj_dagster.relational.condition import HasNode, make_condition, query_node
from dj_dagster.relational.rows import Rows


class QueryExpression(Rows):
    """A query that runs when its rows are asked for.

    Expressions are immutable: each operator returns a new one. ``&`` restricts, ``-`` restricts by
    the opposite, ``*`` joins, `proj` chooses, renames and computes attributes.
    """

    def restrict(self, restriction: Any) -> Self:
        """Return the rows for which a restriction holds; see `&`."""
        return self._derive(algebra.restrict(self.node, make_condition(restriction, self.heading)))

    def __and__(self, restriction: Any) -> Self:
        return self.restrict(restriction)

    def __sub__(self, restriction: Any) -> Self:
        condition = Negated(make_condition(restriction, self.heading))
        return self._derive(algebra.restrict(self.node, condition))

    def __mul__(self, other: Any) -> QueryExpression:
        if not isinstance(other, HasNode):
            raise QueryError(f"A query can be joined with a query, not with {other!r}.")
        return QueryExpression(self.connection, algebra.join(self.node, query_node(other)))

    def join(self, other: Any) -> QueryExpression:
        """Return the pairs of rows that agree on all shared names; the same as ``self * other``."""
        return self * other

    def proj(self, *attributes: Any, **computed: str) -> QueryExpression:
        """Return the same rows with other attributes; the primary key is always kept.

        Parameters
        ----------
        *attributes
            Names to keep; ``...`` keeps all, ``"-name"`` leaves one out.
        **computed
            ``new="old"`` renames, ``new="(old)"`` duplicates, other text is an SQL expression.

        Raises
        ------
        UnknownAttributeError
            If a name is not in the heading.
        """
        node = algebra.project(self.node, *attributes, **computed)
        return QueryExpression(self.connection, node)

    def __contains__(self, row: Mapping[str, Any]) -> bool:
        return bool(self & row)

    def _derive(self, node: Node) -> Self:
        derived = copy.copy(self)
        derived._node = node
        return derived
