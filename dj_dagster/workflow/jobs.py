"""The job queue of a computed table: its pending, reserved and failed keys, with their errors.

Each computed table has one hidden table ``~~name`` with DataJoint 2.3's columns and statuses, so
that workers of both libraries can share it. A reservation of ours is a lease: its `scheduled_time`
lies ahead and is put off while the worker lives; once it has passed, any worker may take the key.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

from dj_dagster.class_access import on_class, property_on_class
from dj_dagster.errors import ConnectionFailedError, DataJointError, PopulateError
from dj_dagster.model.heading import Key, Values
from dj_dagster.relational.algebra.condition import repeatable
from dj_dagster.relational.algebra.nodes import In, Node
from dj_dagster.relational.algebra.operators import restrict
from dj_dagster.relational.caller import refuse_arguments
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.sessions import retried
from dj_dagster.relational.database.write import job_version
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.schemas.free_table import FreeTable
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.table import Binding, Table
from dj_dagster.workflow.job_rows import (
    FREE,
    JobRows,
    Worker,
    check_reservable,
    create_queue,
    obstacle,
    planned_key,
    queue_name,
)
from dj_dagster.workflow.liveness import elapsed, renewal
from dj_dagster.workflow.make import KeySource, PopulatedTable, among, without
from dj_dagster.workflow.pending import present, rows_of, unmade_keys
from dj_dagster.workflow.shared_jobs import SharedJobs, ensure_jobs

STATUSES = ("pending", "reserved", "success", "error", "ignore")


class JobQueue(FreeTable):
    """The jobs of one computed table, a table itself: restrict it, fetch from it, delete from it.

    Parameters
    ----------
    target
        The computed table; its queue is created when it is first used.

    Examples
    --------
    ::

        Spikes.jobs.progress()
        (Spikes.jobs.errors & {"session_id": 3}).delete()
    """

    def __init__(self, target: Table) -> None:
        name = queue_name(target.name)
        super().__init__(target.connection, name)
        self._bound = Binding(target.connection, name, f"{target.class_name}.jobs")
        self._target = target

    @property
    def target(self) -> Table:
        """The computed table whose jobs these are."""
        return self._target

    @property_on_class
    def stored(self) -> StoredTable:
        """The queue's own table, created if need be.

        Raises
        ------
        PopulateError
            If the table's keys are not those of other tables.
        """
        return self.connection.catalog.find(self.name) or create_queue(self._target)

    @property
    def key(self) -> list[str]:
        """The key of the jobs: most often the part of the table's key from foreign keys."""
        stored = self.connection.catalog.find(self.name)
        return stored.heading.primary_key if stored else planned_key(self._target)

    @property
    def definition(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The jobs of the queue, as text."""
        return repr(self.heading)

    @cached_property
    def rows(self) -> JobRows:
        """The queue's rows, by key and status."""
        stored, schema = self.stored, self.name.schema
        if not self.connection.catalog.is_old(schema):
            return JobRows(self.connection, stored)
        ensure_jobs(self.connection, schema)
        key = stored.heading.primary_key
        shared = SharedJobs(self.connection, self._target.name, key, self._user)
        return JobRows(self.connection, stored, shared)

    @property
    def pending(self) -> Self:
        """Jobs that wait for a worker."""
        return self._having("pending")

    @property
    def reserved(self) -> Self:
        """Jobs that a worker has claimed."""
        return self._having("reserved")

    @property
    def errors(self) -> Self:
        """Jobs that failed: delete them to have them tried again."""
        return self._having("error")

    @property
    def ignored(self) -> Self:
        """Jobs that are to be left out."""
        return self._having("ignore")

    @property
    def completed(self) -> Self:
        """Jobs that were done, where `keep_completed` is set."""
        return self._having("success")

    def progress(self) -> dict[str, int]:
        """Return the number of jobs by status, and their ``total``."""
        counts = {s: fetch.count(self.connection, self.rows.node(s)) for s in STATUSES}
        return {**counts, "total": sum(counts.values())}

    def refresh(
        self,
        *restrictions: object,
        delay: float = 0,
        priority: int | None = None,
        stale_timeout: float | None = None,
        orphan_timeout: float | None = None,
    ) -> dict[str, int]:
        """Add jobs for the keys that are to be made, and remove jobs of all other keys.

        Pending and failed jobs of keys that are in the table are ended; DataJoint keeps such
        pending jobs until a worker claims them, and such failed jobs for good.

        Parameters
        ----------
        *restrictions
            Conditions on the keys of the key source to add; all must hold.
        delay
            Seconds until the new jobs are due.
        priority
            The priority of the new jobs, lower is sooner; by default the setting
            `default_priority`.
        stale_timeout
            Age in seconds from which a job goes once its key is not in the key source any more; by
            default the setting of that name, 0 for never.
        orphan_timeout
            Age in seconds from which a reservation is given up. By default reservations are not
            given up by age, because workers that are gone are noticed without it.

        Returns
        -------
        dict
            The numbers of jobs that were ``added``, ``removed``, ``orphaned`` and ``re_pended``.
        """
        source, restrictions = self._source(), repeatable(restrictions)
        source.check(*restrictions)
        self.check(source)
        return self.refresh_from(
            source,
            *restrictions,
            delay=delay,
            priority=priority,
            stale_timeout=stale_timeout,
            orphan_timeout=orphan_timeout,
        )

    def refresh_from(
        self,
        source: KeySource,
        *restrictions: object,
        delay: float = 0,
        priority: int | None = None,
        stale_timeout: float | None = None,
        orphan_timeout: float | None = None,
    ) -> dict[str, int]:
        """Refresh the jobs as `refresh` does, from a key source that was checked already."""
        settings, rows = self.connection.job_settings, self.rows
        keep, timeout = settings.keep_completed, stale_timeout
        chosen = settings.default_priority if priority is None else priority
        orphaned = _free_orphans(rows, orphan_timeout, chosen) if orphan_timeout else 0
        ended = self.end_made()
        added = _add_unmade(rows, source, restrictions, chosen, delay)
        ended += _remove_vanished(
            rows, source, settings.stale_timeout if timeout is None else timeout
        )
        again = _add_finished_again(rows, source, restrictions, chosen) if keep else 0
        return {"added": added, "removed": ended, "orphaned": orphaned, "re_pended": again}

    def reserve(self, key: Mapping[str, object]) -> bool:
        """Claim a pending job that is due; return whether this worker has got it."""
        return bool(self.claim([self.row(key)], ("pending",)))

    def claim(
        self, rows: Sequence[Values], statuses: Sequence[str], version: str = ""
    ) -> list[Values]:
        """Claim those of some jobs that are due and in one of the statuses, and return them."""
        worker = Worker(self._user, version or job_version(self.connection.job_settings))
        return self.rows.claim(rows, statuses, worker, self.connection.job_settings.lease)

    def complete(self, key: Mapping[str, object], duration: float | None = None) -> None:
        """End a job well: it is forgotten, or kept as `success` where `keep_completed` is set."""
        keep = self.connection.job_settings.keep_completed
        self.rows.complete({self.row(key): duration}, keep=keep)

    def error(
        self, key: Mapping[str, object], error_message: str, error_stack: str | None = None
    ) -> None:
        """Keep the error of a failed job, which is retried once it is deleted, or on request."""
        self.rows.fail(self.row(key), error_message, error_stack)

    def ignore(self, key: Mapping[str, object]) -> None:
        """Leave a key out from now on, in Dagster and where workers reserve keys."""
        row = self.row(key)
        self.rows.add([row], priority=self.connection.job_settings.default_priority)
        if self.rows.shared is not None:
            self.rows.shared.ignore([row])
        self.rows.update([row], (), {"status": "ignore"})

    def release(self, key: Mapping[str, object]) -> None:
        """Give up a reservation, so that the key is pending again."""
        self.rows.release([self.row(key)])

    def release_dead(self) -> int:
        """Make jobs pending again whose worker is gone, and return their number.

        A worker of this machine is gone when its process is, any other when its lease has run out.
        Jobs whose worker ended after the rows were in are ended.
        """
        return len(self.free_lost())

    def free_lost(self) -> list[Values]:
        """Make jobs pending again as `release_dead` does, and return them."""
        self.rows.reconcile()
        lost = self.rows.lost()
        keep = self.connection.job_settings.keep_completed
        done = present(self._target, self.rows.key, [item.row for item in lost])
        return [
            item.row
            for item in lost
            if self.rows.take_back(item, made=item.row in done, keep=keep) and item.row not in done
        ]

    def end_made(self) -> int:
        """End the pending and failed jobs whose keys are in the table, and return their number."""
        waiting, jobs = ("pending", "error"), self.rows
        # Rows are read before they are changed, so that rows of other workers are not locked.
        rows = _keys_of(jobs, among(jobs.node(*waiting), rows_of(self._target)))
        keep = self.connection.job_settings.keep_completed
        return jobs.end(rows, waiting, keep=keep) if rows else 0

    def vanished(self) -> list[Values]:
        """Return the failed jobs whose keys are neither in the key source nor in the table."""
        return _vanished(self.rows, self._source(), "error")

    def delete(self, *args: object, **options: object) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Forget these jobs without a prompt, because other rows do not depend on them."""
        del options
        refuse_arguments("delete", *args)
        return self.delete_quick()

    @on_class
    def delete_quick(self, get_count: bool = False) -> int:
        """Forget these jobs, also for workers of DataJoint 0.14."""
        shared = self.rows.shared
        if shared is None:
            return super().delete_quick(get_count)
        rows = list(fetch.rows(self.connection, self.node, self.rows.key))
        deleted = super().delete_quick(get_count)
        shared.forget(rows)
        return deleted

    @on_class
    def drop(self, *args: Any, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Drop the queue without a prompt; it is created again when it is used."""
        del options
        refuse_arguments("drop", *args)
        self.connection.catalog.forget(self.database)
        if self.connection.catalog.find(self.name) is not None:
            self.drop_quick()

    def free(self, keys: list[Key], statuses: Sequence[str] = ()) -> list[Key]:
        """Return those of some keys that workers of DataJoint 0.14 do not hold.

        Parameters
        ----------
        statuses
            The statuses of 0.14's jobs that do not count.
        """
        if self.rows.shared is None or not keys:
            return keys
        free = set(self.rows.free([self.row(key) for key in keys], statuses))
        return [key for key in keys if self.row(key) in free]

    def row(self, key: Mapping[str, object]) -> Values:
        """Return the values of a job's key.

        Raises
        ------
        PopulateError
            If `key` lacks an attribute of the queue's key.
        """
        try:
            return tuple(key[name] for name in self.rows.key)
        except KeyError as error:
            raise PopulateError(
                f"The key {dict(key)} lacks {error} of the job queue of {self._target.name}."
            ) from None

    def check(self, source: KeySource) -> None:
        """Refuse a queue that cannot tell the keys of the key source apart.

        Raises
        ------
        PopulateError
            If the keys are without attributes, or the queue has another key.
        """
        table, names = self._target, source.names
        if not names:
            raise PopulateError(
                f"{table.name} cannot reserve jobs: its keys have no attribute. Populate it "
                "without reserve_jobs."
            )
        check_reservable(table, names)
        if not self.holds(names):
            raise PopulateError(
                f"The job queue of {table.name} has the key {', '.join(self.key) or 'none'}, its "
                f"key_source has {', '.join(names)}: populate it without reserve_jobs, or drop the "
                "queue, table.jobs.drop(), to have it made anew."
            )

    def holds(self, names: Sequence[str]) -> bool:
        """Whether the queue has the key with these attributes."""
        fits = bool(names) and not obstacle(self._target, names)
        return fits and set(names) == set(self.key)

    def _source(self) -> KeySource:
        if isinstance(self._target, PopulatedTable):
            return KeySource(self._target)
        raise PopulateError(f"{self._target.name} is not a table that can be populated.")

    @cached_property
    def _user(self) -> str:
        return self.connection.get_user()

    def _having(self, *statuses: str) -> Self:
        node: Node = restrict(self.node, In(("status",), tuple((s,) for s in statuses)))
        return self._derive(node)


def queues(connection: Connection, tables: Sequence[Table]) -> list[JobQueue]:
    """Return the existing queues of some tables."""
    return [JobQueue(t) for t in tables if connection.catalog.find(queue_name(t.name)) is not None]


def _add_unmade(
    jobs: JobRows, source: KeySource, restrictions: Sequence[object], priority: int, delay: float
) -> int:
    """Add the keys that are in neither table nor queue, due `delay` seconds from now."""
    keys = unmade_keys(source, *restrictions, held=jobs.node())
    rows = [tuple(key[name] for name in jobs.key) for key in keys]
    if rows:
        due = jobs.now() + timedelta(seconds=delay)
        jobs.add(rows, priority=priority, scheduled_time=due)
    return len(rows)


def _add_finished_again(
    jobs: JobRows, source: KeySource, restrictions: Sequence[object], priority: int
) -> int:
    """Make finished jobs pending whose rows have been deleted."""
    done = without(jobs.node("success"), rows_of(source.table))
    rows = _keys_of(jobs, among(done, source.restricted(*restrictions)))
    return _free(jobs, rows, "success", priority)


def _free_orphans(jobs: JobRows, timeout: float, priority: int) -> int:
    """Make reserved jobs pending that were claimed more than `timeout` seconds ago."""
    before = jobs.now() - timedelta(seconds=timeout)
    reserved = fetch.rows(jobs.connection, jobs.node("reserved"), [*jobs.key, "reserved_time"])
    rows = [row[:-1] for row in reserved if (row[-1] or before) < before]
    return _free(jobs, rows, "reserved", priority)


def _remove_vanished(jobs: JobRows, source: KeySource, timeout: float) -> int:
    """Remove jobs whose keys have left the key source.

    Ended jobs are removed once their keys have left the table as well. Jobs of all statuses but
    ``ignore`` are removed when they are older than `timeout` seconds, unless that is 0.
    """
    ended = "success", "error"
    rows = _vanished(jobs, source, *ended)
    removed = jobs.delete(rows, ended) if rows else 0
    if timeout <= 0:
        return removed
    statuses = ("pending", "reserved", "success", "error")
    vanished = without(jobs.node(*statuses), source.keys)
    found = list(fetch.rows(jobs.connection, vanished, [*jobs.key, "created_time"]))
    if not found:
        return removed
    before = jobs.now() - timedelta(seconds=timeout)
    rows = [row[:-1] for row in found if row[-1] < before]
    return removed + (jobs.delete(rows, statuses) if rows else 0)


def _vanished(jobs: JobRows, source: KeySource, *statuses: str) -> list[Values]:
    """Return the jobs whose keys are neither in the key source nor in the table."""
    outside = without(jobs.node(*statuses), source.keys)
    return _keys_of(jobs, without(outside, rows_of(source.table)))


def _keys_of(jobs: JobRows, node: Node) -> list[Values]:
    return list(fetch.rows(jobs.connection, node, jobs.key))


def _free(jobs: JobRows, rows: list[Values], status: str, priority: int) -> int:
    now = jobs.now()
    times = {"created_time": now, "scheduled_time": now}
    values = {**FREE, **times, "status": "pending", "priority": priority}
    return jobs.freed(rows, jobs.update(rows, (status,), values)) if rows else 0


TICK = 0.5
"""Seconds between two looks at whether a make takes long."""

PATIENCE = 2.0
"""Seconds of a make after which the keys claimed behind it are given back."""


class Claims:
    """The claims of one worker on the jobs of a queue; close it at the end.

    Several keys are claimed by one statement, which saves time if `make` is quick. While a make
    takes long, a thread gives back the keys that wait behind it, ends the jobs that are done, and
    renews the lease. A process that was stopped for longer than the lease, or cut off from the
    database, gives back the keys that wait: others may have taken them over.

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
        self._asked: list[Values] = []
        self._waiting: deque[Values] = deque()
        self._done: dict[Values, float | None] = {}
        self._running: Values | None = None
        self._since = time.monotonic()
        self._renewed = elapsed()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._unwanted: list[Values] = []
        self._returned: list[Values] = []

    def claim(self, rows: Sequence[Values]) -> list[Values]:
        """Claim those of some keys that are free, for `take`, and return them."""
        self._settle()
        self._asked = list(rows)
        got = self._queue.claim(rows, self._statuses, self._version)
        with self._lock:
            self._waiting.extend(got)
            self._asked = []
            self._renewed = elapsed()
        self._watch()
        return got

    def take(self) -> Values | None:
        """Return the next claimed key, to be made now; None if all are taken, or given back."""
        if self._is_late:
            self._give_back()
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
            self._queue.rows.fail(self._running, message, stack, own=True)
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

    def given_back(self) -> list[Values]:
        """Return the unmade keys that were given back since the last call."""
        with self._letting_go:
            self._return_unwanted()
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
            left = [*self._unwanted, *self._waiting]
            left += [self._running] if self._running is not None else []
            self._waiting.clear()
            self._running = None
        retried(self._settle, (ConnectionFailedError,))
        if left:
            retried(lambda: self._queue.rows.give_back(left), (ConnectionFailedError,))
        if self._asked:
            # The server may commit a claim that was interrupted, after the process is gone: its
            # locks are waited for here.
            with contextlib.suppress(DataJointError):
                self._queue.rows.give_back(self._asked)

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
        with self._lock:
            if self._running is None or time.monotonic() - self._since < PATIENCE:
                return
        self._give_back()
        self._settle()

    def _give_back(self) -> None:
        """Give back the keys that wait, which are claimed again later."""
        with self._letting_go:
            with self._lock:
                self._unwanted.extend(self._waiting)
                self._waiting.clear()
            self._return_unwanted()

    def _return_unwanted(self) -> None:
        # If the database is away they stay unwanted, and are given back later.
        if self._unwanted:
            self._queue.rows.give_back(self._unwanted)
        self._returned.extend(self._unwanted)
        self._unwanted.clear()

    @property
    def _is_late(self) -> bool:
        """Whether the leases have run out, so that others may have taken keys over."""
        return elapsed() - self._renewed > self._lease

    def _renew(self) -> None:
        if elapsed() - self._renewed < renewal(self._lease):
            return
        if self._is_late:
            self._give_back()
        with self._lock:
            held = [*self._waiting, *([self._running] if self._running is not None else [])]
        if held:
            self._queue.rows.renew(held, self._lease)
        self._renewed = elapsed()
