"""The filling of a computed table: keys are looked up, claimed in batches, and made one by one."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from dj_dagster.errors import ConnectionFailedError, DataJointError, PopulateError
from dj_dagster.relational.database.sessions import retried
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.provenance import job_version
from dj_dagster.workflow.attempt import Attempts, KeyOutcome, Status
from dj_dagster.workflow.code_version import code_version
from dj_dagster.workflow.job_rows import Row
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.liveness import renewal
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.notes import NoteTaker
from dj_dagster.workflow.pending import (
    Key,
    Looked,
    look_at,
    progress,
    source,
    typed,
    unmade_keys,
)

__all__ = [
    "Key",
    "KeyOutcome",
    "Makes",
    "Making",
    "Status",
    "check_populable",
    "pending_keys",
    "populate_keys",
    "progress",
    "queue_of",
]


@dataclass(frozen=True)
class Making:
    """The way to make keys, as plain data for worker processes.

    Attributes
    ----------
    reserve
        Whether keys are claimed in the job queue.
    given, statuses
        See `Batches`.
    must_insert, make_kwargs
        See `MakeRunner`.
    """

    reserve: bool = False
    given: bool = False
    statuses: tuple[str, ...] = ("pending",)
    must_insert: bool = False
    make_kwargs: dict[str, Any] = field(default_factory=dict[str, Any])

    def batches(self, table: Makes, before: Any = None) -> Batches:
        """Return the `Batches` that make keys of a table in this process."""
        attempts = Attempts(
            table, must_insert=self.must_insert, make_kwargs=self.make_kwargs, before=before
        )
        queue = JobQueue(table) if self.reserve else None
        names = source(table).heading.primary_key
        notes = NoteTaker(table, names, code_version(type(table)))
        return Batches(table, attempts, notes, queue, self.given, self.statuses)


def pending_keys(
    table: Makes,
    *restrictions: Any,
    limit: int | None = None,
    retry_errors: bool = False,
    ignore_jobs: bool = False,
) -> list[Key]:
    """Return the pending keys of a computed table, in their order.

    Keys of jobs that are due later are left out.

    Parameters
    ----------
    *restrictions
        All must hold; anything that may stand after ``&``.
    limit
        The number of keys, at most.
    retry_errors
        Whether keys whose job failed before are pending again.
    ignore_jobs
        Whether to ignore the job queue.
    """
    queue = None if ignore_jobs else queue_of(table)
    if queue is None:
        return unmade_keys(table, *restrictions, limit=limit)
    queue.release_dead()
    held = ("reserved", "ignore") if retry_errors else ("reserved", "ignore", "error")
    # Workers of another era hold keys that cannot be left out by a query.
    most = limit if queue.rows.shared is None else None
    keys = unmade_keys(table, *restrictions, held=queue.rows.held(*held), limit=most)
    return queue.free(keys, ("error",) if retry_errors else ())[:limit]


def populate_keys(
    table: Makes,
    keys: Iterable[Mapping[str, Any]] | None = None,
    *,
    retry_errors: bool = False,
    reserve: bool = True,
    make_kwargs: Mapping[str, Any] | None = None,
) -> Iterator[KeyOutcome]:
    """Make keys one by one, each in a short transaction of its own.

    A failing `make` does not end the loop; its outcome carries the error.

    Parameters
    ----------
    keys
        The keys to make, each of which is first looked up; by default all pending keys.
    retry_errors
        Whether keys whose job failed before are tried again.
    reserve
        Whether each key is claimed in the job queue, so that several workers can share the keys,
        and failures are kept there. Only keys of other tables can be claimed.

    Yields
    ------
    KeyOutcome
        One a key.

    Raises
    ------
    PopulateError
        If the table is restricted, or this thread is in a transaction.
    """
    wanted, making = chosen(table, keys, retry_errors=retry_errors, reserve=reserve)
    making = replace(making, make_kwargs=dict(make_kwargs or {}))
    with closing(making.batches(table).run(wanted)) as outcomes:
        yield from outcomes


def chosen(
    table: Makes,
    keys: Iterable[Mapping[str, Any]] | None,
    *,
    retry_errors: bool,
    reserve: bool = True,
) -> tuple[list[Key], Making]:
    """Return the keys that `populate_keys` is to make, and the way to make them.

    For the parameters and the errors see `populate_keys`.
    """
    check_populable(table)
    queue = queue_of(table) if reserve else None
    if keys is None:
        wanted = pending_keys(table, retry_errors=retry_errors, ignore_jobs=queue is None)
    else:
        wanted = typed(table, keys)
        if queue is not None:
            queue.release_dead()
    making = Making(
        reserve=queue is not None,
        given=True,
        statuses=("pending", "success", "error") if retry_errors else ("pending", "success"),
        must_insert=queue is not None,
    )
    return wanted, making


def check_populable(table: Makes) -> None:
    """Refuse to populate where the result would be unclear.

    Raises
    ------
    PopulateError
        If the table is restricted, or this thread is in a transaction or a make.
    """
    if table.is_restricted:
        raise PopulateError(
            f"{table.name} is restricted: call populate on the table itself and pass the "
            "restriction as an argument."
        )
    if table.connection.in_transaction or table.connection.write_buffer is not None:
        raise PopulateError(f"{table.name} cannot be populated inside a transaction or a make.")


def queue_of(table: Makes) -> JobQueue | None:
    """Return the job queue, None where it cannot tell the keys of the key source apart."""
    queue = JobQueue(table)
    return queue if queue.holds(source(table).heading.primary_key) else None


LOOKAHEAD = 1000
"""Keys whose jobs are looked at together when other workers have taken many."""

SPREAD = 50
"""Keys over which workers spread that compete for the same keys."""

PAUSE = 0.005
"""Seconds that a worker waits that has found all keys in use, at most."""


@dataclass(frozen=True)
class Batches:
    """The making of keys of a table in batches.

    Attributes
    ----------
    queue
        The job queue in which each key is claimed; None to make keys without claims.
    given
        Whether the keys are given by a user and need not be pending.
    statuses
        The statuses in which a job may be claimed.
    notes
        The writer of notes on the keys that are made.
    """

    table: Makes
    attempts: Attempts
    notes: NoteTaker
    queue: JobQueue | None = None
    given: bool = False
    statuses: tuple[str, ...] = ("pending",)

    def run(self, keys: Iterable[Key], limit: int | None = None) -> Generator[KeyOutcome]:
        """Make keys, in their order except for keys that other workers have.

        Parameters
        ----------
        limit
            The number of calls of `make`, at most.

        Yields
        ------
        KeyOutcome
            One a key.
        """
        waiting, queue = deque(keys), self.queue
        outcomes = self._plain(waiting) if queue is None else self._claiming(queue, waiting)
        calls = 0
        with closing(self.notes), closing(outcomes):
            while limit is None or calls < limit:
                outcome = next(outcomes, None)
                if outcome is None:
                    return
                calls += outcome.status in ("made", "failed")
                yield outcome

    def _plain(self, waiting: deque[Key]) -> Generator[KeyOutcome]:
        pace = Pace()
        while waiting:
            batch = _taken(waiting, pace.size)
            looked = look_at(self.table, batch, in_source=self.given)
            self._look(batch, looked)
            busy = 0.0
            for key in batch:
                outcome = self._outcome(key, looked)
                busy += outcome.seconds
                yield outcome
            self.notes.write_if_due()
            pace.note(len(batch), busy)

    def _claiming(self, queue: JobQueue, waiting: deque[Key]) -> Generator[KeyOutcome]:
        pace, claims = Pace(), Claims(queue, self.statuses)
        with closing(claims):
            while waiting:
                batch = {queue.row(key): key for key in _taken(waiting, pace.size)}
                yield from self._left_out(queue, batch)
                got = claims.claim(list(batch)) if batch else []
                yield from self._held(queue, batch, got, waiting)
                busy = 0.0
                for outcome in self._claimed(claims, [batch[row] for row in got], queue):
                    busy += outcome.seconds
                    yield outcome
                self.notes.write_if_due()
                waiting.extend(batch[row] for row in claims.given_back())
                if got:
                    pace.note(len(got), busy)

    def _left_out(self, queue: JobQueue, batch: dict[Row, Key]) -> Iterator[KeyOutcome]:
        """Yield the outcomes of a user's keys that are not pending, and give the others jobs."""
        if not self.given:
            return
        looked = look_at(self.table, list(batch.values()))
        for row, key in list(batch.items()):
            if status := looked.why(key):
                del batch[row]
                yield KeyOutcome(key, status)
        if batch:
            queue.rows.add(list(batch), priority=queue.connection.job_settings.default_priority)

    def _held(
        self, queue: JobQueue, batch: dict[Row, Key], got: list[Row], waiting: deque[Key]
    ) -> Iterator[KeyOutcome]:
        """Yield the outcomes of keys that others have; look further ahead if these are many."""
        mine = set(got)
        others = {row: key for row, key in batch.items() if row not in mine}
        if not others:
            return
        if len(others) > len(got):
            others |= {queue.row(key): key for key in _taken(waiting, LOOKAHEAD)}
        names = [*queue.rows.key, "status", "scheduled_time"]
        jobs = fetch.rows(queue.connection, queue.rows.node(rows=others), names)
        known = queue.rows.by_asked({row[:-2]: row[-2:] for row in jobs}, list(others))
        no_job = ("pending" if self.given else "done", None)
        # A job that is due later cannot be claimed now.
        now = queue.rows.now() if any(status == "pending" for status, _ in known.values()) else None
        free: list[Key] = []
        unheld = set(queue.rows.free(list(others), self.statuses))
        for row, key in others.items():
            status, due = known.get(row, no_job) if row in unheld else ("reserved", None)
            later = status == "pending" and due is not None and now is not None and due > now
            if status in self.statuses and not later:
                free.append(key)
            else:
                yield KeyOutcome(key, "reserved")
        waiting.extendleft(reversed(free))
        if not got and waiting:
            # Workers that compete for one key would compete for the next key too.
            waiting.rotate(-random.randrange(min(SPREAD, len(waiting))))
            time.sleep(random.uniform(0, PAUSE))

    def _claimed(self, claims: Claims, keys: list[Key], queue: JobQueue) -> Iterator[KeyOutcome]:
        if not keys:
            return
        # From now on other workers cannot make these keys.
        looked = look_at(self.table, keys)
        self._look(keys, looked)
        by_row = {queue.row(key): key for key in keys}
        while (row := claims.take()) is not None:
            outcome = self._outcome(by_row[row], looked)
            match outcome.status:
                case "made":
                    claims.finish(outcome.seconds)
                case "present" | "reserved" | "left":
                    claims.finish(None)
                case "missing":
                    claims.drop()
                case "failed":
                    claims.fail(outcome.message, outcome.traceback)
                case _:
                    assert_never(outcome.status)
            yield outcome

    def _outcome(self, key: Key, looked: Looked) -> KeyOutcome:
        status = looked.why(key)
        if status:
            return KeyOutcome(key, status)
        given = looked.as_given(key)
        outcome = self.attempts.make(given)
        if outcome.status == "made":
            self.notes.note(given)
        return outcome if given is key else replace(outcome, key=key)

    def _look(self, keys: list[Key], looked: Looked) -> None:
        """Look at the rows that keys refer to; a key is stale if such a row changes later."""
        self.notes.look([looked.as_given(key) for key in keys if not looked.why(key)])


