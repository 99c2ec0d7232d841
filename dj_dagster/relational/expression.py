"""Query expressions: the operators that build query trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

from dj_dagster.compat.spellings import OldQuery, old_aggr
from dj_dagster.errors import QueryError
from dj_dagster.relational.algebra import algebra
from dj_dagster.relational.algebra.aggregation import aggregate
from dj_dagster.relational.algebra.algebra import Node
from dj_dagster.relational.algebra.condition import (
    AndList,
    HasNode,
    Not,
    Universal,
    make_condition,
    query_node,
)
from dj_dagster.relational.algebra.joining import AS_BEFORE, join, with_key
from dj_dagster.relational.algebra.projection import project
from dj_dagster.relational.algebra.top import Top, topped
from dj_dagster.relational.algebra.union import unite
from dj_dagster.relational.deletable import Deletable
from dj_dagster.relational.fetching.rows import Rows
from dj_dagster.relational.looking_again import looks_again
from dj_dagster.relational.sql.condition_text import restriction_texts


class QueryExpression(OldQuery, Deletable, Rows):
    """A query that runs when its rows are asked for.

    Expressions are immutable: each operator returns a new one. ``&`` restricts, ``-`` restricts by
    the opposite, ``*`` joins, ``+`` unites, `proj` chooses, renames and computes attributes,
    `aggr` computes them from the rows of another query.
    """

    @property
    def restriction(self) -> AndList:
        """What restricts the query, as texts of SQL; empty without."""
        return AndList(restriction_texts(self.connection, self.node))

    def restrict(self, restriction: Any, semantic_check: bool | None = None) -> Self:
        """Return the rows for which a restriction holds; the same as ``self & restriction``.

        Parameters
        ----------
        restriction
            See `make_condition` in `dj_dagster.relational.algebra`; or a `Top`, the first rows.
        semantic_check
            False to let names that are shared with another query match whatever they mean; as the
            connection has it by default.
        """
        if isinstance(restriction, Top):
            return self._derive(topped(self.node, restriction))
        if isinstance(restriction, AndList) and any(isinstance(r, Top) for r in restriction):
            query = self
            options = {} if semantic_check is None else {"semantic_check": semantic_check}
            for part in restriction:
                query = query.restrict(part, **options)
            return query
        condition = make_condition(restriction, self.heading, self._checks(semantic_check))
        return self._derive(algebra.restrict(self.node, condition))

    def __and__(self, restriction: Any) -> Self:
        return self.restrict(restriction)

    def __sub__(self, restriction: Any) -> Self:
        return self.restrict(Not(restriction))

    def __mul__(self, other: Any) -> QueryExpression:
        if isinstance(other, Universal) and self.connection.era == "0.14":
            return QueryExpression(
                self.connection, with_key(self.node, cast(Any, other).primary_key)
            )
        return self.join(other)

    def join(
        self, other: Any, semantic_check: bool | None = None, left: bool = False
    ) -> QueryExpression:
        """Return the pairs of rows that agree on all shared names; the same as ``self * other``.

        Parameters
        ----------
        semantic_check
            False to let shared names match whatever they mean; as the connection has it by default.
        left
            Whether rows of this query without a partner stay, with nulls; see `extend`.

        Raises
        ------
        QueryError
            If shared names mean different things.
        """
        node = join(self.node, _query(other, "joined with"), self._checks(semantic_check), left)
        return QueryExpression(self.connection, node)

    def extend(self, other: Any, semantic_check: bool | None = None) -> QueryExpression:
        """Return all rows with the attributes of their partner in `other`, nulls where none is.

        Raises
        ------
        QueryError
            If a row could have several partners: `other` has a primary key that is not wholly
            among the attributes of this query.
        """
        options = {} if semantic_check is None else {"semantic_check": semantic_check}
        return self.join(other, left=True, **options)

    def __add__(self, other: Any) -> QueryExpression:
        node = unite(self.node, _query(other, "united with"), False)
        return QueryExpression(self.connection, node)

    @looks_again
    def proj(self, *attributes: Any, **computed: str) -> QueryExpression:
        """Return the same rows with other attributes; the primary key is always kept.

        Parameters
        ----------
        *attributes
            Names to keep; ``...`` keeps all, ``"-name"`` leaves one out.
        **computed
            ``new="old"`` renames, ``new="(old)"`` duplicates, ``new="old.path[0]:type"`` takes a
            value out of JSON, other text is an SQL expression.

        Raises
        ------
        UnknownAttributeError
            If a name is not in the heading.
        """
        return QueryExpression(self.connection, project(self.node, *attributes, **computed))

    @old_aggr
    def aggr(
        self,
        group: Any,
        *attributes: Any,
        exclude_nonmatching: bool | None = None,
        **computed: str,
    ) -> QueryExpression:
        """Return these rows with what is computed from the rows of `group` that agree with each.

        Parameters
        ----------
        group
            A query with all of this query's primary key.
        *attributes
            Which of this query's own attributes to keep, as for `proj`.
        exclude_nonmatching
            Whether to leave out rows that no row of `group` agrees with, as code of DataJoint 0.14
            has it by default. Otherwise for them ``count(*)`` is 1, ``count(attribute_of_group)`` 0
            and most other aggregates are null.
        **computed
            ``mean="avg(score)"``.

        Raises
        ------
        QueryError
            If `group` lacks attributes of this query's primary key.

        Examples
        --------
        ::

            Session.aggr(Session.Trial, n="count(trial_id)", best="max(score)") & "n > 10"
        """
        other = _query(group, "aggregated over")
        if exclude_nonmatching is None:
            exclude_nonmatching = self.connection.era == "0.14"
        node = aggregate(
            self.node,
            other,
            attributes,
            computed,
            exclude_nonmatching=exclude_nonmatching,
            semantic_check=self._checks(),
        )
        return QueryExpression(self.connection, node)

    def __contains__(self, row: Mapping[str, Any]) -> bool:
        return bool(self & row)

    def _checks(self, semantic_check: bool | None = None) -> bool:
        return self.connection.semantic_check if semantic_check is None else semantic_check

    def _derive(self, node: Node) -> Self:
        # What copy.copy does, in a third of its time.
        derived = object.__new__(type(self))
        derived.__dict__.update(self.__dict__)
        derived._node = node
        return derived


def _query(other: Any, use: str) -> Node:
    if isinstance(other, Universal):
        raise QueryError(
            f"A query cannot be {use} {other!r}, which has no rows of its own: that is no longer "
            "supported. "
            f"For distinct values write {other!r} & query, for groups {other!r}.aggr(query, ...). "
            f"{AS_BEFORE}"
        )
    if not isinstance(other, HasNode):
        raise QueryError(f"A query can be {use} a query, not with {other!r}.")
    return query_node(other)
