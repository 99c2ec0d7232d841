"""The computed tiers: tables whose rows come from `make`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dj_dagster.lazy import LateModule
from dj_dagster.model.names import Tier
from dj_dagster.workflow import pending
from dj_dagster.workflow.attempt import KeyOutcome
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.pending import Key
from dj_dagster.workflow.populate import Making, check_populable
from dj_dagster.workflow.processes import Crew
from dj_dagster.workflow.sigterm import exit_on_sigterm
from dj_dagster.workflow.todo import Todo

if TYPE_CHECKING:
    import rich.progress as progress
else:
    progress = LateModule("rich.progress")


class AutoPopulate(Makes):
    """A table that fills itself: subclass it as `Imported` or `Computed` and write `make`."""

    @property
    def jobs(self) -> JobQueue:
        """The table's job queue."""
        return JobQueue(self)

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
            Which keys; anything that may stand after ``&``, all must hold. One that names no
            attribute of the key source or, where that is the parents, of theirs is refused.
        keys
            The keys to make, as far as all restrictions hold for them; none for ``[]``.
        suppress_errors
            Whether a failing key is noted and the others still made, instead of raising.
        return_exception_objects
            Whether `error_list` holds the exceptions instead of their text.
        reserve_jobs
            Whether keys are claimed in the job queue, so that several workers share them, and
            failures are kept there. SIGTERM then ends as `SystemExit`, the key given back.
        order
            ``"original"``, ``"reverse"`` or ``"random"``; the original one is that of the key, of
            jobs that of their priorities and times.
        limit
            At most so many keys are looked at.
        max_calls
            At most so many calls of `make`.
        display_progress
            Whether a progress bar is shown.
        processes
            How many worker processes make the keys; None for one a core. One that dies fails its
            key, and another takes its place.
        make_kwargs
            Passed to each `make`, to `make_fetch` where the make is in three parts.
        priority
            Jobs of this priority or a lower number only; new jobs get it.
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
            If the table is restricted, or in a transaction; if its keys cannot be reserved.
        QueryError
            If a restriction would choose every key by accident.
        Exception
            What a `make` raised, unless `suppress_errors`; a note names table and key.
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

    def progress(self, *restrictions: Any, display: bool = False) -> tuple[int, int]:
        """Return how many keys remain to be made, and how many there are in all.

        Parameters
        ----------
        display
            Whether to print them as well.
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
    """What `populate` returns, in the making."""

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
                # Notes of its own may be anything.
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
