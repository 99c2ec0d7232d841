"""The computed tiers: tables whose rows come from `make`, and the call `populate`."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dj_dagster.class_access import on_class
from dj_dagster.errors import PopulateError
from dj_dagster.lazy import LateModule
from dj_dagster.model.names import Tier
from dj_dagster.relational.algebra.nodes import Matches, restrict
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.sql.select import make_window
from dj_dagster.workflow import pending
from dj_dagster.workflow.attempt import KeyOutcome, exit_on_sigterm
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.pending import Key, given, source, typed, unmade_keys
from dj_dagster.workflow.populate import Making, check_populable
from dj_dagster.workflow.workers import Crew

if TYPE_CHECKING:
    import rich.progress as progress
else:
    progress = LateModule("rich.progress")


class AutoPopulate(Makes):
    """A table that fills itself; subclass it as `Imported` or `Computed` and write `make`."""

    @property
    def jobs(self) -> JobQueue:
        """The table's job queue."""
        return JobQueue(self)

    @on_class
    def populate(
        self,
        *restrictions: Any,
        keys: Iterable[Mapping[str, Any]] | None = None,
        suppress_errors: bool = False,
        return_exception_objects: bool = False,
        reserve_jobs: bool = False,
        order: str = "original",
        limit: int | None = None,
        max_calls: int | None = None,
        display_progress: bool = False,
        processes: int | None = 1,
        make_kwargs: Mapping[str, Any] | None = None,
        priority: int | None = None,
        refresh: bool | None = None,
    ) -> dict[str, Any]:
        """Make the pending keys, each in a transaction of its own.

        Parameters
        ----------
        *restrictions
            Conditions on the keys, all of which must hold; anything that may stand after ``&``.
            Conditions without an attribute of the key source, or of the parents if these are the
            key source, are refused.
        keys
            The keys to make, as far as all restrictions hold for them; ``[]`` for none.
        suppress_errors
            Whether a failing key is noted and the others still made, instead of raising.
        return_exception_objects
            Whether `error_list` holds the exceptions instead of their text.
        reserve_jobs
            Whether keys are claimed in the job queue, so that several workers share them, and
            failures are kept there. SIGTERM then raises `SystemExit`, and the key is given back.
        order
            ``"original"``, ``"reverse"`` or ``"random"``. The original order is that of the keys,
            with jobs that of their priorities and times.
        limit
            The number of keys that are looked at, at most.
        max_calls
            The number of calls of `make`, at most.
        display_progress
            Whether a progress bar is shown.
        processes
            The number of worker processes that make the keys; None for one a core. If a process
            dies, its key fails, and another process takes its place.
        make_kwargs
            Passed to each `make`, to `make_fetch` where the make is in three parts.
        priority
            The greatest priority number of the jobs to make, and the priority of new jobs.
        refresh
            Whether new keys are added to the job queue first; by default the setting
            `jobs.auto_refresh`.

        Returns
        -------
        dict
            ``success_count``, and ``error_list`` of (key, error).

        Raises
        ------
        PopulateError
            If the table is restricted, or in a transaction; if its keys cannot be reserved; if one
            of `keys` lacks an attribute.
        QueryError
            If a restriction would choose every key by accident.
        Exception
            The error of a `make`, unless `suppress_errors`; a note names table and key.
        """
        check_populable(self)
        pending.check_restrictions(self, *restrictions)
        todo = Todo(self, restrictions, keys, order, limit, max_calls)
        making = Making(
            reserve=reserve_jobs, given=keys is not None, make_kwargs=dict(make_kwargs or {})
        )
        tally = _Tally(self.class_name, suppress_errors, return_exception_objects)
        with (
            exit_on_sigterm() if reserve_jobs else nullcontext(),
            progress.Progress(disable=not display_progress) as bar,
        ):
            task = bar.add_task(self.class_name, total=None)
            for wanted in self._rounds(todo, making, priority, refresh):
                left = None if max_calls is None else max_calls - tally.calls
                bar.update(task, total=bar.tasks[0].completed + min(len(wanted), left or 2**62))
                with closing(self._outcomes(making, wanted, processes, left)) as outcomes:
                    for outcome in outcomes:
                        bar.advance(task)
                        tally.add(outcome)
        return {"success_count": tally.made, "error_list": tally.errors}

    @on_class
    def progress(self, *restrictions: Any, display: bool = False) -> tuple[int, int]:
        """Return the number of keys that remain to be made, and the number of all keys.

        Parameters
        ----------
        display
            Whether to print the numbers as well.
        """
        remaining, total = pending.progress(self, *restrictions)
        if display:
            done = total - remaining
            share = 100 * done / total if total else 100
            print(f"{self.class_name}: {done} of {total} done ({share:.1f} %)")
        return remaining, total

    def _rounds(
        self, todo: Todo, making: Making, priority: int | None, refresh: bool | None
    ) -> Iterable[list[Key]]:
        if not making.reserve:
            return [todo.plain()]
        queue = self.jobs
        queue.check()
        wanted = self.connection.job_settings.auto_refresh if refresh is None else refresh
        return todo.rounds(queue, refresh=wanted, priority=priority)

    def _outcomes(
        self, making: Making, keys: list[Key], processes: int | None, limit: int | None
    ) -> Generator[KeyOutcome]:
        if processes == 1 or len(keys) < 2 or limit == 1:
            return making.batches(self).run(keys, limit)
        return Crew(self, making, keys, processes, limit).outcomes()


