"""Limits of a tick: the time that it spends, errors that stop one table alone, long looks."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any, Generic, TypeVar

from dagster import AssetKey, DagsterInstance

from dj_dagster.errors import ConnectionFailedError
from dj_dagster.orchestration.runs.run_records import HeldKeys
from dj_dagster.orchestration.sensor.sensor_settings import SensorSettings
from dj_dagster.orchestration.tables.partitions import Changes
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.database.connection import Connection

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
P = TypeVar("P")

SHARE = 20
"""How much longer than it took a slow look is not taken again: 5 % of the time is spent on it."""

SLOW = 0.05
"""Seconds from which a look is slow."""

LOCKED = 2
"""Seconds for which a tick waits for a table that another client has locked, or is altering."""

ROW_SECONDS = 1e-5
"""What a look takes for each row, at most, on a machine that has nothing else to do."""


def idle_seconds(seconds: float, rows: float) -> float:
    """Return the seconds of a look at some rows, without those that the machine was busy."""
    return min(seconds, ROW_SECONDS * rows)


@dataclass
class Pause:
    """Keeps what is slow from being done all the time."""

    until: float = 0.0

    @property
    def over(self) -> bool:
        """Whether it may be done again."""
        return time.monotonic() >= self.until

    def after(self, began: float, rows: float = inf) -> None:
        """Take note of what began then and has ended now; see `took`."""
        self.took(time.monotonic() - began, rows)

    def took(self, seconds: float, rows: float = inf) -> None:
        """Take note of what has ended now, after so many seconds.

        Parameters
        ----------
        rows
            How many there were to look at: of few the look is no slow one, however busy the
            machine was with other things.
        """
        seconds = idle_seconds(seconds, rows)
        if seconds > SLOW:
            self.until = time.monotonic() + SHARE * seconds


class Budget:
    """The time that a tick has.

    What is begun is done to its end, and one thing of a kind is done in any case: each tick gets
    on, however short its time.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def shorten(self, seconds: float) -> None:
        """Have no more than so many seconds from now."""
        self._until = min(self._until, time.monotonic() + seconds)

    @property
    def spent(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._until


@dataclass
class Guard:
    """Errors of a tick, each of which stops only what raised it.

    Attributes
    ----------
    errors
        By what was tried.
    """

    errors: dict[str, Exception] = field(default_factory=dict[str, Exception])
    _unreachable: set[Connection] = field(default_factory=set[Connection])

    def attempt(
        self, what: str, connection: Connection, action: Callable[..., T], *args: Any
    ) -> T | None:
        """Do one thing and return its result, or None if it failed; the error is kept.

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
    """One tick: what it works with, and what it has done so far.

    Attributes
    ----------
    managed
        Assets that are the user's own, which mark themselves.
    held
        What unfinished runs are going to make, read before the tables.
    changes
        Partitions and marks that were changed.
    written
        Marks that were written, by table.
    failed
        Long looks, each with its key, that have failed: they are taken up by a later tick.
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

    def attempt(self, node: TableNode, action: Callable[..., T], *args: Any) -> T | None:
        """Do one thing with a table; see `Guard.attempt`."""
        return self.guard.attempt(node.title, node.table.connection, action, *args)


class LongLook(Generic[K, P]):
    """Looks at whole tables that are taken page by page, over as many ticks as that takes.

    A look is noted, then begun, and ends with its last page. One that was slow is not begun again
    at once; one that fails is noted again, for the next tick. What is noted while a look goes on is
    another look.
    """

    def __init__(self) -> None:
        self._noted: set[K] = set()
        self._begun: dict[K, Iterator[P]] = {}
        self._seconds: defaultdict[K, float] = defaultdict(float)
        self._pauses: defaultdict[K, Pause] = defaultdict(Pause)

    def __bool__(self) -> bool:
        """Whether a look goes on, or can begin."""
        return bool(self._begun) or any(self._pauses[key].over for key in self._noted)

    def __contains__(self, key: K) -> bool:
        """Whether a look is noted or goes on."""
        return key in self._noted or key in self._begun

    def goes_on(self, key: K) -> bool:
        """Whether a look has begun and not ended."""
        return key in self._begun

    def note(self, key: K) -> None:
        """Have a look taken."""
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
            Names the look in errors.
        begin
            Returns its pages, when it begins.
        use
            Is given the page; where that fails the look does.
        rows
            Returns how many rows were looked at; see `Pause.took`.
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
