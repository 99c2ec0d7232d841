"""Rows on their way out: run a query, decode its values, shape them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from dj_dagster.errors import QueryError, UnknownAttributeError
from dj_dagster.model.heading import Heading
from dj_dagster.relational.algebra import Node
from dj_dagster.relational.connection import Connection
from dj_dagster.relational.decode import Row, RowDecoder
from dj_dagster.relational.lowering import Lowered, Lowering
from dj_dagster.relational.write import flush_before_reading

_INT64 = 2**63


def rows(
    connection: Connection,
    node: Node,
    names: Sequence[str],
    order_by: Any = None,
    limit: int | None = None,
    offset: int | None = None,
) -> list[Row]:
    """Return the named attributes of a query's rows, decoded.

    Raises
    ------
    UnknownAttributeError
        If a name is not in the query's heading.
    """
    for name in names:
        if name not in node.heading:
            raise UnknownAttributeError(
                f"There is no attribute {name!r}. The heading has: {', '.join(node.heading.names)}."
            )
    flush_before_reading(connection, node.tables)
    decoder = RowDecoder(connection, node.heading, names)
    lowered = Lowering(connection.backend).lower(node)
    columns = {
        name: connection.backend.fetched(lowered.columns[name], kind)
        for name in decoder.names
        if (kind := node.heading[name].type) is not None
    }
    read = replace(lowered, columns=lowered.columns | columns)
    select = read.select(*decoder.names).order_by(*_order(order_by, lowered, node.heading))
    if limit is not None or offset:
        # MySQL has no OFFSET without LIMIT.
        select = select.limit(2**63 - 1 if limit is None else limit).offset(offset or None)
    return decoder.decode(connection.rows(select))


def dicts(
    connection: Connection,
    node: Node,
    names: Sequence[str],
    order_by: Any = None,
    limit: int | None = None,
    offset: int | None = None,
) -> list[dict[str, Any]]:
    """Return the named attributes of a query's rows as dicts; see `rows`."""
    found = rows(connection, node, names, order_by, limit, offset)
    return [dict(zip(names, row, strict=True)) for row in found]


def count(connection: Connection, node: Node) -> int:
    """Return the number of rows."""
    flush_before_reading(connection, node.tables)
    return connection.rows(Lowering(connection.backend).lower(node).count())[0][0]


def exists(connection: Connection, node: Node) -> bool:
    """Return whether there is any row."""
    flush_before_reading(connection, node.tables)
    return bool(connection.rows(Lowering(connection.backend).lower(node).select().limit(1)))


def arrays(fetched: Sequence[Row], names: Sequence[str]) -> list[np.ndarray[Any, Any]]:
    """Return one array an attribute; values that numpy has no scalar for stay objects."""
    columns = list(zip(*fetched, strict=True)) if fetched else [() for _ in names]
    return [_array(column) for column in columns]


def frame(fetched: Sequence[Row], heading: Heading) -> pd.DataFrame:
    """Return a data frame indexed by the primary key, columns present even when it is empty."""
    columns = zip(heading.names, arrays(fetched, heading.names), strict=True)
    table = pd.DataFrame({name: _series(values) for name, values in columns})
    return table.set_index(heading.primary_key) if heading.primary_key else table


def _array(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    kinds = {type(value) for value in values}
    if kinds in ({bool}, {float}) or (
        kinds == {int} and -_INT64 <= min(values) <= max(values) < _INT64
    ):
        return np.array(values)
    result = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        # One by one: numpy would take a sequence of arrays for a matrix.
        result[position] = value
    return result


def _series(values: np.ndarray[Any, Any]) -> pd.Series:
    """Return a column; integers beside nulls stay objects, as floats they could lose digits."""
    if values.dtype == object and any(type(value) in (int, bool) for value in values):
        return pd.Series(values, dtype=object)
    return pd.Series(list(values))


def _order(order_by: Any, lowered: Lowered, heading: Heading) -> list[sa.ColumnElement[Any]]:
    if order_by is None:
        return []
    terms: list[sa.ColumnElement[Any]] = []
    for term in [order_by] if isinstance(order_by, str) else order_by:
        name, _, direction = term.strip().partition(" ")
        downwards = direction.strip().upper() == "DESC"
        if direction and not downwards and direction.strip().upper() != "ASC":
            raise QueryError(f"order_by has {term!r}: write an attribute, ASC or DESC after it.")
        for attribute in heading.primary_key if name == "KEY" else [name]:
            if attribute not in lowered.columns:
                raise UnknownAttributeError(
                    f"order_by names {attribute!r}. The heading has: {', '.join(heading.names)}."
                )
            column = lowered.columns[attribute]
            terms.append(column.desc() if downwards else column.asc())
    return terms
