"""The filling of a computed table: keys are looked up, claimed in batches, and made one by one."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, assert_never

from dj_dagster.errors import PopulateError
from dj_dagster.model.heading import Key, Values
from dj_dagster.relational.algebra.nodes import Between, Matches
from dj_dagster.relational.algebra.operators import restrict
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.sql.select import make_window
from dj_dagster.workflow.attempt import KeyOutcome, KeyRunner, Status
from dj_dagster.workflow.code_version import code_version
from dj_dagster.workflow.job_rows import DUE
from dj_dagster.workflow.jobs import Claims, JobQueue
from dj_dagster.workflow.make import KeySource, PopulatedTable
from dj_dagster.workflow.notes import NoteTaker, current_run
from dj_dagster.workflow.pending import Looked, given, look_at, typed, unmade_keys

__all__ = [
    "Key",
    "KeyOutcome",
    "PopulateLoop",
    "PopulateOptions",
    "Status",
    "check_populable",
    "chosen",
    "pending_keys",
    "populate_keys",
    "queue_of",
    "rounds",
]

ORDERS = ("original", "reverse", "random")


def is_whole(number: Any, least: int) -> bool:
    """Return whether a value is a whole number, also one of NumPy, from the least one on."""
    kind = type(number)
    return kind is not bool and issubclass(kind, Integral) and bool(number >= least)


@dataclass(frozen=True)
class PopulateOptions:
    """The wishes of one call of `populate`: which keys are made, and how; see `populate`.

    Attributes
    ----------
    reserve
        Whether keys are claimed in the job queue.
    given
        Whether the keys are given by a user and need not be pending.
    statuses
        The statuses in which a job may be claimed.
    must_insert
        Whether a `make` must insert a row of the table.
    run
        The run of Dagster that makes the keys, empty if none does.
    """

    restrictions: tuple[object, ...] = ()
    keys: Iterable[Mapping[str, object]] | None = None
    order: str = "original"
    limit: int | None = None
    max_calls: int | None = None
    priority: int | None = None
    refresh: bool | None = None
    reserve: bool = False
    given: bool = False
    statuses: tuple[str, ...] = ("pending",)
    must_insert: bool = False
    make_kwargs: Mapping[str, object] = field(default_factory=dict[str, object])
    run: str = field(default_factory=current_run)

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise PopulateError(f"order is {self.order!r}: write one of {', '.join(ORDERS)}.")
        for name, number in (("limit", self.limit), ("max_calls", self.max_calls)):
            if number is not None and not is_whole(number, 0):
                raise PopulateError(f"{name} is {number!r}: it is a number of keys, 0 or more.")
        if self.keys is not None and not hasattr(self.keys, "__iter__"):
            raise PopulateError(f"keys is {self.keys!r}: it is a list of keys.")


def rounds(source: KeySource, options: PopulateOptions) -> Iterator[list[Key]]:
    """Yield the keys to make; with jobs those that are due, then those of lost workers.

    Raises
    ------
    PopulateError
        If the keys cannot be reserved.
    """
    if not options.reserve:
        yield _keys_without_jobs(source, options)
        return
    queue = JobQueue(source.table)
    queue.check(source)
    queue.release_dead()
    if options.keys is not None:
        yield _keys_given(source, options.keys, options)
        return
    wanted = queue.connection.job_settings.auto_refresh
    if wanted if options.refresh is None else options.refresh:
        # New jobs are due at once, although times are rounded.
        queue.refresh_from(source, *options.restrictions, priority=options.priority, delay=-1)
    while True:
        yield _due_keys(source, queue, options)
        if not queue.release_dead():
            return


def _keys_without_jobs(source: KeySource, options: PopulateOptions) -> list[Key]:
    """Return the pending keys without regard to jobs."""
    if options.keys is not None:
        return _keys_given(source, options.keys, options)
    limit, calls = options.limit, options.max_calls
    if options.order == "original" and calls is not None:
        limit = min(calls, calls if limit is None else limit)
    return _arranged(unmade_keys(source, *options.restrictions, limit=limit), options)


def _keys_given(
    source: KeySource, keys: Iterable[Mapping[str, object]], options: PopulateOptions
) -> list[Key]:
    found = typed(source, keys)
    if options.restrictions:
        known = given(source, found, *options.restrictions)
        found = [key for key in found if tuple(key.values()) in known]
    return _arranged(found, options)


def _due_keys(source: KeySource, queue: JobQueue, options: PopulateOptions) -> list[Key]:
    jobs, most = queue.rows, options.priority
    node = restrict(jobs.node("pending"), DUE)
    if most is not None:
        node = restrict(node, Between("priority", None, int(most)))
    if options.restrictions:
        node = restrict(node, Matches(tuple(jobs.key), source.restricted(*options.restrictions)))
    window = make_window(["priority", "scheduled_time", "KEY"], None, None, node.heading)
    rows = fetch.rows(jobs.connection, node, jobs.key, window)
    due = [dict(zip(jobs.key, row, strict=True)) for row in rows]
    return _arranged(queue.free(due), options)


def _arranged(keys: list[Key], options: PopulateOptions) -> list[Key]:
    keys = keys[: options.limit]
    if options.order == "reverse":
        keys.reverse()
    elif options.order == "random":
        random.shuffle(keys)
    return keys


def pending_keys(
    table: PopulatedTable,
    *restrictions: object,
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
    source = KeySource(table)
    queue = None if ignore_jobs else queue_of(source)
    if queue is None:
        return unmade_keys(source, *restrictions, limit=limit)
    return _free_keys(source, queue, *restrictions, limit=limit, retry_errors=retry_errors)


def _free_keys(
    source: KeySource,
    queue: JobQueue,
    *restrictions: object,
    limit: int | None = None,
    retry_errors: bool = False,
) -> list[Key]:
    """Return the keys that are not in the table and can be claimed in the queue."""
    queue.release_dead()
    held = ("reserved", "ignore") if retry_errors else ("reserved", "ignore", "error")
    # Workers of another era hold keys that cannot be left out by a query.
    most = limit if queue.rows.shared is None else None
    keys = unmade_keys(source, *restrictions, held=queue.rows.held(*held), limit=most)
    return queue.free(keys, ("error",) if retry_errors else ())[:limit]


def populate_keys(
    table: PopulatedTable,
    keys: Iterable[Mapping[str, object]] | None = None,
    *,
    retry_errors: bool = False,
    reserve: bool = True,
    make_kwargs: Mapping[str, object] | None = None,
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
    check_populable(table)
    source = KeySource(table)
    wanted, options = chosen(
        source, keys, retry_errors=retry_errors, reserve=reserve, make_kwargs=make_kwargs
    )
    with closing(PopulateLoop(source, options).outcomes(wanted)) as outcomes:
        yield from outcomes


def chosen(
    source: KeySource,
    keys: Iterable[Mapping[str, object]] | None,
    *,
    retry_errors: bool,
    reserve: bool = True,
    make_kwargs: Mapping[str, object] | None = None,
) -> tuple[list[Key], PopulateOptions]:
    """Return the keys that `populate_keys` is to make, and the way to make them.

    For the parameters and the errors see `populate_keys`.
    """
    queue = queue_of(source) if reserve else None
    if keys is not None:
        wanted = typed(source, keys)
        if queue is not None:
            queue.release_dead()
    elif queue is None:
        wanted = unmade_keys(source)
    else:
        wanted = _free_keys(source, queue, retry_errors=retry_errors)
    options = PopulateOptions(
        reserve=queue is not None,
        given=True,
        statuses=("pending", "success", "error") if retry_errors else ("pending", "success"),
        must_insert=True,
        make_kwargs=dict(make_kwargs or {}),
    )
    return wanted, options


def check_populable(table: PopulatedTable, processes: int | None = 1) -> None:
    """Refuse to populate where the result would be unclear.

    Raises
    ------
    PopulateError
        If the table is restricted, this thread is in a transaction or a make, or the number of
        processes is less than 1.
    """
    if processes is not None and not is_whole(processes, 1):
        raise PopulateError(
            f"populate(processes={processes!r}): write 1 or more, or None for one a core."
        )
    if table.is_restricted:
        raise PopulateError(
            f"{table.name} is restricted: call populate on the table itself and pass the "
            "restriction as an argument."
        )
    if table.connection.holds_transaction or table.connection.write_buffer is not None:
        raise PopulateError(f"{table.name} cannot be populated inside a transaction or a make.")


def queue_of(source: KeySource) -> JobQueue | None:
    """Return the job queue, None where it cannot tell the keys of the key source apart."""
    queue = JobQueue(source.table)
    return queue if queue.holds(source.names) else None


LOOKAHEAD = 1000
"""Keys whose jobs are looked at together when other workers have taken many."""

SPREAD = 1000
"""Keys over which workers spread that compete for the same keys."""

SHARED = 64
"""Keys that a worker claims together, at most, once others have taken keys before it."""

PAUSE = 0.005
"""Seconds that a worker waits that has found all keys in use, at most."""


class PopulateLoop:
    """The loop over keys of a table in one process, which makes them in batches.

    Parameters
    ----------
    before
        Called with each key before it is made.
    """

    def __init__(
        self,
        source: KeySource,
        options: PopulateOptions,
        before: Callable[[Key], None] | None = None,
    ) -> None:
        table = source.table
        self._source = source
        self._given, self._statuses = options.given, options.statuses
        self._queue = JobQueue(table) if options.reserve else None
        self._runner = KeyRunner(
            table,
            must_insert=options.must_insert,
            make_kwargs=options.make_kwargs,
            before=before,
        )
        self._notes = NoteTaker(table, source.names, code_version(type(table)), options.run)

    def outcomes(self, keys: Iterable[Key], limit: int | None = None) -> Generator[KeyOutcome]:
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
        waiting, queue = deque(keys), self._queue
        outcomes = self._plain(waiting) if queue is None else self._claiming(queue, waiting)
        calls = 0
        with closing(self._notes), closing(outcomes):
            while limit is None or calls < limit:
                outcome = next(outcomes, None)
                if outcome is None:
                    return
                calls += outcome.status in ("made", "failed")
                yield outcome

    def _plain(self, waiting: deque[Key]) -> Generator[KeyOutcome]:
        size = 1
        while waiting:
            batch = _taken(waiting, size)
            looked = look_at(self._source, batch, in_source=self._given)
            self._look(batch, looked)
            busy = 0.0
            for key in batch:
                outcome = self._outcome(key, looked)
                busy += outcome.seconds
                yield outcome
            self._notes.write_if_due()
            size = next_size(size, len(batch), busy)

    def _claiming(self, queue: JobQueue, waiting: deque[Key]) -> Generator[KeyOutcome]:
        size, most, claims, behind = 1, LARGEST, Claims(queue, self._statuses), False
        with closing(claims):
            while waiting:
                batch = {queue.row(key): key for key in _taken(waiting, min(size, most))}
                yield from self._left_out(queue, batch)
                got = claims.claim(list(batch)) if batch else []
                mine = set(got)
                others = {row: key for row, key in batch.items() if row not in mine}
                if others:
                    # A worker that gets nothing twice has fallen behind the others.
                    if behind and not got:
                        others |= {queue.row(key): key for key in _taken(waiting, LOOKAHEAD)}
                    yield from self._held(queue, others, waiting)
                    most = SHARED
                behind = bool(others) and not got
                if len(others) > len(got):
                    _spread(waiting)
                if behind and waiting:
                    time.sleep(random.uniform(0, PAUSE))
                busy = 0.0
                for outcome in self._claimed(claims, [batch[row] for row in got], queue):
                    busy += outcome.seconds
                    yield outcome
                self._notes.write_if_due()
                waiting.extend(batch[row] for row in claims.given_back())
                if got:
                    size = next_size(size, len(got), busy)

    def _left_out(self, queue: JobQueue, batch: dict[Values, Key]) -> Iterator[KeyOutcome]:
        """Yield the outcomes of a user's keys that are not pending, and give the others jobs."""
        if not self._given:
            return
        looked = look_at(self._source, list(batch.values()))
        for row, key in list(batch.items()):
            if status := looked.why(key):
                del batch[row]
                yield KeyOutcome(key, status)
        if batch:
            queue.rows.add(list(batch), priority=queue.connection.job_settings.default_priority)

    def _held(
        self, queue: JobQueue, keys: Mapping[Values, Key], waiting: deque[Key]
    ) -> Iterator[KeyOutcome]:
        """Yield the outcomes of those of some keys that others have; let the rest wait again."""
        free = set(queue.rows.claimable(list(keys), self._statuses, without_job=self._given))
        for row, key in keys.items():
            if row not in free:
                yield KeyOutcome(key, "reserved")
        waiting.extendleft(reversed([key for row, key in keys.items() if row in free]))

    def _claimed(self, claims: Claims, keys: list[Key], queue: JobQueue) -> Iterator[KeyOutcome]:
        if not keys:
            return
        # From now on other workers cannot make these keys.
        looked = look_at(self._source, keys)
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
        spelled = looked.as_given(key)
        outcome = self._runner.make(spelled)
        if outcome.status == "made":
            self._notes.note(spelled)
        return outcome if spelled is key else replace(outcome, key=key)

    def _look(self, keys: list[Key], looked: Looked) -> None:
        """Look at the rows that keys refer to; a key is stale if such a row changes later."""
        self._notes.look([looked.as_given(key) for key in keys if not looked.why(key)])


