"""Sessions of a connection's threads, statements run by the driver's own cursor, and their rows."""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import PoolProxiedConnection

from dj_dagster.errors import (
    AccessError,
    ConfigurationError,
    ConnectionFailedError,
    DataJointError,
    LostCommitError,
    LostConnectionError,
    MissingTableError,
    QueryError,
    TransientError,
    UnknownAttributeError,
)
from dj_dagster.model.heading import Value, Values
from dj_dagster.relational.backends.base import Backend
from dj_dagster.relational.backends.common import TLS_OPTIONS
from dj_dagster.relational.database.write_buffer import WriteBuffer

IDLE_SECONDS = 5.0
"""Seconds without use after which a session is taken anew from the pool, which tests it."""


class KeptSessions:
    """One session a thread, given back to its pool when the thread ends.

    Parameters
    ----------
    connect
        Takes a session from the pool, in autocommit mode.
    is_closed
        Whether a session is known to be cut off from the server.
    """

    def __init__(
        self, connect: Callable[[], SAConnection], is_closed: Callable[[SAConnection], bool]
    ) -> None:
        self._connect = connect
        self._is_closed = is_closed
        self._local = threading.local()
        self._generation = 0

    def get(self) -> SAConnection:
        """Return this thread's session."""
        local, now = self._local, time.monotonic()
        kept: SAConnection | None = getattr(local, "session", None)
        if kept is None or now - local.used > IDLE_SECONDS or self._is_stale(kept):
            self.drop()
            kept = local.session = self._connect()
            local.generation = self._generation
        local.used = now
        return kept

    def drop(self, *, broken: bool = False) -> None:
        """Give this thread's session back.

        Parameters
        ----------
        broken
            Whether it was interrupted in the middle of a statement, so that it must not be used
            again.
        """
        kept: SAConnection | None = getattr(self._local, "session", None)
        self._local.session = None
        if kept is not None:
            if broken and not kept.invalidated:
                kept.invalidate()
            kept.close()

    def drop_all(self) -> None:
        """Give this thread's session back, and each other thread's when it next asks for one."""
        self._generation += 1
        self.drop()

    def _is_stale(self, session: SAConnection) -> bool:
        return (
            self._local.generation != self._generation
            or session.invalidated
            or self._is_closed(session)
        )


T = TypeVar("T")

PATIENCE = 10.0
"""Seconds after which a failed call is not repeated."""

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0


