"""Insertion and update of rows: of users, of queries, single and staged ones, and their checks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from numbers import Integral
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

import sqlalchemy as sa
from fsspec import AbstractFileSystem, FSMap

from dj_dagster.class_access import ClassMethod, ClassProperty
from dj_dagster.errors import (
    DataJointError,
    InvalidValueError,
    MissingAttributeError,
    QueryError,
    UnknownAttributeError,
    counted,
)
from dj_dagster.lazy import LateModule
from dj_dagster.model.heading import Attribute, Heading, Key, Row, Value
from dj_dagster.model.job_settings import PROVENANCE
from dj_dagster.model.names import TableName, Tier
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.objects.checksums import manifest_path, placed
from dj_dagster.objects.codecs.files import ObjectCodec, published
from dj_dagster.objects.external_pointer import ExternalPointerType
from dj_dagster.objects.layout import object_path
from dj_dagster.objects.stores.store import Store
from dj_dagster.relational.algebra.condition import HasNode, make_condition, query_node
from dj_dagster.relational.algebra.nodes import Node
from dj_dagster.relational.algebra.operators import all_rows, restrict
from dj_dagster.relational.backends.common import Element
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.write_buffer import EncodedRows
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.garbage.references import register_writer
from dj_dagster.relational.inserting.encode import RowEncoder, required_names
from dj_dagster.relational.inserting.row_sources import Batch, batches
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.stored import DEFAULT, InsertMode, StoredTable
from dj_dagster.relational.values import byte_limit, integer_range, is_bounded, is_data_frame

if TYPE_CHECKING:
    import pandas as pd
    import rich.console as console
    import rich.progress as progress
    from rich.progress import Progress, TaskID
else:
    console, progress = LateModule("rich.console"), LateModule("rich.progress")


def insert_plain(connection: Connection, table: StoredTable, row: Row, mode: InsertMode) -> bool:
    """Insert a row of plain values; return False for others, which `insert_rows` encodes."""
    table.check_table("insert into")
    encoded = RowEncoder(connection, table, mode=mode).encode_plain(row)
    if encoded is None:
        return False
    write.submit(connection, [encoded])
    return True


def insert_rows(
    connection: Connection,
    table: StoredTable,
    rows: object,
    mode: InsertMode,
    *,
    ignore_extra_fields: bool,
    chunk_size: int | None,
    display_progress: bool | None,
) -> None:
    """Insert all rows or none of them; see `Table.insert`."""
    table.check_table("insert into")
    write.check_writable(connection, table.name)
    # A list is never a query, and a check of the protocol takes longer than checking a row.
    if not isinstance(rows, list | tuple) and isinstance(rows, HasNode):
        if chunk_size is not None:
            raise QueryError(
                "chunk_size is not supported for queries, whose rows the server copies: leave "
                "it out, or insert query.to_dicts()."
            )
        rows = _left_to_copy(connection, table, rows, mode, ignore_extra_fields)
        if rows is None:
            return
    encoder = RowEncoder(connection, table, mode=mode, ignore_extra_fields=ignore_extra_fields)
    with InsertProgress(str(table.name), display_progress) as progress:
        if chunk_size is None:
            _write(connection, encoder, batches(rows, table.heading), progress)
        else:
            _write_chunks(connection, encoder, table.heading, rows, chunk_size, progress)


def checked_frame(table: StoredTable, df: object, index_as_pk: bool | None) -> pd.DataFrame:
    """Return a data frame to insert; see `Table.insert_dataframe`."""
    key = table.heading.primary_key
    if not is_data_frame(df):
        raise QueryError(f"insert_dataframe requires a pandas DataFrame, not {df!r}.")
    if index_as_pk and set(df.index.names) != set(key):
        raise QueryError(
            f"The names of the index, {list(df.index.names)}, do not match the key of "
            f"{table.name}, {key}: call df.set_index({key}) first."
        )
    return df.reset_index(drop=True) if index_as_pk is False else df


def _left_to_copy(
    connection: Connection,
    table: StoredTable,
    query: Any,
    mode: InsertMode,
    ignore_extra_fields: bool,
) -> object:
    """Copy a query's rows in the server, or return them if they have to be converted here."""
    node = query_node(query)
    names = copied_names(table, node.heading, ignore_extra_fields=ignore_extra_fields)
    here = query.connection is connection
    if here and all(can_copy(connection, table, node.heading, name) for name in names):
        insert_select(connection, table, node, names, mode)
        return None
    return query.proj(*names) if set(names) != set(node.heading.names) else query


