"""The app of workers, with the settings that `dagster.yaml` gives the launcher.

A worker is started as ``celery -A dj_dagster.celery worker -Q dagster``, with DAGSTER_HOME set.
"""

from __future__ import annotations

import functools
import os
from multiprocessing import process
from typing import Any

from dagster import DagsterInstance, DagsterInvariantViolationError

from dj_dagster.celery._dagster import (
    Celery,
    create_execute_job_task,
    create_resume_job_task,
    worker_process_init,
)
from dj_dagster.celery.launcher import WORKER, CeleryRunLauncher


@functools.cache
def worker_app() -> Celery:
    """Return the app that executes and resumes runs.

    Raises
    ------
    DagsterInvariantViolationError
        If DAGSTER_HOME is not set, or its `dagster.yaml` names another launcher.
    """
    os.environ[WORKER] = "1"
    with DagsterInstance.get() as instance:
        launcher = instance.run_launcher
    if not isinstance(launcher, CeleryRunLauncher):
        raise DagsterInvariantViolationError(
            f"The run launcher of {instance.root_directory}/dagster.yaml is "
            f"{type(launcher).__name__}. Write run_launcher: {{module: dj_dagster.celery, "
            "class: CeleryRunLauncher, …}, or set DAGSTER_HOME to another folder."
        )
    create_execute_job_task(launcher.celery)
    create_resume_job_task(launcher.celery)
    worker_process_init.connect(_allow_children)
    return launcher.celery


def _allow_children(**_: Any) -> None:
    """Let a worker's processes have processes of their own, as Dagster's executors do.

    Celery has told multiprocessing that this is a daemon, which may not have any, and has given it
    a key of its own kind, which cannot be handed to a process that is spawned.
    """
    processes: Any = process
    here = processes.current_process()
    here.daemon = False
    here._config["authkey"] = processes.AuthenticationString(here.authkey)
