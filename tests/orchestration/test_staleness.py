"""Stale keys: what makes a partition stale, what is shown, and what is made again."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from dj_dagster.orchestration import (
    SensorSettings,
    TableChecks,
    TableProps,
    TableTranslator,
    Work,
    build_definitions,
    recompute,
)
from dj_dagster.orchestration.headless import run_assets, run_job
from dj_dagster.orchestration.runs import stale_marks
from dj_dagster.orchestration.sensor import upkeep
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual
from dj_dagster.workflow import notes
from dj_dagster.workflow.computed import Computed
from tests.edited_module import EditedModule
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import key_of, materialize, run_until_quiet, statuses, tick
from tests.services.process import eventually


@pytest.fixture(autouse=True)
def counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a tick count all tables, on a machine that is busy as well."""
    monkeypatch.setattr(stale_marks, "SECONDS", 600.0)


def declare(module: ModuleType, connection: Connection, **options: Any) -> dg.Definitions:
    schema = Schema("lab", connection=connection, context=vars(module))
    for name in ("Thing", "Result", "Later"):
        schema(getattr(module, name))
    return build_definitions(schema, **options)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_stale_key_that_is_made_again_between_two_looks_is_fresh(
    database_url: str, schema_prefix: str, instance: dg.DagsterInstance, restarted: bool
) -> None:
    """Its rows are as they were: that they are new is known by the note on them alone."""
    lab = Schema(f"{schema_prefix}lab", connection=Connection(database_url, safemode=False))

    @lab
    class Item(Manual):
        definition = """
        item : int32
        ---
        weight = 0 : int32
        """

    @lab
    class Counted(Computed):
        definition = """
        -> Item
        ---
        number = 1 : int32
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    Item.insert([{"item": n} for n in (1, 2, 3)])

    def definitions() -> dg.Definitions:
        return build_definitions(lab, sensor_settings=SensorSettings(sweep=1e9))

    defs, name = definitions(), f"{lab.name}/counted"
    run_until_quiet(defs, instance)
    for item in (1, 2):
        Item.update1({"item": item, "weight": 5})
    keys = [f"item={n}" for n in (1, 2, 3)]

    def is_stale() -> list[bool]:
        run_until_quiet(defs, instance)
        return [stale(defs, instance, name, key)[0] is StaleStatus.STALE for key in keys]

    eventually(lambda: is_stale() == [True, True, False])
    if restarted:
        defs = definitions()
        run_until_quiet(defs, instance)
    (Counted & "item < 3").delete_quick()
    Counted.populate("item = 1")
    Counted.populate("item = 2", reserve_jobs=True)
    eventually(lambda: is_stale() == [False, False, False])
    lab.connection.close()


def stale(
    defs: dg.Definitions, instance: dg.DagsterInstance, name: str, partition_key: str
) -> tuple[StaleStatus, list[str]]:
    resolver = CachingStaleStatusResolver(
        instance, defs.resolve_asset_graph(), LoadingContextForTest(instance)
    )
    causes = resolver.get_stale_causes(key_of(name), partition_key)
    return resolver.get_status(key_of(name), partition_key), [cause.reason for cause in causes]


@pytest.mark.parametrize("work", [Work(), Work(isolate=True)])
def test_the_run_that_made_a_key_is_noted(
    written: EditedModule, instance: dg.DagsterInstance, tmp_path: Path, work: Work
) -> None:
    class Translator(TableTranslator):
        def get_work(self, props: TableProps) -> Work:
            return work

    module = written.load()
    defs = declare(
        module, Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}"), translator=Translator()
    )
    module.Thing.insert([{"thing": 1}, {"thing": 2}])
    run_until_quiet(defs, instance)
    (run,) = instance.get_runs()
    found = notes.Notes(module.Result(), ["thing"]).read([{"thing": 1}, {"thing": 2}])
    assert [note.run for note in found.values()] == [run.run_id] * 2


def test_a_changed_make_shows_as_stale(
    written: EditedModule, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    connection = Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}")
    module = written.load()
    defs = declare(module, connection)
    module.Thing.insert([{"thing": 1}, {"thing": 2}])
    assert run_until_quiet(defs, instance) == [True]
    for name in ("lab/result", "lab/later"):
        assert stale(defs, instance, name, "thing=1") == (StaleStatus.FRESH, [])

    changed = declare(written.load(("OFFSET = 1", "OFFSET = 2")), connection)
    assert stale(changed, instance, "lab/result", "thing=1") == (
        StaleStatus.STALE,
        ["has a new code version"],
    )
    assert stale(changed, instance, "lab/later", "thing=1")[0] is StaleStatus.FRESH
    # Materialising makes it again, with what was made from it; other keys stay as they are.
    assert materialize(changed, instance, "lab/result", "lab/later", partition="thing=1")
    assert module.Result.to_dicts(order_by="thing") == [
        {"thing": 1, "value": 6},
        {"thing": 2, "value": 6},
    ]
    for name in ("lab/result", "lab/later"):
        assert stale(changed, instance, name, "thing=1") == (StaleStatus.FRESH, [])
    assert stale(changed, instance, "lab/result", "thing=2")[0] is StaleStatus.STALE


def test_rows_that_were_made_again_elsewhere_are_not_stale(
    written: EditedModule, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    connection = Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}", safemode=False)
    module = written.load()
    defs = declare(module, connection)
    module.Thing.insert([{"thing": 1}, {"thing": 2}])
    run_until_quiet(defs, instance)
    # The row of Later that depends on it is deleted too, and made from the new one.
    (module.Result & {"thing": 1}).delete()
    assert materialize(defs, instance, "lab/result", partition="thing=1")
    module.Later.populate()
    tick(defs, instance)
    for key in ("thing=1", "thing=2"):
        assert stale(defs, instance, "lab/later", key) == (StaleStatus.FRESH, [])


def reported(instance: dg.DagsterInstance, name: str) -> tuple[bool, dict[str, Any]] | None:
    """Return what the last word on a table's code is: whether all is current, and the counts."""
    check = dg.AssetCheckKey(key_of(name), "current")
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])
    if check not in found or found[check].evaluation is None:
        return None
    evaluation = found[check].evaluation
    numbers = {key: value.value for key, value in evaluation.metadata.items()}
    del numbers["code_version"]
    return evaluation.passed, numbers


