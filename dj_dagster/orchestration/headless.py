"""Runs of a code location without daemon and UI: in scripts, in CI, and in `dj-dagster demo`."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping

from dagster import (
    AssetCheckKey,
    AssetKey,
    DagsterInstance,
    DagsterRun,
    Definitions,
    JobDefinition,
    RunRequest,
    SensorResult,
    build_sensor_context,
)

from dj_dagster.errors import PopulateError
from dj_dagster.orchestration._dagster import (
    RUN_KEY_TAG,
    InMemoryJob,
    create_execution_plan,
    execute_run,
    snapshot_from_execution_plan,
)
from dj_dagster.orchestration.merge import pipelines_of
from dj_dagster.orchestration.sensor.sensor import goes_on

MAX_TICKS = 100

BREATH = 0.05
"""Seconds between two ticks while the sensor looks at large tables."""

# The event log has all messages; the terminal shows only critical ones.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_until_idle(
    defs: Definitions, *, instance: DagsterInstance, max_ticks: int = MAX_TICKS
) -> Iterator[DagsterRun]:
    """Tick the populate sensors and execute the runs that they request, until none is requested.

    The runs are executed in this process.

    Parameters
    ----------
    defs
        The result of `build_definitions`.
    max_ticks
        The greatest number of ticks.

    Yields
    ------
    dagster.DagsterRun
        Each run after it has ended, failed ones too.

    Raises
    ------
    PopulateError
        If the sensors still request runs after `max_ticks`.
    """
    ticks = 0
    while ticks < max_ticks:
        results = _evaluate(defs, instance)
        requests = _requests(results)
        if not requests and not any(map(goes_on, results)):
            return
        if requests:
            ticks += 1
        else:
            time.sleep(BREATH)
        for request in requests:
            yield run_assets(
                defs,
                request.asset_selection or (),
                instance=instance,
                checks=request.asset_check_keys,
                run_config=request.run_config,
                tags={**request.tags, RUN_KEY_TAG: request.run_key or ""},
            )
    raise PopulateError(f"The sensor still asks for runs after {max_ticks} ticks.")


def tick(defs: Definitions, *, instance: DagsterInstance) -> list[RunRequest]:
    """Evaluate the populate sensors once and return the runs that they request."""
    return _requests(_evaluate(defs, instance))


def run_assets(
    defs: Definitions,
    assets: Collection[AssetKey],
    *,
    instance: DagsterInstance,
    checks: Collection[AssetCheckKey] | None = None,
    run_config: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
) -> DagsterRun:
    """Materialise assets in one run in this process, and return it when it has ended.

    Parameters
    ----------
    checks
        The checks to evaluate; None for all checks of the assets.
    """
    selected = frozenset(assets)
    chosen = None if checks is None else frozenset(checks)
    job = defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=selected, asset_check_selection=chosen
    )
    return _run(job, instance, run_config, tags, selected, chosen)


def run_job(
    defs: Definitions,
    job: str,
    *,
    instance: DagsterInstance,
    run_config: Mapping[str, object] | None = None,
) -> DagsterRun:
    """Run one job of a code location in this process, and return the run when it has ended."""
    return _run(defs.resolve_job_def(job), instance, run_config)


def create_run(
    job: JobDefinition,
    instance: DagsterInstance,
    run_config: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
    assets: frozenset[AssetKey] | None = None,
    checks: frozenset[AssetCheckKey] | None = None,
) -> DagsterRun:
    """Create a run of a job with the chosen assets and checks alone.

    Dagster's `create_run_for_job` would include all checks of the assets.
    """
    config = dict(run_config or {})
    plan = create_execution_plan(job, run_config=config, tags=tags)
    snapshot = job.get_job_snapshot()
    return instance.create_run(
        job_name=job.name,
        run_id=None,
        run_config=config,
        status=None,
        tags=tags or {},
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=plan.step_keys_to_execute,
        execution_plan_snapshot=snapshot_from_execution_plan(plan, job.get_job_snapshot_id()),
        job_snapshot=snapshot,
        parent_job_snapshot=job.get_parent_job_snapshot(),
        asset_selection=assets,
        asset_check_selection=checks,
        resolved_op_selection=None,
        op_selection=None,
        remote_job_origin=None,
        job_code_origin=None,
        asset_graph=job.asset_layer.asset_graph,
    )


def _run(
    job: JobDefinition,
    instance: DagsterInstance,
    run_config: Mapping[str, object] | None,
    tags: Mapping[str, str] | None = None,
    assets: frozenset[AssetKey] | None = None,
    checks: frozenset[AssetCheckKey] | None = None,
) -> DagsterRun:
    # `execute_in_process` would replace our executor by one of Dagster's.
    run = create_run(job, instance, {**_QUIET, **(run_config or {})}, tags, assets, checks)
    execute_run(InMemoryJob(job), run, instance)
    ended = instance.get_run_by_id(run.run_id)
    return ended if ended is not None else run


def _evaluate(defs: Definitions, instance: DagsterInstance) -> list[SensorResult]:
    """Evaluate the sensor of each pipeline; there is more than one in merged definitions."""
    repository = defs.get_repository_def()
    results: list[object] = []
    for sensor in pipelines_of(repository.sensor_defs).values():
        with build_sensor_context(instance=instance, repository_def=repository) as context:
            results.append(sensor(context))
    return [result for result in results if isinstance(result, SensorResult)]


def _requests(results: list[SensorResult]) -> list[RunRequest]:
    return [request for result in results for request in result.run_requests or ()]
