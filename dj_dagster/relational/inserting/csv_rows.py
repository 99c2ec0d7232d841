"""Rows of CSV files: the first line names the attributes, values are read by their types."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
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

LONG = 131_072
"""Characters from which a record is not left to `csv`."""

_VALUE = re.compile(r'"((?:[^"]|"")*)"|([^,"]*)')


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
        records = _records(lines)
        names = _header(file, records)
        start = 0
        while batch := _next_batch(file, records, names, heading, (start, size)):
            yield batch
            start += batch.size
        if not start:
            # The names are checked all the same.
            columns: dict[str, Sequence[Any]] = dict.fromkeys(names, ())
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

    A record goes on over lines as long as a quote is open. `csv` refuses values of more than
    131,072 characters, by a setting of the whole process, so that longer records are read here.
    """
    open_lines: list[str] = []
    quotes = 0
    for number, line in enumerate(lines, 1):
        open_lines.append(line)
        quotes += line.count('"')
        if quotes % 2:
            continue
        record, open_lines, quotes = "".join(open_lines), [], 0
        if len(record) > LONG:
            yield number, _long_values(record)
        else:
            # An empty line is a record without values.
            yield number, next(csv.reader((record,), strict=True), [])
    if open_lines:
        raise csv.Error("unexpected end of data: a quote is not closed")


def _long_values(record: str) -> list[str]:
    record = record.rstrip("\r\n")
    values: list[str] = []
    end = -1
    while end < len(record):
        found = _VALUE.match(record, end + 1)
        if found is None or record[found.end() : found.end() + 1] not in ("", ","):
            raise csv.Error("',' expected after '\"'")
        quoted, plain = found.groups()
        values.append(plain if quoted is None else quoted.replace('""', '"'))
        end = found.end()
    return values


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
                f"{file}, line {number}: there are {len(row)} values for {len(names)} names."
            )
        rows.append(row)
        lines.append(number)
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
