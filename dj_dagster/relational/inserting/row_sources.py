"""Sources of rows that can be inserted, CSV files among them, as batches of columns."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from operator import itemgetter
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dj_dagster.errors import InvalidValueError, QueryError
from dj_dagster.lazy import LateModule
from dj_dagster.model.heading import Attribute, Heading, Row, Value
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra.condition import as_mapping
from dj_dagster.relational.caller import warn_caller
from dj_dagster.relational.values import is_data_frame, is_series, read_json

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = LateModule("pandas")


Columns = dict[Any, Sequence[Value]]

_FINE_UNITS = ("ns", "ps", "fs", "as")
"""Units of numpy's times that are finer than those of Python's."""

BATCH = 10_000
"""Number of rows that are checked together."""


_POSITIONAL = (
    "Positional inserts take values in the order of the attributes, which an altered table "
    "changes: write dicts. DataJoint is going to refuse them."
)


def batches(rows: object, heading: Heading, size: int = BATCH) -> Iterator[Batch]:
    """Return rows from any source as batches of columns.

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
    columns = columns_of(rows, heading)
    if columns is not None:
        return _cut(columns, heading, size)
    if not isinstance(rows, Iterable):
        raise QueryError(f"{rows!r} holds no rows: write a list of dicts, a DataFrame or a query.")
    return _from_rows(rows, heading, size)


def columns_of(rows: Any, heading: Heading) -> Columns | None:
    """Return the columns of a frame, an arrow table or numpy records, None for anything else."""
    if is_data_frame(rows):
        return _frame_columns(rows)
    if isinstance(rows, np.ndarray):
        return _record_columns(rows) if rows.ndim == 1 and rows.dtype.names else None
    # A polars frame or an arrow table can exist only if its package has been imported.
    polars, arrow = sys.modules.get("polars"), sys.modules.get("pyarrow")
    if polars is not None and isinstance(rows, polars.DataFrame):
        texts = [name for name, kind in rows.schema.items() if kind != polars.Object]
        return _with_json(rows.to_dict(as_series=False), texts, heading)
    if arrow is not None and isinstance(rows, arrow.Table | arrow.RecordBatch):
        for name in rows.column_names:
            if rows.column_names.count(name) > 1:
                raise QueryError(f"The Arrow table has the name {name!r} twice.")
        return _with_json(rows.to_pydict(), rows.column_names, heading)
    return None


def _with_json(columns: Columns, names: Sequence[str], heading: Heading) -> Columns:
    """Read texts as JSON, as which polars and Arrow have it, in columns of attributes for JSON."""

    def place(position: int) -> str:
        key = {part: columns[part][position] for part in heading.primary_key if part in columns}
        return f"The row with the key {key}"

    for name in names:
        attribute = heading.attributes.get(name)
        if attribute is None or attribute.type is None or attribute.type.family is not Family.JSON:
            continue
        columns[name] = [
            _json(value, attribute, partial(place, position)) if isinstance(value, str) else value
            for position, value in enumerate(columns[name])
        ]
    return columns


def _frame_columns(frame: pd.DataFrame) -> Columns:
    """Return a frame's columns, with the index among them where it has names."""
    columns: Columns = {}
    for level, name in enumerate(frame.index.names):
        if name is not None:
            columns[name] = _series_values(frame.index.get_level_values(level).to_series())
    for position, name in enumerate(frame.columns):
        if name in columns:
            raise QueryError(f"The data frame has the name {name!r} twice, maybe in its index.")
        columns[name] = _series_values(frame.iloc[:, position])
    return columns or ({"": [None] * len(frame)} if len(frame) else {})


def _record_columns(records: np.ndarray) -> Columns:
    """Return the fields of numpy records, as Python's values; a field of arrays keeps them."""
    return {name: _field_values(records[name]) for name in records.dtype.names or ()}


def _field_values(values: np.ndarray) -> Sequence[Value]:
    if values.ndim > 1:
        # `tolist` would make lists of the arrays, which a blob would keep.
        return list(values)
    if values.dtype.kind in "mM" and np.datetime_data(values.dtype)[0] in _FINE_UNITS:
        # `tolist` would make integers of them.
        return values.astype(f"{values.dtype.kind}8[us]").tolist()
    return values.tolist()


def _series_values(series: pd.Series) -> list[Value]:
    if isinstance(series.dtype, np.dtype) and series.dtype.kind == "M":
        # Truncated to microseconds like single values; NaT becomes None.
        return series.to_numpy().astype("datetime64[us]").tolist()
    if isinstance(series.dtype, pd.api.extensions.ExtensionDtype):
        missing = series.isna()
        values = series.astype(object)
        return (values.where(~missing, None) if missing.any() else values).tolist()
    return series.tolist()