def _taken(waiting: deque[Key], count: int) -> list[Key]:
    """Take keys from the left; a key that comes twice is left for the next batch."""
    batch: dict[tuple[object, ...], Key] = {}
    while waiting and len(batch) < count and (row := tuple(waiting[0].values())) not in batch:
        batch[row] = waiting.popleft()
    return list(batch.values())


TICK = 0.5
"""Seconds between two looks at whether a make takes long."""

PATIENCE = 2.0
"""Seconds of a make after which the keys claimed behind it are given back."""


class Claims:
    """The claims of one worker on the jobs of a queue; close it at the end.

    Several keys are claimed by one statement, which saves time if `make` is quick. While a make
    takes long, a thread gives back the keys that wait behind it, ends the jobs that are done, and
    renews the lease.

    Parameters
    ----------
    statuses
        The statuses in which a job may be claimed.
    """

    def __init__(self, queue: JobQueue, statuses: Sequence[str]) -> None:
        settings = queue.connection.job_settings
        self._queue = queue
        self._statuses = statuses
        self._version = job_version(settings)
        self._keep = settings.keep_completed
        self._lease = settings.lease
        self._lock = threading.Lock()
        self._letting_go = threading.Lock()
        self._waiting: deque[Row] = deque()
        self._done: dict[Row, float | None] = {}
        self._running: Row | None = None
        self._since = self._renewed = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._returned: list[Row] = []

    def claim(self, rows: Sequence[Row]) -> list[Row]:
        """Claim those of some keys that are free, for `take`, and return them."""
        self._settle()
        got = self._queue.claim(rows, self._statuses, self._version)
        with self._lock:
            self._waiting.extend(got)
            self._renewed = time.monotonic()
        self._watch()
        return got

    def take(self) -> Row | None:
        """Return the next claimed key, to be made now; None if all are taken."""
        with self._lock:
            self._running = self._waiting.popleft() if self._waiting else None
            self._since = time.monotonic()
            return self._running

    def finish(self, duration: float | None) -> None:
        """Note that the taken key is in the table."""
        with self._lock:
            if self._running is not None:
                self._done[self._running] = duration
            self._running = None

    def fail(self, message: str, stack: str) -> None:
        """Keep the error of the taken key."""
        if self._running is not None:
            self._queue.rows.fail(self._running, message, stack)
        self._forget()

    def drop(self) -> None:
        """Forget the job of the taken key, which cannot be made any more."""
        if self._running is not None:
            self._queue.rows.delete([self._running], ("reserved",))
        self._forget()

    def _forget(self) -> None:
        # Only once the queue has the outcome: until then `close` must give the key back.
        with self._lock:
            self._running = None

    def given_back(self) -> list[Row]:
        """Return the unmade keys that were given back since the last call."""
        with self._letting_go:
            returned, self._returned = self._returned, []
            return returned

    def close(self) -> None:
        """End the jobs that are done and give the others back.

        A server that is being restarted is waited for, because this process may live on, and other
        workers could then not see that it has given up.
        """
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            left = [*self._waiting, *([self._running] if self._running is not None else [])]
            self._waiting.clear()
            self._running = None
        retried(self._settle, (ConnectionFailedError,))
        if left:
            retried(lambda: self._queue.rows.give_back(left), (ConnectionFailedError,))

    def _settle(self) -> None:
        with self._lock:
            done = dict(self._done)
        if done:
            self._queue.rows.complete(done, keep=self._keep)
        with self._lock:
            self._done = {row: at for row, at in self._done.items() if row not in done}

    def _watch(self) -> None:
        """Start the thread, unless the database is in memory, where other workers cannot see it."""
        if self._thread is None and not self._queue.connection.is_in_memory:
            self._thread = threading.Thread(target=self._tend, daemon=True, name="dj_dagster lease")
            self._thread.start()

    def _tend(self) -> None:
        while not self._stop.wait(TICK):
            # A failed statement is repeated at the next tick, or else the lease runs out.
            with contextlib.suppress(DataJointError):
                self._let_go()
                self._renew()

    def _let_go(self) -> None:
        with self._letting_go:
            with self._lock:
                if self._running is None or time.monotonic() - self._since < PATIENCE:
                    return
                unmade = list(self._waiting)
                self._waiting.clear()
            if unmade:
                self._queue.rows.give_back(unmade)
            self._returned.extend(unmade)
        self._settle()

    def _renew(self) -> None:
        with self._lock:
            if time.monotonic() - self._renewed < renewal(self._lease):
                return
            held = [*self._waiting, *([self._running] if self._running is not None else [])]
        if held:
            self._queue.rows.renew(held, self._lease)
        self._renewed = time.monotonic()


AHEAD = 0.5
"""Seconds of work that are prepared together."""

LARGEST = 500


class Pace:
    """The pace of a worker: the number of keys that it makes in about half a second.

    Examples
    --------
    >>> pace = Pace()
    >>> pace.size
    1
    >>> pace.note(1, 0.001), pace.size
    (None, 8)
    >>> pace.note(8, 4.0), pace.size
    (None, 1)
    """

    def __init__(self) -> None:
        self.size = 1

    def note(self, keys: int, seconds: float) -> None:
        """Take note of the seconds that some keys took; the size grows gradually."""
        fitting = int(AHEAD * keys / seconds) if seconds > 0 else LARGEST
        self.size = max(1, min(fitting, 8 * self.size, LARGEST))
