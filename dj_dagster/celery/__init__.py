"""Runs of any Dagster project in Celery's workers; tables are not needed."""

from __future__ import annotations

from typing import Any

from dj_dagster.celery.launcher import CeleryRunLauncher
from dj_dagster.celery.worker import worker_app

__all__ = ["CeleryRunLauncher"]


def __getattr__(name: str) -> Any:
    """Return the app of workers, for which ``celery -A dj_dagster.celery`` asks."""
    if name == "app":
        return worker_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