def _taken(waiting: deque[Key], count: int) -> list[Key]:
    """Take keys from the left; a key that comes twice is left for the next batch."""
    batch: dict[tuple[object, ...], Key] = {}
    while waiting and len(batch) < count and (row := tuple(waiting[0].values())) not in batch:
        batch[row] = waiting.popleft()
    return list(batch.values())


def _spread(waiting: deque[Key]) -> None:
    """Go on at any of the next keys: workers that compete for one would for those behind it too."""
    near = [waiting.popleft() for _ in range(min(SPREAD, len(waiting)))]
    start = random.randrange(max(1, len(near)))
    # Keys that are skipped come before those further on, whose priority may be lower.
    waiting.extendleft(reversed(near[start:] + near[:start]))


AHEAD = 0.5
"""Seconds of work that are prepared together."""

LARGEST = 500


def next_size(size: int, keys: int, seconds: float) -> int:
    """Return the number of keys that a worker makes in about half a second; it grows gradually.

    Parameters
    ----------
    size
        The number so far.
    keys, seconds
        Keys that were made since, and the time that they took.

    Examples
    --------
    >>> next_size(1, 1, 0.001)
    8
    >>> next_size(8, 8, 4.0)
    1
    """
    fitting = int(AHEAD * keys / seconds) if seconds > 0 else LARGEST
    return max(1, min(fitting, 8 * size, LARGEST))
