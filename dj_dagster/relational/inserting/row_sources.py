"""The kinds of rows that can be inserted, all turned into batches of columns."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from dj_dagster.errors import QueryError
from dj_dagster.lazy import LateModule, is_data_frame, is_series
from dj_dagster.model.heading import Heading
from dj_dagster.relational.algebra.condition import as_mapping
from dj_dagster.relational.inserting.csv_rows import csv_batches
from dj_dagster.relational.inserting.row_batch import Batch, batch_of
from dj_dagster.relational.scope import warn_caller

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = LateModule("pandas")

BATCH = 10_000
"""Rows that are checked together."""


_POSITIONAL = (
    "Positional inserts take values in the order of the attributes, which an altered table "
    "changes: write dicts. DataJoint is going to refuse them."
)


def batches(rows: Any, heading: Heading, size: int = BATCH) -> Iterator[Batch]:
    """Return rows as columns, so many rows at a time, whatever they came as.

    Parameters
    ----------
    rows
        An iterable of mappings, of sequences in the heading's order, of numpy records; a pandas or
        polars frame, an arrow table; the path of a CSV file.

    Raises
    ------
    QueryError
        For rows of another kind, or a sequence of the wrong length.
    """
    if isinstance(rows, str | PathLike):
        return csv_batches(rows, heading, size)
    if isinstance(rows, Mapping):
        raise QueryError("insert takes many rows: write insert1(row), or insert([row]).")
    columns = _columns_of(rows)
    if columns is not None:
        return _cut(columns, heading, size)
    if not isinstance(rows, Iterable):
        raise QueryError(f"{rows!r} holds no rows: write a list of dicts, a DataFrame or a query.")
    return _from_rows(rows, heading, size)


def _columns_of(rows: Any) -> dict[Any, Sequence[Any]] | None:
    if is_data_frame(rows):
        return frame_columns(rows)
    if isinstance(rows, np.ndarray):
        names = rows.dtype.names if rows.ndim == 1 else None
        return {name: rows[name].tolist() for name in names} if names else None
    # Whoever has a polars frame or an arrow table has imported its package.
    polars, arrow = sys.modules.get("polars"), sys.modules.get("pyarrow")
    if polars is not None and isinstance(rows, polars.DataFrame):
        return rows.to_dict(as_series=False)
    if arrow is not None and isinstance(rows, arrow.Table | arrow.RecordBatch):
        return rows.to_pydict()
    return None


def frame_columns(frame: pd.DataFrame) -> dict[Any, Sequence[Any]]:
    """Return a frame's columns, its index among them where that has names."""
    columns: dict[Any, Sequence[Any]] = {}
    for level, name in enumerate(frame.index.names):
        if name is not None:
            columns[name] = _series_values(frame.index.get_level_values(level).to_series())
    for position, name in enumerate(frame.columns):
        if name in columns:
            raise QueryError(f"The data frame has the name {name!r} twice, maybe in its index.")
        columns[name] = _series_values(frame.iloc[:, position])
    return columns or {"": [None] * len(frame)}


def _series_values(series: pd.Series) -> list[Any]:
    if isinstance(series.dtype, np.dtype) and series.dtype.kind == "M":
        # To microseconds, downwards, as single values are; NaT becomes None.
        return series.to_numpy().astype("datetime64[us]").tolist()
    if isinstance(series.dtype, pd.api.extensions.ExtensionDtype):
        missing = series.isna()
        values = series.astype(object)
        return (values.where(~missing, None) if missing.any() else values).tolist()
    return series.tolist()


def _cut(columns: dict[Any, Sequence[Any]], heading: Heading, size: int) -> Iterator[Batch]:
    total = len(next(iter(columns.values()), ()))
    for start in range(0, total, size):
        end = min(start + size, total)
        part = columns if total <= size else {k: v[start:end] for k, v in columns.items()}
        yield batch_of(part, end - start, heading.attributes, start)


def _from_rows(rows: Iterable[Any], heading: Heading, size: int) -> Iterator[Batch]:
    given, start = iter(rows), 0
    while taken := list(islice(given, size)):
        if start == 0 and type(taken[0]) in (tuple, list):
            warn_caller(_POSITIONAL, DeprecationWarning)
        yield _batch(taken, heading, start)
        start += len(taken)


def _batch(rows: list[Any], heading: Heading, start: int) -> Batch:
    kinds = set(map(type, rows))
    if kinds == {dict}:
        names = list(rows[0])
        if set(map(len, rows)) == {len(names)}:
            try:
                columns = {name: list(map(itemgetter(name), rows)) for name in names}
            except KeyError:
                # Some other row has other names.
                return _mixed(rows, heading, start)
            return batch_of(columns, len(rows), heading.attributes, start)
    elif kinds <= {tuple, list} and set(map(len, rows)) == {len(heading)}:
        columns = dict(zip(heading.names, zip(*rows, strict=True), strict=True))
        return Batch(columns, len(rows), start)
    return _mixed(rows, heading, start)


def _mixed(rows: list[Any], heading: Heading, start: int) -> Batch:
    """Return rows of different kinds or with different names."""
    mappings = [_as_mapping(row, heading) for row in rows]
    first: dict[Any, int] = {}
    for position, row in enumerate(mappings):
        for name in row:
            first.setdefault(name, position)
    columns = {
        name: [row.get(name) for row in mappings] for name in first if name in heading.attributes
    }
    extra = {str(name): where for name, where in first.items() if name not in columns}
    return Batch(columns, len(rows), start, extra)


def _as_mapping(row: Any, heading: Heading) -> Mapping[Any, Any]:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, np.void) and row.dtype.names:
        return as_mapping(row)
    if is_series(row):
        return row.to_dict()
    if isinstance(row, Sequence | np.ndarray) and not isinstance(row, str | bytes):
        if len(row) != len(heading):
            raise QueryError(
                f"Incorrect number of attributes: a row of {len(row)} values for the "
                f"{len(heading)} attributes of {_table(heading)}: {', '.join(heading.names)}."
            )
        return dict(zip(heading.names, row, strict=True))
    raise QueryError(
        f"{row!r} is no row of {_table(heading)}: write a dict, a sequence such as ({row!r},), or "
        "a numpy record."
    )


def _table(heading: Heading) -> str:
    return next((attribute.table for attribute in heading.all_attributes.values()), "the table")
