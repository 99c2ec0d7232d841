"""The watch over runs whose jobs wait in Slurm's queue, which Dagster's monitoring leaves out.

Dagster asks a launcher about runs that have begun. Before it begins a job may wait for days, and be
cancelled or lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import threading
import time
import weakref
from collections.abc import Generator
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from dj_dagster.slurm._dagster import RESUME_RUN_LOG_MESSAGE
from dj_dagster.slurm.commands import Slurm, SlurmError
from dj_dagster.slurm.health import Fate, Verdict
from dj_dagster.slurm.jobs import RunJobs, attempt_of, job_name, job_of, run_of
from dj_dagster.slurm.resources import JOB_TAG
from dj_dagster.slurm.settings import Settings

_WATCHED = [DagsterRunStatus.STARTING, DagsterRunStatus.CANCELING]

_SUBMITTED_BY_NOW = 900
"""Seconds after which a submission that left nothing behind was interrupted."""

_logger = logging.getLogger(__name__)


class Watch(threading.Thread):
    """A thread that looks at the jobs of runs that have not begun, or are being cancelled.

    Each process that has the launcher has one. A lock in the shared folder lets one of them look.
    """

    def __init__(self, instance: DagsterInstance, slurm: Slurm, settings: Settings) -> None:
        super().__init__(name="slurm-watch", daemon=True)
        self._instance = weakref.ref(instance)
        self._slurm = slurm
        self._settings = settings
        self._seen: dict[str, float] = {}
        self._ended = threading.Event()

    def stop(self) -> None:
        """Let the thread end at its next breath."""
        self._ended.set()

    def run(self) -> None:
        """Look at the jobs every some seconds, until the process or the instance ends."""
        while not self._ended.wait(self._settings.poll_seconds):
            instance = self._instance()
            if instance is None:
                return
            with _alone(self._settings.folder / "watch.lock") as alone:
                if alone:
                    self._look(RunJobs(instance, self._slurm, self._settings))
            del instance

    def _look(self, jobs: RunJobs) -> None:
        # The next look is soon; database or controller may be away.
        try:
            runs = jobs.instance.get_runs(RunsFilter(statuses=_WATCHED))
            drop_jobs_without_run(jobs)
        except SlurmError:
            return
        except Exception:
            _logger.exception("The runs that wait for Slurm could not be read.")
            return
        runs = [run for run in runs if attempt_of(run)]
        now = time.monotonic()
        self._seen = {run.run_id: self._seen.get(run.run_id, now) for run in runs}
        for run in runs:
            try:
                look_after(jobs, run, now - self._seen[run.run_id])
            except Exception:
                _logger.exception("Run %s could not be looked after.", run.run_id)


def drop_jobs_without_run(jobs: RunJobs) -> None:
    """Cancel waiting jobs whose run is over, such as one that was marked so in the UI.

    Dagster does not ask a launcher to cancel a run that has not begun.
    """
    runs = _waiting(jobs)
    if not runs:
        return
    found = jobs.instance.get_runs(RunsFilter(run_ids=list(set(runs.values()))))
    over = {run.run_id for run in found if run.is_finished}
    if over.isdisjoint(runs.values()):
        return
    # The first answer of Slurm may be some seconds old. A job that has begun since, and may have
    # ended its run, works to its end.
    for number, run_id in _waiting(jobs, now=True).items():
        if run_id in over:
            jobs.slurm.cancel(number)
            jobs.drop_orders(run_id)


def _waiting(jobs: RunJobs, *, now: bool = False) -> dict[str, str]:
    """Return the runs of jobs that have not begun, by the jobs' numbers."""
    found = [job for job in jobs.slurm.jobs(now=now).values() if not job.nodes and not job.ended]
    return {job.id: run_id for job in found if (run_id := run_of(job.name))}


def look_after(jobs: RunJobs, run: DagsterRun, waited: float) -> None:
    """Do what is to be done about a run that has not begun, or is being cancelled.

    Parameters
    ----------
    waited
        The seconds since it was first seen so. Times of runs are not used, for they are those of
        the machines that wrote them.
    """
    number = job_of(run) or _lost_number(jobs, run, waited)
    if not number:
        return
    verdict = jobs.judge(run, number)
    now = jobs.instance.get_run_by_id(run.run_id)
    if now is None or now.status != run.status or job_of(now) != job_of(run):
        return
    if run.status == DagsterRunStatus.CANCELING:
        if verdict.fate is not Fate.ALIVE:
            jobs.end_canceled(run, verdict.message)
        elif (job := jobs.slurm.job(number, now=True)) is not None and not job.nodes:
            # The first time may have been before there was a job. One that works is told once only,
            # for a second signal would interrupt its tidying up.
            jobs.slurm.cancel(number)
    elif verdict.fate is Fate.LOST:
        _again(jobs, run, verdict)
    elif verdict.fate is not Fate.ALIVE:
        jobs.settle(run, verdict)


def _again(jobs: RunJobs, run: DagsterRun, verdict: Verdict) -> None:
    """Submit a run again whose job was lost, as often as Dagster may resume a run."""
    instance = jobs.instance
    before = instance.count_resume_run_attempts(run.run_id)
    if before >= instance.run_monitoring_max_resume_run_attempts:
        instance.report_run_failed(run, verdict.message)
        return
    instance.report_engine_event(verdict.message, run)
    # Dagster counts these words.
    instance.report_engine_event(RESUME_RUN_LOG_MESSAGE, run)
    jobs.settle(run, verdict)
    jobs.submit(instance.get_run_by_id(run.run_id) or run)


def _lost_number(jobs: RunJobs, run: DagsterRun, waited: float) -> str | None:
    """Return the number of a job whose submitter died before it could record it."""
    number = jobs.slurm.number_of(job_name(run.run_id, attempt_of(run)))
    if number:
        jobs.instance.add_run_tags(run.run_id, {JOB_TAG: number})
    elif waited > _SUBMITTED_BY_NOW:
        jobs.instance.report_run_failed(run, "The submission to Slurm was interrupted.")
    return number


@contextlib.contextmanager
def _alone(lock: Path) -> Generator[bool]:
    """Tell whether no other process holds the lock, and hold it until the block ends."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError:
        _logger.exception("The folder of Slurm's jobs can't be written.")
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
