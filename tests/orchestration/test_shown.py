"""What Dagster shows of a key is what its table and job queue hold, whoever brought it about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.storage.partition_status_cache import _build_status_cache

from dj_dagster.orchestration import TableChecks, headless
from dj_dagster.orchestration.runs.shown_marks import checked_marks, last_events, last_marks
from tests.orchestration.conftest import SETTINGS
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import (
    create_run,
    execute,
    key_of,
    materialize,
    repeated,
    requested,
    run_until,
    run_until_quiet,
    statuses,
    submit,
    tick,
)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A new instance, as there is one after DAGSTER_HOME was lost."""
    folder = tmp_path / "new_home"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder), overrides=SETTINGS) as made:
        yield made


class Reading:
    """A reading of a table's partitions that begins now and goes on when `end` is called.

    The web server reads the table's record first and its last plan later, on a busy machine much
    later, and keeps what it has found in the instance.
    """

    def __init__(self, instance: dg.DagsterInstance, name: str, grain: str) -> None:
        self.instance, self.key = instance, key_of(name)
        self.definition = dg.DynamicPartitionsDefinition(name=grain)
        names = instance.get_dynamic_partitions(grain)
        instance.get_status_by_partition(self.key, names, self.definition)
        self.record = instance.get_asset_records([self.key])[0]

    def end(self) -> None:
        known = self.record.asset_entry.cached_status
        with partition_loading_context(dynamic_partitions_store=self.instance):
            found = _build_status_cache(
                self.instance, self.key, self.definition, known, self.record
            )
        assert found is not None
        self.instance.update_asset_cached_status_data(self.key, found)


def notes(instance: dg.DagsterInstance, name: str, of: str) -> list[str]:
    """What the notes on a partition's page say, the last first."""
    wanted = dg.AssetRecordsFilter(key_of(name), asset_partitions=[of])
    found = instance.fetch_observations(wanted, limit=100).records
    observed = (record.event_log_entry.asset_observation for record in found)
    return [each.description or "" for each in observed if each is not None]


def numbers(instance: dg.DagsterInstance, name: str, check: str) -> dict[str, Any] | None:
    """The last evaluation of a check, None without one."""
    key = dg.AssetCheckKey(key_of(name), check)
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
    if found is None or found.evaluation is None:
        return None
    values = {label: each.value for label, each in found.evaluation.metadata.items()}
    return {"passed": found.evaluation.passed, **values}


@pytest.mark.parametrize("again", [False, True])
def test_marks_that_come_while_dagster_reads_are_shown(
    lab: Lab, instance: dg.DagsterInstance, again: bool
) -> None:
    """A run makes keys, and fails in one; executed again it is for others too, which are there."""
    defs = lab.definitions()
    lab.add_sessions(range(6))
    lab.broken = {2, 4}
    (request,) = requested(tick(defs, instance))
    run = submit(defs, instance, request)
    if again:
        assert not execute(defs, instance, run)
        lab.broken = {4}
        run = repeated(defs, instance, run)
    reading = Reading(instance, "lab/raw_data", "lab.Session")
    assert not execute(defs, instance, run)
    reading.end()
    failed = {2, 4} - ({2} if again else set())
    shown = {"MATERIALIZED": partitions({*range(6)} - failed), "FAILED": partitions(failed)}
    assert statuses(defs, instance, "lab/raw_data") == shown


def tick_until(
    defs: dg.Definitions, instance: dg.DagsterInstance, wanted: dict[str, set[str]], name: str
) -> None:
    """Tick, and run what is asked for, until an asset is shown so; fail when it never is."""
    run_until(defs, instance, lambda: statuses(defs, instance, name) == wanted)


