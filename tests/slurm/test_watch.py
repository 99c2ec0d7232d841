"""The watch cancels jobs that wait for a run that is over, and not a single one that has begun."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from dj_dagster.slurm.commands import Job, Slurm
from dj_dagster.slurm.jobs import RunJobs, job_name
from dj_dagster.slurm.settings import Settings
from dj_dagster.slurm.watch import drop_jobs_without_run


class Queue(Slurm):
    """A Slurm that knows one job, which waits in its last answer and perhaps not any more."""

    def __init__(self, name: str, nodes_now: str) -> None:
        super().__init__()
        self._name, self._nodes_now = name, nodes_now
        self.cancelled: list[str] = []

    def jobs(self, *, now: bool = False) -> Mapping[str, Job]:
        nodes = self._nodes_now if now else ""
        state = "RUNNING" if nodes else "PENDING"
        return {"7": Job("7", state, self._name, nodes, "1:00:00", "500M", "None")}

    def cancel(self, number: str) -> None:
        self.cancelled.append(number)


@dg.job
def nothing() -> None:
    """A job without steps."""


@pytest.mark.parametrize(("nodes_now", "cancelled"), [("", ["7"]), ("node1", [])])
def test_a_job_of_a_run_that_is_over_is_cancelled_while_it_waits(
    tmp_path: Path, nodes_now: str, cancelled: list[str]
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = nothing.execute_in_process(instance=instance).run_id
        order = tmp_path / run / "1.json"
        order.parent.mkdir()
        order.touch()
        queue = Queue(job_name(run, 1), nodes_now)
        drop_jobs_without_run(RunJobs(instance, queue, Settings(tmp_path, {})))
    assert queue.cancelled == cancelled
    # It may hold passwords.
    assert order.exists() == (not cancelled)
