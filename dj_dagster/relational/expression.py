"""Query expressions: the operators that build query trees, reads of their rows, and deletion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Literal, ParamSpec, Self, TypeVar, overload

from dj_dagster.class_access import on_class, property_on_class
from dj_dagster.compat import spellings
from dj_dagster.errors import QueryError, UnknownAttributeError
from dj_dagster.model.heading import Heading, Key, Row, Value
from dj_dagster.model.names import TableName
from dj_dagster.relational.algebra import operators
from dj_dagster.relational.algebra.condition import (
    AndList,
    HasNode,
    Not,
    Order,
    Top,
    Universal,
    make_condition,
    query_node,
    refuse_oversights,
    topped,
)
from dj_dagster.relational.algebra.nodes import Node
from dj_dagster.relational.algebra.operators import AS_BEFORE, Matching
from dj_dagster.relational.caller import Confirm, question, refuse_arguments
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.deleting import delete as deletion
from dj_dagster.relational.deleting import hierarchy
from dj_dagster.relational.deleting.delete import PartIntegrity
from dj_dagster.relational.fetching import fetch, frames
from dj_dagster.relational.fetching.preview import html_preview, text_preview
from dj_dagster.relational.sql import parts
from dj_dagster.relational.sql.lowering import restriction_texts
from dj_dagster.relational.sql.select import FIRST_TWO, make_window

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

P = ParamSpec("P")
R = TypeVar("R")
Q = TypeVar("Q", bound="QueryExpression")

KEY = "KEY"
"""The name that requests the primary key, as a dict, among the attributes."""


def looks_again(method: Callable[Concatenate[Q, P], R]) -> Callable[Concatenate[Q, P], R]:
    """Have the tables of a query read anew after a method found that they lack a name.

    The call fails nevertheless, because its rows may be used up.
    """

    @wraps(method)
    def looking(query: Q, *args: P.args, **options: P.kwargs) -> R:
        try:
            return method(query, *args, **options)
        except UnknownAttributeError as error:
            if query.connection.catalog.have_changed(query.node.tables):
                error.add_note("The table has been changed meanwhile: try again.")
            raise

    return looking


class QueryExpression:
    """A query that runs when its rows are fetched.

    Expressions are immutable: each operator returns a new one. ``&`` restricts, ``-`` restricts by
    the opposite, ``*`` joins, ``+`` unites, `proj` chooses, renames and computes attributes,
    `aggr` computes them from the rows of another query.

    Where a method takes `order_by`, it is an attribute's name or a list of names, each optionally
    followed by `` DESC``; ``"KEY"`` stands for the primary key. Without it, rows come in the order
    of the query's `Top`, or in any order. `limit` is the number of rows, after leaving out the
    first `offset`. `squeeze` removes dimensions of length one from arrays in blobs. A wrong
    `order_by`, `limit` or `offset` is refused with a `QueryError`.
    """

    def __init__(self, connection: Connection, node: Node) -> None:
        self._connection = connection
        self._node: Node | None = node

    @property_on_class
    def connection(self) -> Connection:
        """The connection that the query runs on."""
        return self._connection

    @property
    def node(self) -> Node:
        """The query as plain data."""
        assert self._node is not None
        return self._node

    @property_on_class
    def heading(self) -> Heading:
        """The attributes of the result."""
        return self.node.heading

    @property_on_class
    def primary_key(self) -> list[str]:
        """Names of the primary key."""
        return self.heading.primary_key

    @property
    def restriction(self) -> AndList:
        """The restrictions of the query as texts of SQL; empty without restrictions."""
        return AndList(restriction_texts(self.connection, self.node))

    def restrict(self, restriction: object, semantic_check: bool | None = None) -> Self:
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
            for part in restriction:
                query = query.restrict(part, **_given(semantic_check))
            return query
        condition = make_condition(restriction, self.heading, self._matching(semantic_check))
        return self._derive(operators.restrict(self.node, condition))

    def __and__(self, restriction: object) -> Self:
        return self.restrict(restriction)

    def __sub__(self, restriction: object) -> Self:
        return self.restrict(Not(restriction))

    def __mul__(self, other: object) -> QueryExpression:
        return self.join(other)

    @on_class
    def join(
        self, other: object, semantic_check: bool | None = None, left: bool = False
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
        if isinstance(other, Universal) and self.connection.era == "0.14":
            node = operators.with_key(self.node, other.primary_key)
        else:
            matching = self._matching(semantic_check)
            node = operators.join(self.node, _query(other, "joined with"), matching, left)
        return QueryExpression(self.connection, node)

    @on_class
    def extend(self, other: object, semantic_check: bool | None = None) -> QueryExpression:
        """Return all rows with the attributes of their partner in `other`, nulls without a partner.

        Raises
        ------
        QueryError
            If a row could have several partners: `other` has a primary key that is not wholly
            among the attributes of this query.
        """
        return self.join(other, left=True, **_given(semantic_check))

    def __add__(self, other: object) -> QueryExpression:
        node = operators.unite(self.node, _query(other, "united with"), Matching(is_checked=False))
        return QueryExpression(self.connection, node)

    @on_class
    @looks_again
    def proj(self, *attributes: object, **computed: str) -> QueryExpression:
        """Return the same rows with other attributes; the primary key is always kept.

        Parameters
        ----------
        *attributes
            Names to keep; ``...`` keeps all, ``"-name"`` leaves one out.
        **computed
            ``new="old"`` renames, ``new="(old)"`` duplicates, ``new="old.path[0]:type"`` takes a
            value out of JSON, other text is an SQL expression, in which ``%%`` is ``%``.

        Raises
        ------
        UnknownAttributeError
            If a name is not in the heading.
        """
        return self._derive(operators.project(self.node, *attributes, **computed))

    @on_class
    @spellings.old_aggr
    def aggr(
        self,
        group: object,
        *attributes: object,
        exclude_nonmatching: bool | None = None,
        **computed: str,
    ) -> QueryExpression:
        """Return these rows with values computed from the rows of `group` that agree with each.

        Parameters
        ----------
        group
            A query with all of this query's primary key; for code of DataJoint 0.14 any.
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
        if exclude_nonmatching is None:
            exclude_nonmatching = self.connection.era == "0.14"
        node = operators.aggregate(
            self.node,
            _query(group, "aggregated over"),
            attributes,
            computed,
            exclude_nonmatching=exclude_nonmatching,
            matching=self._matching(),
        )
        return QueryExpression(self.connection, node)

    aggregate = aggr
    __xor__ = spellings.restrict_by_names
    __matmul__ = spellings.join_by_names

    def __contains__(self, row: object) -> bool:
        return bool(self & row)

    @on_class
    def to_dicts(
        self,
        order_by: Order = None,
        limit: int | None = None,
        offset: int | None = None,
        squeeze: bool = False,
    ) -> list[Row]:
        """Return the rows as dicts."""
        node = self.node
        names = node.heading.names
        window = make_window(order_by, limit, offset, node.heading)
        rows = fetch.rows(self.connection, node, names, window, squeeze=squeeze)
        return fetch.as_dicts(names, rows)

    def some_dicts(
        self,
        names: Iterable[str],
        order_by: Order = None,
        limit: int | None = None,
        offset: int | None = None,
        squeeze: bool = False,
    ) -> list[Row]:
        """Return some attributes of the rows as dicts; the order may name others."""
        node, names = self.node, list(names)
        window = make_window(order_by, limit, offset, node.heading)
        rows = fetch.rows(self.connection, node, names, window, squeeze=squeeze)
        return fetch.as_dicts(names, rows)

    @on_class
    def keys(
        self, order_by: Order = None, limit: int | None = None, offset: int | None = None
    ) -> list[Key]:
        """Return the primary keys as dicts."""
        node = self.node
        key = node.heading.primary_key
        window = make_window(order_by, limit, offset, node.heading)
        return fetch.as_dicts(key, fetch.rows(self.connection, node, key, window))

    @on_class
    def to_pandas(
        self,
        order_by: Order = None,
        limit: int | None = None,
        offset: int | None = None,
        squeeze: bool = False,
    ) -> pd.DataFrame:
        """Return the rows as a data frame indexed by the primary key.

        The columns have the heading's types, also without rows: int64, float64, bool,
        ``datetime64[us]``, pandas' own text, or objects. Integers beside nulls are float64.
        """
        node = self.node
        window = make_window(order_by, limit, offset, node.heading)
        columns = fetch.columns(self.connection, node, node.heading.names, window, squeeze=squeeze)
        return frames.pandas_frame(columns, node.heading, self.connection.era)

    @on_class
    def to_polars(
        self,
        order_by: Order = None,
        limit: int | None = None,
        offset: int | None = None,
        squeeze: bool = False,
    ) -> pl.DataFrame:
        """Return the rows as a polars data frame, its schema given by the heading.

        Numbers have 64 bits. Uuids and JSON come as text, values unpacked by codecs as objects.

        Raises
        ------
        ConfigurationError
            If polars is not installed: ``pip install 'dj-dagster[polars]'``.
        """
        node = self.node
        window = make_window(order_by, limit, offset, node.heading)
        columns = fetch.columns(self.connection, node, node.heading.names, window, squeeze=squeeze)
        return frames.polars_frame(columns, node.heading)

    @on_class
    def to_arrow(
        self,
        order_by: Order = None,
        limit: int | None = None,
        offset: int | None = None,
        squeeze: bool = False,
    ) -> pa.Table:
        """Return the rows as an Arrow table, its schema given by the heading.

        Numbers have 64 bits. Uuids and JSON come as text.

        Raises
        ------
        ConfigurationError
            If pyarrow is not installed: ``pip install 'dj-dagster[arrow]'``.
        QueryError
            If a codec returns a value that Arrow cannot hold, such as a matrix.
        """
        node = self.node
        window = make_window(order_by, limit, offset, node.heading)
        columns = fetch.columns(self.connection, node, node.heading.names, window, squeeze=squeeze)
        return frames.arrow_table(columns, node.heading)

    @on_class
    @looks_again
    def to_arrays(
        self,
        *attributes: str,
        include_key: bool = False,
        order_by: Order = None,
        limit: int | None = None,
        offset: int | None = None,
        squeeze: bool = False,
    ) -> Value:
        """Return the named attributes as arrays; without names a record array of all.

        Integers come as int64 (as uint64 if one is beyond it), floats as float64, booleans as bool.
        Nullable integers and booleans, text, dates, decimals and unpacked objects come in arrays of
        objects; but a nullable attribute that is named here comes in an array of its own type if it
        is without nulls.
        ``"KEY"`` among the names gives the primary keys as dicts.

        Parameters
        ----------
        include_key
            Whether the primary keys come before the named attributes, as a list of dicts.

        Returns
        -------
        numpy.ndarray or tuple
            One array for one name, else a tuple of them.
        """
        names = [*((KEY,) if include_key and attributes else ()), *attributes]
        node = self.node
        needed = self._needed("to_arrays", names) if names else node.heading.names
        window = make_window(order_by, limit, offset, node.heading)
        columns = fetch.columns(self.connection, node, needed, window, squeeze=squeeze)
        if not names:
            return frames.records(columns, node.heading)
        result = tuple(
            self._key_dicts(columns)
            if self._is_key(name)
            else frames.array(columns[name], self.heading[name])
            for name in names
        )
        return result if include_key or len(names) > 1 else result[0]

    @on_class
    @looks_again
    def fetch1(
        self,
        *attributes: str,
        squeeze: bool = False,
        download_path: str | Path | None = None,
    ) -> Value:
        """Return the only row as a dict, or the values of the named attributes.

        ``"KEY"`` among the names gives the primary key as a dict.

        Parameters
        ----------
        download_path
            Folder for attachments; that of the connection by default.

        Raises
        ------
        QueryError
            If there is not exactly one row.
        """
        if download_path is not None:
            with self.connection.downloading_to(Path(download_path)):
                return self.fetch1(*attributes, squeeze=squeeze)
        node = self.node
        names = self._needed("fetch1", attributes) if attributes else node.heading.names
        rows = fetch.rows(self.connection, node, names, FIRST_TWO, squeeze=squeeze)
        if len(rows) != 1:
            raise fetch.not_one(self.connection, node, bool(rows))
        row = dict(zip(names, rows[0], strict=True))
        if not attributes:
            return row
        row = spellings.as_before(self, row)
        values = tuple(
            {key: row[key] for key in self.primary_key} if self._is_key(name) else row[name]
            for name in attributes
        )
        return values[0] if len(values) == 1 else values

    @on_class
    @spellings.old_end("KEY")
    def head(self, limit: int = 25) -> list[Row]:
        """Return the first rows by primary key."""
        return self.to_dicts(order_by=KEY, limit=limit)

    @on_class
    @spellings.old_end("KEY DESC")
    def tail(self, limit: int = 25) -> list[Row]:
        """Return the last rows by primary key, in its order."""
        return self.to_dicts(order_by=f"{KEY} DESC", limit=limit)[::-1]

    fetch = on_class(spellings.fetch)
    cursor, from_clause, where_clause = parts.cursor, parts.from_clause, parts.where_clause
    support, restriction_attributes = parts.support, parts.restriction_attributes

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows as dicts, without holding all of them: see `fetch.stream`."""
        node = self.node
        names = node.heading.names
        for row in fetch.stream(self.connection, node, names):
            yield dict(zip(names, row, strict=True))

    def __len__(self) -> int:
        return fetch.count(self.connection, self.node)

    def __bool__(self) -> bool:
        return fetch.exists(self.connection, self.node)

    @on_class
    def make_sql(self, fields: Iterable[str] | None = None) -> str:
        """Return the query as SQL, with literal values, for people to read.

        `fields` are the attributes to select, all by default.
        """
        names = self.heading.names if fields is None else list(fields)
        return fetch.sql_text(self.connection, self.node, names)

    @on_class
    def preview(self, limit: int | None = None, width: int | None = None) -> str:
        """Return the first rows as a table in plain text.

        Arrays and other large values are shown by type, shape and size in bytes; objects in stores
        are not read.

        Parameters
        ----------
        limit
            Number of rows; by default the `limit` of the connection's `display`.
        width
            The most characters of a value; by default the `width` of the connection's `display`.
        """
        return text_preview(self.connection, self.node, limit, width)

    def __repr__(self) -> str:
        return self.preview()

    def _repr_html_(self) -> str:
        return html_preview(self.connection, self.node)

    @overload
    def delete(
        self, *, part_integrity: PartIntegrity = "enforce", dry_run: Literal[True]
    ) -> dict[str, int]: ...

    @overload
    def delete(
        self,
        transaction: bool = True,
        prompt: bool | None = None,
        part_integrity: PartIntegrity = "enforce",
        *,
        confirm: Confirm | None = None,
    ) -> int: ...

    @spellings.old_delete
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
        refuse_arguments("delete", transaction, prompt)
        table = self._losing_rows()
        if dry_run:
            found = deletion.dry_run(self.connection, self.node, table, part_integrity)
            return {self.connection.full_name(name): n for name, n in found.items()}
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
        refuse_arguments("delete_quick", get_count)
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

    def _matching(self, semantic_check: bool | None = None) -> Matching:
        rules = self.connection.matching
        return rules if semantic_check is None else replace(rules, is_checked=semantic_check)

    def _derive(self, node: Node) -> Self:
        # The same as copy.copy, in a third of its time.
        derived = object.__new__(type(self))
        derived.__dict__.update(self.__dict__)
        derived._node = node
        return derived

    def _is_key(self, name: str) -> bool:
        return name == KEY and name not in self.heading

    def _needed(self, method: str, names: Sequence[str]) -> list[str]:
        """Return the attributes that names given to a method stand for, each once."""
        for name in names:
            if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise QueryError(
                    f"{method} takes names one by one, as in {method}('a', 'b'), not {name!r}."
                )
        needed = [[*self.primary_key] if self._is_key(name) else [name] for name in names]
        return list(dict.fromkeys(name for group in needed for name in group))

    def _key_dicts(self, columns: Mapping[str, Sequence[Value]]) -> list[Row]:
        key = self.primary_key
        rows = zip(*[columns[name] for name in key], strict=True)
        return [dict(zip(key, row, strict=True)) for row in rows]


def _given(semantic_check: bool | None) -> dict[str, bool]:
    # A method of a class's own may lack the option.
    return {} if semantic_check is None else {"semantic_check": semantic_check}


def _query(other: object, use: str) -> Node:
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
