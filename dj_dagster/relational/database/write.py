"""Writing of rows: at once or in a unit of work, errors that name the row, and notes of provenance.

Users do not pass ``_prov`` to `insert`. It holds the time, the setting ``provenance.source``, the
connected user, the version of the code and, inside a `make`, its table and key.
"""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, time
from functools import partial
from getpass import getuser
from itertools import islice
from typing import TypeVar

import sqlalchemy as sa

from dj_dagster.errors import (
    ConfigurationError,
    DataJointError,
    DuplicateError,
    IntegrityError,
    InvalidValueError,
    LostConnectionError,
    QueryError,
)
from dj_dagster.model.heading import Value, Values
from dj_dagster.model.job_settings import PROVENANCE, JobSettings
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.sessions import run_sql
from dj_dagster.relational.database.write_buffer import EncodedRows, MakeCall, WriteBuffer
from dj_dagster.relational.stored import InsertStatement, StoredTable

T = TypeVar("T")

MEBIBYTE = 2**20

Written = Callable[[int], None]


def submit(
    connection: Connection, encoded: Iterable[EncodedRows], written: Written | None = None
) -> None:
    """Write all rows or none of them, or pass them to this thread's unit of work.

    Parameters
    ----------
    written
        Called after each statement with its number of rows.
    """
    buffer = connection.write_buffer
    if buffer is None:
        _write_whole(connection, list(encoded), written)
    else:
        for rows in encoded:
            buffer.add(rows)


@contextmanager
def _at_once(connection: Connection) -> Generator[None]:
    buffer = connection.write_buffer
    if buffer is None:
        with connection.joined_transaction():
            yield
    else:
        _flush(connection, buffer)
        with _noted(buffer):
            yield


def change(connection: Connection, work: Callable[[], T]) -> T:
    """Run changes other than inserts, in this thread's transaction or unit of work or a new one.

    Rows that a unit of work has collected are written first, so that the changes keep their order.
    A new transaction is repeated after a deadlock.
    """

    def whole() -> T:
        with _at_once(connection):
            return work()

    return whole() if connection.write_buffer is not None else connection.retrying(whole)


@contextmanager
def unit_of_work(
    connection: Connection, allowed: frozenset[TableName], call: MakeCall | None = None
) -> Generator[WriteBuffer]:
    """Collect the rows inserted inside and write them together at the end, or none of them.

    No transaction is open while the block runs, unless a query inside reads a table with collected
    rows: they are then written first, in the transaction that the block's end commits.

    Parameters
    ----------
    allowed
        The computed tables that may be inserted into.
    call
        The call of `make` that the block runs.

    Raises
    ------
    QueryError
        If this thread is in a unit of work or a transaction already.
    """
    if connection.write_buffer is not None or connection.holds_transaction:
        raise QueryError("A make cannot run inside another one, nor inside a transaction.")
    with ExitStack() as transaction:
        flush = partial(_flush, connection)
        buffer = WriteBuffer(allowed, flush, transaction=transaction, call=call)
        connection.write_buffer = buffer
        try:
            yield buffer
            if buffer.failed is not None:
                # The `make` caught the error, but rows are missing.
                raise buffer.failed
            if buffer.pending and connection.holds_transaction:
                _flush(connection, buffer)
        finally:
            connection.write_buffer = None
    if buffer.pending:
        _write_whole(connection, buffer.take())


def flush_before_reading(connection: Connection, tables: frozenset[TableName]) -> None:
    """Write the collected rows that a query over these tables must see.

    Raises
    ------
    QueryError
        If this thread's `make` may not read one of the tables.
    """
    buffer = connection.write_buffer
    if buffer is None:
        return
    if buffer.call is not None:
        buffer.call.check_read(tables)
    if buffer.touches(tables):
        _flush(connection, buffer)


def check_writable(connection: Connection, table: TableName) -> None:
    """Refuse to write to a table that this thread's `make` may not change, where that is checked.

    Raises
    ------
    QueryError
        If the table is neither the made table nor a part of it.
    """
    buffer = connection.write_buffer
    if buffer is not None and buffer.call is not None:
        buffer.call.check_write(table)


def _flush(connection: Connection, buffer: WriteBuffer) -> None:
    """Write the collected rows, in a transaction that the unit of work then holds to its end."""
    if not connection.holds_transaction:
        buffer.transaction.enter_context(connection.open_transaction())
    with _noted(buffer):
        _write(connection, buffer.take())


def _write_whole(
    connection: Connection, encoded: Sequence[EncodedRows], written: Written | None = None
) -> None:
    """Write rows in this thread's transaction, or in one that is repeated after a deadlock."""
    alone = None if connection.holds_transaction else _only_statement(connection, encoded)
    if alone is not None:
        # A single statement is a transaction of its own, which saves two round trips. When the
        # connection is lost, it is not known whether the statement took effect.
        connection.retrying(lambda: _run(connection, encoded[0], [alone], written), lost=False)
        return

    def work() -> None:
        with connection.joined_transaction():
            _write(connection, encoded, written)

    connection.retrying(work)


