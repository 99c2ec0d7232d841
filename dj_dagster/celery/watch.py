"""The watch over runs that were sent and have not begun, which Dagster's monitoring leaves out."""

from __future__ import annotations

import logging
import threading
import weakref

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from dj_dagster.celery._dagster import DAGSTER_CELERY_TASK_ID_TAG
from dj_dagster.celery.health import Health

_logger = logging.getLogger(__name__)


class Watch(threading.Thread):
    """A thread that fails runs whose worker was lost before they had begun.

    Each process that has the launcher has one, except workers. Dagster asks a launcher only about
    runs that have begun, and would let the others wait for the whole `start_timeout_seconds`.
    """

    def __init__(self, instance: DagsterInstance, health: Health) -> None:
        super().__init__(name="celery-watch", daemon=True)
        self._instance = weakref.ref(instance)
        self._health = health
        self._ended = threading.Event()
        self._pause = instance.run_monitoring_poll_interval_seconds

    def stop(self) -> None:
        """Let the thread end at its next breath."""
        self._ended.set()

    def run(self) -> None:
        """Look at the runs every some seconds, until the process or the instance ends."""
        while not self._ended.wait(self._pause):
            instance = self._instance()
            if instance is None:
                return
            try:
                self._look(instance)
            except Exception:
                # The next look is soon; the database may be away.
                _logger.exception("The runs that wait for Celery could not be looked after.")
            del instance

    def _look(self, instance: DagsterInstance) -> None:
        for run in instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTING])):
            task = task_of(run)
            if not task or (verdict := self._health.judge(task)).is_alive:
                continue
            # It may have begun, or ended, since it was read.
            now = instance.get_run_by_id(run.run_id)
            if now is not None and now.status == run.status and task_of(now) == task:
                instance.report_run_failed(now, f"{verdict.message} It had not begun.")


def task_of(run: DagsterRun) -> str:
    """Return the task of a run, empty if it has none.

    A run that is executed again begins with all tags of the run that it repeats: only tasks that
    are named after the run count.
    """
    task = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG, "")
    return task if task.startswith(run.run_id) else ""
