"""A connection to one database: transactions, a session for each thread, translated errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, Self, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.compat.spellings import adapter_of, dependencies_of
from dj_dagster.errors import (
    ConfigurationError,
    ConnectionFailedError,
    LostConnectionError,
    QueryError,
    TransientError,
)
from dj_dagster.local_files import DOWNLOADS, FOLDER
from dj_dagster.model.heading import Value
from dj_dagster.model.job_settings import JobSettings, Provenance
from dj_dagster.model.names import TableName
from dj_dagster.objects.blob.format import DEFAULT_LIMITS, ReadLimits
from dj_dagster.objects.codecs.chain import CodecRegistry
from dj_dagster.objects.stores.stores import Stores
from dj_dagster.relational.algebra.operators import Matching
from dj_dagster.relational.backends import Backend, backend_for
from dj_dagster.relational.backends.common import (
    NO_TLS,
    Secret,
    begin_with,
    demands_tls,
    parsed_url,
    shown_url,
)
from dj_dagster.relational.database.catalog import Catalog, Era
from dj_dagster.relational.database.sessions import (
    PATIENCE,
    QueryResult,
    Retries,
    Sessions,
    StatementCache,
    retried,
)
from dj_dagster.relational.database.write_buffer import WriteBuffer

T = TypeVar("T")
P = ParamSpec("P")
FetchFormat = Literal["array", "frame"]
_CHANGE = re.compile(r"\s*(insert|update|delete|replace)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Preferences:
    """Choices of a connection, each a value or a function that is called each time."""

    safemode: bool | Callable[[], bool] = True
    jobs: JobSettings | Callable[[], JobSettings] = field(default_factory=JobSettings)
    download_path: Path | Callable[[], Path] = Path(FOLDER, DOWNLOADS)
    semantic_check: bool | Callable[[], bool] = True
    fetch_format: FetchFormat | Callable[[], FetchFormat] = "array"
    read_limits: ReadLimits | Callable[[], ReadLimits] = DEFAULT_LIMITS
    provenance: Provenance | Callable[[], Provenance] = field(default_factory=Provenance)
    era: Era | Callable[[], Era] = "2.3"
    shared: bool | Callable[[], bool] = False


@dataclass(slots=True)
class Display:
    """The settings of previews; DataJoint names them ``display.limit`` and so on.

    Attributes
    ----------
    limit
        Rows that are shown.
    width
        Characters that a value may take in a text preview.
    show_tuple_count
        Whether the number of all rows is counted and shown.
    """

    limit: int = 12
    width: int = 24
    show_tuple_count: bool = True


class Connection:
    """A database, its stores and its codecs; safe to share between threads.

    Parameters
    ----------
    url
        A SQLAlchemy URL: ``sqlite:///lab.sqlite``, ``mysql+pymysql://user:secret@host:3306/``.
    stores
        The stores in which codecs with ``@store`` keep their bytes, or a mapping of their settings,
        see `Stores`; empty by default.
    codecs
        The codecs that definitions may name; the built-in ones by default.
    safemode
        Whether `delete` and `drop` ask before they act, unless a call overrides it; a function is
        called each time.
    jobs
        Settings of the job queues of computed tables; a function is called each time.
    download_path
        Folder where attachments are written to when they are fetched, never the working directory
        unless it is named; a function is called each time.
    semantic_check
        Whether queries refuse to match attributes of one name that are not related by a foreign
        key, unless a call overrides it; a function is called each time.
    fetch_format
        The default format in which the old ``fetch()`` returns whole rows: ``"array"`` or
        ``"frame"``; a function is called each time.
    read_limits
        Limits on reading one packed value; a function is called each time.
    provenance
        The provenance of rows to record and check; a function is called each time.
    era
        ``"0.14"`` for code of that era of DataJoint, see `dj_dagster.replace_datajoint`; a function
        is called each time.
    shared
        Whether all machines that make keys have the file of an embedded database under its path; a
        function is called each time.

    Attributes
    ----------
    schemas
        The schemas that are activated on this connection, by name.
    init_fun
        The statement that new connections to a server run first; see `begin_with`.
    charset
        Has no effect. In DataJoint it is the character set.

    Examples
    --------
    >>> connection = Connection("sqlite:///:memory:")
    >>> connection.schema_names()
    []
    """

    init_fun: str | None = None
    charset = "utf8mb4"

    def __init__(
        self,
        url: str | sa.URL,
        *,
        stores: Stores | Mapping[str, Any] | None = None,
        codecs: CodecRegistry | None = None,
        safemode: bool | Callable[[], bool] = True,
        jobs: JobSettings | Callable[[], JobSettings] | None = None,
        download_path: Path | Callable[[], Path] = Path(FOLDER, DOWNLOADS),
        semantic_check: bool | Callable[[], bool] = True,
        fetch_format: FetchFormat | Callable[[], FetchFormat] = "array",
        read_limits: ReadLimits | Callable[[], ReadLimits] = DEFAULT_LIMITS,
        provenance: Provenance | Callable[[], Provenance] | None = None,
        era: Era | Callable[[], Era] = "2.3",
        shared: bool | Callable[[], bool] = False,
    ) -> None:
        self._url = parsed_url(url)
        self.backend: Backend = backend_for(self._url)
        try:
            self.engine = self.backend.create_engine(self._url)
        except ValueError as error:
            raise ConfigurationError(
                f"The database URL {self.url} has a wrong option: {error}. Correct it."
            ) from error
        self.stores = stores if isinstance(stores, Stores) else Stores(stores)
        self.codecs = codecs if codecs is not None else CodecRegistry()
        self._preferences = Preferences(
            safemode,
            jobs or JobSettings(),
            download_path,
            semantic_check,
            fetch_format,
            read_limits,
            provenance or Provenance(),
            era,
            shared,
        )
        self.statements: StatementCache[Any] = StatementCache()
        self.display = Display()
        self.schemas: dict[str, HasDatabase] = {}
        self.registered: set[tuple[str, str]] = set()
        self.catalog = Catalog(self.backend, self.cursor, lambda: self.era)
        self._sessions = Sessions(self.engine, self.backend, self.url, self.catalog.forget_all)

    @property
    def url(self) -> str:
        """The URL with its password masked, also one in its query."""
        return shown_url(self._url)

    def begin_with(self, statement: str | None) -> None:
        """Have new connections to a server run a statement first; a file does not run it."""
        self.init_fun = statement
        if statement and self.backend.has_server:
            begin_with(self.engine, statement)

    def full_name(self, name: TableName) -> str:
        """Return a table's name with its schema's, quoted as one writes it into `query`.

        Code of DataJoint 0.14 gets ``"`lab`.`session`"`` on every database, since it takes names
        apart. Other code gets ``"`lab.session`"`` on SQLite, which other clients of the file
        understand too.
        """
        return name.quoted if self.era == "0.14" else self.backend.full_name(name)

    def __repr__(self) -> str:
        """Return the place of the database, and whether the last attempt to reach it succeeded."""
        reached = self._sessions.is_reached
        state = "not connected yet" if reached is None else "connected"
        if self.is_lost or self._sessions.is_closed:
            state = "disconnected"
        return f"Connection({self.url!r}, {state})"

    @property
    def safemode(self) -> bool:
        """Whether `delete` and `drop` ask before they act."""
        return _now(self._preferences.safemode)

    @property
    def semantic_check(self) -> bool:
        """Whether attributes of one name match only if foreign keys relate them."""
        return self.era != "0.14" and _now(self._preferences.semantic_check)

    @property
    def matching(self) -> Matching:
        """The rules by which rows of two queries agree, of the era of the calling code."""
        is_old = self.era == "0.14"
        return Matching(is_old or _now(self._preferences.semantic_check), is_old)

    @property
    def era(self) -> Era:
        """The era of DataJoint of the calling code, where the meaning differs."""
        return _now(self._preferences.era)

    @property
    def is_shared(self) -> bool:
        """Whether all machines are said to have the file of this embedded database."""
        return _now(self._preferences.shared)

    @property
    def job_settings(self) -> JobSettings:
        """The settings for the jobs of computed tables."""
        return _now(self._preferences.jobs)

    @property
    def fetch_format(self) -> FetchFormat:
        """The default format in which the old ``fetch()`` returns whole rows."""
        return _now(self._preferences.fetch_format)

    @property
    def read_limits(self) -> ReadLimits:
        """The limits on reading one packed value."""
        return _now(self._preferences.read_limits)

    @property
    def provenance(self) -> Provenance:
        """The settings for recording and checking the provenance of rows."""
        return _now(self._preferences.provenance)

    @property
    def download_path(self) -> Path:
        """Folder where attachments are written to when they are fetched."""
        chosen = self._sessions.state.download_path
        return chosen if chosen is not None else _now(self._preferences.download_path)

    @contextmanager
    def downloading_to(self, folder: Path) -> Generator[None]:
        """Write attachments that this thread fetches inside to another folder."""
        state = self._sessions.state
        before, state.download_path = state.download_path, folder
        try:
            yield
        finally:
            state.download_path = before

    @property
    def in_transaction(self) -> bool:
        """Whether changes of this thread are committed together: in a transaction, or in a `make`.

        The parts of a `make` in three parts that fetch and compute are outside.
        """
        buffer = self.write_buffer
        return self.holds_transaction or (buffer is not None and buffer.is_transaction)

    @property
    def holds_transaction(self) -> bool:
        """Whether the database has a transaction of this thread open; a `make` opens it late."""
        return self._sessions.in_transaction

    @property
    def write_buffer(self) -> WriteBuffer | None:
        """The rows that this thread's unit of work has collected, None outside one."""
        return self._sessions.state.write_buffer

    @write_buffer.setter
    def write_buffer(self, buffer: WriteBuffer | None) -> None:
        self._sessions.state.write_buffer = buffer

    @property
    def transaction(self) -> Transaction[Self]:
        """A block whose changes are committed together, or not at all.

        Raises
        ------
        QueryError
            On entering it, if this thread has a transaction open already, or is in a `make`: they
            do not nest.
        """
        return Transaction(self)

    def start_transaction(self) -> None:
        """Begin a transaction, which `commit_transaction` or `cancel_transaction` must end."""
        if self.write_buffer is not None:
            raise QueryError("A make is written in a transaction of its own: leave this one out.")
        self._sessions.begin()

    def commit_transaction(self) -> None:
        """Commit the changes since `start_transaction`."""
        self._sessions.commit()

    def cancel_transaction(self) -> None:
        """Undo the changes since `start_transaction`."""
        self._sessions.cancel()

    @contextmanager
    def open_transaction(self) -> Generator[Connection]:
        """Open a transaction, inside a unit of work too; `transaction` is for users."""
        self._sessions.begin()
        try:
            yield self
        except BaseException:
            self._sessions.cancel()
            raise
        self._sessions.commit()

    @contextmanager
    def joined_transaction(self) -> Generator[Connection]:
        """Take part in this thread's transaction, or open one when there is none."""
        if self.holds_transaction:
            yield self
        else:
            with self.transaction():
                yield self

    def cursor(self) -> AbstractContextManager[SAConnection]:
        """Give the transaction's session, or this thread's own in autocommit mode.

        Errors of the driver are raised as those of `dj_dagster.errors`.
        """
        return self._sessions.current()

    def retrying(self, work: Callable[[], T], *, lost: bool = True) -> T:
        """Do work that has an effect only if it succeeds, again after transient failures.

        Inside a transaction it is done once, since the server has rolled back the earlier changes.

        Parameters
        ----------
        lost
            Whether it may be repeated after a lost connection, which can hide its success.
        """
        if self.holds_transaction:
            return work()
        passing = (TransientError, LostConnectionError) if lost else (TransientError,)
        return retried(work, passing, self._sessions.state.patience or PATIENCE)

    def impatient(self, seconds: int) -> AbstractContextManager[None]:
        """Limit the wait for locked tables in a block of this thread.

        A statement waits for a locked table `seconds` at most, instead of the server's own limit,
        and is not repeated.

        Raises
        ------
        TransientError
            In the block, if a statement has waited that long.
        """
        return self._sessions.impatient(seconds)

    def execute(self, statement: sa.Executable) -> int:
        """Run a statement and return the number of rows that it changed."""

        def work() -> int:
            with self.cursor() as session:
                return session.execute(statement).rowcount

        return self.retrying(work, lost=False)

    def rows(self, statement: sa.Executable) -> Sequence[Sequence[Value]]:
        """Run a query and return its rows as tuples."""
        return self.read(lambda session: session.execute(statement).fetchall())

    def read(
        self,
        query: Callable[Concatenate[SAConnection, P], T],
        *args: P.args,
        **options: P.kwargs,
    ) -> T:
        """Call a function that only reads, with this thread's transaction or its own session.

        It is called again after transient failures, as by `retrying`.
        """
        retries = Retries(self._sessions.state.patience or PATIENCE)
        while True:
            joined = self.holds_transaction
            try:
                with self.cursor() as session:
                    return query(session, *args, **options)
            except (TransientError, LostConnectionError) as error:
                if joined or not retries.wait(error):
                    raise

    def session_apart(self) -> AbstractContextManager[SAConnection]:
        """Give a session from the pool, whatever transaction this thread has open."""
        return self._sessions.apart()

    def query(
        self,
        query: str,
        args: Sequence[object] = (),
        *,
        as_dict: bool = False,
        suppress_warnings: bool = True,
        reconnect: bool | None = None,
    ) -> QueryResult:
        """Run a statement of your own, in this thread's transaction if one is open.

        In a `make`, the rows inserted before are written first, and changes are committed with it.

        Parameters
        ----------
        args
            Values for the statement's placeholders, ``%s`` on every database. A per cent sign is
            written ``%%`` beside them, and may be without.
        as_dict
            Whether rows come as dicts instead of tuples.
        suppress_warnings, reconnect
            Accepted without effect: the server's warnings are not shown, and a lost connection is
            opened again.
        """
        del suppress_warnings, reconnect
        if not args:
            # DataJoint's driver takes per cent signs for placeholders, so callers double them.
            query = query.replace("%%", "%")
        sql = self.backend.own_statement(query, filled=bool(args), is_table=self._is_table)
        buffer = self.write_buffer
        if buffer is not None and (buffer.pending or _CHANGE.match(query)):
            buffer.flush(buffer)
        with self.cursor() as session:
            result = session.exec_driver_sql(sql, tuple(args))
            if not result.returns_rows:
                return QueryResult((), result.rowcount)
            if as_dict:
                return QueryResult([dict(row) for row in result.mappings()], -1)
            return QueryResult([tuple(row) for row in result], -1)

    def _is_table(self, name: TableName) -> bool:
        if self.catalog.raw(name) is None:
            # Another process may have made it since.
            self.catalog.forget(name.schema)
        return self.catalog.raw(name) is not None

    @property
    def is_connected(self) -> bool:
        """Whether the database answers; False after `close`, until the connection is used."""
        if self._sessions.is_closed:
            return False
        try:
            self.ping()
        except ConnectionFailedError:
            return False
        return True

    @property
    def is_in_memory(self) -> bool:
        """Whether the database exists only in one session of this process; see `Backend`."""
        return self.backend.is_in_memory(self.engine)

    @property
    def is_lost(self) -> bool:
        """Whether the database could not be reached, or the connection has been closed."""
        return self._sessions.is_reached is False

    def ping(self) -> None:
        """Ask the database for an answer.

        Raises
        ------
        ConnectionFailedError
            If it does not answer.
        """
        self.rows(sa.select(sa.literal(1)))

    @property
    def conn_info(self) -> dict[str, str | int | bool | None]:
        """The place of the database, the user and the state of encryption.

        ``host`` and ``port`` are None for a file; ``ssl_input`` is True where encryption is
        demanded, False where it is off, None where the server decides. ``passwd`` is masked where
        the dict is printed.
        """
        user = self._url.username or self.get_user().partition("@")[0]
        demanded = True if demands_tls(self._url) else None
        return {
            "host": self._url.host,
            "port": self._url.port,
            "user": user,
            "passwd": None if self._url.password is None else Secret(self._url.password),
            "ssl_input": False if NO_TLS in self._url.query else demanded,
        }

    def get_user(self) -> str:
        """Return the database user as ``user@host``; of SQLite's file, this process's user."""
        return self._user

    @cached_property
    def _user(self) -> str:
        with self.cursor() as session:
            return self.backend.user(session)

    def schema_names(self) -> list[str]:
        """Return the names of the schemas in the database."""
        with self.cursor() as session:
            return self.backend.schema_names(session)

    def checked_schemas(self, names: Iterable[str]) -> list[str]:
        """Return the names of schemas, each once, after a check that all of them exist.

        Raises
        ------
        ConfigurationError
            If one does not exist; the message names those that do.
        """
        wanted, known = list(dict.fromkeys(names)), self.schema_names()
        for name in wanted:
            if name not in known:
                raise ConfigurationError(
                    f"{self.url} has no schema {name}; there are {', '.join(known) or 'none'}."
                )
        return wanted

    def close(self) -> None:
        """Close the pooled connections; the object opens new ones when it is used again."""
        self._sessions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()

    adapter = cached_property(adapter_of)
    dependencies = cached_property(dependencies_of)

    def register(self, schema: HasDatabase) -> None:
        """Add a schema to `schemas`; those that are activated add themselves."""
        self.schemas[str(schema.database)] = schema

    @property
    def connection_id(self) -> int:
        """The number that the server gave this thread's session; 0 for databases in files."""
        number = self.backend.session_id
        return 0 if number is None else self.query(f"SELECT {number}").fetchone()[0]

    def set_query_cache(self, query_cache: str | None = None) -> None:
        """Do nothing: rows are always those of the database."""

    def purge_query_cache(self) -> None:
        """Do nothing: rows are not cached."""


def _now(preference: T | Callable[[], T]) -> T:
    return cast(Callable[[], T], preference)() if callable(preference) else preference


class HasTransactions(Protocol):
    """A connection that can begin a transaction, and commit or cancel it."""

    def start_transaction(self) -> None:
        """Begin a transaction."""

    def commit_transaction(self) -> None:
        """Commit the changes since it began."""

    def cancel_transaction(self) -> None:
        """Undo the changes since it began."""


C = TypeVar("C", bound=HasTransactions)


class Transaction(Generic[C]):
    """A block whose changes are committed together, or not at all.

    ``with connection.transaction:`` and ``with connection.transaction():`` are the same.
    """

    def __init__(self, connection: C) -> None:
        self._connection = connection

    def __call__(self) -> Self:
        """Return the block itself."""
        return self

    def __enter__(self) -> C:
        self._connection.start_transaction()
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._connection.commit_transaction()
        else:
            self._connection.cancel_transaction()


class HasDatabase(Protocol):
    """A schema."""

    @property
    def database(self) -> str | None:
        """The name of the schema."""
        ...

    @property
    def external(self) -> object:
        """DataJoint 0.14's objects of the schema, by store."""