class Retries:
    """The pauses between the attempts at one call.

    Parameters
    ----------
    patience
        Seconds after which the call is not repeated.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._end = time.monotonic() + patience
        self._pause = FIRST_PAUSE

    def wait(self, error: Exception) -> bool:
        """Wait before the next attempt; return False at once if there must not be one."""
        # A call with an unknown outcome is never repeated.
        if not getattr(error, "transient", False) or time.monotonic() > self._end:
            return False
        # Two callers that block each other must not repeat at the same time.
        time.sleep(self._pause * random.uniform(0.5, 1.5))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return True


def retried(
    work: Callable[[], T], passing: tuple[type[Exception], ...], patience: float = PATIENCE
) -> T:
    """Return the result of a function, calling it again after transient errors.

    Parameters
    ----------
    work
        Must have no effect when it fails.
    passing
        The errors after which it is called again.
    patience
        Seconds after which it is not called again.

    Raises
    ------
    Exception
        The last failure, once `PATIENCE` is over, or any other at once.
    """
    retries = Retries(patience)
    while True:
        try:
            return work()
        except passing as error:
            if not retries.wait(error):
                raise


class ThreadState(threading.local):
    """The state of a connection for each thread.

    Attributes
    ----------
    transaction
        The session of the open transaction.
    opened
        Gives that session back.
    broken
        The error for which the server has already rolled back the transaction.
    write_buffer
        The rows that the thread's unit of work has collected, None outside one.
    download_path
        Where the thread's attachments go, None for the connection's own folder.
    patience
        Seconds that its statements wait for a table which somebody has locked; None for as long as
        the server lets them.
    """

    transaction: SAConnection | None = None
    opened: ExitStack | None = None
    broken: DataJointError | None = None
    write_buffer: WriteBuffer | None = None
    download_path: Path | None = None
    patience: int | None = None


_PATIENCE = "patience"

_LIVING: weakref.WeakSet[Sessions] = weakref.WeakSet()
"""The `Sessions` of this process, whose connections a forked child must not use."""


def _part_from_parent() -> None:
    for sessions in list(_LIVING):
        sessions.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_part_from_parent)


class Sessions:
    """Gives each thread a session of its own, and one transaction at a time.

    Attributes
    ----------
    state
        The state of the connection for each thread, empty in a process that was just forked.
    is_reached
        Whether the last attempt to reach the database succeeded, None before the first.
    is_closed
        Whether `close` was called and the connection has not been used since.

    Parameters
    ----------
    place
        The database as error messages name it.
    changed
        Called when the database turns out to differ from the tables read before.
    """

    def __init__(
        self, engine: sa.Engine, backend: Backend, place: str, changed: Callable[[], None]
    ) -> None:
        self.engine = engine
        self._backend = backend
        self._place = place
        self._changed = changed
        self._kept = KeptSessions(self._connect, backend.is_closed)
        self._parents: tuple[object, ...] = ()
        self.is_reached: bool | None = None
        self.is_closed = False
        self.state = ThreadState()
        _LIVING.add(self)

    @property
    def in_transaction(self) -> bool:
        """Whether this thread has a transaction open."""
        return self.state.transaction is not None

    @contextmanager
    def current(self) -> Generator[SAConnection]:
        """Give the transaction's session, or this thread's own in autocommit mode.

        Errors of the driver are raised as those of `dj_dagster.errors`.
        """
        self._refuse_if_broken()
        with self._our_errors():
            if self.state.transaction is not None:
                yield self.state.transaction
                return
            self.is_reached = False
            kept = self._kept
            session = kept.get()
            self.is_reached, self.is_closed = True, False
            try:
                if session.info.get(_PATIENCE) != self.state.patience:
                    self._limit_waiting(session)
                yield session
                self._refuse_if_mixed(session)
            except BaseException as error:
                # An interrupted thread may leave half an answer unread. A process that is forked
                # meanwhile forgets this block, and must leave the session to its parent.
                if self._kept is kept:
                    kept.drop(broken=not isinstance(error, Exception))
                raise

    @contextmanager
    def impatient(self, seconds: int) -> Generator[None]:
        """Limit the seconds that this thread's statements wait for locked tables in this block."""
        before, self.state.patience = self.state.patience, seconds
        try:
            yield
        finally:
            self.state.patience = before

    def _limit_waiting(self, session: SAConnection) -> None:
        self._backend.limit_waiting(session, self.state.patience)
        session.info[_PATIENCE] = self.state.patience

    def _connect(self) -> SAConnection:
        try:
            return self.engine.connect()
        except (ArgumentError, OSError, TypeError, ValueError) as error:
            # The driver, before it asks the server.
            raise self._wrong_options(error) from error

    def _wrong_options(self, error: Exception) -> ConfigurationError:
        files = [str(value) for name, value in self.engine.url.query.items() if name in TLS_OPTIONS]
        lacking = [file for file in files if not Path(file).exists()]
        said = f"there is no file {lacking[0]}" if lacking else str(error)
        return ConfigurationError(
            f"The database {self._place} cannot be opened: {said}. Correct its URL "
            "(DJ_DATABASE_URL), or the setting database.use_tls."
        )

    @contextmanager
    def apart(self) -> Generator[SAConnection]:
        """Give a session from the pool, whatever transaction this thread has open."""
        try:
            with self._connect() as session:
                self.is_reached, self.is_closed = True, False
                yield session
                self._refuse_if_mixed(session)
        except SQLAlchemyError as error:
            raise self._translated(error) from error

    def begin(self) -> None:
        """Open a transaction, which `commit` or `cancel` must end.

        Raises
        ------
        QueryError
            If this thread has one open already.
        """
        if self.in_transaction:
            raise QueryError("Transactions do not nest: leave the open one first.")
        with ExitStack() as opening:
            session = opening.enter_context(self.current())
            session.exec_driver_sql(self._backend.begin)
            self.state.transaction = session
            self.state.opened = opening.pop_all()

    def commit(self) -> None:
        """Commit the changes since `begin`.

        Raises
        ------
        LostCommitError
            If the connection broke meanwhile: it is not known whether the changes were committed.
        """
        session = self._open_session()
        try:
            self._refuse_if_broken()
            with self._our_errors():
                session.exec_driver_sql("COMMIT")
        except LostConnectionError as error:
            self.cancel()
            raise LostCommitError(
                f"{error} Whether the last transaction took effect is not known: look for its rows "
                "before running it again."
            ) from error
        except BaseException:
            self.cancel()
            raise
        self._end()

    def cancel(self) -> None:
        """Undo the changes since `begin`."""
        session = self._open_session()
        try:
            session.exec_driver_sql("ROLLBACK")
        except SQLAlchemyError:
            # The server has rolled back a lost connection, which must not go back to the pool.
            if not (session.closed or session.invalidated):
                session.invalidate()
        self._end()

    def close(self) -> None:
        """Close the pooled connections; new ones are opened on use."""
        self._kept.drop_all()
        self.engine.dispose()
        self.is_reached, self.is_closed = False, True

    def _end(self) -> None:
        state, opened = self.state, self.state.opened
        state.transaction = state.broken = state.opened = None
        if opened is not None:
            opened.close()

    def _open_session(self) -> SAConnection:
        if self.state.transaction is None:
            raise QueryError("There is no transaction to end: begin one with `transaction`.")
        return self.state.transaction

    def _refuse_if_broken(self) -> None:
        if self.state.broken is not None:
            raise QueryError(
                f"The transaction was rolled back when this happened: {self.state.broken} "
                "Let the error leave the transaction's block, then run the block again."
            ) from self.state.broken

    def _refuse_if_mixed(self, session: SAConnection) -> None:
        if self._backend.is_mixed(session):
            raise TransientError(
                f"The database {self._place} was written while it was read, by a user who may only "
                "read it: try again."
            )

    def leave_to_parent(self) -> None:
        """Give up, after a fork, the connections that this process shares with its parent."""
        # References prevent the connections from being closed, which would disturb the parent.
        self._parents = (self.engine.pool, self.state, self._kept, self._parents)
        self.engine.dispose(close=False)
        self.state = ThreadState()
        self._kept = KeptSessions(self._connect, self._backend.is_closed)

    @contextmanager
    def _our_errors(self) -> Generator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            ours = self._translated(error)
            if ours.transient and self.in_transaction:
                # The server has rolled back or lost the earlier changes of the transaction.
                self.state.broken = ours
            raise ours from error

    def _translated(self, error: SQLAlchemyError) -> DataJointError:
        if not isinstance(error, DBAPIError):
            return QueryError(str(error))
        ours = self._backend.translate(error) or QueryError(str(error.orig))
        if isinstance(ours, ConnectionFailedError):
            return type(ours)(
                f"The database {self._place} cannot be reached: {ours}. {self._backend.unreached}"
            )
        if isinstance(ours, AccessError) and not self._backend.has_server:
            return AccessError(
                f"The database {self._place} cannot be written by this user: {ours}. Let its owner "
                "do this, or give this user the right to write the file and its folder."
            )
        if isinstance(ours, MissingTableError) and self.is_reached is False:
            return ConfigurationError(
                f"The database {self._place} cannot be opened: {ours}. Leave the name after the "
                "last / out of the URL: each schema is a database of its own on this server."
            )
        if isinstance(ours, MissingTableError | UnknownAttributeError):
            # Another process may have altered or dropped a table that was read before.
            self._changed()
            return type(ours)(f"{ours}. If another process has changed the table, try again.")
        return ours