def test_the_sensor_reports_tables_whose_make_has_changed(
    written: EditedModule,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The sensor looks at its records in every tick.
    monkeypatch.setattr(upkeep, "SHORTEST", 0.0)
    connection = Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}", safemode=False)
    module = written.load()
    defs = declare(module, connection)
    module.Thing.insert([{"thing": 1}, {"thing": 2}])
    run_until_quiet(defs, instance)
    # One row comes from a worker without Dagster, and one from no make at all.
    module.Thing.insert([{"thing": 3}, {"thing": 4}])
    module.Result.populate("thing = 3")
    module.Result.insert1({"thing": 4, "value": 0}, allow_direct_insert=True)

    changed = declare(written.load(("OFFSET = 1", "OFFSET = 2")), connection)
    tick(changed, instance)
    stale_counts = {"stale": 3, "current": 0, "unknown": 1, "first_stale": "thing=1"}
    assert reported(instance, "lab/result") == (False, stale_counts)
    assert reported(instance, "lab/later") == (True, {"stale": 0, "current": 2, "unknown": 0})
    config = {"ops": {"lab__result": {"config": {"on_existing": "recompute"}}}}
    tags = {"dagster/partition": "thing=2"}
    again = run_assets(
        changed, [key_of("lab/result")], instance=instance, checks=(), run_config=config, tags=tags
    )
    assert again.is_success
    tick(changed, instance)
    counts = {"stale": 2, "current": 1, "unknown": 1, "first_stale": "thing=1"}
    assert reported(instance, "lab/result") == (False, counts)
    # The old code is back.
    defs = declare(written.load(), connection)
    tick(defs, instance)
    counts = {"stale": 1, "current": 2, "unknown": 1, "first_stale": "thing=2"}
    assert reported(instance, "lab/result") == (False, counts)
    (module.Result & {"thing": 2}).delete()
    run_until_quiet(defs, instance)
    assert reported(instance, "lab/result") == (True, {"stale": 0, "current": 3, "unknown": 1})


def test_a_table_is_reported_once_for_a_version(
    written: EditedModule, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    connection = Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}")
    module = written.load()
    defs = declare(module, connection)
    module.Thing.insert1({"thing": 1})
    run_until_quiet(defs, instance)

    def reports() -> int:
        check = dg.AssetCheckKey(key_of("lab/result"), "current")
        return len(instance.event_log_storage.get_asset_check_execution_history(check, limit=100))

    again = declare(written.load(), connection)
    # The last marks may be newer than what the sensor has reported before.
    tick(again, instance)
    before = reports()
    assert 1 <= before <= 2
    for number, defs in enumerate([again, again, declare(written.load(), connection)]):
        tick(defs, instance)
        assert reports() == before, number


