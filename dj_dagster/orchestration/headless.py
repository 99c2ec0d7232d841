"""Running a code location without daemon and UI: in scripts, in CI, and in `dj-dagster demo`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRun,
    Definitions,
    JobDefinition,
    RunRequest,
    SensorResult,
    build_sensor_context,
)
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.tags import RUN_KEY_TAG

from dj_dagster.errors import PopulateError
from dj_dagster.orchestration.sensor import SENSOR_NAME

MAX_TICKS = 100

# The event log has everything; the terminal is for what went wrong.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_until_idle(
    defs: Definitions, *, instance: DagsterInstance, max_ticks: int = MAX_TICKS
) -> Iterator[DagsterRun]:
    """Tick the populate sensor and run what it asks for, in this process, until it asks no more.

    Parameters
    ----------
    defs
        What `build_definitions` returned.
    max_ticks
        How often the sensor is asked, at most.

    Yields
    ------
    dagster.DagsterRun
        Each run after it has ended, failed ones too.

    Raises
    ------
    PopulateError
        If the sensor still asks for runs after `max_ticks`.
    """
    for _ in range(max_ticks):
        requests = tick(defs, instance=instance)
        if not requests:
            return
        for request in requests:
            yield run_assets(
                defs,
                request.asset_selection or (),
                instance=instance,
                run_config=request.run_config,
                tags={**request.tags, RUN_KEY_TAG: request.run_key or ""},
            )
    raise PopulateError(f"The sensor still asks for runs after {max_ticks} ticks.")


def tick(defs: Definitions, *, instance: DagsterInstance) -> list[RunRequest]:
    """Evaluate the populate sensor once and return the runs that it asks for."""
    repository = defs.get_repository_def()
    with build_sensor_context(instance=instance, repository_def=repository) as context:
        result = repository.get_sensor_def(SENSOR_NAME)(context)
    return list(result.run_requests or ()) if isinstance(result, SensorResult) else []


def run_assets(
    defs: Definitions,
    assets: Collection[AssetKey],
    *,
    instance: DagsterInstance,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> DagsterRun:
    """Materialise assets in one run in this process, and return it when it has ended."""
    selected = frozenset(assets)
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=selected)
    return _run(job, instance, run_config, tags, selected)


def run_job(
    defs: Definitions,
    job: str,
    *,
    instance: DagsterInstance,
    run_config: Mapping[str, Any] | None = None,
) -> DagsterRun:
    """Run one job of a code location in this process, and return the run when it has ended."""
    return _run(defs.resolve_job_def(job), instance, run_config)


def _run(
    job: JobDefinition,
    instance: DagsterInstance,
    run_config: Mapping[str, Any] | None,
    tags: Mapping[str, str] | None = None,
    assets: frozenset[AssetKey] | None = None,
) -> DagsterRun:
    # Not execute_in_process, which would put Dagster's own executor in the place of ours.
    run = instance.create_run_for_job(
        job, run_config={**_QUIET, **(run_config or {})}, tags=tags or {}, asset_selection=assets
    )
    execute_run(InMemoryJob(job), run, instance)
    ended = instance.get_run_by_id(run.run_id)
    return ended if ended is not None else run
