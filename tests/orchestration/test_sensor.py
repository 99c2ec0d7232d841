"""The sensor: sees rows come and go, asks for what is pending, once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import dagster as dg
import pytest

from dj_dagster.errors import DataJointError
from dj_dagster.model.heading import Key
from dj_dagster.orchestration import SensorSettings, TableSettings, build_definitions
from dj_dagster.orchestration.runs.run_records import RunBook
from dj_dagster.orchestration.sensor import requests
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Lookup, Manual
from dj_dagster.workflow.computed import Computed
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import (
    begin,
    execute,
    key_of,
    launch,
    materialize,
    requested,
    run_until_quiet,
    statuses,
    submit,
    tick,
)


def keys_in(request: dg.RunRequest) -> dict[str, list[str]]:
    ops = request.run_config["ops"]
    return {name: op["config"].get("keys", []) for name, op in ops.items()}


def test_it_runs_from_the_start(lab: Lab) -> None:
    sensor = lab.definitions(sensor_settings=SensorSettings(interval=7)).resolve_sensor_def(
        "populate_sensor"
    )
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 7


def test_it_is_shown_with_the_tables_that_it_starts_runs_for(lab: Lab) -> None:
    by_hand = {"Processed": TableSettings(automatic=False)}
    defs = lab.definitions(sensor_settings=SensorSettings(tables=by_hand))
    selection = defs.resolve_sensor_def("populate_sensor").asset_selection
    assert selection is not None
    shown = selection.resolve(defs.resolve_asset_graph())
    assert shown == {key_of("lab/raw_data"), key_of("lab/filtered")}


def test_nothing_pending_asks_for_nothing(lab: Lab, instance: dg.DagsterInstance) -> None:
    result = tick(lab.definitions(), instance)
    assert requested(result) == []
    assert "Nothing is pending" in str(result.skip_reason)


def test_new_rows_become_partitions_marks_and_one_request(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    any_lab.add_sessions(range(3))
    any_lab.Session.Trial.insert1({"subject_id": 1, "session_id": 0, "trial_id": 0, "start_s": 0.5})
    defs = any_lab.definitions()
    (request,) = requested(tick(defs, instance))
    name = any_lab.schema.name
    wanted = sorted(partitions(range(3)))
    assert instance.get_dynamic_partitions(f"{name}.Session") == wanted
    assert instance.get_dynamic_partitions(f"{name}.Subject") == ["subject_id=1"]
    assert statuses(defs, instance, any_lab.asset("session")) == {"MATERIALIZED": set(wanted)}
    assert statuses(defs, instance, any_lab.asset("session/trial"))["MATERIALIZED"] == {wanted[0]}
    assert keys_in(request) == {f"{name}__raw_data": wanted, f"{name}__processed": wanted}
    assert [key.path[1:] for key in request.asset_selection or ()] == [
        ["raw_data"],
        ["processed"],
        ["processed", "peak"],
    ]
    assert request.tags["dj_dagster/keys"] == "3"


def test_few_keys_wait_for_more_while_runs_wait_to_begin(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    """A full queue would grow by a small run with each tick."""
    defs = lab.definitions(sensor_settings=SensorSettings(batch_size=4))
    runs: list[dg.DagsterRun] = []
    for session in range(2):
        lab.add_sessions([session])
        (request,) = requested(tick(defs, instance))
        runs.append(submit(defs, instance, request))
    for run in runs:
        launch(instance, run)
    for session in range(2, 4):
        lab.add_sessions([session])
        result = tick(defs, instance)
        assert requested(result) == []
        assert f"lab.Processed, lab.RawData: {session - 1} pending" in str(result.skip_reason)
    # As many keys as a run takes at most are requested however many runs wait.
    lab.add_sessions(range(4, 7))
    (full,) = requested(tick(defs, instance))
    assert {*keys_in(full)["lab__raw_data"]} == partitions(range(2, 6))
    runs.append(submit(defs, instance, full))
    assert requested(tick(defs, instance)) == []
    for run in runs[:2]:
        begin(instance, run)
    (rest,) = requested(tick(defs, instance))
    assert keys_in(rest)["lab__raw_data"] == [partition(6)]
    runs.append(submit(defs, instance, rest))
    assert all(execute(defs, instance, run) for run in runs)
    assert len(lab.Processed()) == 7
    assert run_until_quiet(defs, instance)
    assert "Nothing is pending" in str(tick(defs, instance).skip_reason)


def test_keys_are_gathered_for_a_while_only(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose start was interrupted may wait for long."""
    defs = lab.definitions()
    for session in range(2):
        lab.add_sessions([session])
        (request,) = requested(tick(defs, instance))
        launch(instance, submit(defs, instance, request))
    lab.add_sessions([2])
    assert requested(tick(defs, instance)) == []
    with monkeypatch.context() as patch:
        # A queue of as many runs as a million keys take, and more.
        patch.setattr(RunBook, "not_begun", lambda *_: Counter({key_of("lab/raw_data"): 5000}))
        result = tick(defs, instance)
        assert "gathered" in str(result.skip_reason)
    monkeypatch.setattr(requests, "PATIENCE", 0.0)
    (late,) = requested(tick(defs, instance))
    assert keys_in(late)["lab__raw_data"] == [partition(2)]


