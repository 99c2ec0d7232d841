"""Encoding of rows for insertion: names and values are checked, and values encoded.

Whole columns are checked first, at C speed; see `column_checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dj_dagster.errors import (
    InvalidValueError,
    MissingAttributeError,
    QueryError,
    UnknownFieldError,
)
from dj_dagster.model.heading import Attribute, Heading, Row, Value
from dj_dagster.model.job_settings import PROVENANCE
from dj_dagster.model.types import Family
from dj_dagster.objects.codecs.chain import CodecChain, ObjectContext
from dj_dagster.objects.codecs.codec import Reference
from dj_dagster.objects.collection import StoredObjects
from dj_dagster.objects.external_pointer import ExternalObject
from dj_dagster.objects.stores.store import in_flight
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.backends.base import Convert
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.write import provenance_text
from dj_dagster.relational.database.write_buffer import EncodedRows
from dj_dagster.relational.garbage.references import register_writer
from dj_dagster.relational.inserting.column_checks import (
    Check,
    Fits,
    check_of,
    checked_column,
    fits_of,
)
from dj_dagster.relational.inserting.row_sources import Batch, batches
from dj_dagster.relational.old_layout import tracking_rows
from dj_dagster.relational.stored import DEFAULT, InsertMode, StoredTable
from dj_dagster.relational.values import checked, is_missing, without_zone

Refuse = Callable[[int, Attribute | None, QueryError], None]


class RowEncoder:
    """Encodes batches of rows of one table.

    Parameters
    ----------
    ignore_extra_fields
        Whether names that the table lacks are left out.
    refuse
        Called with the position of a row in its batch, the attribute and the error; by default it
        raises the error.
    partial
        Whether rows may lack attributes without a default.
    """

    def __init__(
        self,
        connection: Connection,
        table: StoredTable,
        *,
        mode: InsertMode = "insert",
        ignore_extra_fields: bool = False,
        refuse: Refuse | None = None,
        partial: bool = False,
    ) -> None:
        self._connection = connection
        self._table = table
        self._key = key_of(table.heading)
        self._mode: InsertMode = mode
        self._ignore_extra_fields = ignore_extra_fields
        self._refuse = refuse
        self._partial = partial
        self._origin = None if partial else provenance_text(connection, table)
        self._sizes: list[int] = []
        self._objects: list[Reference] = []
        self._external: list[ExternalObject] = []
        columns, packed = columns_of(table.heading, connection.backend)
        if packed:
            columns = tuple(with_codec(column, connection) for column in columns)
        self._columns = columns
        # Columns that can fail are encoded before objects are written to a store.
        self._in_rows = sorted(columns, key=has_codec) if packed else columns
        self._in_stores: list[InsertColumn] = []
        if packed:
            self._in_rows = [column for column in self._in_rows if not column.has_store]
            self._in_stores = [column for column in columns if column.has_store]

    def encode(self, batches: Iterable[Batch]) -> list[EncodedRows]:
        """Check and encode rows, and write objects to their stores.

        Raises
        ------
        UnknownFieldError, MissingAttributeError, InvalidValueError
            For a wrong name or value; the message names the table, the attribute and the row's key.
            Nothing has been written then.
        """
        # All batches are checked before the first object is written.
        first = [(batch, self._checked(batch)) for batch in batches]
        return [self._rows(batch, found) for batch, found in first if batch.size]

    def encode_plain(self, row: Row) -> EncodedRows | None:
        """Encode a row whose values need no conversion for the driver; None for any other row."""
        names: list[str] = []
        values: list[tuple[Value]] = []
        for column in self._columns:
            name = column.attribute.name
            value = row.get(name)
            if value is None:
                if not column.attribute.nullable:
                    return None
            elif column.fits is None or not column.fits(value):
                return None
            names.append(name)
            values.append((value,))
        if not row.keys() <= set(names):
            return None
        if self._origin is not None:
            names.append(PROVENANCE.name)
            values.append((self._origin,))
        table = self._table.name
        return EncodedRows(table, tuple(names), tuple(values), 1, self._key, self._mode)

    def check(self, batch: Batch) -> None:
        """Find errors without writing objects."""
        self._checked(batch)
        for column in self._in_stores:
            name, chain = column.attribute.name, column.codec
            if chain is not None and name in batch.columns:
                check = self._validating(column, chain, batch)
                self._each(column, batch, batch.columns[name], check)

    def _checked(self, batch: Batch) -> dict[str, Sequence[Value]]:
        self._check_names(batch)
        return self._encoded(self._in_rows, batch)

    def _encoded(self, columns: Iterable[InsertColumn], batch: Batch) -> dict[str, Sequence[Value]]:
        given = [column for column in columns if column.attribute.name in batch.columns]
        found = {column.attribute.name: self._column(column, batch) for column in given}
        for column in given:
            if column.counts and not self._partial:
                # Servers give the next number for 0, and so must SQLite.
                name = column.attribute.name
                found[name] = [value or DEFAULT for value in found[name]]
        return found

    def _rows(self, batch: Batch, found: dict[str, Sequence[Value]]) -> EncodedRows:
        found |= self._encoded(self._in_stores, batch)
        names = tuple(name for name in self._table.heading.attributes if name in found)
        values = tuple(found[name] for name in names)
        if self._origin is not None:
            names, values = (*names, PROVENANCE.name), (*values, [self._origin] * batch.size)
        sizes, self._sizes = self._sizes, []
        objects, self._objects = self._objects, []
        external, self._external = self._external, []
        return EncodedRows(
            self._table.name,
            names,
            values,
            batch.size,
            self._key,
            self._mode,
            sum(sizes),
            StoredObjects(tuple(objects)) if objects else None,
            tracking_rows(self._connection, self._table.name.schema, external) if external else (),
        )

    def _check_names(self, batch: Batch) -> None:
        if batch.extra and not self._ignore_extra_fields:
            for name, position in batch.extra.items():
                message = (
                    f"{self._table.name} has no attribute {name!r}. It has: "
                    f"{', '.join(self._table.heading.names)}. "
                    "Pass ignore_extra_fields=True to leave it out."
                )
                self._fail(batch, position, None, UnknownFieldError(message))
        if self._partial or len(batch.columns) == len(self._columns):
            return
        for column in self._columns:
            attribute = column.attribute
            optional = attribute.nullable or column.has_default
            if attribute.name not in batch.columns and not optional:
                for position in range(batch.size if self._refuse else 1):
                    self._missing(column, batch, position)

    def _column(self, column: InsertColumn, batch: Batch) -> Sequence[Value]:
        values = batch.columns[column.attribute.name]
        if column.codec is not None:
            if column.has_store and any(value is not None for value in values):
                register_writer(self._connection, self._table.name.schema, column.codec)
            pack = self._packing(column, column.codec, batch)
            if column.codec.encodes_concurrently and batch.size > 1:
                return self._each_at_once(column, batch, values, pack)
            return self._each(column, batch, values, pack)
        found = checked_column(values, column.check, nullable=column.attribute.nullable)
        if found is None:
            if self._connection.era == "0.14":
                values = [without_zone(value) for value in values]
            return self._each(
                column, batch, values, lambda value, _: checked(value, column.attribute)
            )
        if column.whole is None:
            return found
        convert = column.whole
        try:
            return [None if value is None else convert(value) for value in found]
        except InvalidValueError:
            return self._each(column, batch, found, lambda value, _: value)

    def _each(
        self,
        column: InsertColumn,
        batch: Batch,
        values: Sequence[Value],
        encode: Callable[[Value, int], Value],
    ) -> list[Value]:
        """Encode values one by one, which finds the row of an error."""
        attribute = column.attribute
        result: list[Value] = []
        for position, value in enumerate(values):
            if is_missing(value, attribute):
                result.append(self._absent(column, batch, position))
                continue
            try:
                stored = encode(value, position)
                result.append(column.for_driver(stored))
            except InvalidValueError as error:
                result.append(self._fail(batch, position, attribute, error))
        return result

    def _each_at_once(
        self,
        column: InsertColumn,
        batch: Batch,
        values: Sequence[Value],
        encode: Callable[[Value, int], Value],
    ) -> list[Value]:
        """Do the same as `_each` with several values at once, since each waits for a store."""
        attribute = column.attribute

        def attempt(item: tuple[int, Value]) -> Value:
            position, value = item
            if is_missing(value, attribute):
                return lambda: self._absent(column, batch, position)
            try:
                stored = encode(value, position)
            except InvalidValueError as error:
                # Errors are raised in the rows' order, by the thread that inserts.
                refusal = error
                return lambda: self._fail(batch, position, attribute, refusal)
            return column.for_driver(stored)

        found = in_flight(attempt, enumerate(values))
        return [value() if callable(value) else value for value in found]

    def _packing(
        self, column: InsertColumn, chain: CodecChain, batch: Batch
    ) -> Callable[[Value, int], Value]:
        def pack(value: Value, position: int) -> Value:
            stored = chain.encode(value, self._context(column.attribute, batch, position))
            # Appending to a list is safe in several threads, adding to a number is not.
            self._sizes.append(_size(stored))
            if isinstance(stored, ExternalObject):
                self._external.append(stored)
                return stored.hash
            if chain.store is not None and isinstance(stored, dict):
                self._objects.append(stored)
            return stored

        return pack

    def _validating(
        self, column: InsertColumn, chain: CodecChain, batch: Batch
    ) -> Callable[[Value, int], Value]:
        def validate(value: Value, position: int) -> None:
            try:
                chain.codecs[0].validate(value)
            except (TypeError, ValueError, InvalidValueError) as error:
                place = self._context(column.attribute, batch, position).place
                raise InvalidValueError(f"{place}: {error}") from error

        return validate

    def _absent(self, column: InsertColumn, batch: Batch, position: int) -> Value:
        if column.attribute.nullable:
            return None
        return DEFAULT if column.has_default else self._missing(column, batch, position)

    def _missing(self, column: InsertColumn, batch: Batch, position: int) -> None:
        attribute = column.attribute
        message = f"{self._table.name} needs a value for {attribute.name!r}, which has no default"
        if not batch.size:
            self._fail(batch, position, attribute, MissingAttributeError(message))
        given = batch.columns.get(attribute.name, (None,) * batch.size)[position]
        if given is not None:
            message += f" ({given!r} counts as none: declare it = null, or as <blob> to keep it)"
        elif all(values[position] is None for values in batch.columns.values()):
            required = ", ".join(required_names(self._table.heading))
            message = f"Cannot insert empty row into {self._table.name}: {required} require values"
        self._fail(batch, position, attribute, MissingAttributeError(message))

    def _fail(
        self, batch: Batch, position: int, attribute: Attribute | None, error: QueryError
    ) -> None:
        if self._refuse is not None:
            self._refuse(batch.start + position, attribute, error)
            return
        place = batch.place(position)
        where = f"{place}: " if place else ""
        if not batch.size:
            raise type(error)(f"{where}{error}") from error.__cause__
        key = batch.values(position, self._table.heading.primary_key)
        text = str(error).removesuffix(".")
        raise type(error)(f"{where}{text}. The row's key: {key}.") from error.__cause__

    def _context(self, attribute: Attribute, batch: Batch, position: int) -> ObjectContext:
        name = self._table.name
        key = batch.values(position, self._table.heading.primary_key)
        return ObjectContext(self._connection.stores, name.schema, name.table, attribute.name, key)


def encode_rows(
    connection: Connection,
    table: StoredTable,
    rows: object,
    *,
    mode: InsertMode = "insert",
    ignore_extra_fields: bool = False,
) -> list[EncodedRows]:
    """Check and encode rows of any kind but queries; see `RowEncoder.encode`."""
    encoder = RowEncoder(connection, table, mode=mode, ignore_extra_fields=ignore_extra_fields)
    return encoder.encode(batches(rows, table.heading))


def _size(encoded: Value) -> int:
    if isinstance(encoded, bytes | bytearray | memoryview):
        return len(encoded)
    if isinstance(encoded, ExternalObject):
        return encoded.size
    size = encoded.get("size") if isinstance(encoded, dict) else None
    return int(size or 0)


@dataclass(frozen=True, slots=True)
class InsertColumn:
    """The check and conversion of one attribute's values.

    Attributes
    ----------
    check
        Checks a whole column.
    convert
        Converts a checked value for the driver; None where no conversion is needed.
    whole
        The same for values of a column that passed `check`.
    fits
        Tests whether a single value can be passed to the driver as it is; None without a test.
    """

    attribute: Attribute
    check: Check
    convert: Convert | None
    whole: Convert | None
    fits: Fits | None = None
    codec: CodecChain | None = None

    def for_driver(self, value: Value) -> Value:
        """Convert a checked value.

        Raises
        ------
        InvalidValueError
            If the database cannot hold it; the message names the attribute.
        """
        try:
            return self.convert(value) if self.convert else value
        except InvalidValueError as error:
            kind = self.attribute.type.text if self.attribute.type else "?"
            raise InvalidValueError(
                f"{self.attribute.table}.{self.attribute.name} : {kind} cannot be stored: {error}"
            ) from error

    @property
    def counts(self) -> bool:
        """Whether the database numbers the rows that lack the attribute."""
        return self.attribute.type is not None and self.attribute.type.auto_increment

    @property
    def has_default(self) -> bool:
        """Whether the database fills the attribute in if a row lacks it."""
        return self.attribute.default is not None or self.counts

    @property
    def has_store(self) -> bool:
        """Whether values are written to a store, which a rollback does not undo."""
        return self.codec is not None and self.codec.store is not None


@lru_cache(maxsize=1000)
def columns_of(heading: Heading, backend: Backend) -> tuple[tuple[InsertColumn, ...], bool]:
    """Return the `InsertColumn` of each attribute, looked up once for a heading.

    The second value is whether an attribute has a codec. Codecs are looked up for each insert,
    because their classes may have been defined again.
    """
    attributes = heading.attributes.values()
    packed = any(a.type is not None and a.type.family is Family.CODEC for a in attributes)
    return tuple(_column_of(attribute, backend) for attribute in attributes), packed


def _column_of(attribute: Attribute, backend: Backend) -> InsertColumn:
    kind = attribute.type
    convert = None if kind is None or kind.family is Family.CODEC else backend.encoder(kind)
    # A column of integers in the range of a signed type needs no conversion.
    plain = kind is not None and kind.family is Family.INTEGER and not kind.unsigned
    fits = fits_of(attribute) if convert is None or plain else None
    return InsertColumn(attribute, check_of(attribute), convert, None if plain else convert, fits)


def required_names(heading: Heading) -> list[str]:
    """Return the attributes that every row has to give a value for."""
    return [
        name
        for name, attribute in heading.attributes.items()
        if not (attribute.nullable or attribute.default is not None)
        and not (attribute.type is not None and attribute.type.auto_increment)
    ]


@lru_cache(maxsize=1000)
def key_of(heading: Heading) -> tuple[str, ...]:
    """Return the attributes of the primary key, even if they are hidden."""
    return tuple(name for name, attr in heading.all_attributes.items() if attr.in_key)


def has_codec(column: InsertColumn) -> bool:
    """Whether values pass a codec."""
    return column.codec is not None


def with_codec(column: InsertColumn, connection: Connection) -> InsertColumn:
    """Return a column with its codec looked up, if it has one."""
    kind = column.attribute.type
    if kind is None or kind.family is not Family.CODEC:
        return column
    chain = connection.codecs.resolve(kind)
    convert = connection.backend.encoder(chain.column_type)
    return InsertColumn(column.attribute, column.check, convert, convert, None, chain)
