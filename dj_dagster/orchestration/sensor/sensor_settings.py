"""Settings of the sensor, and the limits of a tick: its time, errors of one table, long looks."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Generic, TypeVar

from dagster import AssetKey, DagsterInstance

from dj_dagster.errors import ConnectionFailedError
from dj_dagster.model.selection import Candidate, by_table
from dj_dagster.orchestration.arguments import check_kind, check_number, listed
from dj_dagster.orchestration.runs.run_records import HeldKeys
from dj_dagster.orchestration.tables.partitions import Changes
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.database.connection import Connection

TRANSIENT = (
    "TransientError",
    "LostConnectionError",
    "LostCommitError",
    "ConnectionFailedError",
    "ConnectionError",
    "ConnectionResetError",
    "ConnectionRefusedError",
    "ConnectionAbortedError",
    "BrokenPipeError",
    "TimeoutError",
    "WorkerDiedError",
)
"""Names of exceptions for which the key need not be at fault.

The database or the network was, or the process was killed, possibly because of another process.
"""


@dataclass(frozen=True)
class RetryPolicy:
    """The automatic retries of failed keys; keys with other errors wait for a person.

    Attributes
    ----------
    attempts
        The total number of times that a key is tried.
    delay, backoff
        Seconds until the second attempt, and the factor of each further wait.
    errors
        Names of the exceptions after which a key is tried again.

    Raises
    ------
    ConfigurationError
        When `attempts` is below 1, a time is below 0, or `errors` has something else than names.

    Examples
    --------
    >>> [RetryPolicy(delay=10).wait(failures) for failures in (1, 2, 3)]
    [10.0, 20.0, 40.0]
    """

    attempts: int = 5
    delay: float = 15.0
    backoff: float = 2.0
    errors: Sequence[str] = TRANSIENT

    def __post_init__(self) -> None:
        place = "RetryPolicy"
        check_number(place, "attempts", self.attempts, 1, "1 or more", whole=True)
        check_number(place, "delay", self.delay, 0, "seconds, 0 or more")
        check_number(place, "backoff", self.backoff, 0, "a factor such as 2")
        words = "names of exceptions, such as ['TimeoutError'],"
        for name in listed(f"{place}(errors)", self.errors, words):
            check_kind(f"One of {place}(errors)", name, str, "its name")

    def covers(self, message: str) -> bool:
        """Whether the policy has an error, given as the job queue keeps it."""
        return message.partition(":")[0] in self.errors

    def wait(self, failures: int) -> float:
        """Return the seconds to wait after a number of failures."""
        return float(self.delay * self.backoff ** (failures - 1))


DEFAULT_RETRIES = RetryPolicy()
NO_RETRIES = RetryPolicy(attempts=1)


@dataclass(frozen=True)
class TableSettings:
    """The settings of one table that differ from those of the sensor.

    Attributes
    ----------
    automatic
        Whether the sensor starts runs for the table; otherwise a person or a schedule must.
    batch_size, retries
        See `SensorSettings`. The smallest batch size counts for tables that are made together.
    priority
        The priority of its runs in Dagster's queue; higher is sooner.
    """

    automatic: bool = True
    batch_size: int = 0
    priority: int = 0
    retries: RetryPolicy | None = None

    def __post_init__(self) -> None:
        place = "TableSettings"
        words = "1 or more, or 0 for that of the sensor"
        check_number(place, "batch_size", self.batch_size, 0, words, whole=True)
        check_number(place, "priority", self.priority, -inf, "a whole number", whole=True)
        check_kind(f"{place}(automatic)", self.automatic, bool, "True or False")
        kinds = (RetryPolicy, type(None))
        check_kind(f"{place}(retries)", self.retries, kinds, "a RetryPolicy")


@dataclass(frozen=True)
class SensorSettings:
    """The settings of the sensor.

    Attributes
    ----------
    interval
        Seconds between ticks, at least. Dagster looks at sensors every 5 s or so. With 5 here, a
        look that comes a moment early would not cause a tick, and every other tick would be lost.
    batch_size
        Keys of one run, at most. A run costs 2 s of processor time before its first key.
    max_batches
        Runs that one tick asks for, at most, in each grain.
    tick_seconds
        Seconds after which a tick does not begin work that can wait. Long work, such as the look at
        a million rows when a code server starts, is done in pieces of a second or so; the remaining
        pieces come in the next ticks, after the keys of new rows. Dagster gives up a tick after
        60 s, and evaluates other sensors between two ticks.
    max_marks
        Marks that one tick writes for rows it finds, at most, in each table.
    attempts
        The number of times that a batch is run while its keys stay pending, without an error, or
        fail in a table without a job queue.
    retries
        The policy for automatic retries.
    tables
        Settings of single tables, by name, class or asset key:
        ``{"Spikes": TableSettings(batch_size=20)}``. Of several that fit a table, the one that fits
        fewest tables counts. See `dj_dagster.model.selection` for the names.
    sweep
        Seconds after which everything is looked at, whether or not the database reports a change;
        more if such a look would take more than a twentieth of the time.

    Raises
    ------
    ConfigurationError
        When a number is below 1, a time is below 0, or another setting is of another kind.
    """

    interval: int = 3
    batch_size: int = 1000
    max_batches: int = 10
    tick_seconds: float = 5.0
    max_marks: int = 100_000
    attempts: int = 3
    sweep: float = 600.0
    retries: RetryPolicy = DEFAULT_RETRIES
    tables: Mapping[Any, TableSettings] = field(default_factory=dict[Any, TableSettings])

    def __post_init__(self) -> None:
        place, own = "SensorSettings", vars(self)
        for name in ("batch_size", "max_batches", "max_marks", "attempts"):
            check_number(place, name, own[name], 1, "1 or more", whole=True)
        check_number(place, "interval", self.interval, 0, "whole seconds, 0 or more", whole=True)
        for name in ("tick_seconds", "sweep"):
            check_number(place, name, own[name], 0, "seconds, 0 or more")
        check_kind(f"{place}(retries)", self.retries, RetryPolicy, "a RetryPolicy")
        example = "{'Spikes': TableSettings(batch_size=20)}"
        check_kind(f"{place}(tables)", self.tables, Mapping, f"a mapping such as {example}")
        for table, settings in self.tables.items():
            words = "a TableSettings"
            check_kind(f"{place}(tables) of {table!r}", settings, TableSettings, words)

    def of(self, node: TableNode) -> TableSettings:
        """Return the settings of a table, completed by those of the sensor.

        The settings must be those of `resolved`.
        """
        own = self.tables.get(node.key) or TableSettings()
        return replace(
            own,
            batch_size=own.batch_size or self.batch_size,
            retries=own.retries or self.retries,
        )

    def resolved(self, graph: TableGraph, left_out: Sequence[Candidate] = ()) -> SensorSettings:
        """Return the settings with those of single tables by asset key.

        Parameters
        ----------
        left_out
            Tables that may have settings although they are not in the graph.

        Raises
        ------
        ConfigurationError
            When a name does not stand for a table: its settings would be ignored.
        """
        found = by_table(self.tables, graph.candidates, "SensorSettings.tables", left_out)
        known = graph.by_name
        return replace(
            self, tables={known[name].key: own for name, own in found.items() if name in known}
        )


T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
P = TypeVar("P")

SHARE = 20
"""The pause after a slow look as a multiple of its time, so that looks take 5 % of the time."""

SLOW = 0.05
"""Seconds above which a look is slow."""

LOCKED = 2
"""Seconds for which a tick waits for a table that another client has locked, or is altering."""

ROW_SECONDS = 1e-5
"""Seconds that a look takes for each row, at most, on an idle machine."""


def idle_seconds(seconds: float, rows: float) -> float:
    """Return the seconds of a look at some rows, limited to the time on an idle machine."""
    return min(seconds, ROW_SECONDS * rows)


@dataclass
class Pause:
    """A pause after slow work, so that it is not done all the time."""

    until: float = 0.0

    @property
    def over(self) -> bool:
        """Whether the work may be done again."""
        return time.monotonic() >= self.until

    def after(self, began: float, rows: float = inf) -> None:
        """Take note of work that began at this time and has ended now; see `took`."""
        self.took(time.monotonic() - began, rows)

    def took(self, seconds: float, rows: float = inf) -> None:
        """Take note of work that has ended now, after a number of seconds.

        Parameters
        ----------
        rows
            The number of rows that were looked at. A look at few rows does not count as slow,
            however busy the machine was with other things.
        """
        seconds = idle_seconds(seconds, rows)
        if seconds > SLOW:
            self.until = time.monotonic() + SHARE * seconds


PATIENCE = 60.0
"""Seconds for which a look at a table waits for the runs that are at work in it."""


class DueTables:
    """Tables to look at once runs have left them, and slow ones after a pause."""

    def __init__(self) -> None:
        self._since: dict[AssetKey, float] = {}
        self._pauses: defaultdict[AssetKey, Pause] = defaultdict(Pause)

    def note(self, key: AssetKey) -> None:
        """Note that a table is to be looked at."""
        self._since.setdefault(key, time.monotonic())

    def ready(self, busy: Collection[AssetKey]) -> list[AssetKey]:
        """Return the tables to look at now; those with a run at work wait for up to `PATIENCE`."""
        late = time.monotonic() - PATIENCE
        idle = (key for key, since in self._since.items() if key not in busy or since < late)
        return [key for key in idle if self._pauses[key].over]

    def take(self, key: AssetKey) -> None:
        """Note that a look at a table begins: changes from now on are to be looked at again."""
        self._since.pop(key, None)

    def looked(self, key: AssetKey, began: float, rows: float) -> None:
        """Note that a look at rows of a table has ended; see `Pause.after`."""
        self._pauses[key].after(began, rows)


class Budget:
    """The time that a tick has.

    Work that has begun is finished, and one piece of each kind of work is done in any case, so that
    each tick gets on, however short its time.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def shorten(self, seconds: float) -> None:
        """Limit the remaining time to a number of seconds from now."""
        self._until = min(self._until, time.monotonic() + seconds)

    @property
    def spent(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._until


@dataclass
class Guard:
    """The errors of a tick, each of which stops only the action that raised it.

    Attributes
    ----------
    errors
        The errors by the names of the actions.
    """

    errors: dict[str, Exception] = field(default_factory=dict[str, Exception])
    _unreachable: set[Connection] = field(default_factory=set[Connection])

    def attempt(
        self, what: str, connection: Connection, action: Callable[..., T], *args: object
    ) -> T | None:
        """Do one action and return its result, or None if it failed; the error is kept.

        A database that cannot be reached is asked once. A table that is locked is left for this
        tick: waiting for it would stop all others.
        """
        if connection in self._unreachable:
            return None
        try:
            with connection.impatient(LOCKED):
                return action(*args)
        except Exception as error:
            self.errors[what] = error
            if isinstance(error, ConnectionFailedError):
                self._unreachable.add(connection)
            return None


@dataclass
class Evaluation:
    """One tick: its means, and its work so far.

    Attributes
    ----------
    managed
        Assets of the user's own, which mark themselves.
    held
        The keys that unfinished runs are going to make, read before the tables.
    changes
        The numbers of partitions and marks that were changed.
    written
        The numbers of marks that were written, by table.
    failed
        Long looks, each with its key, that have failed; a later tick repeats them.
    """

    instance: DagsterInstance
    settings: SensorSettings
    managed: frozenset[AssetKey]
    held: HeldKeys
    budget: Budget
    guard: Guard = field(default_factory=Guard)
    changes: Changes = field(default_factory=Changes)
    written: Counter[AssetKey] = field(default_factory=Counter[AssetKey])
    failed: set[tuple[object, Hashable]] = field(default_factory=set[tuple[object, Hashable]])

    def attempt(self, node: TableNode, action: Callable[..., T], *args: object) -> T | None:
        """Do one action on a table; see `Guard.attempt`."""
        return self.guard.attempt(node.title, node.table.connection, action, *args)


class LongLook(Generic[K, P]):
    """Looks at whole tables, page by page over several ticks.

    A look is noted, then begun, and ends with its last page. A slow look is not begun again at
    once; a failed look is noted again, for the next tick. A look that is noted while one goes on
    follows it.
    """

    def __init__(self) -> None:
        self._noted: set[K] = set()
        self._begun: dict[K, Iterator[P]] = {}
        self._seconds: defaultdict[K, float] = defaultdict(float)
        self._pauses: defaultdict[K, Pause] = defaultdict(Pause)

    def __bool__(self) -> bool:
        """Whether a look has begun and not ended."""
        return bool(self._begun)

    def __contains__(self, key: K) -> bool:
        """Whether a look is noted or goes on."""
        return key in self._noted or key in self._begun

    def goes_on(self, key: K) -> bool:
        """Whether a look has begun and not ended."""
        return key in self._begun

    def note(self, key: K) -> None:
        """Request a look."""
        self._noted.add(key)

    def is_ready(self, key: K, tick: Evaluation) -> bool:
        """Whether a page can be taken now."""
        due = key in self._noted and self._pauses[key].over
        return (due or key in self._begun) and (self, key) not in tick.failed

    def step(
        self,
        key: K,
        tick: Evaluation,
        what: str,
        connection: Connection,
        begin: Callable[[], Iterator[P]],
        use: Callable[[P], object],
        rows: Callable[[], float] = lambda: inf,
    ) -> bool:
        """Take the next page, and return whether the look has ended.

        Parameters
        ----------
        what
            The name of the look in errors.
        begin
            Called at the beginning of the look; returns its pages.
        use
            Called with the page; if it fails, the look fails.
        rows
            Called for the number of rows that were looked at; see `Pause.took`.
        """
        began = time.monotonic()
        ended = tick.guard.attempt(what, connection, self._take, key, begin, use)
        if ended is None:
            self._begun.pop(key, None)
            self._noted.add(key)
            tick.failed.add((self, key))
        self._seconds[key] += time.monotonic() - began
        if key not in self._begun:
            self._pauses[key].took(self._seconds.pop(key), rows())
        return bool(ended)

    def _take(self, key: K, begin: Callable[[], Iterator[P]], use: Callable[[P], object]) -> bool:
        if key not in self._begun:
            self._noted.discard(key)
            self._begun[key] = begin()
        for page in self._begun[key]:
            use(page)
            return False
        del self._begun[key]
        return True