def _write(
    connection: Connection,
    encoder: RowEncoder,
    given: Iterator[Batch],
    progress: InsertProgress,
) -> int:
    encoded = encoder.encode(given)
    count = sum(rows.count for rows in encoded)
    progress.total = (progress.total or 0) + count
    write.submit(connection, encoded, progress.advance)
    return count


def _write_chunks(
    connection: Connection,
    encoder: RowEncoder,
    heading: Heading,
    rows: object,
    size: int,
    progress: InsertProgress,
) -> None:
    kind = type(size)
    if kind is bool or not issubclass(kind, Integral) or size < 1:
        raise QueryError(f"chunk_size={size!r} is not a number of rows: write 1 or more.")
    done = 0
    try:
        for batch in batches(rows, heading, size):
            done += _write(connection, encoder, iter([batch]), progress)
    except DataJointError as error:
        if not done or connection.holds_transaction or connection.write_buffer:
            raise
        raise type(error)(
            f"{error} Of the chunks before, {counted(done, 'row')} are in the table."
        ) from error


def check_direct_insert(connection: Connection, name: TableName, tier: Tier) -> None:
    """Refuse to insert into a computed table outside its `make`."""
    buffer = connection.write_buffer
    if tier in (Tier.IMPORTED, Tier.COMPUTED) and (buffer is None or name not in buffer.allowed):
        raise DataJointError(
            f"{name} is {tier.name.lower()}: its rows come from its make(key), which "
            "populate() calls. Pass allow_direct_insert=True to insert all the same."
        )


def insert_mode(replace: bool, skip_duplicates: bool) -> InsertMode:
    """Return how rows that exist are treated.

    Raises
    ------
    QueryError
        If both options are given.
    """
    if replace and skip_duplicates:
        raise QueryError("A row that exists is either replaced or skipped: pass one of the two.")
    return "replace" if replace else "skip" if skip_duplicates else "insert"


PATIENCE = 2.0
"""Seconds before a progress bar is shown on a terminal."""


class InsertProgress:
    """Counts rows; shows a bar on standard error once an insert takes long.

    Parameters
    ----------
    display
        Whether to show the bar from the beginning, or never; None shows it on a terminal only,
        after `PATIENCE`.
    """

    def __init__(self, table: str, display: bool | None = None) -> None:
        self._label = f"insert into {table}"
        self._wanted = display
        self._shown_from = time.monotonic() + (0 if display else PATIENCE)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._done = 0
        self.total: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, rows: int) -> None:
        """Count rows that have been sent."""
        self._done += rows
        if self._bar is None and self._wanted is not False:
            self._show()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, total=self.total)

    def _show(self) -> None:
        if time.monotonic() >= self._shown_from and (self._wanted or sys.stderr.isatty()):
            self._bar = progress.Progress(console=console.Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self.total)


def copied_names(table: StoredTable, source: Heading, *, ignore_extra_fields: bool) -> list[str]:
    """Return the attributes that a query gives a table, matched by name.

    Raises
    ------
    UnknownAttributeError, MissingAttributeError
        If the table lacks an attribute of the query, or the query lacks one without a default.
    """
    known = table.heading.attributes
    extra = [name for name in source.names if name not in known]
    if extra and not ignore_extra_fields:
        raise UnknownAttributeError(
            f"{table.name} has no attribute {extra[0]!r}, which the query has. It has: "
            f"{', '.join(known)}. Leave it out with .proj(), or pass ignore_extra_fields=True."
        )
    for name in required_names(table.heading):
        if name not in source.attributes:
            raise MissingAttributeError(
                f"{table.name} needs a value for {name!r}, which the query does not have: add it "
                f"with .proj(..., {name}='…')."
            )
    return [name for name in known if name in source.attributes]