def test_a_table_that_make_has_not_filled_is_not_reported(
    written: EditedModule, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    connection = Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}")
    tick(declare(written.load(), connection), instance)
    assert reported(instance, "lab/result") is None


def test_the_check_can_be_asked_for_and_left_out(
    written: EditedModule, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    connection = Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}")
    module = written.load()
    defs = declare(module, connection)
    module.Thing.insert1({"thing": 1})
    run_until_quiet(defs, instance)
    changed = declare(written.load(("OFFSET = 1", "OFFSET = 2")), connection)
    check = dg.AssetCheckKey(key_of("lab/result"), "current")
    assert run_assets(changed, [], instance=instance, checks=[check]).is_success
    counts = {"stale": 1, "current": 0, "unknown": 0, "first_stale": "thing=1"}
    assert reported(instance, "lab/result") == (False, counts)
    without = declare(written.load(), connection, checks=TableChecks(current=False))
    assert check not in without.resolve_asset_graph().asset_check_keys
    tick(without, instance)
    assert reported(instance, "lab/result") == (False, counts)


def test_stale_rows_do_not_block(
    written: EditedModule, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    connection = Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}")
    defs = declare(written.load(), connection, checks=TableChecks(blocking=["Result"]))
    graph = defs.resolve_asset_graph()
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == {"complete"}


def mark_of(instance: dg.DagsterInstance, name: str, partition_key: str) -> dg.AssetMaterialization:
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(key_of(name), asset_partitions=[partition_key]), limit=1
    ).records
    mark = records[0].asset_materialization
    assert mark is not None
    return mark


def tags_of(instance: dg.DagsterInstance, name: str, partition_key: str) -> dict[str, Any]:
    return dict(mark_of(instance, name, partition_key).tags or {})


