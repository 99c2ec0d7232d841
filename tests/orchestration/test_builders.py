"""Definitions put together from the builders work like those of `build_definitions`."""

from __future__ import annotations

import dagster as dg
import pytest

from dj_dagster import orchestration
from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration import (
    TableChecks,
    build_definitions,
    chain_executor,
    entry_jobs,
    populate_job,
    populate_schedule,
    populate_sensor,
    read_pipeline,
    recompute_job,
    sync,
    table_assets,
    table_checks,
    table_resources,
    table_schedules,
    trace_job,
)
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import (
    key_of,
    materialize,
    requested,
    run_until_quiet,
    statuses,
    tick,
)

PUBLIC = """
CompactedTable DatabaseResource Diagnosis FailedKey Grain Pipeline PipelineComponent PlannedTable
RetryPolicy SensorSettings TableChecks TableIOManager TableProps TableSettings TableStatus
TableTranslator Trace Work asset_key build_definitions chain_executor check_job check_schedule
compact_events decode_key diagnose diagnose_launcher encode_key entry_jobs failed_in_run
failed_keys figure_metadata folder_sensor garbage_job garbage_schedule new_pipeline plan
plan_deletion populate populate_job populate_schedule populate_sensor read_pipeline recompute
recompute_job recompute_schedule retry_failed status sync table_assets table_checks table_resources
table_schedules trace trace_job
"""
"""The names that users may rely on."""


def by_hand(lab: Lab) -> dg.Definitions:
    @dg.asset(key=["lab", "subject"], io_manager_key="table_io_manager")
    def subjects() -> list[dict[str, object]]:
        return [{"subject_id": 1, "sex": "F"}]

    @dg.asset(ins={"processed": dg.AssetIn(["lab", "processed"])})
    def report(processed: list[dict[str, object]]) -> None:
        assert len(processed) == 2

    pipeline = read_pipeline(lab.schema, assets=[subjects], exclude="tier:lookup")
    return dg.Definitions(
        assets=[*table_assets(pipeline), report],
        asset_checks=table_checks(pipeline),
        jobs=[
            *entry_jobs(pipeline),
            populate_job(pipeline),
            recompute_job(pipeline),
            trace_job(pipeline),
        ],
        schedules=table_schedules(pipeline, [populate_schedule("0 3 * * *", "lab.*")]),
        sensors=[populate_sensor(pipeline)],
        resources=table_resources(pipeline),
        executor=chain_executor(),
    )


def test_public_names() -> None:
    assert sorted(orchestration.__all__) == sorted(PUBLIC.split())
    assert all(hasattr(orchestration, name) for name in PUBLIC.split())


def test_a_tick_and_its_run(lab: Lab, instance: dg.DagsterInstance) -> None:
    defs = by_hand(lab)
    defs.get_repository_def().load_all_definitions()
    assert materialize(defs, instance, "lab/subject")
    lab.add_sessions([1, 2])
    (request,) = requested(tick(defs, instance))
    assert {key.to_user_string() for key in request.asset_selection or ()} == {
        *("lab/raw_data", "lab/processed", "lab/processed/peak")
    }
    assert all(run_until_quiet(defs, instance))
    for name in ("session", "raw_data", "processed"):
        found = statuses(defs, instance, f"lab/{name}")
        assert found == {"MATERIALIZED": partitions([1, 2])}
    assert len(lab.Processed()) == 2
    assert materialize(defs, instance, "report")


def test_the_jobs_and_the_marks(lab: Lab, instance: dg.DagsterInstance) -> None:
    defs = by_hand(lab)
    lab.add_sessions([1, 2])
    config = {"ops": {"populate_tables": {"config": {"tables": "+Processed"}}}}
    assert defs.resolve_job_def("populate").execute_in_process(config, instance=instance).success
    trace = {"table": "Processed", "partition": partition(1)}
    config = {"ops": {"trace_rows": {"config": trace}}}
    assert defs.resolve_job_def("trace").execute_in_process(config, instance=instance).success
    assert defs.resolve_job_def("recompute").execute_in_process(instance=instance).success
    row = {"subject_id": 1, "session_id": 3, "session_date": "2026-11-20"}
    config = {"ops": {"insert__lab__session__rows": {"config": {"rows": [row]}}}}
    job = defs.resolve_job_def("insert__lab__session")
    assert job.execute_in_process(config, instance=instance).success
    # The sessions that the job has not entered.
    assert sync(defs, instance=instance).marked == 2
    assert str(sync(defs, instance=instance)) == "0 partitions added, 0 removed, 0 marked"
    assert instance.get_materialized_partitions(key_of("lab/session")) == partitions([1, 2, 3])


def test_they_are_those_of_build_definitions(lab: Lab) -> None:
    whole = build_definitions(lab.schema, exclude="tier:lookup").get_repository_def()
    hand = by_hand(lab).get_repository_def()
    for found in (whole, hand):
        found.load_all_definitions()
    nodes = [
        {
            key: graph.get(key).check_keys
            for key in graph.get_all_asset_keys()
            if key.path[0] == "lab"
        }
        for graph in (whole.asset_graph, hand.asset_graph)
    ]
    assert nodes[0] == nodes[1]
    assert {job.name for job in whole.get_all_jobs()} == {job.name for job in hand.get_all_jobs()}
    assert [each.name for each in whole.sensor_defs] == [each.name for each in hand.sensor_defs]


def test_two_by_hand_are_merged_like_others(lab: Lab) -> None:
    parts = [
        read_pipeline(lab.schema, select=select, exclude=exclude)
        for select, exclude in (("lab.*", "Filtered"), ("Filtered", ()))
    ]
    merged = dg.Definitions.merge(
        *(
            dg.Definitions(
                assets=table_assets(pipeline),
                asset_checks=table_checks(pipeline),
                jobs=[populate_job(pipeline)],
                sensors=[populate_sensor(pipeline)],
                resources=table_resources(pipeline),
            )
            for pipeline in parts
        ),
        dg.Definitions(schedules=[populate_schedule("0 3 * * *", "Filtered")]),
    )
    repository = merged.get_repository_def()
    ends = {"__lab_FilterParams", "__lab_Filtered"}
    assert {each.name for each in repository.sensor_defs} == {f"populate_sensor{e}" for e in ends}
    (schedule,) = repository.schedule_defs
    assert schedule.job_name == "populate__lab_Filtered"


def test_a_schedule_of_a_table_that_is_not_there_is_refused(lab: Lab) -> None:
    pipeline = read_pipeline(lab.schema, exclude="Filtered")
    with pytest.raises(ConfigurationError, match="The schedule populate_filtered has 'Filtered'"):
        table_schedules(pipeline, [populate_schedule("0 3 * * *", "Filtered")])


def test_a_sensor_without_checks(lab: Lab, instance: dg.DagsterInstance) -> None:
    none = TableChecks(complete=False, current=False, parts=False, parents=False, readable=False)
    pipeline = read_pipeline(lab.schema, checks=none)
    assert table_checks(pipeline) == []
    defs = dg.Definitions(
        assets=table_assets(pipeline),
        sensors=[populate_sensor(pipeline)],
        resources=table_resources(pipeline),
        executor=chain_executor(),
    )
    lab.add_sessions([1])
    assert all(run_until_quiet(defs, instance))
    assert len(lab.Filtered()) == 2
