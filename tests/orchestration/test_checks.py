"""Checks of tables, and schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

import dj_dagster as dj
from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration import TableChecks, populate_schedule, sync
from dj_dagster.orchestration.headless import run_assets, run_job, run_until_idle
from tests.orchestration.lab import Lab, partition
from tests.orchestration.running import key_of, requested, run_until, run_until_quiet, tick


def evaluate(
    defs: dg.Definitions, instance: dg.DagsterInstance, asset: str, *names: str
) -> dict[str, tuple[bool, dict[str, Any]]]:
    keys = [dg.AssetCheckKey(key_of(asset), name) for name in names]
    run_assets(defs, [], instance=instance, checks=keys)
    found = {}
    for key in keys:
        (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        evaluation = record.event.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
        numbers = {name: value.value for name, value in evaluation.metadata.items()}
        found[key.name] = (evaluation.passed, numbers)
    return found


def test_a_table_is_complete_once_nothing_is_pending(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    any_lab.add_sessions(range(3))
    any_lab.broken = {2}
    defs = any_lab.definitions()
    name = any_lab.asset("raw_data")
    assert evaluate(defs, instance, name, "complete")["complete"] == (
        False,
        {"pending": 3, "failed": 0, "done": 0, "keys": 3},
    )
    any_lab.RawData.populate(reserve_jobs=True, suppress_errors=True)
    assert evaluate(defs, instance, name, "complete")["complete"] == (
        False,
        {"pending": 0, "failed": 1, "done": 2, "keys": 3},
    )
    any_lab.broken = set()
    any_lab.RawData.jobs.delete()
    any_lab.RawData.populate()
    passed, numbers = evaluate(defs, instance, name, "complete")["complete"]
    assert passed
    assert numbers["done"] == 3


def test_parts_are_counted_with_their_masters(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions(range(2))
    lab.RawData.populate()
    lab.Processed.populate()
    defs = lab.definitions()
    found = evaluate(defs, instance, "lab/processed", "parts")
    numbers = {"orphans": 0, "rows": 2, "rows_peak": 4, "without_peak": 0}
    assert found["parts"] == (True, numbers)
    with lab.schema.connection.cursor() as session:
        session.exec_driver_sql("PRAGMA foreign_keys = OFF")
        session.exec_driver_sql('DELETE FROM "lab.__processed" WHERE session_id = 0')
    passed, numbers = evaluate(defs, instance, "lab/processed", "parts")["parts"]
    assert not passed
    assert numbers["orphans"] == 2


def test_parts_may_have_names_of_their_master_for_something_else(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    @lab.schema
    class Sorting(dj.Manual):
        definition = """
        sorting : int32
        ---
        spikes : int32
        unit=0 : int32      # the best one
        """

        class Unit(dj.Part):
            definition = """
            -> master
            unit : int32
            ---
            spikes : int32
            """

    Sorting.insert([(1, 7, 1), (2, 0, 0)])
    Sorting.Unit.insert([(1, 1, 3), (1, 2, 4)])
    found = evaluate(lab.definitions(), instance, "lab/sorting", "parts")
    numbers = {"orphans": 0, "rows": 2, "rows_unit": 2, "without_unit": 1}
    assert found["parts"] == (True, numbers)


def test_a_table_is_fresh_while_its_last_row_is(lab: Lab, instance: dg.DagsterInstance) -> None:
    day = TableChecks(freshness={"lab.Session": timedelta(days=1)})
    defs = lab.definitions(checks=day)
    assert not evaluate(defs, instance, "lab/session", "fresh")["fresh"][0]
    lab.add_sessions([1])
    tick(defs, instance)
    passed, numbers = evaluate(defs, instance, "lab/session", "fresh")["fresh"]
    assert passed
    assert numbers["hours_allowed"] == 24
    assert 0 <= numbers["hours"] < 1
    strict = lab.definitions(checks=TableChecks(freshness={"lab.Session": timedelta(0)}))
    assert not evaluate(strict, instance, "lab/session", "fresh")["fresh"][0]


def test_rows_without_a_parent_are_counted(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    any_lab.add_sessions(range(3))
    any_lab.RawData.populate()
    defs, name = any_lab.definitions(), any_lab.asset("raw_data")
    assert evaluate(defs, instance, name, "parents")["parents"] == (
        True,
        {"orphans": 0, "rows": 3},
    )
    with any_lab.schema.connection.cursor() as session:
        mysql = any_lab.schema.connection.backend.name == "mysql"
        switch = "SET foreign_key_checks = {}" if mysql else "PRAGMA foreign_keys = {}"
        session.exec_driver_sql(switch.format(0))
        session.exec_driver_sql(
            f"UPDATE {any_lab.Session.full_table_name} SET session_id = 20 WHERE session_id = 2"
        )
        session.exec_driver_sql(switch.format(1))
    assert evaluate(defs, instance, name, "parents")["parents"] == (
        False,
        {"orphans": 1, "rows": 3},
    )


def test_a_blocking_check_holds_up_what_is_below(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions(range(2))
    lab.broken = {1}
    defs = lab.definitions(checks=TableChecks(blocking=["RawData"]))
    (request,) = requested(tick(defs, instance))
    assert request.asset_check_keys == [dg.AssetCheckKey(key_of("lab/raw_data"), "complete")]
    run = next(run_until_idle(defs, instance=instance))
    assert not run.is_success
    assert [table for table, _ in lab.calls] == ["RawData", "RawData"]


@pytest.mark.parametrize("apart", [True, False])
def test_a_blocking_check_of_the_users_does_so_too(
    lab: Lab, instance: dg.DagsterInstance, *, apart: bool
) -> None:
    specs = [
        dg.AssetCheckSpec("good", asset=key_of("lab/raw_data"), blocking=True),
        dg.AssetCheckSpec("told", asset=key_of("lab/raw_data")),
    ]

    @dg.multi_asset_check(specs=specs, can_subset=apart)
    def mine(context) -> Iterator[dg.AssetCheckResult]:
        for key in sorted(context.selected_asset_check_keys):
            yield dg.AssetCheckResult(passed=False, asset_key=key.asset_key, check_name=key.name)

    lab.add_sessions(range(2))
    lab.broken = {1}
    defs = lab.definitions(asset_checks=[mine])
    (request,) = requested(tick(defs, instance))
    assert request.asset_check_keys == [spec.key for spec in specs[: 1 if apart else 2]]
    assert not next(run_until_idle(defs, instance=instance)).is_success
    assert [table for table, _ in lab.calls] == ["RawData", "RawData"]
    # A check that was not reached does not keep the sensor from evaluating it.
    run_until_quiet(defs, instance)
    assert len(lab.Processed()) == 1


def test_only_tables_go_on_below_a_failure(lab: Lab, instance: dg.DagsterInstance) -> None:
    ran = []

    @dg.asset
    def up() -> None: ...

    @dg.asset_check(asset="up", blocking=True)
    def good() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False)

    @dg.multi_asset(specs=[dg.AssetSpec("first"), dg.AssetSpec("second")])
    def half() -> Iterator[dg.MaterializeResult[None]]:
        yield dg.MaterializeResult("first")
        raise ValueError

    def below(*keys: str) -> dg.AssetsDefinition:
        @dg.asset(name=f"below_{keys[0].split('/')[-1]}", deps=[key_of(key) for key in keys])
        def run() -> None:
            ran.append(keys[0])

        return run

    @dg.op(out={"x": dg.Out(is_required=False), "y": dg.Out(is_required=False)})
    def split() -> Iterator[dg.Output[int]]:
        yield dg.Output(1, "x")

    @dg.op
    def joined(values: list[int]) -> None:
        ran.append(f"joined {values}")

    @dg.job
    def fan_in() -> None:
        joined(list(split()))

    reports = [below(key) for key in ("up", "first", "lab/raw_data", "lab/session")]
    defs = lab.definitions(assets=[up, half, *reports], asset_checks=[good], jobs=[fan_in])
    lab.add_sessions(range(2))
    sync(defs, instance=instance)
    lab.broken = {1}
    keys = [key_of(f"lab/{name}") for name in ("raw_data", "processed")]
    config = {f"lab__{key.path[-1]}": {"config": {"keys": "all"}} for key in keys}
    chosen = [up.key, *half.keys, *(each.key for each in reports), *keys]
    run = run_assets(
        defs,
        chosen,
        instance=instance,
        run_config={"ops": config},
        tags={"dagster/partition": partition(0)},
    )
    assert not run.is_success
    assert ran == ["lab/session"]
    assert len(lab.Processed()) == 1
    assert run_job(defs, "fan_in", instance=instance).is_success
    assert ran[1:] == ["joined [1]"]


def test_runs_of_the_sensor_evaluate_no_other_checks(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions([0])
    (request,) = requested(tick(lab.definitions(), instance))
    assert request.asset_check_keys == []


def outdated_checks(defs: dg.Definitions, instance: dg.DagsterInstance) -> set[str]:
    """Return the evaluated checks that Dagster shows as not evaluated since the last mark."""
    keys = list(defs.resolve_asset_graph().asset_check_keys)
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)

    async def is_shown(record: AssetCheckExecutionRecord) -> bool:
        return await record.targets_latest_materialization(LoadingContextForTest(instance))

    return {
        key.to_user_string() for key, record in found.items() if not asyncio.run(is_shown(record))
    }


def recompute_by_job(lab: Lab, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    config = {"ops": {"populate_tables": {"config": {"on_existing": "recompute"}}}}
    assert run_job(defs, "populate", instance=instance, run_config=config).is_success


def recompute_single_keys(lab: Lab, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    for table in ("raw_data", "processed"):
        config = {"ops": {f"lab__{table}": {"config": {"on_existing": "recompute"}}}}
        assert run_assets(
            defs,
            [key_of(f"lab/{table}")],
            instance=instance,
            checks=(),
            run_config=config,
            tags={"dagster/partition": partition(1)},
        ).is_success


def recompute_elsewhere(lab: Lab, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    (lab.RawData & {"session_id": 1}).delete(prompt=False)
    lab.RawData.populate()
    lab.Processed.populate()


def mark_from_elsewhere(lab: Lab, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    for table in ("session", "raw_data", "processed", "processed/peak"):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(key_of(f"lab/{table}"), partition=partition(0))
        )


@pytest.mark.parametrize(
    "make_again",
    [recompute_by_job, recompute_single_keys, recompute_elsewhere, mark_from_elsewhere],
)
def test_checks_are_reported_again_after_new_marks_with_the_same_numbers(
    lab: Lab,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    make_again: Callable[[Lab, dg.Definitions, dg.DagsterInstance], None],
) -> None:
    # The sensor looks at its records in every tick.
    monkeypatch.setattr("dj_dagster.orchestration.sensor.upkeep.SHORTEST", 0.0)
    lab.add_sessions(range(3))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    run_until(defs, instance, lambda: not outdated_checks(defs, instance))
    make_again(lab, defs, instance)
    run_until_quiet(defs, instance)
    run_until(defs, instance, lambda: not outdated_checks(defs, instance))


def test_a_check_without_news_is_not_reported_again(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dj_dagster.orchestration.sensor.upkeep.SHORTEST", 0.0)
    lab.add_sessions(range(3))
    defs = lab.definitions()
    run_until(defs, instance, lambda: len(lab.Processed()) == 3)
    run_until(defs, instance, lambda: not outdated_checks(defs, instance))

    def reports() -> int:
        keys = list(defs.resolve_asset_graph().asset_check_keys)
        storage = instance.event_log_storage
        return sum(len(storage.get_asset_check_execution_history(key, limit=1000)) for key in keys)

    run_until_quiet(defs, instance)
    before = reports()
    for _ in range(5):
        tick(defs, instance)
    assert before == reports() > 0


def test_a_name_that_fits_nothing(lab: Lab) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'lab\.Sesion', which names no table; near it: lab\.Session"
    ):
        lab.definitions(checks=TableChecks(blocking=["lab.Sesion"]))


def test_checks_can_be_left_out(lab: Lab) -> None:
    defs = lab.definitions(
        checks=TableChecks(complete=False, current=False, parts=False, parents=False)
    )
    assert not defs.resolve_asset_graph().asset_check_keys


def test_a_schedule_makes_the_tables_that_it_names(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions(range(2))
    nightly = populate_schedule("0 3 * * *", tables=["RawData"], restriction={"session_id": 1})
    defs = lab.definitions(schedules=[nightly])
    schedule = defs.resolve_schedule_def("populate_rawdata")
    assert schedule.cron_schedule == "0 3 * * *"
    context = dg.build_schedule_context(instance)
    (request,) = schedule.evaluate_tick(context).run_requests or []
    job = defs.resolve_job_def(schedule.job_name)
    assert job.execute_in_process(request.run_config, instance=instance).success
    assert lab.calls == [("RawData", 1)]
