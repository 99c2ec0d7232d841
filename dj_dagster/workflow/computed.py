"""The computed tiers: tables whose rows come from `make`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.progress import Progress

from dj_dagster.model.names import Tier
from dj_dagster.workflow import populate as populating
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import Makes


class AutoPopulate(Makes):
    """A table that fills itself: subclass it as `Imported` or `Computed` and write `make`."""

    @property
    def jobs(self) -> JobQueue:
        """The table's job queue."""
        return JobQueue(self)

    def populate(
        self,
        *restrictions: Any,
        suppress_errors: bool = False,
        return_exception_objects: bool = False,
        reserve_jobs: bool = False,
        max_calls: int | None = None,
        display_progress: bool = False,
        make_kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Make the pending keys, each in a transaction of its own.

        Parameters
        ----------
        *restrictions
            Which keys; anything that may stand after ``&``, all must hold.
        suppress_errors
            Whether a failing key is noted and the others still made, instead of raising.
        return_exception_objects
            Whether `error_list` holds the exceptions instead of their text.
        reserve_jobs
            Whether keys are claimed in the job queue, so that several workers share them.
        max_calls
            At most so many keys.
        display_progress
            Whether a progress bar is shown.
        make_kwargs
            Passed to each `make`.

        Returns
        -------
        dict
            ``success_count``, and ``error_list`` of (key, error).

        Raises
        ------
        Exception
            What a `make` raised, unless `suppress_errors`.
        """
        keys = populating.pending_keys(
            self, *restrictions, limit=max_calls, ignore_jobs=not reserve_jobs
        )
        outcomes = populating.populate_keys(
            self, keys, reserve=reserve_jobs, make_kwargs=make_kwargs
        )
        made = 0
        errors: list[tuple[dict[str, Any], Any]] = []
        with Progress(disable=not display_progress) as bar:
            task = bar.add_task(self.class_name, total=len(keys))
            for outcome in outcomes:
                bar.advance(task)
                made += outcome.status == "made"
                if outcome.error is not None:
                    if not suppress_errors:
                        raise outcome.error
                    error = outcome.error
                    text = f"{type(error).__name__}: {error}"
                    errors.append((outcome.key, error if return_exception_objects else text))
        return {"success_count": made, "error_list": errors}

    def progress(self, *restrictions: Any, display: bool = False) -> tuple[int, int]:
        """Return how many keys remain to be made, and how many there are in all.

        Parameters
        ----------
        display
            Whether to print them as well.
        """
        remaining, total = populating.progress(self, *restrictions)
        if display:
            done = total - remaining
            share = 100 * done / total if total else 100
            print(f"{self.class_name}: {done} of {total} done ({share:.1f} %)")
        return remaining, total


class Imported(AutoPopulate):
    """A table whose `make` reads from outside the database, such as from raw files."""

    tier = Tier.IMPORTED


class Computed(AutoPopulate):
    """A table whose `make` computes from other tables alone."""

    tier = Tier.COMPUTED
