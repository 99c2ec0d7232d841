"""Populate runs: what they make, what Dagster shows of it, and what a retry does."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from dj_dagster.orchestration.headless import run_until_idle
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import (
    create_run,
    execute,
    key_of,
    materialize,
    reexecute,
    requested,
    run_until_quiet,
    statuses,
    submit,
    tick,
)

TABLES = ("lab/raw_data", "lab/processed", "lab/processed/peak")


def register(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Let the sensor register partitions, without running what it asks for."""
    tick(defs, instance)


def step_failure(instance: dg.DagsterInstance, run_id: str) -> dg.Failure | Any:
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return events[0].get_dagster_event().step_failure_data.user_failure_data


def test_one_partition_is_made_with_its_parts(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions(range(3))
    defs = lab.definitions()
    register(defs, instance)
    assert materialize(defs, instance, *TABLES, partition=partition(1))
    assert lab.calls == [("RawData", 1), ("Processed", 1)]
    assert (lab.Processed & {"session_id": 1}).fetch1("total") == 6
    for name in TABLES:
        assert statuses(defs, instance, name)["MATERIALIZED"] == {partition(1)}


def test_a_range_runs_the_chain_key_by_key(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    any_lab.add_sessions(range(5))
    defs = any_lab.definitions()
    register(defs, instance)
    names = [any_lab.asset("raw_data"), any_lab.asset("processed"), any_lab.asset("processed/peak")]
    assert materialize(defs, instance, *names, partition=partition(1), through=partition(3))
    for name in names:
        assert statuses(defs, instance, name)["MATERIALIZED"] == partitions([1, 2, 3])
    assert len(any_lab.Processed.Peak()) == 6


def test_a_failing_key_alone_is_shown_as_failed_and_the_chain_goes_on(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.broken = {2}
    lab.add_sessions(range(5))
    defs = lab.definitions()
    register(defs, instance)
    assert not materialize(defs, instance, *TABLES, partition=partition(0), through=partition(4))
    good = partitions([0, 1, 3, 4])
    assert statuses(defs, instance, "lab/raw_data") == {
        "MATERIALIZED": good,
        "FAILED": {partition(2)},
    }
    # Its row is missing, so the table after it could not have it either.
    assert statuses(defs, instance, "lab/processed")["MATERIALIZED"] == good
    assert len(lab.Processed()) == 4


def test_the_failure_names_the_keys_with_their_errors(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.broken = {1, 3}
    lab.add_sessions(range(4))
    defs = lab.definitions()
    (request,) = requested(tick(defs, instance))
    run = submit(defs, instance, request)
    assert not execute(defs, instance, run)
    failure = step_failure(instance, run.run_id)
    errors: Any = failure.metadata["failed_keys"].value
    assert list(errors) == [f"lab.RawData {partition(1)}", f"lab.RawData {partition(3)}"]
    assert errors[f"lab.RawData {partition(3)}"] == "FileNotFoundError: no file session3.csv"
    assert failure.metadata["failed"].value == 2
    messages = "\n".join(record.user_message for record in instance.all_logs(run.run_id))
    assert "lab.RawData subject_id=1/session_id=3 failed" in messages
    assert 'raise FileNotFoundError(f"no file' in messages


@pytest.mark.parametrize("broken", [0, 2])  # the first key is also in the run's tags
def test_a_failing_key_of_a_sensors_run_is_shown_as_failed(
    lab: Lab, instance: dg.DagsterInstance, broken: int
) -> None:
    lab.broken = {broken}
    lab.add_sessions(range(5))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    good = partitions(set(range(5)) - {broken})
    failed = {"MATERIALIZED": good, "FAILED": {partition(broken)}}
    assert statuses(defs, instance, "lab/raw_data") == failed
    missing = {"MATERIALIZED": good, "MISSING": {partition(broken)}}
    assert statuses(defs, instance, "lab/processed") == missing
    assert statuses(defs, instance, "lab/processed/peak") == missing


def test_a_failed_key_is_retried_when_a_person_asks(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.broken = {2}
    lab.add_sessions(range(4))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    lab.broken = set()
    lab.calls.clear()
    assert materialize(defs, instance, *TABLES, partition=partition(2))
    assert lab.calls == [("RawData", 2), ("Processed", 2)]
    assert set(statuses(defs, instance, "lab/raw_data")) == {"MATERIALIZED"}
    assert run_until_quiet(defs, instance) == [True]  # Filtered had waited for it


def test_a_run_of_the_sensor_that_a_person_executes_again_makes_what_failed_in_it(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.broken = {2}
    lab.add_sessions(range(4))
    defs = lab.definitions()
    failed, *_ = run_until_idle(defs, instance=instance)
    lab.broken = set()
    lab.calls.clear()
    assert reexecute(defs, instance, failed)
    assert lab.calls == [("RawData", 2), ("Processed", 2)]
    assert set(statuses(defs, instance, "lab/raw_data")) == {"MATERIALIZED"}


@pytest.mark.parametrize("options", [{}, {"partition_by": {"RawData": ["subject_id"]}}])
def test_a_key_whose_job_is_held_is_made_or_says_why_not(
    lab: Lab, instance: dg.DagsterInstance, options: dict[str, Any]
) -> None:
    own = not options
    lab.add_sessions([0])
    lab.add_sessions([1], subject=2)
    lab.RawData.jobs.refresh(delay=3600)
    lab.RawData.jobs.ignore({"subject_id": 1, "session_id": 0})
    defs = lab.definitions(**options)
    assert run_until_quiet(defs, instance) == []
    name = "lab/raw_data"
    held, later = (
        partition(number, subject=subject) if own else f"subject_id={subject}"
        for subject, number in ((1, 0), (2, 1))
    )
    assert materialize(defs, instance, name, partition=later)
    assert materialize(defs, instance, name, partition=held)
    # What a person materialises is not put off any more.
    assert lab.calls == [("RawData", 1)]
    (note,) = instance.fetch_observations(key_of(name), limit=5).records
    told = note.asset_observation
    assert told is not None
    assert told.partition == held
    assert "its job is to be ignored" in str(note.event_log_entry.dagster_event)
    # Nor is a key deleted that would not be made again.
    lab.RawData.jobs.ignore({"subject_id": 2, "session_id": 1})
    lab.Session.update1({"subject_id": 2, "session_id": 1, "note": "noise"})
    assert not materialize(defs, instance, name, partition=later)
    assert len(lab.RawData()) == 1


def test_a_retry_of_a_range_leaves_what_is_done_alone(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.broken = {2}
    lab.add_sessions(range(4))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    lab.calls.clear()
    assert not materialize(defs, instance, *TABLES, partition=partition(0), through=partition(3))
    assert lab.calls == [("RawData", 2)]
    expected = {"MATERIALIZED": partitions([0, 1, 3]), "FAILED": {partition(2)}}
    assert statuses(defs, instance, "lab/raw_data") == expected
    assert statuses(defs, instance, "lab/processed")["MATERIALIZED"] == partitions([0, 1, 3])


def test_a_done_partition_made_again_stays_materialized(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions([0])
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    lab.calls.clear()
    assert materialize(defs, instance, *TABLES, partition=partition(0))
    assert lab.calls == []
    assert statuses(defs, instance, "lab/raw_data") == {"MATERIALIZED": {partition(0)}}


def test_ranges_with_subset_planned_events_show_the_failed_key_too(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "1")
    lab.broken = {2}
    lab.add_sessions(range(4))
    defs = lab.definitions()
    register(defs, instance)
    assert not materialize(defs, instance, *TABLES, partition=partition(0), through=partition(3))
    expected = {"MATERIALIZED": partitions([0, 1, 3]), "FAILED": {partition(2)}}
    assert statuses(defs, instance, "lab/raw_data") == expected


def test_a_finished_key_tells_rows_bytes_and_seconds(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions([0])
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    event = instance.get_latest_materialization_event(key_of("lab/processed"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert metadata["rows"].value == 3  # its own and two of the part
    assert float(metadata["seconds_make"].value) > 0  # type: ignore[arg-type]
    raw = instance.get_latest_materialization_event(key_of("lab/raw_data"))
    assert raw.asset_materialization.metadata["bytes"].value > 0  # type: ignore[union-attr, operator]


def test_an_error_outside_make_fails_the_step_and_stops_the_chain(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions([0])
    defs = lab.definitions()
    register(defs, instance)
    config = {"ops": {"lab__raw_data": {"config": {"keys": ["nonsense"]}}}}
    tags = {"dagster/partition": partition(0)}
    run = create_run(defs, instance, map(key_of, TABLES), run_config=config, tags=tags)
    assert not execute(defs, instance, run)
    assert lab.calls == []
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    error = events[0].get_dagster_event().step_failure_data.error_display_string
    assert "write 'subject_id=.../session_id=...'" in str(error)


def test_a_hundred_keys_cost_few_events(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions(range(100))
    defs = lab.definitions()
    (request,) = requested(tick(defs, instance))
    run = submit(defs, instance, request)
    assert execute(defs, instance, run)
    # One mark for each key of the three tables, and what any run of two steps has.
    assert len(instance.all_logs(run.run_id)) < 300 + 40


def test_a_sensor_for_failed_runs_gets_the_keys_with_their_errors(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dj_dagster.orchestration.runs.populate_step.ERRORS_NAMED", 2)
    lab.broken = {0, 2, 3}
    lab.add_sessions(range(4))
    defs = lab.definitions()
    (request,) = requested(tick(defs, instance))
    run = submit(defs, instance, request)
    assert not execute(defs, instance, run)
    told: list[tuple[str, Any]] = []

    @dg.run_failure_sensor(request_jobs=None)
    def tell(context: dg.RunFailureSensorContext) -> None:
        for event in context.get_step_failure_events():
            data = event.step_failure_data
            assert data.error is not None
            assert data.user_failure_data is not None
            told.append((data.error.message, data.user_failure_data.metadata["failed_keys"].value))

    (end,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.tags["dj_dagster/failed"] == "3"
    tell(
        dg.build_run_status_sensor_context(
            "tell", end.get_dagster_event(), instance, ended
        ).for_run_failure()
    )
    ((text, failed),) = told
    assert "3 keys failed: lab.RawData subject_id=1/session_id=0: FileNotFoundError: no fil" in text
    assert "session_id=2: FileNotFoundError: no file session2.csv; and 1 more" in text
    assert failed[f"lab.RawData {partition(3)}"] == "FileNotFoundError: no file session3.csv"


@pytest.mark.parametrize(("first", "last", "keys"), [(1, None, "1"), (1, 3, "3")])
def test_runs_of_people_say_what_they_make(
    lab: Lab, instance: dg.DagsterInstance, first: int, last: int | None, keys: str
) -> None:
    lab.add_sessions(range(5))
    defs = lab.definitions()
    register(defs, instance)
    through = None if last is None else partition(last)
    assert materialize(defs, instance, *TABLES, partition=partition(first), through=through)
    (run,) = instance.get_runs(limit=1)
    assert run.tags["dj_dagster/keys"] == keys
    assert run.tags["dj_dagster/tables"] == "lab.RawData, lab.Processed"
    messages = "\n".join(record.user_message for record in instance.all_logs(run.run_id))
    noun = "key" if keys == "1" else "keys"
    assert f"lab.Processed: {keys} {noun} to be made" in messages
    assert f"lab.Processed: {keys} made" in messages
