"""What lost runs and workers leave behind, and what becomes of it by itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.runs import sql_run_storage

from dj_dagster.orchestration import SensorSettings
from dj_dagster.orchestration.merge import pipelines_of
from dj_dagster.orchestration.runs import run_records
from tests.orchestration.lab import Lab, partitions
from tests.orchestration.running import (
    execute,
    repeated,
    requested,
    run_until_quiet,
    start_and_die,
    statuses,
    submit,
    tick,
)
from tests.services.process import PATIENCE, eventually


def test_runs_that_cannot_start_are_asked_for_until_they_can(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = lab.definitions(sensor_settings=SensorSettings(attempts=1))
    lab.add_sessions(range(2))
    for _ in range(3):
        (request,) = requested(tick(defs, instance))
        instance.report_run_failed(submit(defs, instance, request), "could not be launched")
        monkeypatch.setattr(run_records, "PAUSE", 60.0)
        assert requested(tick(defs, instance)) == []
        monkeypatch.setattr(run_records, "PAUSE", 0.0)
    (request,) = requested(tick(defs, instance))
    assert execute(defs, instance, submit(defs, instance, request))
    assert len(lab.RawData()) == 2


def test_pauses_after_runs_that_cannot_start_grow_up_to_a_limit(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    found = [run_records.pause_after(failures) for failures in range(1, 9)]
    assert found == [15, 30, 60, 120, 240, 480, 600, 600]
    defs = lab.definitions()
    lab.add_sessions(range(2))
    (request,) = requested(tick(defs, instance))
    instance.report_run_failed(submit(defs, instance, request))
    assert requested(tick(defs, instance)) == []
    lab.add_sessions([2])
    # New keys are not held up by it.
    assert len(requested(tick(defs, instance))) == 1


def test_runs_that_die_without_a_word_are_tried_a_few_times(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    defs = lab.definitions(sensor_settings=SensorSettings(attempts=2))
    lab.add_sessions(range(2))
    for _ in range(2):
        (request,) = requested(tick(defs, instance))
        start_and_die(instance, submit(defs, instance, request))
    assert requested(tick(defs, instance)) == []


def asked(defs: dg.Definitions, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """Tick until something is asked for: a busy machine looks less often for what is gone."""
    return eventually(lambda: requested(tick(defs, instance)), every=0.1)


def test_keys_whose_rows_go_again_and_again_are_made_each_time(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    defs = any_lab.definitions(sensor_settings=SensorSettings(attempts=1))
    any_lab.add_sessions(range(2))

    def is_made() -> bool:
        assert all(run_until_quiet(defs, instance))
        return len(any_lab.Processed()) == 2

    for _ in range(4):
        assert eventually(is_made, every=0.1)
        any_lab.RawData.delete()


def test_runs_that_died_before_the_rows_were_made_do_not_count_later(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    defs = lab.definitions(sensor_settings=SensorSettings(attempts=2))
    lab.add_sessions(range(2))
    for _ in range(2):
        (request,) = asked(defs, instance)
        start_and_die(instance, submit(defs, instance, request))
        (request,) = asked(defs, instance)
        assert execute(defs, instance, submit(defs, instance, request))
        run_until_quiet(defs, instance)
        assert len(lab.RawData()) == 2
        lab.RawData.delete()


def test_a_run_is_asked_for_though_old_runs_were_deleted(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    defs = lab.definitions()
    lab.add_sessions(range(2))
    first, second = [], []
    for runs in (first, second):
        (request,) = asked(defs, instance)
        runs.append(submit(defs, instance, request))
        assert execute(defs, instance, runs[0])
        run_until_quiet(defs, instance)
        lab.RawData.delete()
    instance.delete_run(first[0].run_id)
    (request,) = asked(defs, instance)
    # A key that was used before would give the old run.
    assert submit(defs, instance, request).run_id != second[0].run_id


def test_a_run_that_was_not_seen_alive_is_seen_failed_whatever_the_clock_of_its_machine(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_records, "INTERVAL", 0.0)
    monkeypatch.setattr(run_records, "AT_ONCE", 1)
    (pipeline,) = pipelines_of(lab.definitions().sensors or ())
    book = run_records.RunBook()
    assert book.read(instance, pipeline.graph) == []
    for hours in (-5, 5):
        late = datetime.now(UTC) + timedelta(hours=hours)
        monkeypatch.setattr(sql_run_storage, "get_current_datetime", lambda late=late: late)
        for _ in range(2):
            instance.report_run_failed(
                instance.create_run_for_job(dg.GraphDefinition(name="empty").to_job())
            )
        assert len(book.read(instance, pipeline.graph)) == 2
        assert book.read(instance, pipeline.graph) == []


def test_a_batch_is_in_one_live_run_also_where_its_request_was_forgotten(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions(range(2))
    (request,) = requested(tick(lab.definitions(), instance))
    submit(lab.definitions(), instance, request)
    # Another code server, which sees the run begin after it has looked at the runs.
    late = lab.definitions()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "dj_dagster.orchestration.runs.run_records.RunBook.read", lambda *_: list[object]()
        )
        assert requested(tick(late, instance)) == []
    assert requested(tick(late, instance)) == []


def test_jobs_of_keys_that_are_there_go_with_a_tick(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    defs = any_lab.definitions()
    any_lab.add_sessions(range(3))
    jobs = any_lab.RawData.jobs
    jobs.refresh()
    jobs.error({"subject_id": 1, "session_id": 1}, "ValueError: not yet")
    any_lab.RawData.populate()
    assert jobs.progress()["total"] == 3
    tick(defs, instance)
    assert jobs.progress()["total"] == 0


def run_apart(defs: dg.Definitions, instance: dg.DagsterInstance, run: DagsterRun) -> Any:
    """Execute a run in a process of its own."""
    process = multiprocessing.get_context("fork").Process(
        target=execute, args=(defs, instance, run)
    )
    process.start()
    return process


def test_run_whose_process_was_killed_unseen_ends_and_is_taken_up(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    class Deadly(set[int]):
        def __contains__(self, session: object) -> bool:
            if session == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return False

    lab.broken = Deadly()
    defs = lab.definitions()
    lab.add_sessions(range(3))
    (request,) = requested(tick(defs, instance))
    run = submit(defs, instance, request)
    process = run_apart(defs, instance, run)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    # Nobody has told Dagster.
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]
    lab.broken = set()
    tick(defs, instance)
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]
    assert all(run_until_quiet(defs, instance))
    assert statuses(defs, instance, "lab/raw_data") == {"MATERIALIZED": partitions(range(3))}


@pytest.mark.parametrize("again", [False, True])
def test_run_whose_process_lives_is_left_to_it(
    lab: Lab, instance: dg.DagsterInstance, again: bool
) -> None:
    class Waiting(set[int]):
        def __contains__(self, session: object) -> bool:
            eventually(lab_is_seen.is_set, every=0.02)
            return False

    lab_is_seen = multiprocessing.get_context("fork").Event()
    defs = lab.definitions()
    lab.add_sessions([0])
    (request,) = requested(tick(defs, instance))
    run = submit(defs, instance, request)
    if again:
        # The run before has noted its process, which is gone, and its failed key.
        lab.broken = {0}
        run_apart(defs, instance, run).join(PATIENCE)
        run = repeated(defs, instance, refreshed(instance, run))
    lab.broken = Waiting()
    process = run_apart(defs, instance, run)

    def noted() -> bool:
        return run.run_id in refreshed(instance, run).tags.get("dj_dagster/process", "")

    eventually(noted, every=0.1)
    assert requested(tick(defs, instance)) == []
    assert refreshed(instance, run).status is dg.DagsterRunStatus.STARTED
    lab_is_seen.set()
    process.join(PATIENCE)
    ended = refreshed(instance, run)
    assert ended.status is dg.DagsterRunStatus.SUCCESS
    assert ended.tags.get("dj_dagster/failed", "0") == "0"


def refreshed(instance: dg.DagsterInstance, run: DagsterRun) -> DagsterRun:
    """Return a run as the instance has it now."""
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found
