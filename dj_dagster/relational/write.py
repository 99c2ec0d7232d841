"""The one way by which rows reach the database: at once, or at the end of a unit of work."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from dj_dagster.errors import (
    DataJointError,
    DuplicateError,
    IntegrityError,
    LostConnectionError,
    QueryError,
)
from dj_dagster.model.table_name import TableName
from dj_dagster.relational.connection import Connection
from dj_dagster.relational.write_buffer import EncodedRows, WriteBuffer

MEBIBYTE = 2**20


def submit(connection: Connection, encoded: Iterable[EncodedRows]) -> None:
    """Write rows in one transaction, or hand them to this thread's unit of work."""
    buffer = connection.write_buffer
    if buffer is None:
        _write_whole(connection, list(encoded))
    else:
        for rows in encoded:
            buffer.add(rows)


@contextmanager
def at_once(connection: Connection) -> Generator[None]:
    """Run other changes than inserts: in this thread's transaction or unit of work, or a new one.

    What a unit of work has collected is written first, so that the changes keep their order.
    """
    buffer = connection.write_buffer
    if buffer is None:
        with connection.joined_transaction():
            yield
    else:
        _flush(connection, buffer)
        with _noted(buffer):
            yield


@contextmanager
def unit_of_work(connection: Connection, allowed: frozenset[TableName]) -> Generator[WriteBuffer]:
    """Collect the rows inserted inside and write them together at the end, or none of them.

    No transaction is open while the block runs, unless a query inside reads a table with collected
    rows: they are then written first, in the transaction that the block's end commits.

    Parameters
    ----------
    allowed
        The computed tables that may be inserted into.

    Raises
    ------
    QueryError
        If this thread is in a unit of work or a transaction already.
    """
    if connection.write_buffer is not None or connection.in_transaction:
        raise QueryError("A make cannot run inside another one, nor inside a transaction.")
    with ExitStack() as transaction:
        buffer = WriteBuffer(allowed, transaction=transaction)
        connection.write_buffer = buffer
        try:
            yield buffer
            if buffer.failed is not None:
                # The make caught it, but rows are missing.
                raise buffer.failed
            if buffer.pending and connection.in_transaction:
                _flush(connection, buffer)
        finally:
            connection.write_buffer = None
    if buffer.pending:
        _write_whole(connection, buffer.take())


def flush_before_reading(connection: Connection, tables: frozenset[TableName]) -> None:
    """Write the collected rows that a query over these tables must see."""
    buffer = connection.write_buffer
    if buffer is not None and buffer.touches(tables):
        _flush(connection, buffer)


def _flush(connection: Connection, buffer: WriteBuffer) -> None:
    """Write what is collected, in the transaction that the unit of work then holds to its end."""
    if not connection.in_transaction:
        buffer.transaction.enter_context(connection.open_transaction())
    with _noted(buffer):
        _write(connection, buffer.take())


def _write_whole(connection: Connection, encoded: Sequence[EncodedRows]) -> None:
    """Write rows in this thread's transaction, or in one that is tried again after a deadlock."""

    def work() -> None:
        with connection.joined_transaction():
            _write(connection, encoded)

    connection.retrying(work)


@contextmanager
def _noted(buffer: WriteBuffer) -> Generator[None]:
    try:
        yield
    except DataJointError as error:
        buffer.failed = error
        raise


def _write(connection: Connection, encoded: Iterable[EncodedRows]) -> None:
    for rows in encoded:
        sql = connection.backend.insert_sql(rows.table, rows.columns, rows.key, rows.mode)
        try:
            with connection.cursor() as session:
                session.exec_driver_sql(sql, list(rows.rows))
        except (DuplicateError, IntegrityError, LostConnectionError) as error:
            raise type(error)(
                f"{_explained(error, rows)} {_advice(error, rows)}".strip()
            ) from error


def _explained(error: DataJointError, rows: EncodedRows) -> str:
    match error:
        case DuplicateError():
            return f"{rows.table} has this row already: {error}."
        case IntegrityError() if rows.mode == "replace":
            return f"A row of {rows.table} cannot be replaced, others refer to it: {error}."
        case IntegrityError():
            return f"A row for {rows.table} refers to a row that does not exist: {error}."
        case _:
            return str(error)


def _advice(error: DataJointError, rows: EncodedRows) -> str:
    match error:
        case DuplicateError():
            return "Pass skip_duplicates=True to leave existing rows as they are."
        case IntegrityError():
            return "Insert into its parent tables first." if rows.mode != "replace" else ""
        case _:
            largest = max(sum(map(_size, row)) for row in rows.rows) / MEBIBYTE
            # A server that is sent too much hangs up, often before it says why.
            return (
                f"A row for {rows.table} has {largest:.1f} MiB: if the server's max_allowed_packet "
                "is less, raise it, or keep large objects in a store: <blob@>."
                if largest > 1
                else ""
            )


def _size(value: Any) -> int:
    return len(value) if isinstance(value, bytes | str) else 0
