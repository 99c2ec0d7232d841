"""Query expressions: operators that build query trees, deletion, and the universal set `U`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NoReturn, Self, cast, overload

from dj_dagster.class_access import on_class
from dj_dagster.compat.spellings import OldQuery, old_aggr, old_delete
from dj_dagster.errors import QueryError
from dj_dagster.model.names import TableName
from dj_dagster.relational.algebra import nodes
from dj_dagster.relational.algebra.condition import (
    AndList,
    HasNode,
    Not,
    Universal,
    make_condition,
    query_node,
    refuse_oversights,
)
from dj_dagster.relational.algebra.nodes import Node
from dj_dagster.relational.algebra.operators import (
    AS_BEFORE,
    aggregate,
    aggregate_by,
    distinct,
    join,
    project,
    unite,
    with_key,
)
from dj_dagster.relational.algebra.top import Top, topped
from dj_dagster.relational.confirmation import Confirm, question
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.deleting import delete as deletion
from dj_dagster.relational.deleting import hierarchy
from dj_dagster.relational.deleting.delete import PartIntegrity
from dj_dagster.relational.fetching.rows import Rows, looks_again
from dj_dagster.relational.sql.condition_text import restriction_texts


class QueryExpression(OldQuery, Rows):
    """A query that runs when its rows are fetched.

    Expressions are immutable: each operator returns a new one. ``&`` restricts, ``-`` restricts by
    the opposite, ``*`` joins, ``+`` unites, `proj` chooses, renames and computes attributes,
    `aggr` computes them from the rows of another query.
    """

    @property
    def restriction(self) -> AndList:
        """The restrictions of the query as texts of SQL; empty without restrictions."""
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
        return self._derive(nodes.restrict(self.node, condition))

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

    @on_class
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

    @on_class
    def extend(self, other: Any, semantic_check: bool | None = None) -> QueryExpression:
        """Return all rows with the attributes of their partner in `other`, nulls without a partner.

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

    @on_class
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

    @on_class
    @old_aggr
    def aggr(
        self,
        group: Any,
        *attributes: Any,
        exclude_nonmatching: bool | None = None,
        **computed: str,
    ) -> QueryExpression:
        """Return these rows with values computed from the rows of `group` that agree with each.

        Parameters
        ----------
        group
            A query with all of this query's primary key.
        *attributes
            This query's own attributes to keep, as for `proj`.
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
        # The same as copy.copy, in a third of its time.
        derived = object.__new__(type(self))
        derived.__dict__.update(self.__dict__)
        derived._node = node
        return derived

    @overload
    def delete(
        self,
        transaction: bool = True,
        prompt: bool | None = None,
        part_integrity: PartIntegrity = "enforce",
        *,
        confirm: Confirm | None = None,
        dry_run: Literal[False] = False,
    ) -> int: ...

    @overload
    def delete(
        self,
        transaction: bool = True,
        prompt: bool | None = None,
        part_integrity: PartIntegrity = "enforce",
        *,
        confirm: Confirm | None = None,
        dry_run: Literal[True],
    ) -> dict[str, int]: ...

    @old_delete
    def delete(
        self,
        transaction: bool = True,
        prompt: bool | None = None,
        part_integrity: PartIntegrity = "enforce",
        *,
        confirm: Confirm | None = None,
        dry_run: bool = False,
    ) -> int | dict[str, int]:
        """Delete the rows of the query with all that depend on them, all of them or none.

        The query may choose, compute and restrict, as ``(Session.proj() & key).delete()`` does. One
        of several tables, or of groups of rows, is refused: write ``(Session & query).delete()``.
        A name in a dict that is not an attribute is passed over, as long as another name is one.

        Parameters
        ----------
        transaction
            Has no effect and is accepted for compatibility with DataJoint: a delete joins the open
            transaction, and opens one otherwise.
        prompt
            Whether to ask before committing; the connection's safemode by default.
        part_integrity
            When rows of a part would go without their master's: ``"enforce"`` refuses, ``"ignore"``
            deletes them, ``"cascade"`` deletes the masters of these rows too.
        confirm
            Called with the counts as text, instead of asking on the terminal.
        dry_run
            Whether to count only, without locking or deleting rows.

        Returns
        -------
        int or dict
            Number of rows deleted from the table itself; in a dry run the number of rows by full
            table name, parents first.

        Raises
        ------
        DataJointError
            For a part table on its own, or when rows of a part would go without their master's.
        QueryError
            If the query is more than rows of one table, or a restriction does not name an
            attribute.
        """
        del transaction
        table = self._losing_rows()
        if dry_run:
            found = deletion.dry_run(self.connection, self.node, table, part_integrity)
            full_name = self.connection.full_name
            return {full_name(name): count for name, count in found.items()}
        asking = question(prompt, confirm, self.connection.safemode)
        return deletion.delete_cascade(self.connection, self.node, table, asking, part_integrity)

    @on_class
    def delete_quick(self, get_count: bool = False) -> int:
        """Delete the rows of the query alone; refused by the database if others depend on them.

        The number of deleted rows is returned, whatever `get_count` is.

        Raises
        ------
        QueryError
            If the query is more than rows of one table, or a restriction does not name an
            attribute.
        """
        del get_count
        table = self._losing_rows()
        return write.change(
            self.connection, lambda: deletion.delete_rows(self.connection, self.node, table)
        )

    def _losing_rows(self) -> TableName:
        table = hierarchy.table_of(self.node)
        found = self.connection.catalog.find(table)
        if found is not None:
            found.check_table("delete from")
        write.check_writable(self.connection, table)
        refuse_oversights(self.node, f"delete from {table}")
        return table


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
        """Return the distinct combinations in a query; they are the key of the result."""
        node = self._query(query)
        return QueryExpression(query.connection, distinct(node, self._names))

    def aggr(self, group: Any, **computed: str) -> QueryExpression:
        """Return the distinct combinations with values computed from the rows of each.

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