def can_copy(connection: Connection, table: StoredTable, source: Heading, name: str) -> bool:
    """Whether the server may copy a column as it is stored.

    Values that it would store wrongly are decoded and encoded here instead: those of another codec,
    and values that a server without strict types would accept unchecked.
    """
    mine, theirs = table.heading[name], source[name]
    strict = connection.backend.checks_values
    if mine.type is None or theirs.type is None:
        # The type of a computed attribute is known only to the server, which rounds to integers and
        # takes a number for the place of an enum's value.
        return strict and _is_plain(mine)
    if isinstance(mine.type, ExternalPointerType) or isinstance(theirs.type, ExternalPointerType):
        return mine.type == theirs.type and _schema(mine) == _schema(theirs)
    if mine.type.text == theirs.type.text:
        return not theirs.nullable or mine.nullable or strict
    if mine.type.family is Family.CODEC or theirs.type.family is Family.CODEC:
        return False
    if not strict:
        return _is_wider(mine.type, theirs.type) and (mine.nullable or not theirs.nullable)
    return _is_kept(mine.type, theirs.type)


def _schema(attribute: Attribute) -> str:
    return attribute.table.partition(".")[0]


def _is_plain(attribute: Attribute) -> bool:
    kind = attribute.type
    return kind is not None and kind.family in (Family.FLOAT, Family.DECIMAL, Family.STRING)


def _is_kept(mine: AttributeType, theirs: AttributeType) -> bool:
    """Whether a server in strict mode stores values of another type as `values` does, or refuses.

    It rounds to integers, shows digits of a float of 32 bits that this does not have, and cuts
    blanks that do not fit.
    """
    if mine.family is theirs.family:
        if mine.family is Family.STRING:
            return _holds(mine, theirs)
        return mine.family is not Family.FLOAT or mine.size == theirs.size
    if mine.family is Family.INTEGER:
        return theirs.family is Family.BOOL
    exact = theirs.family in (Family.INTEGER, Family.BOOL, Family.DECIMAL)
    return exact and (
        mine.family is Family.DECIMAL or (mine.family is Family.FLOAT and mine.size == 64)
    )


def _holds(mine: AttributeType, theirs: AttributeType) -> bool:
    """Whether a text type holds all texts of another."""
    if mine.size is not None:
        return theirs.size is not None and theirs.size <= mine.size
    return (byte_limit(theirs) if theirs.size is None else 4 * theirs.size) <= byte_limit(mine)


def _is_wider(mine: AttributeType, theirs: AttributeType) -> bool:
    if mine.family is not theirs.family:
        return False
    if mine.family is Family.INTEGER:
        (low, high), (least, largest) = integer_range(mine), integer_range(theirs)
        return low <= least and largest <= high
    if mine.family is Family.STRING and mine.size is not None:
        return theirs.size is not None and theirs.size <= mine.size
    return mine.family is Family.FLOAT and mine.size == theirs.size == 64 and not is_bounded(mine)


def insert_select(
    connection: Connection,
    table: StoredTable,
    source: Node,
    names: list[str],
    mode: InsertMode,
) -> int:
    """Copy rows in one statement and return the number that the database reports."""
    if all(PROVENANCE.name in h.all_attributes for h in (table.heading, source.heading)):
        # Copied rows keep the provenance of their sources.
        names = [*names, PROVENANCE.name]
    select = Lowering(connection.backend).lower(source).select(*names)
    key = tuple(name for name, attr in table.heading.all_attributes.items() if attr.in_key)
    target = connection.backend.sql_table(table.name, *map(sa.column, {*names, *key}))
    statement = connection.backend.insert_from(target, names, select, key, mode)
    described = EncodedRows(table.name, tuple(names), (), 0, key, mode)
    with write.explained(described):
        count = max(write.change(connection, lambda: connection.execute(statement)), 0)
    if connection.write_buffer is not None:
        connection.write_buffer.note(table.name, count)
    return count