def _cut(columns: Columns, heading: Heading, size: int) -> Iterator[Batch]:
    total = len(next(iter(columns.values()), ()))
    # The names of columns are checked even without rows.
    for start in range(0, total or min(len(columns), 1), size):
        end = min(start + size, total)
        part = columns if total <= size else {k: v[start:end] for k, v in columns.items()}
        yield batch_of(part, end - start, heading.attributes, start)


def _from_rows(rows: Iterable[object], heading: Heading, size: int) -> Iterator[Batch]:
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
                # Another row has other names.
                return _mixed(rows, heading, start)
            return batch_of(columns, len(rows), heading.attributes, start)
    elif kinds <= {tuple, list} and set(map(len, rows)) == {len(heading)}:
        columns = dict(zip(heading.names, zip(*rows, strict=True), strict=True))
        return Batch(columns, len(rows), start)
    return _mixed(rows, heading, start)


def _mixed(rows: list[object], heading: Heading, start: int) -> Batch:
    """Return rows of different kinds or with different names."""
    mappings = [_as_mapping(row, heading) for row in rows]
    first: dict[Hashable, int] = {}
    for position, row in enumerate(mappings):
        for name in row:
            first.setdefault(name, position)
    columns = {
        name: [row.get(name) for row in mappings] for name in heading.attributes if name in first
    }
    extra = {str(name): where for name, where in first.items() if name not in columns}
    return Batch(columns, len(rows), start, extra)


def _as_mapping(row: object, heading: Heading) -> Mapping[Any, Value]:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, np.void) and row.dtype.names:
        return as_mapping(row)
    if is_series(row):
        return row.to_dict()
    if isinstance(row, Sequence | np.ndarray) and not isinstance(row, str | bytes):
        if len(row) != len(heading) and any(isinstance(each, Mapping) for each in row):
            raise QueryError(
                f"A list is not a row of {_table(heading)}: insert1 takes one row, insert the rows "
                "of one list."
            )
        if len(row) != len(heading):
            raise QueryError(
                f"Incorrect number of attributes: a row of {len(row)} values for the "
                f"{len(heading)} attributes of {_table(heading)}: {', '.join(heading.names)}."
            )
        return dict(zip(heading.names, row, strict=True))
    raise QueryError(
        f"{row!r} is not a row of {_table(heading)}: write a dict, a sequence such as ({row!r},), "
        "or a numpy record."
    )


def _table(heading: Heading) -> str:
    return next((attribute.table for attribute in heading.all_attributes.values()), "the table")


_BOOLS = {"true": 1, "false": 0, "1": 1, "0": 0}
_TEXTS = (Family.STRING, Family.ENUM)

LONG = 131_072
"""The most characters of a record that is parsed with the module `csv`."""


def csv_batches(path: str | PathLike[str], heading: Heading, size: int) -> Iterator[Batch]:
    """Read a file of comma-separated values in UTF-8.

    An empty value is the attribute's default or null; for a text without either, the empty text.

    Raises
    ------
    QueryError
        If the file does not exist, or a line has more or fewer values than the first. Errors of
        values name the file and line.
    """
    file = fspath(path)
    with _readable(file), Path(file).open(newline="", encoding="utf-8-sig") as lines:
        records = _records(lines)
        names = _header(file, records)
        start = 0
        while batch := _next_batch(file, records, names, heading, (start, size)):
            yield batch
            start += batch.size
        if not start:
            # The names are checked even without rows.
            columns: dict[str, Sequence[Value]] = dict.fromkeys(names, ())
            yield batch_of(columns, 0, heading.attributes, place=lambda _: f"{file}, line 1")


@contextmanager
def _readable(file: str) -> Generator[None]:
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise QueryError(
            f"The CSV file {file!r} cannot be read: {reason}. Rows may also be given as a list of "
            "dicts, a DataFrame or a query."
        ) from error