Tuples = Sequence[Values]

SHOWN = 200
"""Number of characters of an INSERT that its error shows."""


def fetch_sql(session: SAConnection, sql: str, values: Sequence[Value]) -> Tuples:
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


def run_sql(session: SAConnection, sql: str | bytes, parameters: Tuples | None) -> None:
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
    next_size: Callable[[Tuples, int], int],
    stop: Callable[[], None],
) -> Generator[Tuples]:
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


class QueryResult:
    """All rows of a statement, read as from a driver's cursor.

    Parameters
    ----------
    rows
        Tuples, or dicts where these were asked for.
    rowcount
        Number of rows changed by a statement that does not return rows, -1 if the driver does not
        report it.
    """

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self.rowcount = rowcount
        self._rows = iter(rows)

    def fetchone(self) -> Any:
        """Return the next row, None after the last."""
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


CAPACITY = 1000


class StatementCache(Generic[T]):
    """A bounded mapping that threads may share; it is emptied when it is full."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, T] = {}

    def get(self, shape: Hashable) -> T | None:
        """Return the statement that is kept for a shape, None if it is not kept."""
        return self._kept.get(shape)

    def put(self, shape: Hashable, statement: T) -> None:
        """Keep a statement."""
        if len(self._kept) >= CAPACITY:
            self._kept.clear()
        self._kept[shape] = statement