def update_row(connection: Connection, table: StoredTable, row: Mapping[str, Value]) -> None:
    """Change the secondary attributes that a row gives, in the row with its key.

    Raises
    ------
    QueryError
        A subclass for a name that the table lacks, a key that is incomplete or that no row has, or
        a value that does not fit; nothing has been changed.
    """
    _check_names(table, row)
    key = {name: row[name] for name in table.heading.primary_key}
    condition = make_condition(key, table.heading)
    encoded = RowEncoder(connection, table, partial=True).encode(
        [Batch({name: [value] for name, value in row.items()}, 1)]
    )[0]
    base = all_rows(table.name, table.heading)
    lowering = Lowering(connection.backend)
    target, over = lowering.target(base)
    changes = {
        name: _changed(connection, table, name, values[0])
        for name, values in zip(encoded.columns, encoded.values, strict=True)
        if name not in key
    }
    where = lowering.where(condition, over, table.heading)

    def update() -> None:
        if encoded.objects is not None:
            encoded.objects.keep(connection.stores)
        with write.explained(encoded, updates=True):
            write.write_before(connection, encoded)
            if changes:
                found = connection.execute(sa.update(target).where(where).values(changes))
            else:
                found = fetch.count(connection, restrict(base, condition))
        if found != 1:
            raise QueryError(f"{table.name} has no row {key} to update: insert it first.")

    write.change(connection, update)


def _check_names(table: StoredTable, row: object) -> None:
    if not isinstance(row, Mapping):
        raise QueryError(f"update1 takes a dict with the key and the new values, not {row!r}.")
    names = table.heading.names
    for name in row:
        if name not in table.heading.attributes:
            raise UnknownAttributeError(
                f"{table.name} has no attribute {name!r}. It has: {', '.join(names)}."
            )
    for name in table.heading.primary_key:
        if row.get(name) is None:
            raise MissingAttributeError(
                f"update1 of {table.name} needs the whole key, and {name!r} is missing in "
                f"{dict(row)}."
            )


def _changed(connection: Connection, table: StoredTable, name: str, value: Value) -> Element:
    if value is not DEFAULT:
        # MySQL would keep the sign of a minus zero, which an INSERT does not.
        zero = isinstance(value, float) and not value
        return sa.null() if value is None else sa.literal(0.0 if zero else value)
    attribute = table.heading[name]
    if attribute.default is None or attribute.type is None:
        raise MissingAttributeError(f"{table.name}.{name} has no default to go back to.")
    return connection.backend.default_element(attribute.default, attribute.type)


SHOWN = 10
"""Number of errors that a summary lists."""


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """The result of `validate`; true if it is without errors.

    Attributes
    ----------
    is_valid
        Whether no errors were found.
    errors
        For each error, the row's number from 0, the attribute (None for the whole row), and the
        message.
    rows_checked
        Number of rows.
    """

    is_valid: bool
    errors: list[tuple[int, str | None, str]] = field(
        default_factory=list[tuple[int, str | None, str]]
    )
    rows_checked: int = 0

    def __bool__(self) -> bool:
        return self.is_valid

    def raise_if_invalid(self) -> None:
        """Raise an error if errors were found.

        Raises
        ------
        InvalidValueError
            If there are errors, with the summary as its message.
        """
        if not self.is_valid:
            raise InvalidValueError(self.summary())

    def summary(self) -> str:
        """Return the number of rows and errors, and the first errors."""
        if self.is_valid:
            return f"Validation passed: {self.rows_checked} rows checked."
        lines = [f"Validation failed: {len(self.errors)} error(s) in {self.rows_checked} rows:"]
        for row, name, message in self.errors[:SHOWN]:
            lines.append(f"  Row {row}{f', {name}' if name else ''}: {message}")
        if len(self.errors) > SHOWN:
            lines.append(f"  and {len(self.errors) - SHOWN} more errors")
        return "\n".join(lines)


def validate_rows(
    connection: Connection, table: StoredTable, rows: object, *, ignore_extra_fields: bool
) -> ValidationResult:
    """Check names, types, lengths and missing values, but neither keys nor foreign keys."""
    errors: list[tuple[int, str | None, str]] = []

    def note(row: int, attribute: Attribute | None, error: DataJointError) -> None:
        errors.append((row, attribute.name if attribute else None, str(error)))

    encoder = RowEncoder(connection, table, ignore_extra_fields=ignore_extra_fields, refuse=note)
    checked = 0
    try:
        for batch in batches(rows, table.heading):
            encoder.check(batch)
            checked += batch.size
    except DataJointError as error:
        # The remaining rows cannot be read.
        errors.append((checked, None, str(error)))
    return ValidationResult(not errors, sorted(errors, key=lambda found: found[0]), checked)


class Insertable(Protocol):
    """The interface of a table that a staged insert uses."""

    # Declared as type checkers see what the class has too.
    connection: ClassProperty[Connection]
    heading: ClassProperty[Heading]
    name: ClassProperty[TableName]
    insert1: ClassMethod[..., None]


