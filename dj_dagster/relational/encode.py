"""Rows on their way in: names checked, values checked and encoded, nothing written yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dj_dagster.errors import (
    InvalidValueError,
    MissingAttributeError,
    QueryError,
    UnknownAttributeError,
)
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.types import Family
from dj_dagster.objects.codecs import CodecChain, ObjectContext
from dj_dagster.relational.backends.base import Convert, InsertMode
from dj_dagster.relational.condition import as_mapping
from dj_dagster.relational.connection import Connection
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.values import checked, is_missing
from dj_dagster.relational.write_buffer import EncodedRows


def encode_rows(
    connection: Connection,
    table: StoredTable,
    rows: Any,
    *,
    mode: InsertMode = "insert",
    ignore_extra_fields: bool = False,
) -> list[EncodedRows]:
    """Check and encode rows; what goes to a store is written there.

    Rows that leave the same attributes to their defaults are put together, so that each group is
    one statement.

    Raises
    ------
    UnknownAttributeError, MissingAttributeError, InvalidValueError
        Naming the table, the attribute and the row's key, before anything is written.
    """
    encoder = _RowEncoder(connection, table)
    groups: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for row in as_mappings(rows, table.heading):
        encoder.check_names(row, ignore_extra_fields=ignore_extra_fields)
        encoded = encoder.encode(row)
        groups.setdefault(tuple(encoded), []).append(tuple(encoded.values()))
    key = tuple(name for name, attr in table.heading.all_attributes.items() if attr.in_key)
    sizes = encoder.bytes
    result: list[EncodedRows] = []
    for columns, values in groups.items():
        result.append(EncodedRows(table.name, columns, values, key, mode, sizes))
        sizes = 0  # counted once, whichever group the blobs are in
    return result


def as_mappings(rows: Any, heading: Heading) -> Iterator[Mapping[str, Any]]:
    """Return rows as mappings, whatever they came as.

    Parameters
    ----------
    rows
        An iterable of mappings, sequences in the heading's order, or numpy records; a DataFrame,
        whose named index counts as columns; a query.

    Raises
    ------
    QueryError
        For rows of another kind, or a sequence of the wrong length.
    """
    if isinstance(rows, pd.DataFrame):
        named = any(name is not None for name in rows.index.names)
        frame = rows.reset_index() if named else rows
        rows = frame.to_dict("records")
    elif isinstance(rows, Mapping | str):
        raise QueryError("insert takes many rows: write insert1(row), or insert([row]).")
    for row in rows:
        yield _as_mapping(row, heading)


def _as_mapping(row: Any, heading: Heading) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, np.void):
        return as_mapping(row)
    if isinstance(row, Sequence | np.ndarray) and not isinstance(row, str | bytes):
        if len(row) != len(heading.names):
            raise QueryError(
                f"A row of {len(row)} values was given for {len(heading.names)} attributes: "
                f"{', '.join(heading.names)}."
            )
        return dict(zip(heading.names, row, strict=True))
    raise QueryError(f"{row!r} is no row: write a dict, a sequence or a numpy record.")


@dataclass(frozen=True, slots=True)
class _Column:
    attribute: Attribute
    codec: CodecChain | None
    convert: Convert | None


class _RowEncoder:
    """Encodes the rows of one table; what it needs of each column is looked up once."""

    def __init__(self, connection: Connection, table: StoredTable) -> None:
        self._stores = connection.stores
        self._table = table
        self._columns = {
            name: _column(connection, attribute)
            for name, attribute in table.heading.attributes.items()
        }
        self.bytes = 0

    def check_names(self, row: Mapping[str, Any], *, ignore_extra_fields: bool) -> None:
        if ignore_extra_fields:
            return
        for name in row:
            if name not in self._columns:
                raise UnknownAttributeError(
                    f"{self._table.name} has no attribute {name!r}. It has: "
                    f"{', '.join(self._columns)}. Pass ignore_extra_fields=True to leave it out."
                )

    def encode(self, row: Mapping[str, Any]) -> dict[str, Any]:
        encoded: dict[str, Any] = {}
        for name, column in self._columns.items():
            value = row.get(name)
            if is_missing(value, column.attribute):
                if column.attribute.nullable:
                    encoded[name] = None
                else:
                    self._check_default(column.attribute, row)
            else:
                encoded[name] = self._value(column, value, row)
        return encoded

    def _value(self, column: _Column, value: Any, row: Mapping[str, Any]) -> Any:
        try:
            if column.codec is not None:
                value = column.codec.encode(value, self._context(column.attribute, row))
                self.bytes += _size(value)
            else:
                value = checked(value, column.attribute)
            return column.convert(value) if column.convert else value
        except InvalidValueError as error:
            raise InvalidValueError(f"{error}. The row's key: {self._key(row)}.") from error

    def _check_default(self, attribute: Attribute, row: Mapping[str, Any]) -> None:
        kind = attribute.type
        if attribute.default is None and not (kind and kind.auto_increment):
            raise MissingAttributeError(
                f"{self._table.name} needs a value for {attribute.name!r}, which has no default. "
                f"The row's key: {self._key(row)}."
            )

    def _context(self, attribute: Attribute, row: Mapping[str, Any]) -> ObjectContext:
        name = self._table.name
        return ObjectContext(self._stores, name.schema, name.table, attribute.name, self._key(row))

    def _key(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: row.get(name) for name in self._table.heading.primary_key}


def _column(connection: Connection, attribute: Attribute) -> _Column:
    kind = attribute.type
    if kind is None:  # columns of tables have types
        return _Column(attribute, None, None)
    codec = connection.codecs.resolve(kind) if kind.family is Family.CODEC else None
    stored_as = codec.column_type if codec else kind
    return _Column(attribute, codec, connection.backend.encoder(stored_as))


def _size(encoded: Any) -> int:
    if isinstance(encoded, bytes | bytearray | memoryview):
        return len(encoded)
    size: Any = encoded.get("size") if isinstance(encoded, Mapping) else None
    return int(size or 0)
