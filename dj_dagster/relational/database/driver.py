"""Queries read from the driver's own cursor: plain tuples, errors wrapped as SQLAlchemy does."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import PoolProxiedConnection

Tuples = Sequence[tuple[Any, ...]]

SHOWN = 200
"""Number of characters of an INSERT that its error shows."""


def fetch_sql(session: SAConnection, sql: str, values: Sequence[Any]) -> Tuples:
    """Run SQL with the driver's own placeholders and return all rows as the driver gives them."""
    connection = session.connection
    try:
        cursor = connection.cursor()
        try:
            cursor.execute(sql, tuple(values))
            return cursor.fetchall()
        finally:
            cursor.close()
    except Exception as error:
        raise _wrapped(session.dialect, connection, sql, error) from error


def run_sql(
    session: SAConnection, sql: str | bytes, parameters: Sequence[tuple[Any, ...]] | None
) -> None:
    """Run an INSERT with the driver's own placeholders.

    Parameters
    ----------
    parameters
        One tuple a row; None where the values are part of the SQL.
    """
    connection = session.connection
    try:
        cursor = connection.cursor()
        try:
            if parameters is None:
                # PyMySQL takes bytes too, which avoids the conversion of values to text.
                cursor.execute(sql)  # pyright: ignore[reportArgumentType]
            elif len(parameters) == 1:
                cursor.execute(sql, parameters[0])  # pyright: ignore[reportArgumentType]
            else:
                cursor.executemany(sql, parameters)  # pyright: ignore[reportArgumentType]
        finally:
            cursor.close()
    except Exception as error:
        shown = sql[:SHOWN]
        text = shown if isinstance(shown, str) else shown.decode(errors="replace")
        raise _wrapped(session.dialect, connection, text, error) from error


def fetch_select(session: SAConnection, select: sa.Select[Any]) -> Tuples:
    """Run a query and return all rows as the driver gives them, unconverted by SQLAlchemy."""
    result = session.execute(select)
    cursor = result.cursor
    assert cursor is not None
    try:
        return cursor.fetchall()
    except Exception as error:
        raise _wrapped(session.dialect, session.connection, str(select), error) from error
    finally:
        result.close()


def stream_select(
    session: SAConnection,
    select: sa.Select[Any],
    size: int,
    next_size: Callable[[Sequence[Any], int], int],
    stop: Callable[[], None],
) -> Generator[Sequence[Any]]:
    """Run a query and yield its rows in chunks, leaving the rest with the database.

    Parameters
    ----------
    size
        Rows in the first chunk.
    next_size
        Returns the number of rows of the next chunk, given a chunk and the last size.
    stop
        Called when the generator is closed before the last row.
    """
    result = session.execution_options(stream_results=True).execute(select)
    complete = False
    try:
        # Not from the driver's cursor: SQLAlchemy has taken the first row from it already.
        while chunk := result.fetchmany(size):
            yield chunk
            size = next_size(chunk, size)
        complete = True
    except SQLAlchemyError:
        complete = True
        raise
    finally:
        if not complete:
            stop()
            # Reading the rest of a stopped query ends with an error.
            if result.cursor is not None:
                with suppress(session.dialect.loaded_dbapi.Error):
                    result.cursor.close()
        result.close()


def _wrapped(
    dialect: Dialect, connection: PoolProxiedConnection, sql: str, error: Exception
) -> Exception:
    """Return a driver's error as SQLAlchemy's, and give the connection up if it is broken."""
    if isinstance(error, SQLAlchemyError):
        return error
    driver = dialect.loaded_dbapi
    lost = isinstance(error, driver.Error) and dialect.is_disconnect(
        error, connection.dbapi_connection, None
    )
    if lost:
        connection.invalidate(error)
    return DBAPIError.instance(
        sql, None, error, driver.Error, connection_invalidated=lost, dialect=dialect
    )