def _only_statement(
    connection: Connection, encoded: Sequence[EncodedRows]
) -> InsertStatement | None:
    if len(encoded) != 1 or encoded[0].before:
        return None
    if encoded[0].count == 1:
        return next(_statements(connection, encoded[0]))
    statements = list(islice(_statements(connection, encoded[0]), 2))
    return statements[0] if len(statements) == 1 and statements[0].is_atomic else None


@contextmanager
def _noted(buffer: WriteBuffer) -> Generator[None]:
    try:
        yield
    except DataJointError as error:
        buffer.failed = error
        raise


def _write(
    connection: Connection, encoded: Iterable[EncodedRows], written: Written | None = None
) -> None:
    for rows in encoded:
        write_before(connection, rows)
        _run(connection, rows, _statements(connection, rows), written)


def write_before(connection: Connection, encoded: EncodedRows) -> None:
    """Write the hidden rows that the given rows refer to, in this thread's transaction."""
    for rows in encoded.before:
        _run(connection, rows, _statements(connection, rows))


def _statements(connection: Connection, rows: EncodedRows) -> Iterator[InsertStatement]:
    return connection.backend.insert_statements(
        rows.table, rows.columns, rows.values, rows.count, rows.key, rows.mode
    )


def _run(
    connection: Connection,
    rows: EncodedRows,
    statements: Iterable[InsertStatement],
    written: Written | None = None,
) -> None:
    if rows.objects is not None:
        rows.objects.keep(connection.stores)
    done, statement = 0, None
    try:
        with connection.cursor() as session:
            for statement in statements:
                run_sql(session, statement.sql, statement.parameters)
                done += statement.count
                if written is not None:
                    written(statement.count)
    except (QueryError, LostConnectionError) as error:
        row, lacking = None, ""
        if statement is not None and isinstance(error, DuplicateError | IntegrityError):
            tried = range(done, done + statement.count)
            row, lacking = _refused_row(connection, rows, error, tried, whole=statement.is_atomic)
        raise _retold(error, rows, row, lacking) from _reason(error)


@contextmanager
def explained(rows: EncodedRows, *, updates: bool = False) -> Generator[None]:
    """Name the written table and a remedy in errors of the database."""
    try:
        yield
    except DuplicateError as error:
        if not updates:
            raise _retold(error, rows) from _reason(error)
        raise DuplicateError(
            f"A row of {rows.table} cannot be updated, because another row has such values already "
            f"under a unique index: {error}.{_key(rows, 0)} Give it other values, or change that "
            "row first."
        ) from _reason(error)
    except (QueryError, LostConnectionError) as error:
        raise _retold(error, rows) from _reason(error)


def _reason(error: DataJointError) -> BaseException:
    """Return the driver's error: the text of ours is told again, and tracebacks are long enough."""
    return error.__cause__ or error


def _retold(
    error: DataJointError, rows: EncodedRows, row: int | None = None, lacking: str = ""
) -> DataJointError:
    return type(error)(f"{_explained(error, rows, row, lacking)} {_advice(error, rows)}".strip())


def _explained(error: DataJointError, rows: EncodedRows, row: int | None, lacking: str) -> str:
    match error:
        case DuplicateError():
            return f"{rows.table} has this row already: {error}.{_key(rows, row)}"
        case IntegrityError() if rows.mode == "replace":
            return f"A row of {rows.table} cannot be replaced, others refer to it: {error}."
        case IntegrityError():
            return (
                f"A row for {rows.table} refers to a row that does not exist{lacking}: {error}."
                f"{_key(rows, row)}"
            )
        case LostConnectionError():
            return str(error)
        case _:
            return f"The rows for {rows.table} were refused: {str(error).rstrip('.')}."


def _key(rows: EncodedRows, row: int | None) -> str:
    """Return the key of a row, or of the only row, as a sentence."""
    row = 0 if row is None and rows.count == 1 else row
    if row is None:
        return ""
    given = dict(zip(rows.columns, rows.values, strict=True))
    key = {name: given[name][row] for name in rows.key if name in given}
    return f" The row's key: {key}."


def _advice(error: DataJointError, rows: EncodedRows) -> str:
    match error:
        case DuplicateError():
            return "Pass skip_duplicates=True to leave existing rows as they are."
        case IntegrityError():
            return "Insert into its parent tables first." if rows.mode != "replace" else ""
        case InvalidValueError() | LostConnectionError():
            sizes = [sum(map(_size, row)) for row in zip(*rows.values, strict=True)]
            largest = max(sizes, default=0) / MEBIBYTE
            # A server closes the connection on oversized data, often before it reports the reason.
            return (
                f"A row for {rows.table} has {largest:.1f} MiB: if the server's max_allowed_packet "
                "is less, raise it, or keep large objects in a store: <blob@>."
                if largest > 1
                else ""
            )
        case _:
            return ""


def _size(value: object) -> int:
    return len(value) if isinstance(value, bytes | str) else 0