def test_a_mark_carries_versions_of_code_and_inputs(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions([1])
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
    (raw,) = (
        run.run_id
        for run in instance.get_runs()
        if key_of("lab/raw_data") in (run.asset_selection or ())
    )
    tags = tags_of(instance, "lab/processed", partition(1))
    assert tags["dagster/code_version"] == specs[key_of("lab/processed")].code_version
    assert tags["dagster/data_version"] == raw
    assert tags["dagster/input_data_version/lab/raw_data"] == raw
    finer = tags_of(instance, "lab/filtered", f"{partition(1)}/filter_id=1")
    assert finer["dagster/input_data_version/lab/raw_data"] == raw
    assert finer["dagster/input_data_version/lab/filter_params"] == "INITIAL"
    peak = tags_of(instance, "lab/processed/peak", partition(1))
    assert peak["dagster/input_data_version/lab/processed"] == raw
    for name, key in [
        ("lab/raw_data", partition(1)),
        ("lab/processed", partition(1)),
        ("lab/processed/peak", partition(1)),
        ("lab/filtered", f"{partition(1)}/filter_id=2"),
    ]:
        assert stale(defs, instance, name, key) == (StaleStatus.FRESH, [])


def ages_shown(
    defs: dg.Definitions, instance: dg.DagsterInstance, name: str, keys: Iterable[str]
) -> list[bool]:
    """Return which partitions are shown as stale."""
    return [stale(defs, instance, name, key)[0] is StaleStatus.STALE for key in keys]


def test_what_refers_to_a_changed_row_is_stale_after_any_loss(
    any_lab: Lab, instance: dg.DagsterInstance, dagster_home: Path, tmp_path: Path
) -> None:
    raw, filtered = any_lab.asset("raw_data"), any_lab.asset("filtered")
    any_lab.add_sessions([1, 2])
    any_lab.add_sessions([1], subject=2)
    defs = any_lab.definitions()
    run_until_quiet(defs, instance)
    sessions = [partition(1), partition(2), partition(1, subject=2)]
    finer = [f"{partition(1)}/filter_id={n}" for n in (1, 2)]
    assert ages_shown(defs, instance, raw, sessions) == [False] * 3
    assert ages_shown(defs, instance, filtered, finer) == [False] * 2
    # A row of its own grain, of a coarser one above it, and of a lookup table without partitions.
    any_lab.Session.update1({"subject_id": 1, "session_id": 2, "note": "corrected"})
    any_lab.Subject.update1({"subject_id": 2, "sex": "M"})
    any_lab.FilterParams.update1({"filter_id": 2, "cutoff": 25.0})
    again = any_lab.definitions()
    tick(again, instance)
    assert ages_shown(again, instance, raw, sessions) == [False, True, True]
    assert ages_shown(again, instance, filtered, finer) == [False, True]
    assert reported(instance, raw) == (
        False,
        {"stale": 2, "changed_inputs": 2, "current": 1, "unknown": 0, "first_stale": partition(2)},
    )
    # A new instance knows as much as the old one.
    shutil.copytree(dagster_home, tmp_path / "other_home")
    with dg.DagsterInstance.local_temp(str(tmp_path / "other_home")) as other:
        new = any_lab.definitions()
        run_until_quiet(new, other)
        assert ages_shown(new, other, raw, sessions) == [False, True, True]
        assert ages_shown(new, other, filtered, finer) == [False, True]
    # The rows are as they were.
    any_lab.Session.update1({"subject_id": 1, "session_id": 2, "note": None})
    any_lab.Subject.update1({"subject_id": 2, "sex": "F"})
    back = any_lab.definitions()
    tick(back, instance)
    assert ages_shown(back, instance, raw, sessions) == [False] * 3
    assert tags_of(instance, raw, partition(2))["dagster/code_version"]


def test_a_mark_of_a_changed_input_keeps_what_it_told(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions([1])
    run_until_quiet(lab.definitions(), instance)
    before = mark_of(instance, "lab/raw_data", partition(1)).metadata
    lab.Session.update1({"subject_id": 1, "session_id": 1, "note": "corrected"})
    tick(lab.definitions(), instance)
    after = dict(mark_of(instance, "lab/raw_data", partition(1)).metadata)
    assert "has changed" in str(after.pop("stale").value)
    assert after == before


def test_materialising_makes_what_refers_to_a_changed_row_again(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    raw, processed = any_lab.asset("raw_data"), any_lab.asset("processed")
    any_lab.add_sessions([1, 2, 3])
    run_until_quiet(any_lab.definitions(), instance)
    any_lab.Session.update1({"subject_id": 1, "session_id": 2, "note": "corrected"})
    any_lab.calls.clear()
    defs = any_lab.definitions()
    assert materialize(defs, instance, raw, partition=partition(1), through=partition(3))
    assert any_lab.calls == [("RawData", 2)]
    assert ages_shown(defs, instance, raw, [partition(2)]) == [False]
    # What was deleted with it comes back by itself.
    run_until_quiet(defs, instance)
    assert statuses(defs, instance, processed) == {"MATERIALIZED": partitions([1, 2, 3])}
    assert any_lab.calls.count(("Processed", 2)) == 1


def test_materialising_a_current_key_says_so_and_leaves_its_mark(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions([1, 2])
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    before = mark_of(instance, "lab/raw_data", partition(1))
    lab.broken.add(2)
    (lab.RawData & {"session_id": 2}).delete(prompt=False)
    # The run fails, for the other key does.
    keys = partition(1), partition(2)
    assert not materialize(defs, instance, "lab/raw_data", partition=keys[0], through=keys[1])
    assert mark_of(instance, "lab/raw_data", partition(1)) == before
    assert statuses(defs, instance, "lab/raw_data") == {
        "MATERIALIZED": {partition(1)},
        "FAILED": {partition(2)},
    }
    said = instance.fetch_observations(
        dg.AssetRecordsFilter(key_of("lab/raw_data"), asset_partitions=[partition(1)]), limit=10
    ).records
    assert ["already" in str(each.asset_observation.description) for each in said] == [True]  # type: ignore[union-attr]


def test_a_backfill_materialises_current_keys_as_they_are(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    """Dagster counts a backfill as failed if its runs have not materialised all partitions."""
    lab.add_sessions([1, 2])
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    before = {n: mark_of(instance, "lab/raw_data", partition(n)) for n in (1, 2)}
    (lab.RawData & {"session_id": 2}).delete(prompt=False)
    tags = {
        "dagster/backfill": "abcdefgh",
        "dagster/asset_partition_range_start": partition(1),
        "dagster/asset_partition_range_end": partition(2),
    }
    run = run_assets(defs, [key_of("lab/raw_data")], instance=instance, checks=(), tags=tags)
    assert run.is_success
    made = instance.fetch_materializations(
        dg.AssetRecordsFilter(
            key_of("lab/raw_data"), asset_partitions=[partition(1), partition(2)]
        ),
        limit=10,
    ).records
    assert {record.partition_key for record in made if record.run_id == run.run_id} == {
        partition(1),
        partition(2),
    }
    (first,) = (r for r in made if r.run_id == run.run_id and r.partition_key == partition(1))
    assert first.asset_materialization == before[1]
    run_until_quiet(defs, instance)
    assert lab.calls.count(("RawData", 1)) == 1


def test_what_a_sensor_starts_never_recomputes(
    written: EditedModule, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    connection = Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}", safemode=False)
    module = written.load()
    module_defs = declare(module, connection)
    module.Thing.insert([{"thing": 1}, {"thing": 2}])
    run_until_quiet(module_defs, instance)
    changed = declare(written.load(("OFFSET = 1", "OFFSET = 2")), connection)
    tags = {"dagster/sensor_name": "mine", "dagster/partition": "thing=1"}
    result = key_of("lab/result")
    assert run_assets(changed, [result], instance=instance, checks=(), tags=tags).is_success
    run_until_quiet(changed, instance)
    assert module.Result.to_arrays("value").tolist() == [4, 6]
    assert ages_shown(changed, instance, "lab/result", ["thing=1", "thing=2"]) == [True, True]


def test_rows_marked_before_their_notes_become_stale_as_others(
    written: EditedModule,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upkeep, "NOTED", 0.0)
    connection = Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}")
    module = written.load()
    defs = declare(module, connection)
    module.Thing.insert1({"thing": 1})
    # The sensor sees the row before the worker has written its note.
    with monkeypatch.context() as patch:
        late: list[Any] = []
        patch.setattr(notes.Notes, "write", lambda _, taken: late.extend(taken))
        module.Result.populate()
        tick(defs, instance)
    assert "dagster/code_version" not in tags_of(instance, "lab/result", "thing=1")
    notes.Notes(module.Result(), ["thing"]).write(late)
    tick(defs, instance)
    assert tags_of(instance, "lab/result", "thing=1")["dagster/code_version"]
    changed = declare(written.load(("OFFSET = 1", "OFFSET = 2")), connection)
    assert ages_shown(changed, instance, "lab/result", ["thing=1"]) == [True]


def test_the_recompute_job_makes_again_what_is_stale_and_what_depends_on_it(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    @lab.schema
    class Verdict(Manual):
        definition = "-> Processed"

    lab.add_sessions([1, 2, 3])
    run_until_quiet(lab.definitions(), instance)
    # The results of this session have been looked at by a person.
    Verdict.insert1({"subject_id": 1, "session_id": 3})
    for number in (2, 3):
        lab.Session.update1({"subject_id": 1, "session_id": number, "note": "corrected"})
    lab.calls.clear()
    defs = lab.definitions()
    run = run_job(defs, "recompute", instance=instance)
    assert not run.is_success
    assert lab.calls == [("RawData", 2), ("Processed", 2), ("Filtered", 2), ("Filtered", 2)]
    tick(defs, instance)
    sessions = [partition(n) for n in (1, 2, 3)]
    assert ages_shown(defs, instance, "lab/raw_data", sessions) == [False, False, True]
    for name in ("lab/raw_data", "lab/processed"):
        assert statuses(defs, instance, name) == {"MATERIALIZED": set(sessions)}
    # The same in a script, this time with what the person entered.
    lab.calls.clear()
    told = recompute(lab.schema, delete_entered=True, instance=instance)
    assert lab.calls == [("RawData", 3), ("Processed", 3), ("Filtered", 3), ("Filtered", 3)]
    assert {each.title: each.counts for each in told}["lab.RawData"] == {"made": 1}
    assert len(Verdict()) == 0
    assert recompute(lab.schema) == []


def test_what_refers_to_a_row_that_came_back_as_it_was_is_current(
    written: EditedModule, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    file = tmp_path / "lab.sqlite"
    connection = Connection(f"sqlite:///{file}", safemode=False)
    module = written.load()
    defs = declare(module, connection)
    module.Thing.insert([{"thing": 1}, {"thing": 2}])
    run_until_quiet(defs, instance)
    # A client without foreign keys, which leaves what depends on the row.
    with closing(sqlite3.connect(file)) as client:
        client.execute(f"DELETE FROM {module.Result.full_table_name} WHERE thing = 1")
        client.commit()

    def is_back() -> bool:
        run_until_quiet(defs, instance)
        ages = [stale(defs, instance, "lab/later", key)[0] for key in ("thing=1", "thing=2")]
        return len(module.Result()) == 2 and ages == [StaleStatus.FRESH] * 2

    assert eventually(is_back, every=0.1)
