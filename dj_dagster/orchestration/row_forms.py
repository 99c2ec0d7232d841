"""The forms that rows take in ordinary assets: dicts, frames, tables, arrays, lazy queries."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dj_dagster.errors import ConfigurationError, InvalidValueError
from dj_dagster.lazy import LateModule, is_data_frame
from dj_dagster.model.types import Family
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.inserting.row_sources import frame_columns

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = LateModule("pandas")

Row = Mapping[str, Any]

FORMS = (
    "list[dict], dict for a single row, pandas.DataFrame, polars.DataFrame, polars.LazyFrame, "
    "pyarrow.Table, numpy.ndarray for the blob of a single row, or dj.Table for the query itself"
)


def as_type(node: TableNode, query: QueryExpression, wanted: Any) -> Any:
    """Return the rows of a query in the form that an input is annotated with.

    Raises
    ------
    ConfigurationError
        When rows have no such form.
    InvalidValueError
        When a single row is asked for and there is not exactly one.
    """
    kind = typing.get_origin(wanted) or wanted
    library = getattr(kind, "__module__", "").split(".")[0]
    if isinstance(kind, type) and issubclass(kind, QueryExpression):
        return query
    match library, getattr(kind, "__name__", ""):
        case "pandas", "DataFrame":
            return _frame(query)
        case "polars", "DataFrame":
            return query.to_polars(order_by="KEY")
        case "polars", "LazyFrame":
            return query.to_polars(order_by="KEY").lazy()
        case "pyarrow", "Table":
            return query.to_arrow(order_by="KEY")
        case "numpy", "ndarray":
            return _single(node, query.to_dicts(order_by="KEY"), "array")[_blob(node)]
        case _:
            pass
    if kind is dict:
        return _single(node, query.to_dicts(order_by="KEY"), "dict")
    if kind in (list, Any, None, type(None)):
        return query.to_dicts(order_by="KEY")
    raise ConfigurationError(
        f"rows of {node.title} cannot be given as {wanted}; annotate the input as {FORMS}"
    )


def _frame(query: QueryExpression) -> pd.DataFrame:
    rows = query.to_dicts(order_by="KEY")
    frame = pd.DataFrame(rows, columns=pd.Index(query.heading.names))
    for name, attribute in query.heading.attributes.items():
        if attribute.type is not None and attribute.type.family is Family.INTEGER:
            values = [row[name] for row in rows]
            # Beside a null pandas makes floats of integers, which hold 53 bits.
            if None in values and any(abs(value or 0) > 2**53 for value in values):
                frame[name] = pd.Series(values, dtype=object)
    return frame


def as_rows(value: Any, node: TableNode) -> list[Row]:
    """Return what an asset returned as dicts.

    Raises
    ------
    InvalidValueError
        When it is none of the forms that rows have.
    """
    if value is None:
        return []
    if is_data_frame(value):
        # Not to_dict, which makes Python's numbers of numpy's, also in blobs.
        columns = frame_columns(value)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(value, QueryExpression):
        return list(value.to_dicts())
    if isinstance(value, np.ndarray) and value.dtype.names is None:
        return [{_blob(node): value}]
    rows = _records(value)
    for row in rows:
        if not isinstance(row, Mapping):
            raise InvalidValueError(
                f"{node.title} takes a DataFrame, a dict or a list of dicts; "
                f"this holds a {type(row).__name__}"
            )
    return rows


def _records(value: Any) -> list[Any]:
    match type(value).__module__.split(".")[0], type(value).__name__:
        case "polars", "DataFrame":
            return value.to_dicts()
        case "polars", "LazyFrame":
            return value.collect().to_dicts()
        case "pyarrow", "Table" | "RecordBatch":
            return value.to_pylist()
        case "numpy", "ndarray":
            return [dict(zip(value.dtype.names, row, strict=True)) for row in value.tolist()]
        case _:
            single = isinstance(value, Mapping | str) or not isinstance(value, Sequence)
            return [value] if single else list(value)


def _single(node: TableNode, rows: list[dict[str, Any]], form: str) -> dict[str, Any]:
    if len(rows) != 1:
        raise InvalidValueError(
            f"{node.title} has {len(rows)} rows for this input, which is annotated as one {form}; "
            "annotate it as list[dict]"
        )
    return rows[0]


def _blob(node: TableNode) -> str:
    """Return the attribute that an array stands for."""
    blobs = [
        name
        for name, attribute in node.table.heading.attributes.items()
        if attribute.type is not None and attribute.type.family is Family.CODEC
    ]
    if len(blobs) != 1:
        raise ConfigurationError(
            f"{node.title} has {len(blobs)} attributes that hold arrays: an array can only stand "
            "for one; use a dict"
        )
    return blobs[0]
