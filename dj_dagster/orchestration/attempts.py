"""What became of the runs of a batch, and whether there is to be another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from itertools import takewhile

from dagster import (
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    RunRecord,
    RunsFilter,
)
from dagster._core.storage.tags import RUN_KEY_TAG

BATCH_TAG = "dj_dagster/batch"
FAILED_TAG = "dj_dagster/failed"
"""How many keys have failed, of those that the run has told of."""

PAUSE = 15.0
"""Seconds after a run that could not start until the next, doubled after each more."""

LONGEST_PAUSE = 600.0


class Refusal(Enum):
    """Why there is no further run of a batch: not any more, or not yet."""

    EXHAUSTED = auto()
    LATER = auto()


@dataclass(frozen=True)
class Attempts:
    """The runs that there were of one batch, the newest first.

    A batch of which a run has made keys, and that is pending again, has lost its rows since: what
    was before that run counts no more.
    """

    records: Sequence[RunRecord]
    instance: DagsterInstance

    @classmethod
    def read(cls, instance: DagsterInstance, digest: str) -> Attempts:
        """Read the runs of a batch."""
        return cls(instance.get_run_records(RunsFilter(tags={BATCH_TAG: digest})), instance)

    @property
    def next_number(self) -> int:
        """The number of the next run, which none has had: old ones may have been deleted."""
        return max([len(self.records), *map(_number, self.records)]) + 1

    @property
    def has_died(self) -> bool:
        """Whether a run has ended in the middle, without having said why."""
        return any(r.dagster_run.status is DagsterRunStatus.FAILURE for r in self._silent)

    def refusal(self, limit: int) -> Refusal | None:
        """Return why there is to be no run now, None if there is.

        Parameters
        ----------
        limit
            How many runs in a row may make nothing of the keys and say nothing. Those that could
            not even start say nothing of the keys: they are repeated for ever, ever less often.
        """
        if any(not record.dagster_run.is_finished for record in self.records):
            return Refusal.LATER
        if len(self._silent) >= limit:
            return Refusal.EXHAUSTED
        return None if time.time() >= self._due else Refusal.LATER

    @cached_property
    def _silent(self) -> list[RunRecord]:
        """The runs since the last progress that have left the keys pending without a word."""
        # A run that told of failed keys has done its work; their next attempt is no repetition.
        silent = (record for record in self.records if not _has_told(record))
        began = (record for record in silent if not _could_not_start(record))
        return list(takewhile(lambda record: not self._has_made(record), began))

    def _has_made(self, record: RunRecord) -> bool:
        made = DagsterEventType.ASSET_MATERIALIZATION
        run_id = record.dagster_run.run_id
        return bool(self.instance.get_records_for_run(run_id, of_type=made, limit=1).records)

    @property
    def _due(self) -> float:
        ended = [r.end_time or 0.0 for r in takewhile(_could_not_start, self.records)]
        return max(ended) + pause_after(len(ended)) if ended else 0.0


def pause_after(failures: int) -> float:
    """Return the seconds to wait after so many runs that could not start."""
    return min(LONGEST_PAUSE, PAUSE * 2 ** min(failures - 1, 20))


def _number(record: RunRecord) -> int:
    """Return the number of a run of a batch, from its key."""
    number = record.dagster_run.tags.get(RUN_KEY_TAG, "").rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _has_told(record: RunRecord) -> bool:
    return record.dagster_run.tags.get(FAILED_TAG, "0") != "0"


def _could_not_start(record: RunRecord) -> bool:
    failed = record.dagster_run.status is DagsterRunStatus.FAILURE
    return failed and record.start_time is None
