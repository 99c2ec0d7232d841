"""The run launcher: Dagster's own for Celery, which knows steps' tags and sees lost workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self
from uuid import uuid4

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from dj_dagster.celery._dagster import (
    DAGSTER_CELERY_TASK_ID_TAG,
    TASK_RESUME_JOB_NAME,
    Celery,
    CheckRunHealthResult,
    ConfigurableClassData,
    DagstersLauncher,
    ResumeRunArgs,
    ResumeRunContext,
    UserConfigSchema,
    WorkerStatus,
    create_resume_job_task,
    pack_value,
    unreachable,
)
from dj_dagster.celery.destination import GREATEST, Destination, DestinationError, destination
from dj_dagster.celery.health import SENT, Health
from dj_dagster.celery.settings import check_settings, completed, config_type
from dj_dagster.celery.watch import Watch, task_of
from dj_dagster.launcher_tags import step_tags

WORKER = "DJ_CELERY_WORKER"
"""Environment variable of workers and of all that they start."""


class CeleryRunLauncher(DagstersLauncher):
    """The launcher that gives each run to a worker of Celery, named in `dagster.yaml`.

    It is Dagster's own, and sends a run to the queue that the tags of its steps name, finds runs
    whose worker is gone, and ends cancelled runs in order. It works for any Dagster project.
    `docs/celery.md` has the settings and says what to check.

    Examples
    --------
    ::

        run_launcher:
          module: dj_dagster.celery
          class: CeleryRunLauncher
          config: {broker: "redis://redis:6379/0", backend: "redis://redis:6379/1"}
        run_monitoring: {enabled: true, start_timeout_seconds: 86400, max_resume_run_attempts: 3}
    """

    def __init__(
        self,
        broker: str,
        backend: str,
        default_queue: str,
        lost_after: int,
        config_source: Mapping[str, Any] | None = None,
        include: list[str] | None = None,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(
            default_queue=default_queue,
            broker=broker,
            backend=backend,
            include=include,
            config_source=completed(config_source or {}),
            inst_data=inst_data,
        )
        self._lost_after = lost_after
        self._health = Health(self.celery, lost_after)
        self._watch: Watch | None = None

    def register_instance(self, instance: DagsterInstance) -> None:
        """Work for an instance, and begin to watch over its runs that have not begun."""
        super().register_instance(instance)
        if WORKER not in os.environ:
            self._watch = Watch(instance, Health(self.celery, self._lost_after))
            self._watch.start()

    def dispose(self) -> None:
        """End the watch."""
        if self._watch is not None:
            self._watch.stop()

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return the schema of the settings."""
        return config_type()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Return a launcher with the settings that Dagster has read.

        Raises
        ------
        DagsterInvalidConfigError
            If a setting has a value with which runs could not be sent or watched.
        """
        check_settings(config_value)
        return cls(inst_data=inst_data, **config_value)

    def resume_run(self, context: ResumeRunContext) -> None:
        """Give a run to another worker; its old one, if it lives after all, leaves it."""
        run = self._newest(context.dagster_run)
        if before := task_of(run):
            with suppress(*unreachable(self.celery)):
                self._revoke(before, "SIGKILL")
        if run.job_code_origin is None:
            self._instance.report_run_failed(run, "The run does not say where its code is.")
            return
        args = ResumeRunArgs(
            job_origin=run.job_code_origin,
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
            set_exit_code_on_failure=True,
        )
        # Dagster's own sends this by a name that the task does not know.
        task = create_resume_job_task(self.celery).si(pack_value(args))
        self._launch_celery_task_run(run, task, TASK_RESUME_JOB_NAME)

    def _launch_celery_task_run(
        self, run: DagsterRun, task_signature: Any, routing_key: str
    ) -> None:
        """Send a run to its queue. A run that can't be sent has failed, with the broker's words."""
        if not self._instance.run_monitoring_enabled:
            self._instance.report_run_failed(
                run,
                "A worker that is lost is only seen with run monitoring. Write run_monitoring: "
                "{enabled: true, max_resume_run_attempts: 3} into dagster.yaml.",
            )
            return
        try:
            place = destination(self.default_queue, step_tags(self._instance, run), run.tags)
            self._send(run, task_signature, routing_key, place)
        except (DestinationError, *unreachable(self.celery)) as error:
            self._instance.report_run_failed(run, f"The run was not sent to Celery. {error}")

    def _send(self, run: DagsterRun, task: Any, routing_key: str, place: Destination) -> None:
        number = f"{run.run_id}-{uuid4().hex[:8]}"
        # All is written before a worker may take the task, for it writes too.
        self.celery.backend.store_result(number, None, SENT)
        self._instance.add_run_tags(run.run_id, {DAGSTER_CELERY_TASK_ID_TAG: number})
        task.apply_async(
            task_id=number,
            queue=place.queue,
            routing_key=f"{place.queue}.{routing_key}",
            priority=_spelled(self.celery, place.priority),
        )
        self._instance.report_engine_event(
            f"Sent to queue {place.queue} of Celery as task {number}, with priority "
            f"{place.priority}.",
            run,
        )

    def terminate(self, run_id: str) -> bool:
        """Cancel a run; return whether it had not ended.

        A run that has begun ends itself, in order, once its worker has the message.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        # The run's process asks whether its end was wished.
        if run.status != DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        if task := task_of(run):
            self._revoke(task, "SIGTERM")
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return what Celery and the worker say of a run that has begun."""
        task = task_of(self._newest(run))
        if not task:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "The run has no task in Celery.")
        verdict = self._health.judge(task)
        # What a worker writes last it writes before it ends the task.
        if self._newest(run).is_finished:
            return CheckRunHealthResult(WorkerStatus.SUCCESS, "The run has ended.")
        status = WorkerStatus.RUNNING if verdict.is_alive else WorkerStatus.FAILED
        return CheckRunHealthResult(status, verdict.message)

    def get_run_worker_debug_info(
        self, run: DagsterRun, include_container_logs: bool | None = True
    ) -> str | None:
        """Return what Celery says of a run that does not begin, or has gone wrong."""
        del include_container_logs
        run = self._newest(run)
        task = task_of(run)
        if not task:
            return None
        place = destination(self.default_queue, step_tags(self._instance, run), run.tags)
        return self._health.words(task, place.queue)

    def _revoke(self, task: str, signal: str) -> None:
        self.celery.control.revoke(task, terminate=True, signal=signal)

    def _newest(self, run: DagsterRun) -> DagsterRun:
        """Return a run as it is now: the daemon's may be older than its tags."""
        return self._instance.get_run_by_id(run.run_id) or run


def _spelled(app: Celery, priority: int) -> int:
    """Return a priority as the broker wants it: the first is 0 in Redis, and 9 elsewhere."""
    redis = app.connection_for_write().transport.driver_type == "redis"
    return GREATEST - priority if redis else priority