def test_everything_gets_made_each_key_once(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    defs = any_lab.definitions()
    any_lab.add_sessions(range(3))
    run_until_quiet(defs, instance)
    any_lab.add_sessions(range(3, 5))
    run_until_quiet(defs, instance)
    assert sorted(any_lab.calls) == sorted(
        [("RawData", n) for n in range(5)]
        + [("Processed", n) for n in range(5)]
        + [("Filtered", n) for n in range(5)] * 2
    )
    grain = f"{any_lab.schema.name}.Filtered"
    assert len(instance.get_dynamic_partitions(grain)) == 10
    assert set(statuses(defs, instance, any_lab.asset("filtered"))) == {"MATERIALIZED"}


def test_keys_of_an_unfinished_run_are_not_asked_for_again(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    defs = lab.definitions()
    lab.add_sessions(range(2))
    (first,) = requested(tick(defs, instance))
    run = submit(defs, instance, first)
    assert requested(tick(defs, instance)) == []
    lab.add_sessions([2])
    (second,) = requested(tick(defs, instance))
    assert keys_in(second)["lab__raw_data"] == [partition(2)]
    other = submit(defs, instance, second)
    execute(defs, instance, run)
    execute(defs, instance, other)
    assert lab.calls.count(("RawData", 0)) == 1
    assert len(lab.Processed()) == 3


def test_keys_of_a_persons_unfinished_range_are_left_to_it(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    from tests.orchestration.running import create_run

    defs = lab.definitions()
    lab.add_sessions(range(4))
    tick(defs, instance)
    tags = {
        "dagster/asset_partition_range_start": partition(0),
        "dagster/asset_partition_range_end": partition(2),
    }
    create_run(defs, instance, [key_of("lab/raw_data")], tags=tags)
    (request,) = requested(tick(defs, instance))
    assert keys_in(request)["lab__raw_data"] == [partition(3)]


def test_a_request_evaluated_twice_is_one_run(lab: Lab, instance: dg.DagsterInstance) -> None:
    defs = lab.definitions()
    lab.add_sessions(range(2))
    (one,) = requested(tick(defs, instance))
    (two,) = requested(tick(defs, instance))
    assert one.run_key == two.run_key
    assert submit(defs, instance, one).run_id == submit(defs, instance, two).run_id


def test_a_cancelled_batch_is_asked_for_again_but_not_for_ever(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    defs = lab.definitions(sensor_settings=SensorSettings(attempts=2))
    lab.add_sessions(range(2))
    keys: list[str | None] = []
    for _ in range(2):
        (request,) = requested(tick(defs, instance))
        keys.append(request.run_key)
        instance.report_run_canceled(submit(defs, instance, request))
    assert len(set(keys)) == 2
    assert requested(tick(defs, instance)) == []
    lab.add_sessions([2])
    assert len(requested(tick(defs, instance))) == 1


def test_a_failed_key_waits_for_a_person(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.broken = {1}
    defs = lab.definitions()
    lab.add_sessions(range(3))
    run_until_quiet(defs, instance)
    lab.broken = set()
    assert requested(tick(defs, instance)) == []
    assert lab.calls.count(("RawData", 1)) == 1


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize(
    ("definition", "partition"),
    [("run : int32", "run=1"), ("-> Conf", None), ("-> Piece", "item=1")],
)
def test_a_failure_that_no_job_queue_keeps_is_tried_a_few_times(
    lab: Lab, instance: dg.DagsterInstance, definition: str, partition: str | None, says: bool
) -> None:
    schema = Schema("odd", connection=lab.schema.connection)
    calls, broken = list[Key](), [True]

    @schema
    class Item(Manual):
        definition = "item : int32"

    @schema
    class Piece(Manual):
        definition = "-> Item\npiece : int32"

    @schema
    class Conf(Manual):
        definition = "---\nx : int32"

    def make(self: Any, key: Key) -> None:
        calls.append(key)
        if not broken[0]:
            self.insert1(key if partition != "item=1" else {**key, "piece": 1})
        elif says:
            raise ValueError("no signal")

    sources = {"run=1": Item.proj(run="item"), None: Conf(), "item=1": Piece()}
    members = {"definition": definition, "key_source": sources[partition], "make": make}
    table = schema(type("Run", (Computed,), members))
    if partition == "item=1":
        # The queue has another key than the key source has from now on.
        table.jobs.refresh()
        table.key_source = Item()
    Item.insert1({"item": 1})
    Piece.insert1({"item": 1, "piece": 1})
    Conf.insert1({"x": 1})
    defs = build_definitions(schema)
    assert run_until_quiet(defs, instance) == [False] * 3
    assert len(calls) == 3
    assert partition is None or statuses(defs, instance, "odd/run") == {"FAILED": {partition}}
    broken[0] = False
    assert materialize(defs, instance, "odd/run", partition=partition)
    assert len(table()) == 1


def test_deleted_rows_lose_their_partitions(lab: Lab, instance: dg.DagsterInstance) -> None:
    defs = lab.definitions()
    lab.add_sessions(range(3))
    run_until_quiet(defs, instance)
    (lab.Session & {"session_id": 1}).delete(prompt=False)
    tick(defs, instance)
    assert set(instance.get_dynamic_partitions("lab.Session")) == partitions([0, 2])
    assert len(instance.get_dynamic_partitions("lab.Filtered")) == 4
    assert statuses(defs, instance, "lab/processed") == {"MATERIALIZED": partitions([0, 2])}


def test_rows_made_outside_dagster_are_marked(lab: Lab, instance: dg.DagsterInstance) -> None:
    defs = lab.definitions()
    lab.add_sessions(range(2))
    lab.RawData.populate()
    lab.Processed.populate()
    (request,) = requested(tick(defs, instance))
    assert list(keys_in(request)) == ["lab__filtered"]
    for name in ("lab/raw_data", "lab/processed", "lab/processed/peak"):
        assert statuses(defs, instance, name) == {"MATERIALIZED": partitions(range(2))}


def test_rows_that_a_killed_run_left_unmarked_are_marked(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    defs = lab.definitions()
    lab.add_sessions(range(2))
    (request,) = requested(tick(defs, instance))
    run = submit(defs, instance, request)
    lab.RawData.populate()
    tick(defs, instance)
    assert statuses(defs, instance, "lab/raw_data").get("MATERIALIZED") is None
    instance.report_run_failed(run)
    tick(defs, instance)
    assert statuses(defs, instance, "lab/raw_data")["MATERIALIZED"] == partitions(range(2))


def test_batches_are_bounded(lab: Lab, instance: dg.DagsterInstance) -> None:
    defs = lab.definitions(sensor_settings=SensorSettings(batch_size=2, max_batches=2))
    lab.add_sessions(range(5))
    requests = requested(tick(defs, instance))
    assert [keys_in(request)["lab__raw_data"] for request in requests] == [
        [partition(0), partition(1)],
        [partition(2), partition(3)],
    ]
    assert len({request.run_key for request in requests}) == 2
    runs = [submit(defs, instance, request) for request in requests]
    (rest,) = requested(tick(defs, instance))
    assert keys_in(rest)["lab__raw_data"] == [partition(4)]
    assert all(execute(defs, instance, run) for run in runs)
    assert len(lab.Processed()) == 4


def test_lookup_tables_show_their_number_of_rows(lab: Lab, instance: dg.DagsterInstance) -> None:
    defs = lab.definitions()

    def marked() -> list[object]:
        records = instance.fetch_materializations(key_of("lab/filter_params"), limit=9).records
        return [
            record.asset_materialization.metadata["dagster/row_count"].value  # type: ignore[union-attr]
            for record in records
        ]

    tick(defs, instance)
    tick(defs, instance)
    assert marked() == [2]
    lab.FilterParams.insert1({"filter_id": 3, "cutoff": 30.0})
    tick(defs, instance)
    assert marked() == [3, 2]


def test_a_table_without_key_is_made_once(lab: Lab, instance: dg.DagsterInstance) -> None:
    @lab.schema
    class Epoch(Lookup):
        definition = """
        ---
        started : date
        """
        contents = ({"started": "2026-01-01"},)

    @lab.schema
    class Calibration(Computed):
        definition = """
        -> Epoch
        ---
        gain : float64
        """

        def make(self, key: dict[str, object]) -> None:
            self.insert1({**key, "gain": 2.0})

    defs = lab.definitions()
    (request,) = requested(tick(defs, instance))
    assert request.partition_key is None
    assert execute(defs, instance, submit(defs, instance, request))
    assert lab.Calibration.fetch1("gain") == 2.0
    assert instance.get_latest_materialization_event(key_of("lab/calibration")) is not None
    assert requested(tick(defs, instance)) == []


def test_an_error_in_one_schema_does_not_stop_the_others(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    other = Schema("other", connection=lab.schema.connection)

    @other
    class Thing(Manual):
        definition = """
        thing_id : int32
        """

    @other
    class Broken(Computed):
        definition = """
        -> Thing
        """

        @property
        def key_source(self) -> QueryExpression:
            if lab.broken:
                raise ValueError("no such disk")
            return Thing().proj()

    defs = build_definitions([lab.schema, other])
    lab.broken = {-1}
    lab.add_sessions([0])
    assert len(requested(tick(defs, instance))) == 1
    run_until = [submit(defs, instance, request) for request in requested(tick(defs, instance))]
    assert all(execute(defs, instance, run) for run in run_until)
    (filtered,) = requested(tick(defs, instance))
    execute(defs, instance, submit(defs, instance, filtered))
    with pytest.raises(DataJointError, match=r"other\.Broken.*ValueError: no such disk"):
        tick(defs, instance)


def test_an_unreachable_database_fails_the_tick_in_one_clear_line(
    instance: dg.DagsterInstance, server_url: str, server_prefix: str
) -> None:
    connection = Connection(server_url)
    schema = Schema(f"{server_prefix}lab", connection=connection)

    @schema
    class Subject(Manual):
        definition = """
        subject_id : int32
        """

    defs = build_definitions(schema)
    connection.close()
    nowhere = Connection("mysql+pymysql://root:secret@127.0.0.1:9/")
    connection.engine, connection._sessions = nowhere.engine, nowhere._sessions
    with pytest.raises(DataJointError, match="cannot be reached") as caught:
        tick(defs, instance)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_backfill_launched_by_a_person_after_the_sensor_finds_nothing_to_do(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    defs = lab.definitions()
    lab.add_sessions(range(3))
    run_until_quiet(defs, instance)
    lab.calls.clear()
    assert materialize(defs, instance, "lab/raw_data", partition=partition(0), through=partition(2))
    assert lab.calls == []