def _records(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the values of each record, and the number of the line that it ends with.

    A record continues over lines as long as a quote is open. The module `csv` refuses values of
    more than 131,072 characters, by a setting of the whole process, so longer records are parsed
    here.
    """
    open_lines: list[str] = []
    for number, line in enumerate(lines, 1):
        is_open = _ends_in_quotes(line, is_open=bool(open_lines))
        open_lines.append(line)
        if is_open:
            continue
        record, open_lines = "".join(open_lines), []
        if len(record) > min(LONG, csv.field_size_limit()):
            yield number, _long_values(record)
        else:
            # An empty line gives a record without values.
            yield number, next(csv.reader((record,), strict=True), [])
    if open_lines:
        raise csv.Error("unexpected end of data: a quote is not closed")


def _ends_in_quotes(line: str, *, is_open: bool) -> bool:
    """Whether a quoted value goes on after a line; only at its beginning a quote opens a value.

    Parameters
    ----------
    is_open
        Whether the line continues a quoted value.
    """
    if '"' not in line:
        return is_open
    at = 0
    while True:
        if not is_open and line.startswith('"', at):
            is_open, at = True, at + 1
        while is_open:
            end = line.find('"', at)
            if end < 0:
                return True
            is_open = line.startswith('""', end)
            at = end + (2 if is_open else 1)
        at = line.find(",", at) + 1
        if not at:
            return False


def _long_values(record: str) -> list[str]:
    record = record.rstrip("\r\n")
    values: list[str] = []
    at = 0
    while True:
        if record.startswith('"', at):
            end = _closing_quote(record, at + 1)
            values.append(record[at + 1 : end].replace('""', '"'))
            end += 1
        else:
            comma = record.find(",", at)
            end = len(record) if comma < 0 else comma
            values.append(record[at:end])
        if end == len(record):
            return values
        if record[end] != ",":
            raise csv.Error("',' expected after '\"'")
        at = end + 1


def _closing_quote(record: str, at: int) -> int:
    while record.startswith('""', at := record.index('"', at)):
        at += 2
    return at


def _header(file: str, records: Iterator[tuple[int, list[str]]]) -> list[str]:
    _, first = next(records, (1, []))
    names = [name.strip() for name in first]
    if not names:
        raise QueryError(f"{file}, line 1: there is nothing; name the attributes there.")
    for name in names:
        if names.count(name) > 1:
            raise QueryError(f"{file}, line 1: the name {name!r} is there twice.")
    return names


def _next_batch(
    file: str,
    records: Iterator[tuple[int, list[str]]],
    names: list[str],
    heading: Heading,
    span: tuple[int, int],
) -> Batch | None:
    start, size = span
    rows: list[list[str]] = []
    lines: list[int] = []
    for number, row in islice((record for record in records if record[1]), size):
        if len(row) != len(names):
            raise QueryError(
                f"{file}, line {number}: there are {len(row)} values for {len(names)} names of "
                f"{_table(heading)}. Separate names and values by commas."
            )
        rows.append(row)
        lines.append(number)
    if not rows:
        return None

    def place(position: int) -> str:
        return f"{file}, line {lines[position]}"

    columns: dict[str, Sequence[Value]] = dict(zip(names, zip(*rows, strict=True), strict=True))
    for name, attribute in heading.attributes.items():
        if name in columns:
            columns[name] = [
                _parsed(text, attribute, file, line)
                for text, line in zip(columns[name], lines, strict=True)
            ]
    return batch_of(columns, len(rows), heading.attributes, start, place)


def _parsed(text: str, attribute: Attribute, file: str, line: int) -> Value:
    family = attribute.type.family if attribute.type else Family.STRING
    if not text:
        required = not attribute.nullable and attribute.default is None
        return text if required and family in _TEXTS else None
    if family is Family.BOOL:
        return _BOOLS.get(text.strip().lower(), text)
    if family is Family.JSON:
        return _json(text, attribute, lambda: f"{file}, line {line}")
    return text if family in _TEXTS or family is Family.CODEC else text.strip()


def _json(text: str, attribute: Attribute, place: Callable[[], str]) -> Value:
    try:
        return read_json(text)
    except ValueError as error:
        raise InvalidValueError(
            f"{place()}: {attribute.table}.{attribute.name} : json cannot hold what is written "
            f"there: {error}."
        ) from error


def _nowhere(position: int) -> str:
    del position
    return ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive rows.

    Attributes
    ----------
    columns
        By attribute, one value for each row; None where a row lacks a value.
    size
        Number of rows.
    start
        Number of rows before this batch.
    extra
        Names that the table lacks, each with the position of the first row that has it.
    place
        Returns the source of the row at a position, such as ``"scores.csv, line 3"``, or "".
    """

    columns: Mapping[str, Sequence[Value]]
    size: int
    start: int = 0
    extra: Mapping[str, int] = field(default_factory=dict[str, int])
    place: Callable[[int], str] = _nowhere

    def values(self, position: int, names: Sequence[str]) -> Row:
        """Return some attributes of one row."""
        return {
            name: self.columns[name][position] if name in self.columns else None for name in names
        }


def batch_of(
    columns: Mapping[Any, Sequence[Value]],
    size: int,
    known: Mapping[str, Attribute],
    start: int = 0,
    place: Callable[[int], str] = _nowhere,
) -> Batch:
    """Return a batch of rows with the same names; names that the table lacks go to `extra`."""
    kept = {name: values for name, values in columns.items() if name in known}
    extra = {str(name): 0 for name in columns if name not in known}
    return Batch(kept, size, start, extra, place)
