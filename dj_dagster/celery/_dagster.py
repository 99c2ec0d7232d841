"""Names of dagster-celery, and unpublished ones of Dagster, imported only here.

The tests on a real Redis with two workers use each; `pyproject.toml` allows only the minor releases
that passed them.
"""

from __future__ import annotations

import dagster

try:
    from celery import Celery
    from celery.app.backends import by_url as backend_by_url
    from celery.backends.base import DisabledBackend
    from celery.backends.rpc import RPCBackend
    from celery.exceptions import BackendError, ImproperlyConfigured
    from celery.signals import worker_process_init
    from dagster._config import UserConfigSchema
    from dagster._core.launcher import CheckRunHealthResult, ResumeRunContext, WorkerStatus
    from dagster._grpc.types import ResumeRunArgs
    from dagster._serdes import ConfigurableClassData, pack_value
    from dagster_celery.config import TASK_RESUME_JOB_NAME
    from dagster_celery.launcher import CeleryRunLauncher as DagstersLauncher
    from dagster_celery.tags import (
        DAGSTER_CELERY_QUEUE_TAG,
        DAGSTER_CELERY_RUN_PRIORITY_TAG,
        DAGSTER_CELERY_STEP_PRIORITY_TAG,
        DAGSTER_CELERY_TASK_ID_TAG,
    )
    from dagster_celery.tasks import create_execute_job_task, create_resume_job_task
    from kombu.connection import Connection as BrokerConnection
    from kombu.exceptions import OperationalError
except ImportError as error:
    raise ImportError(
        f"The launcher for Celery needs dagster-celery for Dagster {dagster.__version__}: {error}. "
        "Install 'dj-dagster[celery]'."
    ) from error

__all__ = [
    "DAGSTER_CELERY_QUEUE_TAG",
    "DAGSTER_CELERY_RUN_PRIORITY_TAG",
    "DAGSTER_CELERY_STEP_PRIORITY_TAG",
    "DAGSTER_CELERY_TASK_ID_TAG",
    "TASK_RESUME_JOB_NAME",
    "BrokerConnection",
    "Celery",
    "CheckRunHealthResult",
    "ConfigurableClassData",
    "DagstersLauncher",
    "DisabledBackend",
    "ImproperlyConfigured",
    "RPCBackend",
    "ResumeRunArgs",
    "ResumeRunContext",
    "UserConfigSchema",
    "WorkerStatus",
    "backend_by_url",
    "create_execute_job_task",
    "create_resume_job_task",
    "pack_value",
    "unreachable",
    "worker_process_init",
]


def unreachable(app: Celery) -> tuple[type[Exception], ...]:
    """Return the errors of an app whose broker or records can't be reached."""
    return (OperationalError, BackendError, *getattr(app.backend, "connection_errors", ()))
