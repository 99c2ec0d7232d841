"""The sensor's table of transitions, row by row: each event is caused, seen, and dealt with."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest

from dj_dagster.orchestration import RetryPolicy, SensorSettings
from dj_dagster.orchestration.headless import run_job
from dj_dagster.orchestration.sensor.state import SensorState
from dj_dagster.orchestration.sensor.transitions import EFFECTS, Event, Work
from dj_dagster.workflow.jobs import JobQueue
from tests.orchestration.lab import Lab, partition
from tests.orchestration.running import (
    create_run,
    execute,
    key_of,
    requested,
    run_until,
    run_until_quiet,
    start_and_die,
    statuses,
    submit,
    tick,
)
from tests.services.process import eventually

FILLED = ("RawData", "Processed", "Filtered")
SETTINGS = SensorSettings(
    sweep=1e9, retries=RetryPolicy(attempts=2, delay=0.0, errors=["FileNotFoundError"])
)


@dataclass
class Bench:
    """A lab that is quiet, its sensor, and what this has noted: events by table, and work."""

    lab: Lab
    instance: dg.DagsterInstance
    defs: dg.Definitions
    events: set[tuple[Event, str]] = field(default_factory=set)
    works: set[tuple[Work, str]] = field(default_factory=set)

    def request(self) -> dg.DagsterRun:
        """Create the run that the sensor asks for."""
        (request,) = requested(tick(self.defs, self.instance))
        return submit(self.defs, self.instance, request)

    def outside(self, *statements: str) -> None:
        """Run statements as a client that knows nothing of foreign keys."""
        path = self.lab.schema.connection.engine.url.database
        assert path is not None
        with sqlite3.connect(path) as client:
            for statement in statements:
                client.execute(statement)
        client.close()

    def is_at_rest(self) -> bool:
        """Run what is asked for, and return whether a tick then has nothing to do."""
        run_until_quiet(self.defs, self.instance)
        self.works.clear()
        result = tick(self.defs, self.instance)
        nothing = "0 partitions added, 0 removed, 0 marked" in str(result.skip_reason)
        return nothing and not result.cursor and not self.works

    def differences(self) -> dict[str, Any]:
        """Return what Dagster shows otherwise than the tables and their queues have it."""
        found: dict[str, Any] = {}
        for name in ("Session", *FILLED):
            table = self.lab.schema.tables[name]
            title = "raw_data" if name == "RawData" else name.lower()
            shown = statuses(self.defs, self.instance, self.lab.asset(title))
            shown.pop("MISSING", None)
            failed = JobQueue(table()).errors.keys() if name in FILLED else []
            wanted = {"MATERIALIZED": table().keys(), "FAILED": failed}
            told = {status: set(map(_partition, keys)) for status, keys in wanted.items() if keys}
            if shown != told:
                found[name] = shown, told
        return found


def _partition(key: dict[str, Any]) -> str:
    names = ("subject_id", "session_id", "filter_id")
    return "/".join(f"{name}={key[name]}" for name in names if name in key)


@pytest.fixture
def bench(lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Bench:
    lab.add_sessions(range(3))
    bench = Bench(lab, instance, lab.definitions(sensor_settings=SETTINGS))
    note, note_work = SensorState.note, SensorState._note_work

    def noted(state: SensorState, event: Event, node: Any, *where: Any) -> None:
        bench.events.add((event, node.title))
        note(state, event, node, *where)

    def work_noted(state: SensorState, work: Work, node: Any, region: Any) -> None:
        bench.works.add((work, node.title))
        note_work(state, work, node, region)

    monkeypatch.setattr(SensorState, "note", noted)
    monkeypatch.setattr(SensorState, "_note_work", work_noted)
    # Looks at what is gone in Dagster are taken in every tick.
    monkeypatch.setattr("dj_dagster.orchestration.sensor.upkeep.SHORTEST", 0.0)
    run_until_quiet(bench.defs, instance)
    assert bench.differences() == {}
    bench.events.clear()
    bench.works.clear()
    return bench


def append_row(bench: Bench) -> None:
    bench.lab.add_sessions([9])


def delete_row(bench: Bench) -> None:
    (bench.lab.Session & {"session_id": 1}).delete(prompt=False)


def change_value(bench: Bench) -> None:
    bench.lab.Session.update1({"subject_id": 1, "session_id": 1, "note": "late"})


def fail_once(bench: Bench) -> None:
    bench.lab.broken.add(9)
    bench.lab.add_sessions([9])
    execute(bench.defs, bench.instance, bench.request())
    bench.lab.broken.clear()


def free_an_ignored_key(bench: Bench) -> None:
    jobs = JobQueue(bench.lab.RawData())
    bench.lab.add_sessions([9])
    jobs.ignore({"subject_id": 1, "session_id": 9})
    run_until_quiet(bench.defs, bench.instance)
    assert len(bench.lab.RawData()) == 3
    jobs.ignored.delete()


def lose_a_run(bench: Bench) -> None:
    bench.lab.add_sessions([9])
    start_and_die(bench.instance, bench.request())


def lose_a_run_of_a_whole_table(bench: Bench) -> None:
    bench.lab.add_sessions([9])
    run = create_run(bench.defs, bench.instance, [key_of("lab/raw_data")])
    tick(bench.defs, bench.instance)
    start_and_die(bench.instance, run)


def remove_a_partition(bench: Bench) -> None:
    bench.instance.delete_dynamic_partition("lab.Session", partition(2))


def wipe_an_asset(bench: Bench) -> None:
    bench.instance.wipe_assets([key_of("lab/raw_data")])


def start_anew(bench: Bench) -> None:
    bench.defs = bench.lab.definitions(sensor_settings=SETTINGS)


def delete_a_result(bench: Bench) -> None:
    (bench.lab.Processed & {"session_id": 1}).delete(prompt=False)


def make_a_stale_row_again(bench: Bench) -> None:
    change_value(bench)
    run_until_quiet(bench.defs, bench.instance)
    bench.events.clear()
    (bench.lab.RawData & {"session_id": 1}).delete(prompt=False)
    bench.lab.RawData.populate()


def recompute_equal_rows(bench: Bench) -> None:
    config = {"ops": {"populate_tables": {"config": {"on_existing": "recompute"}}}}
    assert run_job(bench.defs, "populate", instance=bench.instance, run_config=config).is_success


def orphan_a_row_and_enter_its_parent_again(bench: Bench) -> None:
    (bench.lab.Processed & {"session_id": 1}).delete(prompt=False)
    bench.outside('DELETE FROM "lab.Session" WHERE session_id = 1')
    run_until_quiet(bench.defs, bench.instance)
    bench.lab.add_sessions([1])


CAUSES: dict[Event, tuple[Callable[[Bench], None], str]] = {
    Event.ROWS_APPENDED: (append_row, "lab.Session"),
    Event.KEYS_CHANGED: (delete_row, "lab.Session"),
    Event.VALUES_CHANGED: (change_value, "lab.Session"),
    Event.KEYS_FREED: (free_an_ignored_key, "lab.RawData"),
    Event.JOBS_FAILED: (fail_once, "lab.RawData"),
    Event.QUEUE_READ: (fail_once, "lab.RawData"),
    Event.FAILURES_IN_DOUBT: (start_anew, "lab.RawData"),
    Event.RUN_ENDED: (lose_a_run, "lab.RawData"),
    Event.TABLE_RUN_ENDED: (lose_a_run_of_a_whole_table, "lab.RawData"),
    Event.MASTER_RUN_ENDED: (lose_a_run, "lab.Processed.Peak"),
    Event.KEYS_RETRIED: (fail_once, "lab.RawData"),
    Event.PARTITIONS_LOST: (remove_a_partition, "lab.Session"),
    Event.EVENTS_LOST: (wipe_an_asset, "lab.RawData"),
    Event.PARENTS_RESTORED: (orphan_a_row_and_enter_its_parent_again, "lab.Processed"),
    Event.MARKS_WITHDRAWN: (delete_a_result, "lab.Processed"),
    Event.MARKS_AGED: (change_value, "lab.RawData"),
    Event.MARKS_WRITTEN: (recompute_equal_rows, "lab.RawData"),
    Event.NOTES_WRITTEN: (make_a_stale_row_again, "lab.RawData"),
}
"""How each event comes about, and the table in which."""


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
def test_an_event_is_seen_and_all_its_work_done(bench: Bench, event: Event) -> None:
    cause, table = CAUSES[event]
    cause(bench)
    run_until(bench.defs, bench.instance, lambda: (event, table) in bench.events)
    run_until(bench.defs, bench.instance, lambda: bench.differences() == {})
    # Of the work nothing is left in the end: a tick finds nothing more to do.
    eventually(lambda: bench.is_at_rest(), every=0.1)
    assert bench.differences() == {}


def test_each_event_makes_work_and_each_work_comes_of_an_event() -> None:
    made = [effects.itself | effects.readers | effects.dependents for effects in EFFECTS.values()]
    assert all(made)
    assert EFFECTS.keys() == set(Event) == CAUSES.keys()
    assert set[Work]().union(*made) == set(Work)


def test_a_change_makes_work_for_the_table_its_readers_and_its_dependents(bench: Bench) -> None:
    append_row(bench)
    tick(bench.defs, bench.instance)
    # A file tells of queues and notes only that they may have been written.
    anything = {(work, f"lab.{name}") for work in (Work.RETRY, Work.RENEW) for name in FILLED}
    # Rows that people enter do not become stale: that work has no meaning for their table.
    assert bench.works - anything == {
        (Work.AGE, "lab.Session"),
        (Work.CHECK, "lab.Session"),
        (Work.MARK, "lab.Session"),
        (Work.REGISTER, "lab.Session"),
        (Work.RECOUNT, "lab.Session"),
        (Work.CHECK, "lab.RawData"),
        (Work.REQUEST, "lab.RawData"),
        (Work.REGISTER, "lab.RawData"),
        (Work.AGE, "lab.RawData"),
    }
