"""Methods of queries that return rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from dj_dagster.class_access import on_class
from dj_dagster.errors import QueryError, UnknownAttributeError
from dj_dagster.model.heading import Heading
from dj_dagster.model.names import TableName
from dj_dagster.relational.algebra.nodes import Node, restrictions
from dj_dagster.relational.algebra.top import Order
from dj_dagster.relational.database.catalog import Catalog
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.fetching.frames import (
    array,
    arrow_table,
    pandas_frame,
    polars_frame,
    records,
)
from dj_dagster.relational.fetching.preview import html_preview, text_preview
from dj_dagster.relational.sql.lowered import FIRST_TWO, make_window

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


F = TypeVar("F", bound=Callable[..., Any])


class _Query(Protocol):
    @property
    def connection(self) -> Connection: ...

    @property
    def node(self) -> Node: ...


def looks_again(method: F) -> F:
    """Have the tables of a query read anew after a method found that they lack a name.

    The call fails nevertheless, because its rows may be used up; the error states whether to try
    again.
    """

    @wraps(method)
    def looking(query: _Query, *args: Any, **options: Any) -> Any:
        try:
            return method(query, *args, **options)
        except UnknownAttributeError as error:
            if _have_changed(query):
                error.add_note("The table has been changed meanwhile: try again.")
            raise

    return cast(F, looking)


def _have_changed(query: _Query) -> bool:
    catalog, tables = query.connection.catalog, query.node.tables
    before = [_names(catalog, name) for name in tables]
    for schema in {name.schema for name in tables}:
        catalog.forget(schema)
    return before != [_names(catalog, name) for name in tables]


def _names(catalog: Catalog, name: TableName) -> list[str]:
    stored = catalog.find(name)
    return stored.heading.names if stored else []


KEY = "KEY"
"""The name that requests the primary key, as a dict, among the attributes."""


class Rows:
    """A query on a connection, and all methods that return its rows.

    Where a method takes `order_by`, it is an attribute's name or a list of names, each optionally
    followed by `` DESC``; ``"KEY"`` stands for the primary key. Without it, rows come in the order
    of the query's `Top`, or in any order. `limit` is the number of rows, after leaving out the
    first `offset`. `squeeze` removes dimensions of length one from arrays in blobs. A wrong
    `order_by`, `limit` or `offset` is refused with a `QueryError`.
    """

    def __init__(self, connection: Connection, node: Node) -> None:
        self._connection = connection
        self._node: Node | None = node

    @property
    def connection(self) -> Connection:
        """The connection that the query runs on."""
        return self._connection

    @property
    def node(self) -> Node:
        """The query as plain data."""
        assert self._node is not None
        return self._node

    @property
    def heading(self) -> Heading:
        """The attributes of the result."""
        return self.node.heading

    @property
    def primary_key(self) -> list[str]:
        """Names of the primary key."""
        return self.heading.primary_key

    @on_class
    def to_dicts(
        self,
        order_by: Order = None,
        limit: int | None = None,
        offset: int | None = None,
        squeeze: bool = False,
    ) -> list[dict[str, Any]]:
        """Return the rows as dicts.

        Booleans are of type bool; DataJoint gives 0 and 1, which compare equal to them.
        """
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
    ) -> list[dict[str, Any]]:
        """Return some attributes of the rows as dicts; the order may name others."""
        node, names = self.node, list(names)
        window = make_window(order_by, limit, offset, node.heading)
        rows = fetch.rows(self.connection, node, names, window, squeeze=squeeze)
        return fetch.as_dicts(names, rows)

    @on_class
    def keys(
        self, order_by: Order = None, limit: int | None = None, offset: int | None = None
    ) -> list[dict[str, Any]]:
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

        The columns have the heading's types, also without rows: int64 (object beside nulls),
        float64, bool, ``datetime64[us]``, pandas' own text; all others are objects.
        """
        node = self.node
        window = make_window(order_by, limit, offset, node.heading)
        columns = fetch.columns(self.connection, node, node.heading.names, window, squeeze=squeeze)
        return pandas_frame(columns, node.heading)

    @on_class
    def to_polars(
        self,
        order_by: Order = None,
        limit: int | None = None,
        offset: int | None = None,
        squeeze: bool = False,
    ) -> pl.DataFrame:
        """Return the rows as a polars data frame, its schema given by the heading.

        Uuids and JSON come as text, values unpacked by codecs as objects.

        Raises
        ------
        ConfigurationError
            If polars is not installed: ``pip install 'dj-dagster[polars]'``.
        """
        node = self.node
        window = make_window(order_by, limit, offset, node.heading)
        columns = fetch.columns(self.connection, node, node.heading.names, window, squeeze=squeeze)
        return polars_frame(columns, node.heading)

    @on_class
    def to_arrow(
        self,
        order_by: Order = None,
        limit: int | None = None,
        offset: int | None = None,
        squeeze: bool = False,
    ) -> pa.Table:
        """Return the rows as an Arrow table, its schema given by the heading.

        Uuids and JSON come as text.

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
        return arrow_table(columns, node.heading)

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
    ) -> Any:
        """Return the named attributes as arrays; without names a record array of all.

        Integers come as int64, floats as float64, booleans as bool. Nullable integers and booleans,
        text, dates, decimals and unpacked objects come in arrays of objects; but a nullable
        attribute that is named here comes in an array of its own type if it is without nulls.
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
        needed = self._needed(names) if names else node.heading.names
        window = make_window(order_by, limit, offset, node.heading)
        columns = fetch.columns(self.connection, node, needed, window, squeeze=squeeze)
        if not names:
            return records(columns, node.heading)
        result = tuple(
            self._key_dicts(columns)
            if self._is_key(name)
            else array(columns[name], self.heading[name])
            for name in names
        )
        return result if include_key or len(names) > 1 else result[0]

    @looks_again
    def fetch1(self, *attributes: str, squeeze: bool = False) -> Any:
        """Return the only row as a dict, or the values of the named attributes.

        ``"KEY"`` among the names gives the primary key as a dict.

        Raises
        ------
        QueryError
            If there is not exactly one row.
        """
        for name in attributes:
            if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise QueryError(
                    f"fetch1 takes names one by one, as in fetch1('a', 'b'), not {name!r}."
                )
        node = self.node
        names = self._needed(attributes) if attributes else node.heading.names
        rows = fetch.rows(self.connection, node, names, FIRST_TWO, squeeze=squeeze)
        if len(rows) != 1:
            found = "no row" if not rows else f"{len(self)} rows"
            tables, by = ", ".join(sorted(map(str, node.tables))), restrictions(node)
            told = f", restricted by {'; '.join(by)}," if by else ""
            raise QueryError(
                f"fetch1 expects exactly one row; the query over {tables}{told} has {found}."
            )
        row = dict(zip(names, rows[0], strict=True))
        if not attributes:
            return row
        values = tuple(
            {key: row[key] for key in self.primary_key} if self._is_key(name) else row[name]
            for name in attributes
        )
        return values[0] if len(values) == 1 else values

    def head(self, limit: int = 25) -> list[dict[str, Any]]:
        """Return the first rows by primary key."""
        return self.to_dicts(order_by=KEY, limit=limit)

    def tail(self, limit: int = 25) -> list[dict[str, Any]]:
        """Return the last rows by primary key, in its order."""
        return self.to_dicts(order_by=f"{KEY} DESC", limit=limit)[::-1]

    def __iter__(self) -> Iterator[dict[str, Any]]:
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

        Parameters
        ----------
        fields
            The attributes to select; all by default.
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

    def _is_key(self, name: str) -> bool:
        return name == KEY and name not in self.heading

    def _needed(self, names: Sequence[str]) -> list[str]:
        """Return the attributes that names stand for, each once."""
        needed = [[*self.primary_key] if self._is_key(name) else [name] for name in names]
        return list(dict.fromkeys(name for group in needed for name in group))

    def _key_dicts(self, columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
        key = self.primary_key
        rows = zip(*[columns[name] for name in key], strict=True)
        return [dict(zip(key, row, strict=True)) for row in rows]
