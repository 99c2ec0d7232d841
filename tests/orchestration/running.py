"""Executing runs as the daemon would: from a request to a finished run, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.dagster_run import DagsterRun

from dj_dagster.orchestration import headless
from dj_dagster.orchestration.headless import run_assets, run_until_idle
from tests.services.process import eventually


def key_of(name: str) -> dg.AssetKey:
    return dg.AssetKey(name.split("/"))


def create_run(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    selection: Iterable[dg.AssetKey],
    *,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    checks: Iterable[dg.AssetCheckKey] = (),
) -> DagsterRun:
    job = defs.resolve_implicit_global_asset_job_def()
    selected, chosen = frozenset(selection), frozenset(checks)
    return headless.create_run(
        job.get_subset(asset_selection=selected, asset_check_selection=chosen),
        instance,
        run_config,
        tags,
        selected,
        chosen,
    )


def execute(defs: dg.Definitions, instance: dg.DagsterInstance, run: DagsterRun) -> bool:
    """Execute a created run with the definitions' own executor; returns whether it succeeded."""
    job = defs.resolve_implicit_global_asset_job_def()
    subset = job.get_subset(
        asset_selection=run.asset_selection, asset_check_selection=run.asset_check_selection
    )
    return execute_run(InMemoryJob(subset), run, instance).success


def repeated(defs: dg.Definitions, instance: dg.DagsterInstance, run: DagsterRun) -> DagsterRun:
    """Create the run that runs all steps of a run again, as "re-execute" does."""
    job = defs.resolve_implicit_global_asset_job_def()
    return instance.create_run_for_job(
        job.get_subset(asset_selection=run.asset_selection),
        run_config=run.run_config,
        tags=run.tags,
        root_run_id=run.run_id,
        parent_run_id=run.run_id,
        asset_selection=run.asset_selection,
    )


def reexecute(defs: dg.Definitions, instance: dg.DagsterInstance, run: DagsterRun) -> bool:
    """Run all steps of a run again; returns whether that succeeded."""
    return execute(defs, instance, repeated(defs, instance, run))


def submit(
    defs: dg.Definitions, instance: dg.DagsterInstance, request: dg.RunRequest
) -> DagsterRun:
    """Create the run of a sensor's request; a run key that was used before gives the old run."""
    tags = {**request.tags, "dagster/run_key": request.run_key or ""}
    old = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": tags["dagster/run_key"]}))
    if old:
        return old[0]
    selection = request.asset_selection or ()
    checks = request.asset_check_keys or ()
    return create_run(
        defs, instance, selection, run_config=request.run_config, tags=tags, checks=checks
    )


def begin(instance: dg.DagsterInstance, run: DagsterRun) -> None:
    """Have a run begin, without executing it."""
    _report(instance, run, dg.DagsterEventType.RUN_START)


def launch(instance: dg.DagsterInstance, run: DagsterRun) -> None:
    """Have a run wait to begin, as in the queue of an engine."""
    _report(instance, run, dg.DagsterEventType.RUN_STARTING)


def _report(instance: dg.DagsterInstance, run: DagsterRun, kind: dg.DagsterEventType) -> None:
    event = dg.DagsterEvent(kind.value, run.job_name, message=kind.value)
    instance.report_dagster_event(event, run_id=run.run_id)


def start_and_die(instance: dg.DagsterInstance, run: DagsterRun) -> None:
    """Have a run end as after an `os._exit`: begun, and nobody has said anything."""
    begin(instance, run)
    instance.report_run_failed(run)


def tick(defs: dg.Definitions, instance: dg.DagsterInstance) -> dg.SensorResult:
    """Evaluate the populate sensor once, as it is written."""
    repository = defs.get_repository_def()
    context = dg.build_sensor_context(instance, repository_def=repository)
    return defs.resolve_sensor_def("populate_sensor")(context)  # type: ignore[return-value]


def requested(result: dg.SensorResult) -> list[dg.RunRequest]:
    return list(result.run_requests or [])


def run_until_quiet(
    defs: dg.Definitions, instance: dg.DagsterInstance, *, ticks: int = 6
) -> list[bool]:
    """Tick and execute what is asked for until nothing is; returns the runs' successes."""
    return [run.is_success for run in run_until_idle(defs, instance=instance, max_ticks=ticks)]


def run_until(
    defs: dg.Definitions, instance: dg.DagsterInstance, condition: Callable[[], bool]
) -> None:
    """Tick, and execute what is asked for, until a condition holds.

    Raises
    ------
    TimeoutError
        If it does not come to hold.
    """

    def holds() -> bool:
        if not condition():
            run_until_quiet(defs, instance)
        return condition()

    eventually(holds, every=0.1)


def materialize(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    *names: str,
    partition: str | None = None,
    through: str | None = None,
) -> bool:
    """Launch assets as the UI does, for one partition or for a range of them."""
    tags = {}
    if partition and through:
        tags["dagster/asset_partition_range_start"] = partition
        tags["dagster/asset_partition_range_end"] = through
    elif partition:
        tags["dagster/partition"] = partition
    assets = [key_of(name) for name in names]
    return run_assets(defs, assets, instance=instance, checks=(), tags=tags).is_success


def statuses(defs: dg.Definitions, instance: dg.DagsterInstance, name: str) -> dict[str, set[str]]:
    """Return ``{status: partitions}`` of an asset, as the UI shows them; "MISSING" for none."""
    key = key_of(name)
    specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
    partitions_def = specs[key].partitions_def
    assert isinstance(partitions_def, dg.DynamicPartitionsDefinition)
    keys = partitions_def.get_partition_keys(dynamic_partitions_store=instance)
    found = instance.get_status_by_partition(key, keys, partitions_def) or {}
    result: dict[str, set[str]] = {}
    for partition in keys:
        status = found.get(partition)
        result.setdefault(status.value if status else "MISSING", set()).add(partition)
    return result
