"""The rows of a query: the methods that run it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Heading
from dj_dagster.relational import fetch
from dj_dagster.relational.algebra import Node
from dj_dagster.relational.connection import Connection
from dj_dagster.relational.preview import html_preview, shown_names, text_preview


class Rows:
    """A query on a connection, and every way to get its rows."""

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

    def to_dicts(
        self, *, order_by: Any = None, limit: int | None = None, offset: int | None = None
    ) -> list[dict[str, Any]]:
        """Return the rows as dicts.

        Parameters
        ----------
        order_by
            An attribute name, a list of them, each with `` DESC`` where wanted; ``"KEY"`` stands
            for the primary key.
        limit, offset
            How many rows, after leaving out how many.
        """
        names = self.heading.names
        return fetch.dicts(self.connection, self.node, names, order_by, limit, offset)

    def keys(
        self, *, order_by: Any = None, limit: int | None = None, offset: int | None = None
    ) -> list[dict[str, Any]]:
        """Return the primary keys as dicts."""
        names = self.primary_key
        return fetch.dicts(self.connection, self.node, names, order_by, limit, offset)

    def to_pandas(
        self, *, order_by: Any = None, limit: int | None = None, offset: int | None = None
    ) -> pd.DataFrame:
        """Return the rows as a data frame indexed by the primary key."""
        names = self.heading.names
        rows = fetch.rows(self.connection, self.node, names, order_by, limit, offset)
        return fetch.frame(rows, self.heading)

    def to_arrays(
        self,
        *attributes: str,
        order_by: Any = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> Any:
        """Return the named attributes as arrays, one each; a record array without names.

        Blobs and other objects come in arrays of dtype object.
        """
        names = list(attributes) or self.heading.names
        rows = fetch.rows(self.connection, self.node, names, order_by, limit, offset)
        columns = fetch.arrays(rows, names)
        if not attributes:
            return np.rec.fromarrays(columns, names=names)  # pyright: ignore[reportArgumentType, reportCallIssue]
        return columns[0] if len(columns) == 1 else columns

    def fetch1(self, *attributes: str) -> Any:
        """Return the one row as a dict, or the values of the named attributes.

        Raises
        ------
        QueryError
            If there is not exactly one row.
        """
        names = list(attributes) or self.heading.names
        rows = fetch.rows(self.connection, self.node, names, None, 2, None)
        if len(rows) != 1:
            found = "no row" if not rows else f"{len(self)} rows"
            tables = ", ".join(sorted(map(str, self.node.tables)))
            raise QueryError(
                f"fetch1 expects exactly one row; the query over {tables} has {found}."
            )
        if not attributes:
            return dict(zip(names, rows[0], strict=True))
        return rows[0][0] if len(names) == 1 else rows[0]

    def head(self, limit: int = 25) -> list[dict[str, Any]]:
        """Return the first rows by primary key."""
        return self.to_dicts(order_by="KEY", limit=limit)

    def tail(self, limit: int = 25) -> list[dict[str, Any]]:
        """Return the last rows by primary key, in its order."""
        return self.to_dicts(order_by="KEY DESC", limit=limit)[::-1]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_dicts())

    def __len__(self) -> int:
        return fetch.count(self.connection, self.node)

    def __bool__(self) -> bool:
        return fetch.exists(self.connection, self.node)

    def __repr__(self) -> str:
        return text_preview(self.heading, self._previewed(), len(self))

    def _repr_html_(self) -> str:
        return html_preview(self.heading, self._previewed(), len(self))

    def _previewed(self, limit: int = 12) -> list[dict[str, Any]]:
        return fetch.dicts(self.connection, self.node, shown_names(self.heading), "KEY", limit)
