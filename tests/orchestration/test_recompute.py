"""Making again what is there already, from the launchpad: with cascade, or not at all."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from dj_dagster.orchestration import plan
from dj_dagster.orchestration import recompute as recompute_here
from dj_dagster.orchestration.headless import run_job
from dj_dagster.relational.table import Manual
from dj_dagster.workflow.computed import Computed, Imported
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import (
    create_run,
    execute,
    key_of,
    materialize,
    run_until_quiet,
    statuses,
)

TABLES = ("raw_data", "processed", "processed/peak")


def recompute(
    lab: Lab,
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    table: str,
    first: int,
    last: int,
    **options: bool,
) -> bool:
    op = f"{lab.schema.name}__{table}"
    tags = {
        "dagster/asset_partition_range_start": partition(first),
        "dagster/asset_partition_range_end": partition(last),
    }
    config = {"ops": {op: {"config": {"on_existing": "recompute", **options}}}}
    run = create_run(defs, instance, [key_of(lab.asset(table))], run_config=config, tags=tags)
    return execute(defs, instance, run)


def test_a_range_is_deleted_with_what_depends_on_it_and_made_again(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    any_lab.add_sessions(range(4))
    defs = any_lab.definitions()
    run_until_quiet(defs, instance)
    any_lab.calls.clear()
    assert recompute(any_lab, defs, instance, "raw_data", 1, 2)
    assert any_lab.calls == [("RawData", 1), ("RawData", 2)]
    assert [len(t()) for t in (any_lab.RawData, any_lab.Processed, any_lab.Filtered)] == [4, 2, 4]
    # What was deleted with them comes back by itself.
    run_until_quiet(defs, instance)
    assert [len(t()) for t in (any_lab.Processed, any_lab.Processed.Peak)] == [4, 8]
    assert len(any_lab.Filtered()) == 8
    for name in TABLES:
        assert set(statuses(defs, instance, any_lab.asset(*name.split("/")))) == {"MATERIALIZED"}


def test_existing_rows_are_left_alone_unless_asked(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions(range(2))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    lab.calls.clear()
    run = create_run(
        defs, instance, [key_of("lab/raw_data")], tags={"dagster/partition": partition(0)}
    )
    assert execute(defs, instance, run)
    assert lab.calls == []


def test_rows_that_a_person_entered_are_not_deleted(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    @any_lab.schema
    class Verdict(Manual):
        definition = """
        -> RawData
        ---
        usable : int8
        """

    any_lab.add_sessions(range(3))
    defs = any_lab.definitions()
    run_until_quiet(defs, instance)
    Verdict.insert1({"subject_id": 1, "session_id": 1, "usable": 1})
    any_lab.calls.clear()
    assert not recompute(any_lab, defs, instance, "raw_data", 0, 2)
    # That key is named and left, the others are made again.
    assert any_lab.calls == [("RawData", 0), ("RawData", 2)]
    assert len(any_lab.RawData()) == 3
    assert len(Verdict()) == 1
    assert set(statuses(defs, instance, any_lab.asset("raw_data"))) == {"MATERIALIZED"}
    (failure,) = instance.all_logs(
        instance.get_runs(limit=1)[0].run_id, of_type=dg.DagsterEventType.STEP_FAILURE
    )
    event: Any = failure.get_dagster_event()
    assert "1 row of" in event.step_failure_data.error.to_string()
    assert "Verdict" in event.step_failure_data.error.to_string()
    assert recompute(any_lab, defs, instance, "raw_data", 2, 2)
    # Unless it is told to.
    assert recompute(any_lab, defs, instance, "raw_data", 0, 2, delete_entered=True)
    assert (len(any_lab.RawData()), len(Verdict())) == (3, 0)


def test_rows_that_no_make_of_ours_fills_are_not_deleted(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    @lab.schema
    class Scan(Imported):
        definition = "-> RawData"

    lab.add_sessions(range(1))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    Scan.insert1({"subject_id": 1, "session_id": 0}, allow_direct_insert=True)
    assert not recompute(lab, defs, instance, "raw_data", 0, 0)
    assert (len(Scan()), len(lab.RawData())) == (1, 1)


def test_rows_that_the_key_source_has_no_more_are_left(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    session = any_lab.Session

    @any_lab.schema
    class Quiet(Computed):
        definition = """
        -> Session
        """

        @property
        def key_source(self) -> Any:
            return session & "note IS NULL"

        def make(self, key: dict[str, Any]) -> None:
            any_lab.calls.append(("Quiet", key["session_id"]))
            self.insert1(key)

    any_lab.add_sessions(range(3))
    defs = any_lab.definitions()
    run_until_quiet(defs, instance)
    session.update1({"subject_id": 1, "session_id": 1, "note": "noise"})
    any_lab.calls.clear()
    # Whether all are to be made again, or those that are stale alone.
    assert not recompute(any_lab, defs, instance, "quiet", 0, 2)
    name = any_lab.asset("quiet")
    assert not materialize(defs, instance, name, partition=partition(0), through=partition(2))
    assert any_lab.calls == [("Quiet", 0), ("Quiet", 2)]
    assert len(Quiet()) == 3
    assert statuses(defs, instance, name) == {"MATERIALIZED": partitions([0, 1, 2])}


def test_a_key_is_left_above_rows_that_the_key_source_has_no_more(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    @lab.schema
    class Quiet(Computed):
        definition = "-> RawData"
        key_source = lab.RawData & (lab.Session & "note IS NULL")

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    lab.add_sessions(range(3))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    lab.Session.update1({"subject_id": 1, "session_id": 1, "note": "noise"})
    lab.calls.clear()
    # The key is stale.
    assert not materialize(defs, instance, "lab/raw_data", partition=partition(1))
    assert not recompute(lab, defs, instance, "raw_data", 0, 2)
    assert lab.calls == [("RawData", 0), ("RawData", 2)]
    (planned,) = plan(lab.schema, ["RawData"], instance=instance)
    assert (planned.left, planned.lost) == (1, 0)
    (told,) = recompute_here(lab.schema, ["RawData"], instance=instance)
    assert "1 row of lab.Quiet below it would go" in told.failed[partition(1)]
    run_until_quiet(defs, instance)
    assert len(Quiet()) == 3
    assert recompute(lab, defs, instance, "raw_data", 1, 1, delete_entered=True)
    run_until_quiet(defs, instance)
    assert Quiet.to_arrays("session_id").tolist() == [0, 2]


def test_a_key_that_is_left_does_not_keep_others_of_its_partition_from_being_made(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    @lab.schema
    class Verdict(Manual):
        definition = "-> RawData"

    lab.add_sessions([1])
    lab.broken = {2}
    defs = lab.definitions(partition_by={"RawData": ["subject_id"]})
    run_until_quiet(defs, instance)
    Verdict.insert1({"subject_id": 1, "session_id": 1})
    lab.Session.update1({"subject_id": 1, "session_id": 1, "note": "noise"})
    lab.add_sessions([2])
    run_until_quiet(defs, instance)
    assert statuses(defs, instance, "lab/raw_data") == {"FAILED": {"subject_id=1"}}
    lab.broken, lab.calls[:] = set(), []
    assert not materialize(defs, instance, "lab/raw_data", partition="subject_id=1")
    assert lab.calls == [("RawData", 2)]
    assert statuses(defs, instance, "lab/raw_data") == {"MATERIALIZED": {"subject_id=1"}}


@pytest.mark.parametrize("on_existing", ["skip", "recompute"])
def test_the_populate_job_makes_a_restriction_again(
    lab: Lab, instance: dg.DagsterInstance, on_existing: str
) -> None:
    lab.add_sessions(range(3))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    lab.calls.clear()
    config = {"tables": ["RawData"], "restriction": {"session_id": 1}, "on_existing": on_existing}
    run = run_job(
        defs,
        "populate",
        instance=instance,
        run_config={"ops": {"populate_tables": {"config": config}}},
    )
    assert run.is_success
    assert lab.calls == ([("RawData", 1)] if on_existing == "recompute" else [])
    assert len(lab.RawData()) == 3


def test_the_populate_job_makes_again_by_an_attribute_of_a_parent(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions(range(3))
    lab.Session.update1({"subject_id": 1, "session_id": 1, "session_date": "2026-11-21"})
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    lab.calls.clear()
    chosen = {"session_date": "2026-11-21"}
    config = {"tables": ["RawData"], "restriction": chosen, "on_existing": "recompute"}
    run_config = {"ops": {"populate_tables": {"config": config}}}
    assert run_job(defs, "populate", instance=instance, run_config=run_config).is_success
    assert lab.calls == [("RawData", 1)]


def test_a_key_that_fails_when_made_again_is_shown_as_failed(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions(range(3))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    lab.broken = {1}
    assert not recompute(lab, defs, instance, "raw_data", 0, 2)
    assert statuses(defs, instance, "lab/raw_data") == {
        "MATERIALIZED": partitions([0, 2]),
        "FAILED": {partition(1)},
    }