@dataclass
class _Tally:
    """The result of `populate` so far."""

    table: str
    suppress: bool
    as_objects: bool
    made: int = 0
    errors: list[tuple[Key, Any]] = field(default_factory=list[tuple[Key, Any]])

    @property
    def calls(self) -> int:
        return self.made + len(self.errors)

    def add(self, outcome: KeyOutcome) -> None:
        self.made += outcome.status == "made"
        if outcome.error is not None:
            if not self.suppress:
                # The exception's own notes may have any type.
                with suppress(Exception):
                    outcome.error.add_note(f"While {self.table} was made for {outcome.key}.")
                raise outcome.error
            self.errors.append((outcome.key, outcome.error if self.as_objects else outcome.message))


class Imported(AutoPopulate):
    """A table whose `make` reads from outside the database, such as from raw files."""

    tier = Tier.IMPORTED
    tier_regexp = tier.pattern


class Computed(AutoPopulate):
    """A table whose `make` computes from other tables alone."""

    tier = Tier.COMPUTED
    tier_regexp = tier.pattern


Sequence = Literal["original", "reverse", "random"]
ORDERS = ("original", "reverse", "random")


@dataclass(frozen=True)
class Todo:
    """The keys to make; see `AutoPopulate.populate`."""

    table: Makes
    restrictions: tuple[Any, ...] = ()
    keys: Iterable[Mapping[str, Any]] | None = None
    order: str = "original"
    limit: int | None = None
    max_calls: int | None = None

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise PopulateError(f"order is {self.order!r}: write one of {', '.join(ORDERS)}.")
        for name, number in (("limit", self.limit), ("max_calls", self.max_calls)):
            if number is not None and number < 0:
                raise PopulateError(f"{name} is {number}: it is a number of keys, 0 or more.")

    def plain(self) -> list[Key]:
        """Return the pending keys without regard to jobs."""
        if self.keys is not None:
            return self._chosen(self.keys)
        limit = self.limit
        if self.order == "original" and self.max_calls is not None:
            limit = min(self.max_calls, self.max_calls if limit is None else limit)
        return self._arranged(unmade_keys(self.table, *self.restrictions, limit=limit))

    def rounds(
        self, queue: JobQueue, *, refresh: bool, priority: int | None
    ) -> Iterator[list[Key]]:
        """Yield the due jobs, then those of workers that were lost meanwhile."""
        queue.release_dead()
        if self.keys is not None:
            yield self._chosen(self.keys)
            return
        if refresh:
            # New jobs are due at once, although times are rounded.
            queue.refresh(*self.restrictions, priority=priority, delay=-1)
        while True:
            yield self._due(queue, priority)
            if not queue.release_dead():
                return

    def _chosen(self, keys: Iterable[Mapping[str, Any]]) -> list[Key]:
        found = typed(self.table, keys)
        if self.restrictions:
            known = given(self.table, found, *self.restrictions)
            found = [key for key in found if tuple(key.values()) in known]
        return self._arranged(found)

    def _due(self, queue: JobQueue, priority: int | None) -> list[Key]:
        jobs = queue.rows
        node = jobs.node("pending")
        if self.restrictions:
            keys = source(self.table, *self.restrictions)
            node = restrict(node, Matches(tuple(jobs.key), keys))
        window = make_window(["priority", "scheduled_time", "KEY"], None, None, node.heading)
        names = [*jobs.key, "priority", "scheduled_time"]
        rows = fetch.rows(jobs.connection, node, names, window)
        now, size = jobs.now(), len(jobs.key)
        due = [
            dict(zip(jobs.key, row, strict=False))
            for row in rows
            if row[size + 1] <= now and (priority is None or row[size] <= priority)
        ]
        return self._arranged(queue.free(due))

    def _arranged(self, keys: list[Key]) -> list[Key]:
        keys = keys[: self.limit]
        if self.order == "reverse":
            keys.reverse()
        elif self.order == "random":
            random.shuffle(keys)
        return keys