def test_failures_of_workers_outside_are_shown_with_their_errors(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    defs, raw = any_lab.definitions(), any_lab.asset("raw_data")
    run_until_quiet(defs, instance)
    any_lab.broken = {1, 2}
    any_lab.add_sessions(range(4))
    any_lab.RawData.populate(reserve_jobs=True, suppress_errors=True)
    run_until_quiet(defs, instance)
    assert statuses(defs, instance, raw) == {
        "MATERIALIZED": partitions([0, 3]),
        "FAILED": partitions([1, 2]),
    }
    (note,) = notes(instance, raw, partition(1))
    assert note == "Failed: FileNotFoundError: no file session1.csv"
    assert notes(instance, raw, partition(0)) == []
    # They were put down to one run, which is not begun again.
    run_until_quiet(defs, instance)
    assert len(notes(instance, raw, partition(1))) == 1
    failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert [run.asset_selection for run in failed] == [{key_of(raw)}]


def test_a_failure_goes_from_view_with_its_job(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    any_lab.broken = {1}
    any_lab.add_sessions([1, 2, 3])
    defs = any_lab.definitions(exclude=["Filtered"])
    raw, processed = any_lab.asset("raw_data"), any_lab.asset("processed")
    run_until_quiet(defs, instance)
    assert statuses(defs, instance, raw)["FAILED"] == {partition(1)}
    # Nobody is to try it again: it is as good as not there.
    any_lab.RawData.jobs.ignore({"subject_id": 1, "session_id": 1})
    tick_until(defs, instance, {"MISSING": {partition(1)}, "MATERIALIZED": partitions([2, 3])}, raw)
    any_lab.broken = set()
    any_lab.RawData.jobs.ignored.delete()
    tick_until(defs, instance, {"MATERIALIZED": partitions([1, 2, 3])}, raw)
    assert statuses(defs, instance, processed) == {"MATERIALIZED": partitions([1, 2, 3])}


def test_a_failure_that_was_made_outside_is_shown_as_made(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    any_lab.broken = {1}
    any_lab.add_sessions([1, 2])
    defs, raw = any_lab.definitions(), any_lab.asset("raw_data")
    run_until_quiet(defs, instance)
    any_lab.broken = set()
    any_lab.RawData.jobs.errors.delete()
    any_lab.RawData.populate()
    tick_until(defs, instance, {"MATERIALIZED": partitions([1, 2])}, raw)


def test_a_failed_key_that_is_entered_again_is_a_new_one(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab = any_lab
    lab.broken = {1, 2}
    lab.add_sessions([1, 2, 3])
    defs, raw = lab.definitions(exclude=["Filtered"]), lab.asset("raw_data")
    run_until_quiet(defs, instance)
    assert statuses(defs, instance, raw)["FAILED"] == partitions([1, 2])
    (lab.Session & {"session_id": 1}).delete()
    tick_until(defs, instance, {"MATERIALIZED": {partition(3)}, "FAILED": {partition(2)}}, raw)
    run_until(defs, instance, lambda: len(lab.RawData.jobs.errors) == 1)
    lab.broken = set()
    lab.add_sessions([1])
    wanted = {"MATERIALIZED": partitions([1, 3]), "FAILED": {partition(2)}}
    tick_until(defs, instance, wanted, raw)


def test_failures_outlive_the_loss_of_the_instance(
    any_lab: Lab, instance: dg.DagsterInstance, other: dg.DagsterInstance
) -> None:
    any_lab.broken = {1}
    any_lab.add_sessions([1, 2])
    run_until_quiet(any_lab.definitions(), instance)
    defs, raw = any_lab.definitions(), any_lab.asset("raw_data")
    run_until_quiet(defs, other)
    assert statuses(defs, other, raw) == statuses(defs, instance, raw)
    assert statuses(defs, other, raw)["FAILED"] == {partition(1)}
    assert notes(other, raw, partition(1)) == notes(instance, raw, partition(1)) != []


@pytest.mark.parametrize("launched", ["partition", "range", "sensor"])
def test_the_page_of_a_failed_key_has_its_error(
    lab: Lab, instance: dg.DagsterInstance, launched: str
) -> None:
    lab.broken = {1}
    lab.add_sessions([1, 2])
    defs = lab.definitions()
    tick(defs, instance)
    if launched == "sensor":
        run_until_quiet(defs, instance)
    else:
        through = partition(2) if launched == "range" else None
        materialize(defs, instance, "lab/raw_data", partition=partition(1), through=through)
    assert statuses(defs, instance, "lab/raw_data")["FAILED"] == {partition(1)}
    (note,) = notes(instance, "lab/raw_data", partition(1))
    assert "no file session1.csv" in note
    assert notes(instance, "lab/raw_data", partition(2)) == []


def test_rows_that_are_there_are_not_shown_as_failed(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    any_lab.add_sessions([1, 2])
    defs, processed = any_lab.definitions(), any_lab.asset("processed")
    run_until_quiet(defs, instance)
    wanted = dg.AssetRecordsFilter(key_of(processed), asset_partitions=[partition(1)])
    (before,) = instance.fetch_materializations(wanted, limit=5).records
    keys = [key_of(processed), key_of(f"{processed}/peak")]
    run = create_run(defs, instance, keys, tags={"dagster/partition": partition(1)})
    instance.report_run_failed(run, "could not be started")
    assert partition(1) in statuses(defs, instance, processed)["FAILED"]
    for name in (processed, f"{processed}/peak"):
        tick_until(defs, instance, {"MATERIALIZED": partitions([1, 2])}, name)
    (after, *_) = instance.fetch_materializations(wanted, limit=5).records
    assert before.asset_materialization is not None
    assert after.asset_materialization is not None
    assert after.asset_materialization.metadata == before.asset_materialization.metadata
    assert after.event_log_entry.tags == before.event_log_entry.tags


def test_a_key_of_a_run_that_could_not_start_is_missing(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions([1])
    defs = lab.definitions()
    (request,) = requested(tick(defs, instance))
    instance.report_run_failed(submit(defs, instance, request), "could not be started")
    assert statuses(defs, instance, "lab/raw_data") == {"FAILED": {partition(1)}}
    tick(defs, instance)
    assert statuses(defs, instance, "lab/raw_data") == {"MISSING": {partition(1)}}


def test_a_coarse_partition_stays_failed_until_all_its_keys_are_made(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    any_lab.broken = {2}
    any_lab.add_sessions([1, 2])
    any_lab.add_sessions([1], subject=2)
    defs = any_lab.definitions(partition_by={"RawData": "subject_id"}, exclude=["Processed"])
    raw = any_lab.asset("raw_data")
    run_until_quiet(defs, instance)
    shown = {"FAILED": {"subject_id=1"}, "MATERIALIZED": {"subject_id=2"}}
    assert statuses(defs, instance, raw) == shown
    any_lab.add_sessions([3])
    run_until_quiet(defs, instance)
    assert len(any_lab.RawData()) == 3
    assert statuses(defs, instance, raw) == shown
    assert "session2.csv" in notes(instance, raw, "subject_id=1")[0]
    any_lab.broken = set()
    assert materialize(defs, instance, raw, partition="subject_id=1")
    tick_until(defs, instance, {"MATERIALIZED": {"subject_id=1", "subject_id=2"}}, raw)


@pytest.mark.parametrize("route", ["partition", "asset", "run"])
def test_what_a_person_removes_in_dagster_comes_back(
    lab: Lab, instance: dg.DagsterInstance, route: str
) -> None:
    lab.broken = {3}
    lab.add_sessions([1, 2, 3])
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    shown = statuses(defs, instance, "lab/raw_data")
    assert shown == {"MATERIALIZED": partitions([1, 2]), "FAILED": {partition(3)}}
    if route == "partition":
        instance.delete_dynamic_partition("lab.Session", partition(2))
        assert len(instance.get_dynamic_partitions("lab.Session")) == 2
    elif route == "asset":
        instance.wipe_assets([key_of("lab/raw_data")])
        assert set(statuses(defs, instance, "lab/raw_data")) == {"MISSING"}
    else:
        for run in instance.get_runs():
            instance.delete_run(run.run_id)
        instance.event_log_storage.wipe_asset_cached_status(key_of("lab/raw_data"))
        assert set(statuses(defs, instance, "lab/raw_data")) == {"MISSING"}
    tick_until(defs, instance, shown, "lab/raw_data")


def test_a_partition_removed_right_after_the_sensor_removed_others_comes_back(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions([1, 2, 3])
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    (lab.Session & "session_id = 3").delete()
    shown = {"MATERIALIZED": partitions([1, 2])}
    tick_until(defs, instance, shown, "lab/raw_data")
    instance.delete_dynamic_partition("lab.Session", partition(2))
    tick_until(defs, instance, shown, "lab/raw_data")


def test_the_events_of_a_table_have_times_of_their_own(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.broken = set(range(0, 300, 3))
    lab.add_sessions(range(300))
    run_until_quiet(lab.definitions(exclude=["Processed", "Filtered"]), instance)
    for name, fetch, count in (
        ("lab/session", instance.fetch_materializations, 300),
        ("lab/raw_data", instance.fetch_materializations, 200),
        ("lab/raw_data", instance.fetch_observations, 100),
    ):
        records = fetch(dg.AssetRecordsFilter(key_of(name)), limit=1000).records
        assert len(records) == count
        instants = [int(record.timestamp * 1000) for record in reversed(records)]
        assert instants == sorted(set(instants))


def test_the_checks_are_evaluated_once_the_sensors_runs_have_ended(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    defs, raw = any_lab.definitions(), any_lab.asset("raw_data")
    any_lab.broken = {1}
    any_lab.add_sessions([1, 2, 3])
    run_until_quiet(defs, instance)
    wanted = {"passed": False, "pending": 0, "failed": 1, "done": 2, "keys": 3}
    assert numbers(instance, raw, "complete") == wanted
    assert numbers(instance, any_lab.asset("processed"), "parts") == {
        "passed": True,
        "orphans": 0,
        "rows": 2,
        "rows_peak": 4,
        "without_peak": 0,
    }
    # What is made outside is seen as well.
    any_lab.broken = set()
    any_lab.RawData.jobs.errors.delete()
    any_lab.RawData.populate()
    run_until(defs, instance, lambda: (numbers(instance, raw, "complete") or {})["passed"])
    assert numbers(instance, raw, "complete") == {
        "passed": True,
        "pending": 0,
        "failed": 0,
        "done": 3,
        "keys": 3,
    }


def test_checks_that_are_not_wanted_are_not_evaluated(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions([1])
    defs = lab.definitions(checks=TableChecks(complete=False))
    run_until_quiet(defs, instance)
    assert numbers(instance, "lab/raw_data", "complete") is None
    assert numbers(instance, "lab/processed", "parts") is not None


def test_without_partitions_or_tables_nothing_is_read(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    """Dagster's storage takes none for all: looks at rows without notes read all marks."""
    lab.add_sessions(range(3))
    defs = lab.definitions()
    assert all(run_until_quiet(defs, instance))
    table = key_of("lab/raw_data")
    assert len(list(last_marks(instance, table, partitions(range(2))))) == 2
    assert list(last_marks(instance, table, [])) == []
    assert last_events(instance, table, dg.DagsterEventType.ASSET_MATERIALIZATION, []) == {}
    assert checked_marks(instance, []) == {}


def test_a_tick_with_nothing_new_writes_nothing(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.broken = {1}
    lab.add_sessions([1, 2])
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    last = instance.event_log_storage.get_maximum_record_id()
    for _ in range(3):
        assert headless.tick(defs, instance=instance) == []
    assert instance.event_log_storage.get_maximum_record_id() == last
