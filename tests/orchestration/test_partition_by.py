"""Partitions that are coarser than keys: a subject's sessions in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from dj_dagster.orchestration import SensorSettings, TableProps, TableTranslator, read_pipeline
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual, Table
from dj_dagster.workflow.computed import Computed
from tests.orchestration.lab import Lab
from tests.orchestration.running import (
    key_of,
    materialize,
    requested,
    run_until,
    run_until_quiet,
    statuses,
    tick,
)

BY_SUBJECT = {"RawData": "subject_id", "*.Processed": ["subject_id"]}


def grains(defs: dg.Definitions) -> dict[str, Any]:
    return {
        spec.key.path[-1]: getattr(spec.partitions_def, "name", None)
        for spec in defs.resolve_all_asset_specs()
    }


def test_a_prefix_of_the_key_is_the_grain_of_its_table(lab: Lab) -> None:
    found = grains(lab.definitions(partition_by=BY_SUBJECT))
    assert found["raw_data"] == found["processed"] == found["peak"] == "lab.Subject"
    assert found["session"] == "lab.Session"


def test_one_partition_is_made_key_by_key(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    any_lab.add_sessions(range(3), subject=1)
    any_lab.add_sessions(range(2), subject=2)
    defs = any_lab.definitions(partition_by=BY_SUBJECT)
    (request,) = requested(tick(defs, instance))
    assert request.run_config["ops"][f"{any_lab.schema.name}__raw_data"]["config"]["keys"] == [
        "subject_id=1",
        "subject_id=2",
    ]
    assert all(run_until_quiet(defs, instance))
    assert len(any_lab.RawData()) == len(any_lab.Processed()) == 5
    both = {"subject_id=1", "subject_id=2"}
    assert statuses(defs, instance, any_lab.asset("processed")) == {"MATERIALIZED": both}
    event = instance.get_latest_materialization_event(key_of(any_lab.asset("raw_data")))
    assert event.asset_materialization.metadata["rows"].value in (2, 3)  # type: ignore[union-attr]


def test_new_keys_of_a_done_partition_are_made(lab: Lab, instance: dg.DagsterInstance) -> None:
    # The partition is asked for again, and that is no second attempt at the first request.
    once = SensorSettings(attempts=1)
    defs = lab.definitions(partition_by=BY_SUBJECT, exclude=["Filtered"], sensor_settings=once)
    for number in range(2):
        lab.add_sessions([number])
        assert all(run_until_quiet(defs, instance))
        assert len(lab.Processed()) == number + 1


def test_a_failed_key_fails_its_partition_and_names_itself(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions(range(3), subject=1)
    lab.add_sessions([9], subject=2)
    lab.broken = {1}
    defs = lab.definitions(partition_by=BY_SUBJECT)
    run_until_quiet(defs, instance)
    assert statuses(defs, instance, "lab/raw_data") == {
        "FAILED": {"subject_id=1"},
        "MATERIALIZED": {"subject_id=2"},
    }
    assert len(lab.RawData()) == 3
    assert lab.RawData.jobs.errors.keys() == [{"subject_id": 1, "session_id": 1}]
    lab.broken, lab.calls[:] = set(), []
    assert materialize(defs, instance, "lab/raw_data", partition="subject_id=1")
    assert lab.calls == [("RawData", 1)]
    assert statuses(defs, instance, "lab/raw_data")["MATERIALIZED"] == {
        "subject_id=1",
        "subject_id=2",
    }


def test_a_failed_key_that_people_delete_no_longer_fails_its_partition(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    """The entered table is in the same partitions, which are there through the other keys."""
    any_lab.add_sessions(range(2))
    any_lab.broken = {1}
    by_subject = dict.fromkeys(("Session", "RawData"), "subject_id")
    defs = any_lab.definitions(partition_by=by_subject, select=list(by_subject))
    run_until_quiet(defs, instance)
    asset = any_lab.asset("raw_data")
    assert statuses(defs, instance, asset) == {"FAILED": {"subject_id=1"}}
    (any_lab.Session & "session_id = 1").delete()
    shown = {"MATERIALIZED": {"subject_id=1"}}
    run_until(defs, instance, lambda: statuses(defs, instance, asset) == shown)
    assert len(any_lab.RawData.jobs.errors) == 0


class BySubject(TableTranslator):
    def get_partition_by(self, table: Table) -> Sequence[str] | None:
        return ["subject_id"] if "subject_id" in table.primary_key else None

    def get_op_tags(self, props: TableProps) -> dict[str, str]:
        return {"queue": "gpu"} if props.title == "lab.Processed" else {}

    def get_pool(self, props: TableProps) -> str | None:
        return "disk" if props.tier.value == "imported" else super().get_pool(props)


def test_a_translator_can_say_it_too(lab: Lab) -> None:
    defs = lab.definitions(translator=BySubject())
    assert {name for name in grains(defs).values() if name} == {"lab.Subject"}


class Placed(TableTranslator):
    def get_op_tags(self, props: TableProps) -> dict[str, str]:
        return {"dagster-celery/queue": "gpu"} if props.title == "lab.Processed" else {}


def test_tables_of_one_chain_in_two_places_are_in_runs_of_their_own(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions(range(3))
    defs = lab.definitions(translator=Placed())
    assert all(run_until_quiet(defs, instance))
    assert len(lab.Processed()) == 3
    runs = [{key.path[-1] for key in run.asset_selection or ()} for run in instance.get_runs()]
    assert {"raw_data"} in runs
    assert {"processed", "peak"} in runs


def test_a_run_has_no_tables_below_one_that_is_made_elsewhere() -> None:
    schema = Schema("lab", connection=Connection("sqlite:///:memory:"))

    class Made:
        def make(self, key: dict[str, Any]) -> None:
            """Not called here."""

    @schema
    class First(Manual):
        definition = "first : int32"

    @schema
    class Second(Made, Computed):
        definition = "-> First"

    @schema
    class Processed(Made, Computed):
        definition = "-> Second"

    @schema
    class Last(Made, Computed):
        definition = "-> Processed"

    graph = read_pipeline(schema, translator=Placed()).graph
    second, processed, last = graph.populated
    assert graph.chains([second]) == [[second]]
    assert graph.chains([second, processed]) == [[second], [processed]]
    assert graph.chains([second, last]) == [[second, last]]


def test_tags_and_pools_of_ops_are_the_translators(lab: Lab) -> None:
    defs = lab.definitions(translator=BySubject())
    ops = {
        each.key.path[-1]: definition.op
        for definition in defs.resolve_asset_graph().assets_defs
        if definition.is_executable
        for each in definition.specs
    }
    assert ops["processed"].tags["queue"] == "gpu"
    assert ops["processed"].pool == "lab__processed"
    assert ops["raw_data"].pool == "disk"
    assert "queue" not in ops["filtered"].tags
