"""What became of the runs of a batch, and whether there is to be another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter

BATCH_TAG = "dj_dagster/batch"
FAILED_TAG = "dj_dagster/failed"

PAUSE = 15.0
"""Seconds after a run that could not start until the next, doubled after each more."""

LONGEST_PAUSE = 600.0


class Refusal(Enum):
    """Why there is no further run of a batch: not any more, or not yet."""

    EXHAUSTED = auto()
    LATER = auto()


@dataclass(frozen=True)
class Attempts:
    """The runs that there were of one batch, the newest first."""

    records: Sequence[RunRecord]

    @classmethod
    def read(cls, instance: DagsterInstance, digest: str) -> Attempts:
        """Read the runs of a batch."""
        return cls(instance.get_run_records(RunsFilter(tags={BATCH_TAG: digest})))

    @property
    def next_number(self) -> int:
        """The number of the next run."""
        return len(self.records) + 1

    @property
    def has_died(self) -> bool:
        """Whether a run has ended in the middle, without having said why."""
        return any(r.dagster_run.status is DagsterRunStatus.FAILURE for r in self._silent)

    def refusal(self, limit: int) -> Refusal | None:
        """Return why there is to be no run now, None if there is.

        Parameters
        ----------
        limit
            How many runs may leave the keys pending without a word. Those that could not even
            start say nothing of the keys: they are repeated for ever, ever less often.
        """
        if any(not record.dagster_run.is_finished for record in self.records):
            return Refusal.LATER
        if len(self._silent) >= limit:
            return Refusal.EXHAUSTED
        return None if time.time() >= self._due else Refusal.LATER

    @property
    def _silent(self) -> list[RunRecord]:
        # A run that told of failed keys has done its work; their next attempt is no repetition.
        told = (record for record in self.records if FAILED_TAG not in record.dagster_run.tags)
        return [record for record in told if not _could_not_start(record)]

    @property
    def _due(self) -> float:
        ended = [record.end_time or 0.0 for record in self.records if _could_not_start(record)]
        return max(ended) + pause_after(len(ended)) if ended else 0.0


def pause_after(failures: int) -> float:
    """Return the seconds to wait after so many runs that could not start."""
    return min(LONGEST_PAUSE, PAUSE * 2 ** min(failures - 1, 20))


def _could_not_start(record: RunRecord) -> bool:
    failed = record.dagster_run.status is DagsterRunStatus.FAILURE
    return failed and record.start_time is None
