"""A connection to one database: transactions, one connection a thread, errors in our words."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from dj_dagster.errors import (
    ConfigurationError,
    ConnectionFailedError,
    DataJointError,
    LostCommitError,
    LostConnectionError,
    QueryError,
    TransientError,
)
from dj_dagster.objects.codecs import CodecRegistry
from dj_dagster.objects.stores import Stores
from dj_dagster.relational.backends import Backend, backend_for
from dj_dagster.relational.catalog import Catalog
from dj_dagster.relational.retry import retried
from dj_dagster.relational.write_buffer import WriteBuffer

T = TypeVar("T")


class Connection:
    """A database, its stores and its codecs; safe to share between threads.

    Parameters
    ----------
    url
        A SQLAlchemy URL: ``sqlite:///lab.sqlite``, ``mysql+pymysql://user:secret@host:3306/``.
    stores
        Where codecs with ``@store`` keep their bytes; none by default.
    codecs
        The codecs that definitions may name; the built-in ones by default.
    safemode
        Whether `delete` and `drop` ask before they act, unless told otherwise; a function is
        called each time.

    Examples
    --------
    >>> connection = Connection("sqlite:///:memory:")
    >>> connection.schema_names()
    []
    """

    def __init__(
        self,
        url: str | sa.URL,
        *,
        stores: Stores | None = None,
        codecs: CodecRegistry | None = None,
        safemode: bool | Callable[[], bool] = True,
    ) -> None:
        try:
            self._url = sa.make_url(url)
        except (ArgumentError, ValueError):
            # The text is not shown: it may hold a password.
            raise ConfigurationError(
                "This is no database URL. "
                "Write sqlite:///path/to/file.sqlite or mysql+pymysql://user:password@host:port/."
            ) from None
        self.backend: Backend = backend_for(self._url)
        self.engine = self.backend.create_engine(self._url)
        self.stores = stores if stores is not None else Stores({})
        self.codecs = codecs if codecs is not None else CodecRegistry()
        self._safemode = safemode
        self.catalog = Catalog(self.backend, self.cursor)
        self._local = threading.local()
        self._process = os.getpid()
        self._parents_pool: sa.Pool | None = None

    @property
    def url(self) -> str:
        """The URL with its password masked."""
        return self._url.render_as_string(hide_password=True)

    def __repr__(self) -> str:
        return f"Connection({self.url!r})"

    @property
    def safemode(self) -> bool:
        """Whether `delete` and `drop` ask before they act."""
        return self._safemode() if callable(self._safemode) else self._safemode

    @property
    def in_transaction(self) -> bool:
        """Whether this thread has a transaction open."""
        return getattr(self._local, "transaction", None) is not None

    @property
    def write_buffer(self) -> WriteBuffer | None:
        """The rows that this thread's unit of work has collected, None outside one."""
        return getattr(self._local, "write_buffer", None)

    @write_buffer.setter
    def write_buffer(self, buffer: WriteBuffer | None) -> None:
        self._local.write_buffer = buffer

    @contextmanager
    def transaction(self) -> Generator[Connection]:
        """Commit what happens inside together, or nothing of it.

        Raises
        ------
        QueryError
            If this thread has a transaction open already, or is in a `make`: they do not nest.
        """
        if self.write_buffer is not None:
            raise QueryError("A make is written in a transaction of its own: leave this one out.")
        with self.open_transaction():
            yield self

    @contextmanager
    def open_transaction(self) -> Generator[Connection]:
        """Open a transaction, inside a unit of work too; `transaction` is for users."""
        if self.in_transaction:
            raise QueryError("Transactions do not nest: leave the open one first.")
        with self.cursor() as session:
            session.exec_driver_sql(self.backend.begin)
            self._local.transaction = session
            try:
                yield self
                self._refuse_if_broken()
                self._commit(session)
            except BaseException:
                self._rollback(session)
                raise
            finally:
                self._local.transaction = self._local.broken = None

    @contextmanager
    def joined_transaction(self) -> Generator[Connection]:
        """Take part in this thread's transaction, or open one when there is none."""
        if self.in_transaction:
            yield self
        else:
            with self.transaction():
                yield self

    @contextmanager
    def cursor(self) -> Generator[SAConnection]:
        """Give the transaction's connection, or one from the pool in autocommit mode.

        Errors of the driver leave this block as ours, see `dj_dagster.errors`.
        """
        self._leave_to_parent()
        self._refuse_if_broken()
        session: SAConnection | None = getattr(self._local, "transaction", None)
        with self._our_errors():
            if session is not None:
                yield session
            else:
                with self.engine.connect() as session:
                    yield session

    def retrying(self, work: Callable[[], T], *, lost: bool = True) -> T:
        """Do work that has no effect unless it succeeds, again when a failure is transient.

        Inside a transaction it is done once: the server has rolled back what came before.

        Parameters
        ----------
        lost
            Whether it may be done again after a lost connection, which can hide its success.
        """
        if self.in_transaction:
            return work()
        return retried(work, (TransientError, LostConnectionError) if lost else (TransientError,))

    def execute(self, statement: sa.Executable) -> int:
        """Run a statement and return the number of rows that it changed."""

        def work() -> int:
            with self.cursor() as session:
                return session.execute(statement).rowcount

        return self.retrying(work, lost=False)

    def rows(self, statement: sa.Executable) -> Sequence[Sequence[Any]]:
        """Run a query and return its rows as tuples."""

        def work() -> Sequence[Sequence[Any]]:
            with self.cursor() as session:
                return session.execute(statement).fetchall()

        return self.retrying(work)

    def schema_names(self) -> list[str]:
        """Return the names of the schemas in the database."""
        with self.cursor() as session:
            return self.backend.schema_names(session)

    def close(self) -> None:
        """Close the pooled connections; the object opens new ones when it is used again."""
        self.engine.dispose()

    def _leave_to_parent(self) -> None:
        """Give up, after a fork, the connections that this process shares with its parent."""
        if self._process != os.getpid():
            # Kept from being closed, which would disturb the parent.
            self._parents_pool = self.engine.pool
            self.engine.dispose(close=False)
            self._local = threading.local()
            self._process = os.getpid()

    @contextmanager
    def _our_errors(self) -> Generator[None]:
        try:
            yield
        except DBAPIError as error:
            ours = self.backend.translate(error)
            if ours is None:
                ours = QueryError(str(error.orig))
            if isinstance(ours, ConnectionFailedError):
                ours = type(ours)(
                    f"The database {self.url} cannot be reached: {ours}. "
                    "Check that it runs and that DJ_DATABASE_URL names it."
                )
            if ours.transient and self.in_transaction:
                # The server has rolled back, or lost, what the transaction did before.
                self._local.broken = ours
            raise ours from error
        except SQLAlchemyError as error:
            raise QueryError(str(error)) from error

    def _refuse_if_broken(self) -> None:
        cause: DataJointError | None = getattr(self._local, "broken", None)
        if cause is not None:
            raise QueryError(
                f"The transaction was rolled back when this happened: {cause} "
                "Let the error leave the transaction's block, then run the block again."
            ) from cause

    def _commit(self, session: SAConnection) -> None:
        try:
            with self._our_errors():
                session.exec_driver_sql("COMMIT")
        except LostConnectionError as error:
            raise LostCommitError(
                f"{error} Whether the last transaction took effect is not known: look for its rows "
                "before running it again."
            ) from error

    @staticmethod
    def _rollback(session: SAConnection) -> None:
        try:
            session.exec_driver_sql("ROLLBACK")
        except SQLAlchemyError:
            # A lost connection has rolled back by itself; it must not go back to the pool.
            if not session.invalidated:
                session.invalidate()
