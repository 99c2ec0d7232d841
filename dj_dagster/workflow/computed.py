"""The computed tiers: tables whose rows come from `make`, and the call `populate`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypedDict

from dj_dagster.class_access import on_class
from dj_dagster.errors import PopulateError
from dj_dagster.lazy import LateModule
from dj_dagster.model.heading import Key
from dj_dagster.model.names import Tier
from dj_dagster.relational.algebra.condition import repeatable
from dj_dagster.relational.caller import warn_caller
from dj_dagster.workflow.attempt import KeyOutcome, exit_on_sigterm
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import KeySource, PopulatedTable
from dj_dagster.workflow.pending import progress as key_progress
from dj_dagster.workflow.populate import (
    PopulateLoop,
    PopulateOptions,
    check_populable,
    rounds,
)
from dj_dagster.workflow.workers import WorkerPool

if TYPE_CHECKING:
    import rich.progress as progress
else:
    progress = LateModule("rich.progress")


class PopulateResult(TypedDict):
    """The result of `populate`."""

    success_count: int
    error_list: list[tuple[Key, str | BaseException]]


class AutoPopulate(PopulatedTable):
    """A table that fills itself; subclass it as `Imported` or `Computed` and write `make`."""

    @property
    def jobs(self) -> JobQueue:
        """The table's job queue."""
        return JobQueue(self)

    @property
    def target(self) -> Self:
        """The table that `populate` fills: the table itself."""
        return self

    @on_class
    def populate(
        self,
        *restrictions: object,
        keys: Iterable[Mapping[str, object]] | None = None,
        suppress_errors: bool = False,
        return_exception_objects: bool = False,
        reserve_jobs: bool = False,
        order: str = "original",
        limit: int | None = None,
        max_calls: int | None = None,
        display_progress: bool = False,
        processes: int | None = 1,
        make_kwargs: Mapping[str, object] | None = None,
        priority: int | None = None,
        refresh: bool | None = None,
    ) -> PopulateResult:
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
            with jobs that of their priorities and times; workers that compete for the same jobs
            spread over the next thousand.
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
            ``success_count``, and ``error_list`` of (key, error). As in DataJoint, a key whose
            `make` inserted no row counts as made; a warning tells the number of these.

        Raises
        ------
        PopulateError
            If an option is not of its type; if the table is restricted, or in a transaction; if its
            keys cannot be reserved; if one of `keys` lacks an attribute.
        QueryError
            If a restriction would choose every key by accident.
        Exception
            The error of a `make`, unless `suppress_errors`; a note names table and key.
        """
        check_populable(self, processes)
        if make_kwargs is not None and not hasattr(make_kwargs, "keys"):
            raise PopulateError(f"make_kwargs is {make_kwargs!r}: it is a dict of arguments.")
        restrictions = repeatable(restrictions)
        options = PopulateOptions(
            restrictions,
            keys,
            order,
            limit,
            max_calls,
            priority,
            refresh,
            reserve=reserve_jobs,
            given=keys is not None,
            make_kwargs=dict(make_kwargs or {}),
        )
        source = KeySource(self)
        source.check(*restrictions)
        tally = _Tally(self.class_name, suppress_errors, return_exception_objects)
        with (
            exit_on_sigterm() if reserve_jobs else nullcontext(),
            progress.Progress(disable=not display_progress) as bar,
        ):
            task = bar.add_task(self.class_name, total=None)
            for wanted in rounds(source, options):
                left = None if max_calls is None else max_calls - tally.calls
                bar.update(task, total=bar.tasks[0].completed + min(len(wanted), left or 2**62))
                with closing(_outcomes(source, options, wanted, processes, left)) as outcomes:
                    for outcome in outcomes:
                        bar.advance(task)
                        tally.add(outcome)
        if tally.empty:
            warn_caller(
                f"make() of {self.name} inserted no row for {len(tally.empty)} "
                f"key{'s' * (len(tally.empty) > 1)}, such as {tally.empty[0]}. Insert one, or "
                "leave such keys out by defining key_source: Dagster reports them as failed.",
                UserWarning,
            )
        return {"success_count": tally.made, "error_list": tally.errors}

    @on_class
    def progress(self, *restrictions: object, display: bool = False) -> tuple[int, int]:
        """Return the number of keys that remain to be made, and the number of all keys.

        Parameters
        ----------
        display
            Whether to print the numbers as well.
        """
        remaining, total = key_progress(KeySource(self), *restrictions)
        if display:
            done = total - remaining
            share = 100 * done / total if total else 100
            print(f"{self.class_name}: {done} of {total} done ({share:.1f} %)")
        return remaining, total


def _outcomes(
    source: KeySource,
    options: PopulateOptions,
    keys: list[Key],
    processes: int | None,
    limit: int | None,
) -> Generator[KeyOutcome]:
    if processes == 1 or len(keys) < 2 or limit == 1:
        return PopulateLoop(source, options).outcomes(keys, limit)
    return WorkerPool(source.table, options, keys, processes, limit).outcomes()


@dataclass
class _Tally:
    """The result of `populate` so far."""

    table: str
    suppress: bool
    as_objects: bool
    made: int = 0
    errors: list[tuple[Key, str | BaseException]] = field(
        default_factory=list[tuple[Key, str | BaseException]]
    )

    empty: list[Key] = field(default_factory=list[Key])

    @property
    def calls(self) -> int:
        return self.made + len(self.errors)

    def add(self, outcome: KeyOutcome) -> None:
        self.made += outcome.status == "made"
        if outcome.is_empty:
            self.empty.append(outcome.key)
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
