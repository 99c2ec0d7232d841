"""The job queue of a computed table: its pending, reserved and failed keys, with their errors.

Each computed table has one hidden table ``~~name`` with DataJoint 2.3's columns and statuses, so
that workers of both libraries can share it. A reservation of ours is a lease: its `scheduled_time`
lies ahead and is put off while the worker lives; once it has passed, any worker may take the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

from dj_dagster.class_access import on_class, property_on_class
from dj_dagster.errors import PopulateError
from dj_dagster.relational.algebra.nodes import In, Node, restrict
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.provenance import job_version
from dj_dagster.relational.schemas.free_table import FreeTable
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.table import Binding, Table
from dj_dagster.workflow.job_rows import (
    FREE,
    JobRows,
    Row,
    Worker,
    create_queue,
    planned_key,
    queue_name,
)
from dj_dagster.workflow.key_source import among, without
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.pending import check_restrictions, present, rows_of, source, unmade_keys
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
        *restrictions: Any,
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
        settings = self.connection.job_settings
        chosen = settings.default_priority if priority is None else priority
        check_restrictions(self._makes(), *restrictions)
        step = Refresh(self._makes(), self.rows, chosen)
        self.check()
        orphaned = step.free_orphans(orphan_timeout) if orphan_timeout else 0
        ended = step.end_made(keep=settings.keep_completed)
        return {
            "added": step.add(restrictions, delay),
            "removed": ended
            + step.remove_vanished(
                settings.stale_timeout if stale_timeout is None else stale_timeout
            ),
            "orphaned": orphaned,
            "re_pended": step.add_finished_again(restrictions) if settings.keep_completed else 0,
        }

    def reserve(self, key: Mapping[str, Any]) -> bool:
        """Claim a pending job that is due; return whether this worker has got it."""
        return bool(self.claim([self.row(key)], ("pending",)))

    def claim(self, rows: Sequence[Row], statuses: Sequence[str], version: str = "") -> list[Row]:
        """Claim those of some jobs that are due and in one of the statuses, and return them."""
        worker = Worker(self._user, version or job_version(self.connection.job_settings))
        return self.rows.claim(rows, statuses, worker, self.connection.job_settings.lease)

    def complete(self, key: Mapping[str, Any], duration: float | None = None) -> None:
        """End a job well: it is forgotten, or kept as `success` where `keep_completed` is set."""
        keep = self.connection.job_settings.keep_completed
        self.rows.complete({self.row(key): duration}, keep=keep)

    def error(
        self, key: Mapping[str, Any], error_message: str, error_stack: str | None = None
    ) -> None:
        """Keep the error of a failed job, which is retried once it is deleted, or on request."""
        self.rows.fail(self.row(key), error_message, error_stack)

    def ignore(self, key: Mapping[str, Any]) -> None:
        """Leave a key out from now on."""
        row = self.row(key)
        self.rows.add([row], priority=self.connection.job_settings.default_priority)
        if self.rows.shared is not None:
            self.rows.shared.ignore([row])
        self.rows.update([row], (), {"status": "ignore"})

    def release(self, key: Mapping[str, Any]) -> None:
        """Give up a reservation, so that the key is pending again."""
        self.rows.release([self.row(key)])

    def release_dead(self) -> int:
        """Make jobs pending again whose worker is gone, and return their number.

        A worker of this machine is gone when its process is, any other when its lease has run out.
        Jobs whose worker ended after the rows were in are ended.
        """
        return len(self.free_lost())

    def free_lost(self) -> list[Row]:
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
        keep = self.connection.job_settings.keep_completed
        return Refresh(self._makes(), self.rows).end_made(keep=keep)

    def vanished(self) -> list[Row]:
        """Return the failed jobs whose keys are neither in the key source nor in the table."""
        return Refresh(self._makes(), self.rows).vanished("error")

    def delete(self, *args: Any, **options: Any) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Forget these jobs without a prompt, because other rows do not depend on them."""
        del args, options
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
        del args, options
        self.connection.catalog.forget(self.database)
        if self.connection.catalog.find(self.name) is not None:
            self.drop_quick()

    def free(
        self, keys: list[dict[str, Any]], statuses: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
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

    def row(self, key: Mapping[str, Any]) -> Row:
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

    def check(self) -> None:
        """Refuse a queue that cannot tell the keys of the key source apart.

        Raises
        ------
        PopulateError
            If the keys are without attributes, or the queue has another key.
        """
        table = self._makes()
        names = source(table).heading.primary_key
        if not names:
            raise PopulateError(
                f"{table.name} cannot reserve jobs: its keys have no attribute. Populate it "
                "without reserve_jobs."
            )
        if not self.holds(names):
            raise PopulateError(
                f"The job queue of {table.name} has the key {', '.join(self.key) or 'none'}, its "
                f"key_source has {', '.join(names)}: populate it without reserve_jobs, or drop the "
                "queue, table.jobs.drop(), to have it made anew."
            )

    def holds(self, names: Sequence[str]) -> bool:
        """Whether the queue has the key with these attributes."""
        return bool(names) and set(names) == set(self.key)

    def _makes(self) -> Makes:
        if isinstance(self._target, Makes):
            return self._target
        raise PopulateError(f"{self._target.name} is no table that can be populated.")

    @cached_property
    def _user(self) -> str:
        return self.connection.get_user()

    def _having(self, *statuses: str) -> Self:
        node: Node = restrict(self.node, In(("status",), tuple((s,) for s in statuses)))
        return self._derive(node)


def queues(connection: Any, tables: Sequence[Table]) -> list[JobQueue]:
    """Return the existing queues of some tables."""
    return [JobQueue(t) for t in tables if connection.catalog.find(queue_name(t.name)) is not None]


class Refresh:
    """The steps of `JobQueue.refresh`.

    Rows are read before they are changed, so that rows of other workers are not locked.

    Parameters
    ----------
    priority
        The priority of the jobs that become pending.
    """

    def __init__(self, table: Makes, jobs: JobRows, priority: int = 0) -> None:
        self._table = table
        self._jobs = jobs
        self._priority = priority

    def add(self, restrictions: Iterable[Any], delay: float) -> int:
        """Add the keys that are in neither table nor queue, due `delay` seconds from now."""
        keys = unmade_keys(self._table, *restrictions, held=self._jobs.node())
        rows = [tuple(key[name] for name in self._jobs.key) for key in keys]
        if rows:
            due = self._jobs.now() + timedelta(seconds=delay)
            self._jobs.add(rows, priority=self._priority, scheduled_time=due)
        return len(rows)

    def end_made(self, *, keep: bool) -> int:
        """End the pending and failed jobs whose keys are in the table."""
        waiting = ("pending", "error")
        rows = self._rows(among(self._jobs.node(*waiting), rows_of(self._table)))
        return self._jobs.end(rows, waiting, keep=keep) if rows else 0

    def add_finished_again(self, restrictions: Iterable[Any]) -> int:
        """Make finished jobs pending whose rows have been deleted."""
        done = without(self._jobs.node("success"), rows_of(self._table))
        keys = source(self._table, *restrictions)
        return self._free(self._rows(among(done, keys)), "success")

    def free_orphans(self, timeout: float) -> int:
        """Make reserved jobs pending that were claimed more than `timeout` seconds ago."""
        before = self._jobs.now() - timedelta(seconds=timeout)
        names = [*self._jobs.key, "reserved_time"]
        reserved = fetch.rows(self._jobs.connection, self._jobs.node("reserved"), names)
        return self._free(
            [row[:-1] for row in reserved if (row[-1] or before) < before], "reserved"
        )

    def remove_vanished(self, timeout: float) -> int:
        """Remove jobs whose keys have left the key source.

        Ended jobs are removed once their keys have left the table as well. Jobs of all statuses but
        ``ignore`` are removed when they are older than `timeout` seconds, unless that is 0.
        """
        ended = "success", "error"
        removed = self._delete(self.vanished(*ended), *ended)
        if timeout <= 0:
            return removed
        keys = source(self._table)
        before = self._jobs.now() - timedelta(seconds=timeout)
        statuses = ("pending", "reserved", "success", "error")
        names = [*self._jobs.key, "created_time"]
        vanished = without(self._jobs.node(*statuses), keys)
        found = fetch.rows(self._jobs.connection, vanished, names)
        return removed + self._delete([row[:-1] for row in found if row[-1] < before], *statuses)

    def vanished(self, *statuses: str) -> list[Row]:
        """Return the jobs whose keys are neither in the key source nor in the table."""
        outside = without(self._jobs.node(*statuses), source(self._table))
        return self._rows(without(outside, rows_of(self._table)))

    def _rows(self, node: Node) -> list[Row]:
        return list(fetch.rows(self._jobs.connection, node, self._jobs.key))

    def _free(self, rows: list[Row], status: str) -> int:
        now = self._jobs.now()
        times = {"created_time": now, "scheduled_time": now}
        values = {**FREE, **times, "status": "pending", "priority": self._priority}
        return self._jobs.freed(rows, self._jobs.update(rows, (status,), values)) if rows else 0

    def _delete(self, rows: list[Row], *statuses: str) -> int:
        return self._jobs.delete(rows, statuses) if rows else 0
