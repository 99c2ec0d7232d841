"""The run launcher: each run is a job of Slurm."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from dj_dagster.slurm._dagster import (
    CheckRunHealthResult,
    ConfigurableClass,
    ConfigurableClassData,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    UserConfigSchema,
    WorkerStatus,
)
from dj_dagster.slurm.commands import Slurm
from dj_dagster.slurm.health import Fate
from dj_dagster.slurm.jobs import RunJobs, job_of
from dj_dagster.slurm.resources import MARK
from dj_dagster.slurm.settings import Settings, config_type, read_settings
from dj_dagster.slurm.watch import Watch


class SlurmRunLauncher(RunLauncher[DagsterInstance], ConfigurableClass):
    """The launcher that makes each run a job of Slurm, named in `dagster.yaml`.

    It works for any Dagster project. `docs/slurm.md` has the settings and says what to check.

    Examples
    --------
    ::

        run_launcher:
          module: dj_dagster.slurm
          class: SlurmRunLauncher
          config:
            folder: /shared/dagster-jobs
            partition: work
            time: "4:00:00"
        run_monitoring:
          {enabled: true, start_timeout_seconds: 31536000, max_resume_run_attempts: 3}
    """

    def __init__(self, settings: Settings, inst_data: ConfigurableClassData | None = None) -> None:
        self._settings = settings
        self._inst_data = inst_data
        self._slurm = Slurm(retries=settings.retries)
        self._watch: Watch | None = None
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Where `dagster.yaml` names this class."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return the schema of the settings."""
        return config_type()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Return a launcher with the settings that Dagster has read."""
        return cls(read_settings(config_value), inst_data)

    def register_instance(self, instance: DagsterInstance) -> None:
        """Work for an instance, and begin to watch over its runs that wait."""
        super().register_instance(instance)
        # A job's own process watches nothing: it may be one of hundreds.
        if MARK not in os.environ:
            self._watch = Watch(instance, self._slurm, self._settings)
            self._watch.start()

    def dispose(self) -> None:
        """End the watch."""
        if self._watch is not None:
            self._watch.stop()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Submit a run as a job. A run that Slurm does not take has failed, with Slurm's words."""
        if not self._instance.run_monitoring_enabled:
            self._instance.report_run_failed(
                context.dagster_run,
                "The end of a Slurm job is only seen with run monitoring. Write run_monitoring: "
                "{enabled: true, start_timeout_seconds: 31536000} into dagster.yaml.",
            )
            return
        self._jobs.submit(context.dagster_run)

    @property
    def supports_resume_run(self) -> bool:
        """Whether a run may go on in another job: yes."""
        return True

    def resume_run(self, context: ResumeRunContext) -> None:
        """Submit another job that goes on with a run."""
        self._jobs.submit(context.dagster_run)

    def terminate(self, run_id: str) -> bool:
        """Cancel a run's job; return whether the run had not ended."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        number = job_of(run)
        if number:
            self._slurm.cancel(number)
        if run.status != DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        job = self._slurm.job(number, now=True) if number else None
        if job is not None and job.ended and not job.nodes:
            # One that has begun ends its run itself, in order.
            self._jobs.end_canceled(run, f"{job}. It had not begun.")
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether Slurm can be asked about a run: yes."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return what Slurm says of a run that has begun.

        A run that may go on counts as failed, which makes Dagster resume it or give it up. The end
        of any other is recorded here, with Slurm's reason.
        """
        run = self._newest(run)
        number = job_of(run)
        if not number:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "The run has no job in Slurm.")
        verdict = self._jobs.judge(run, number)
        # What a job writes last it writes before it ends in Slurm.
        run = self._newest(run)
        if run.is_finished:
            return CheckRunHealthResult(WorkerStatus.SUCCESS, "The run has ended.")
        if verdict.fate is Fate.ALIVE:
            return CheckRunHealthResult(WorkerStatus.RUNNING, verdict.message)
        self._jobs.settle(run, verdict)
        return CheckRunHealthResult(WorkerStatus.FAILED, verdict.message, run_worker_id=number)

    def get_run_worker_debug_info(
        self, run: DagsterRun, include_container_logs: bool | None = True
    ) -> str | None:
        """Return Slurm's words on a run's job and the end of the job's output."""
        del include_container_logs
        run = self._newest(run)
        number = job_of(run)
        return self._jobs.judge(run, number).message if number else None

    @property
    def _jobs(self) -> RunJobs:
        return RunJobs(self._instance, self._slurm, self._settings)

    def _newest(self, run: DagsterRun) -> DagsterRun:
        """Return a run as it is now: the daemon's may be older than the tags that we set."""
        return self._instance.get_run_by_id(run.run_id) or run