def _refused_row(
    connection: Connection, rows: EncodedRows, error: DataJointError, tried: range, *, whole: bool
) -> tuple[int | None, str]:
    """Return the position of a row that was refused, and the parent's row that it lacks, if any.

    The position is None where it cannot be determined.

    Parameters
    ----------
    error
        A `DuplicateError` or an `IntegrityError`.
    tried
        The rows of the statement that failed; those before them are written.
    whole
        Whether nothing of that statement was written.
    """
    nothing: tuple[int | None, str] = None, ""
    with contextlib.suppress(DataJointError):
        if isinstance(error, DuplicateError):
            return next(_doubles(connection, rows, error, tried, whole), None), ""
        return next(_orphans(connection, rows, tried), nothing)
    return nothing


def _doubles(
    connection: Connection, rows: EncodedRows, error: DataJointError, tried: range, whole: bool
) -> Iterator[int]:
    raw = connection.catalog.raw(rows.table)
    told = connection.backend.clashing(error)
    for names in (rows.key, *(raw.unique if raw else ())):
        if told is not None and told != set(names):
            continue
        given = _given(rows, names, tried)
        seen: set[Values] = set()
        for row, values in given.items():
            if _plain(values) in seen:
                yield row
            seen.add(_plain(values))
        there = _there(connection, rows.table, names, given)
        if whole:
            yield from (row for row, values in given.items() if _plain(values) in there)
            continue
        if told is None:
            continue
        # The rows were written one by one up to the refused one, whose values are also found in the
        # table.
        last = None
        for row, values in given.items():
            if _plain(values) not in there:
                break
            last = row
        if last is not None:
            yield last


def _orphans(connection: Connection, rows: EncodedRows, tried: range) -> Iterator[tuple[int, str]]:
    """Yield rows whose parent is not there, each with the parent as the end of a sentence."""
    stored = connection.catalog.find(rows.table)
    for foreign_key in stored.foreign_keys if stored else ():
        given = _given(rows, tuple(foreign_key.attributes), tried)
        parents = tuple(foreign_key.attributes.values())
        there = _there(connection, foreign_key.parent, parents, given)
        for row, values in given.items():
            if _plain(values) not in there:
                wanted = dict(zip(foreign_key.attributes, values, strict=True))
                yield row, f", {foreign_key.parent} with {wanted}"


def _given(rows: EncodedRows, names: Sequence[str], tried: range) -> dict[int, Values]:
    """Return the values of some columns by row; rows with nulls are left out."""
    columns = dict(zip(rows.columns, rows.values, strict=True))
    if not names or not columns.keys() >= set(names):
        return {}
    given = {row: tuple(columns[name][row] for name in names) for row in tried}
    return {row: values for row, values in given.items() if None not in values}


def _there(
    connection: Connection, table: TableName, names: Sequence[str], given: dict[int, Values]
) -> set[Values]:
    if not given:
        return set()
    columns = [sa.column(name) for name in names]
    source = connection.backend.sql_table(table, *columns)
    wanted = [source.c[name] for name in names]
    select = sa.select(*wanted).where(
        connection.backend.is_among(wanted, list(dict.fromkeys(given.values())))
    )
    return {_plain(row) for row in connection.rows(select)}


def _plain(values: Sequence[Value]) -> Values:
    """Return values in a form that can be compared, regardless of the driver's types."""
    return tuple(str(value).casefold() for value in values)


def provenance_text(connection: Connection, table: StoredTable) -> str | None:
    """Return the value of ``_prov`` for a table's new rows, None where nothing is noted."""
    if PROVENANCE.name not in table.heading.all_attributes or not connection.provenance.capture:
        return None
    noted: dict[str, object] = {"time": datetime.now(UTC).isoformat(), "agent": _agent(connection)}
    if version := job_version(connection.job_settings):
        noted["version"] = version
    if source := connection.provenance.source:
        noted["source"] = dict(source)
    buffer = connection.write_buffer
    if buffer is not None and buffer.call is not None:
        noted["context"] = _context(connection, buffer.call.table, buffer.call.key, version)
    return json.dumps(noted, default=str)


def _agent(connection: Connection) -> dict[str, str]:
    url = connection.engine.url
    if url.host is None:
        return {"user": getuser(), "host": platform.node()}
    return {"user": url.username or "", "host": url.host}


def _context(
    connection: Connection, table: TableName, key: Mapping[str, Value], version: str
) -> Mapping[str, object]:
    shown = {name: _json_value(value) for name, value in key.items()}
    context = {"table": connection.backend.full_name(table), "key": shown}
    return context | ({"version": version} if version else {})


def _json_value(value: Value) -> Value:
    if value is None or isinstance(value, str | int | float):
        return value
    return value.isoformat() if isinstance(value, date | datetime | time) else str(value)


def job_version(settings: JobSettings) -> str:
    """Return the version that jobs and rows are marked with, ``""`` for none.

    With ``"git"`` it is the short hash of the commit that is checked out in the working directory.

    Raises
    ------
    ConfigurationError
        If the setting `version_method` is not a known one.
    """
    if settings.version_method in (None, "none"):
        return ""
    if settings.version_method != "git":
        raise ConfigurationError(
            f"jobs.version_method is {settings.version_method!r}: write 'git', 'none' or None."
        )
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()[:64] if found.returncode == 0 else ""