class StagedInsert(AbstractContextManager["StagedInsert"]):
    """One row whose objects are written straight into their store.

    Set the key in `rec` first, then write; the reference of each object is filled in at the end of
    the block, when the row is inserted. If the block fails, the objects are deleted; if the process
    dies, the garbage collector deletes them. Do not pause writing for longer than the collector's
    grace period.

    Attributes
    ----------
    rec
        The row.

    Examples
    --------
    ::

        with Scan.staged_insert1 as staged:
            staged.rec["scan_id"] = 7
            movie = zarr.open(staged.store("movie", ".zarr"), mode="w", shape=(9000, 512, 512))
            movie[:] = frames
    """

    def __init__(self, table: Insertable) -> None:
        self._table = table
        self.rec: Row = {}
        self._staged: dict[str, tuple[Store, str, str]] = {}
        self._opened = ExitStack()

    @property
    def fs(self) -> AbstractFileSystem:
        """The fsspec file system of the default store; that of an attribute is ``store(…).fs``."""
        return self._table.connection.stores.get().filesystem

    def store(self, field: str, ext: str = "") -> FSMap:
        """Return a mapping of paths to bytes, an fsspec ``FSMap``, for an attribute's folder.

        Parameters
        ----------
        field
            An attribute ``<object@store>`` or ``<zarr@store>``.
        ext
            Extension of the folder's name, such as ``".zarr"``; used by the first call for an
            attribute.

        Raises
        ------
        QueryError
            If the attribute does not exist, or `rec` lacks a part of the key.
        """
        store, path = self._place(field, ext)
        return store.filesystem.get_mapper(store.full_path(path))

    def open(self, field: str, ext: str = "", mode: str = "wb") -> IO[Any]:
        """Open the file of an attribute for writing; it is closed at the end of the block.

        Parameters and errors are the same as for `store`.
        """
        store, path = self._place(field, ext)
        return self._opened.enter_context(store.filesystem.open(store.full_path(path), mode))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # Files are closed after an error too: some file systems finish an upload only then.
            self._opened.close()
            if error is None:
                self._insert()
        except BaseException:
            self._clean_up()
            raise
        if error is not None:
            self._clean_up()

    def _insert(self) -> None:
        for name, (store, path, ext) in self._staged.items():
            try:
                self.rec[name] = published(store, path, ext or None)
            except InvalidValueError as error:
                # Such as a link, for which a whole recording is not deleted.
                self._staged = {}
                raise InvalidValueError(
                    f"{self._table.name}.{name} : {error} What was written stays at "
                    f"{store.url(path)} until garbage is collected."
                ) from error
        self._table.insert1(self.rec)

    def _clean_up(self) -> None:
        for store, path, _ in self._staged.values():
            # The garbage collector removes objects that remain.
            with suppress(DataJointError):
                store.delete_many([*(list(store.list(path)) or [path]), manifest_path(path)])
                store.tidy(path)

    def _place(self, field: str, ext: str) -> tuple[Store, str]:
        if field not in self._staged:
            store = self._store_of(field)
            name, key = self._table.name, self._key()
            with placed(f"{name}.{field}", InvalidValueError):
                path = object_path(store.settings, name.schema, name.table, field, key, ext)
            self._staged[field] = (store, path, ext)
        store, path, _ = self._staged[field]
        return store, path

    def _store_of(self, field: str) -> Store:
        connection, heading = self._table.connection, self._table.heading
        kind = heading[field].type if field in heading else None
        chain = connection.codecs.resolve(kind) if kind is not None else None
        if chain is None or not chain.codecs or not isinstance(chain.codecs[0], ObjectCodec):
            raise QueryError(
                f"{self._table.name} has no attribute {field!r} of type <object@> or <zarr@>: only "
                "these are written in place."
            )
        register_writer(connection, self._table.name.schema, chain)
        return connection.stores.get(chain.store)

    def _key(self) -> Key:
        names = self._table.heading.primary_key
        missing = [name for name in names if name not in self.rec]
        if missing:
            raise QueryError(
                f"Primary key attribute {missing[0]!r} of {self._table.name} is not set, which the "
                f"path of an object holds: set staged.rec[{missing[0]!r}] before store() or open()."
            )
        return {name: self.rec[name] for name in names}
