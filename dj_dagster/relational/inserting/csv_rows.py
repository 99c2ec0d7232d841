"""Rows of CSV files: the first line names the attributes, values are read by their types."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from dj_dagster.errors import InvalidValueError, QueryError
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.types import Family
from dj_dagster.relational.inserting.row_batch import Batch, batch_of

_BOOLS = {"true": 1, "false": 0, "1": 1, "0": 0}
_TEXTS = (Family.STRING, Family.ENUM)


def csv_batches(path: str | PathLike[str], heading: Heading, size: int) -> Iterator[Batch]:
    """Read a file of comma-separated values in UTF-8.

    An empty value is the attribute's default or null; for a text that has neither, the empty text.

    Raises
    ------
    QueryError
        If there is no such file, or a line has more or fewer values than the first; what is wrong
        with a value is said with file and line.
    """
    file = fspath(path)
    with _readable(file), Path(file).open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines, strict=True)
        names = _header(file, reader)
        start = 0
        while batch := _next_batch(file, reader, names, heading, (start, size)):
            yield batch
            start += batch.size


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


def _header(file: str, reader: Iterator[list[str]]) -> list[str]:
    names = [name.strip() for name in next(reader, [])]
    if not names:
        raise QueryError(f"{file}, line 1: there is nothing; name the attributes there.")
    for name in names:
        if names.count(name) > 1:
            raise QueryError(f"{file}, line 1: the name {name!r} is there twice.")
    return names


def _next_batch(
    file: str, reader: Any, names: list[str], heading: Heading, span: tuple[int, int]
) -> Batch | None:
    start, size = span
    rows: list[list[str]] = []
    lines: list[int] = []
    for row in islice(filter(None, reader), size):
        if len(row) != len(names):
            raise QueryError(
                f"{file}, line {reader.line_num}: there are {len(row)} values for "
                f"{len(names)} names."
            )
        rows.append(row)
        lines.append(reader.line_num)
    if not rows:
        return None

    def place(position: int) -> str:
        return f"{file}, line {lines[position]}"

    columns: dict[str, Sequence[Any]] = dict(zip(names, zip(*rows, strict=True), strict=True))
    for name, attribute in heading.attributes.items():
        if name in columns:
            columns[name] = [
                _parsed(text, attribute, file, line)
                for text, line in zip(columns[name], lines, strict=True)
            ]
    return batch_of(columns, len(rows), heading.attributes, start, place)


def _parsed(text: str, attribute: Attribute, file: str, line: int) -> Any:
    family = attribute.type.family if attribute.type else Family.STRING
    if not text:
        required = not attribute.nullable and attribute.default is None
        return text if required and family in _TEXTS else None
    if family is Family.BOOL:
        return _BOOLS.get(text.strip().lower(), text)
    if family is Family.JSON:
        try:
            return json.loads(text)
        except ValueError as error:
            raise InvalidValueError(
                f"{file}, line {line}: {attribute.table}.{attribute.name} is no JSON: {error}."
            ) from error
    return text if family in _TEXTS or family is Family.CODEC else text.strip()
