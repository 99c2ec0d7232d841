"""The health of a run's task, by Celery's records and by the worker that has it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dj_dagster.celery._dagster import Celery, unreachable

SENT = "SENT"
"""The state of a task until a worker takes it. Celery has none, nor one for tasks it has lost."""

_WAITS = {SENT, "RECEIVED", "RETRY"}

_ANSWER_SECONDS = 2.0
"""Seconds that a worker is given to answer. Its main process does, which never works itself."""


@dataclass(frozen=True)
class Verdict:
    """Whether a task waits or works, and Celery's words on it."""

    is_alive: bool
    message: str


@dataclass
class Health:
    """Looks at tasks, and remembers which workers have not answered since when.

    Parameters
    ----------
    lost_after
        Seconds without an answer after which a worker is taken to be gone.
    """

    app: Celery
    lost_after: float
    _silent: dict[str, float] = field(default_factory=dict[str, float])

    def judge(self, task: str) -> Verdict:
        """Return what became of a task whose run has not ended.

        A worker that was killed leaves its task's record as it was: started. While broker or
        records cannot be reached the task counts as alive, for workers go on without them.
        """
        try:
            return self._judge(task)
        except unreachable(self.app) as error:
            self._silent.pop(task, None)
            return Verdict(True, f"Celery's broker or its records can't be reached: {error}")

    def words(self, task: str, queue: str) -> str:
        """Return what is to be said of a task that does not begin, or has gone wrong."""
        told = self.judge(task).message
        if _record(self.app, task)["status"] not in _WAITS:
            return told
        answers = self._ask().active_queues() or {}
        takers = sorted(
            worker for worker, has in answers.items() if queue in {each["name"] for each in has}
        )
        if takers:
            return f"{told} These workers take runs from queue {queue}: {', '.join(takers)}."
        return f"{told} Not a single worker that answers takes runs from queue {queue}."

    def _judge(self, task: str) -> Verdict:
        record = _record(self.app, task)
        if record["status"] != "STARTED":
            self._silent.pop(task, None)
            return _settled(task, record)
        worker = record["result"]["hostname"]
        answers = self._ask(worker).query_task(task)
        if answers is None or worker not in answers:
            return self._unheard(task, worker)
        self._silent.pop(task, None)
        if task in answers[worker]:
            return Verdict(True, f"Worker {worker} has task {task}.")
        # The record of a task is written before the worker lets go of it.
        record = _record(self.app, task)
        if record["status"] != "STARTED":
            return _settled(task, record)
        return Verdict(False, f"Worker {worker} was restarted, and does not have task {task}.")

    def _unheard(self, task: str, worker: str) -> Verdict:
        since = self._silent.setdefault(task, time.monotonic())
        silence = time.monotonic() - since
        if silence < self.lost_after:
            return Verdict(True, f"Worker {worker} of task {task} has not answered.")
        del self._silent[task]
        return Verdict(
            False, f"Worker {worker} of task {task} has not answered for {silence:.0f} seconds."
        )

    def _ask(self, worker: str | None = None) -> Any:
        to = None if worker is None else [worker]
        # With a limit it does not wait for others.
        return self.app.control.inspect(to, timeout=_ANSWER_SECONDS, limit=1 if to else None)


def _settled(task: str, record: Mapping[str, Any]) -> Verdict:
    state = record["status"]
    if state in _WAITS:
        return Verdict(True, f"Task {task} waits for a worker.")
    if state == "PENDING":
        return Verdict(False, f"Celery has no record of task {task}: its records were lost.")
    failed = isinstance(record["result"], BaseException)
    words = f": {record['result']}" if failed else "."
    return Verdict(False, f"Task {task} has ended ({state}), and its run has not{words}")


def _record(app: Celery, task: str) -> Mapping[str, Any]:
    return app.backend.get_task_meta(task, cache=False)
