"""The job queue as a table: its statuses, refreshing it, leases, and what populate does with it."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.model.job_settings import JobSettings
from dj_dagster.workflow import jobs, liveness
from dj_dagster.workflow.jobs import queues
from tests.lab import connect
from tests.services.process import PATIENCE


class Pipeline:
    """A manual table of numbers, and a computed one of their squares."""

    def __init__(self, connection: dj.Connection, prefix: str, numbers: int = 4) -> None:
        self.schema = schema = dj.Schema(f"{prefix}lab", connection=connection)

        @schema
        class Number(dj.Manual):
            definition = """
            n : int32
            """

        @schema
        class Square(dj.Computed):
            definition = """
            -> Number
            ---
            square : int32
            """

            def make(self, key: dict[str, Any]) -> None:
                pipeline.made.append(key["n"])
                pipeline.make(self, key)

        pipeline = self
        self.made: list[int] = []
        self.number, self.square = Number, Square
        Number.insert((n,) for n in range(numbers))

    def make(self, table: Any, key: dict[str, Any]) -> None:
        table.insert1({**key, "square": key["n"] ** 2})

    def statuses(self) -> dict[int, str]:
        return {job["n"]: job["status"] for job in self.square.jobs.to_dicts(order_by="KEY")}


@pytest.fixture
def lab(connection: dj.Connection, schema_prefix: str) -> Pipeline:
    return Pipeline(connection, schema_prefix)


def set_columns(lab: Pipeline, key: dict[str, Any], **columns: Any) -> None:
    """Change a job behind the queue's back."""
    lab.square.jobs.rows.update([lab.square.jobs.row(key)], (), columns)


def ago(lab: Pipeline, seconds: float) -> Any:
    return lab.square.jobs.rows.now() - timedelta(seconds=seconds)


def test_jobs_through_their_lives(lab: Pipeline) -> None:
    jobs = lab.square.jobs
    assert jobs.refresh() == {"added": 4, "removed": 0, "orphaned": 0, "re_pended": 0}
    assert jobs.refresh()["added"] == 0
    assert len(jobs) == len(jobs.pending) == 4
    assert jobs.target.name == lab.square().name

    time.sleep(0.002)
    assert jobs.reserve({"n": 1})
    assert not jobs.reserve({"n": 1})
    assert not jobs.reserve({"n": 99})
    reserved = jobs.reserved.fetch1()
    assert (reserved["n"], reserved["pid"]) == (1, os.getpid())
    assert reserved["user"] == lab.square.connection.get_user()
    jobs.complete({"n": 1}, duration=0.5)
    assert jobs.reserve({"n": 2})
    jobs.error({"n": 2}, "ValueError: no", "Traceback ...")
    jobs.ignore({"n": 3})
    jobs.ignore({"n": 17})
    assert lab.statuses() == {0: "pending", 2: "error", 3: "ignore", 17: "ignore"}
    assert jobs.errors.fetch1("error_message", "error_stack") == ("ValueError: no", "Traceback ...")
    assert jobs.progress() == {
        "pending": 1, "reserved": 0, "success": 0, "error": 1, "ignore": 2, "total": 4,
    }  # fmt: skip
    assert (jobs & "n > 2").to_arrays("n", order_by="KEY").tolist() == [3, 17]
    assert len(jobs.completed) == 0
    assert (jobs.errors & {"n": 2}).delete() == 1
    assert (jobs.ignored & {"n": 2}).delete() == 0
    assert [queue.name for queue in queues(jobs.connection, [lab.square()])] == [jobs.name]
    assert lab.schema.jobs[0].progress()["ignore"] == 2
    jobs.drop()
    assert list(lab.schema.jobs) == []
    assert len(lab.square.jobs) == 0


def test_populate_leaves_failed_and_ignored_jobs_alone(lab: Pipeline) -> None:
    def make(table: Any, key: dict[str, Any]) -> None:
        if key["n"] == 2:
            raise ValueError("two")
        table.insert1({**key, "square": 0})

    lab.make = make
    lab.square.jobs.ignore({"n": 0})
    result = lab.square.populate(reserve_jobs=True, suppress_errors=True)
    assert result == {"success_count": 2, "error_list": [({"n": 2}, "ValueError: two")]}
    assert lab.square.populate(reserve_jobs=True) == {"success_count": 0, "error_list": []}
    assert lab.statuses() == {0: "ignore", 2: "error"}
    assert 'raise ValueError("two")' in lab.square.jobs.errors.fetch1("error_stack")
    lab.square.jobs.errors.delete()
    with pytest.raises(ValueError, match="two"):
        lab.square.populate(reserve_jobs=True)
    assert lab.made == [1, 2, 3, 2]


def test_priorities_and_delays(lab: Pipeline) -> None:
    jobs = lab.square.jobs
    assert jobs.refresh("n = 3", priority=1, delay=-1)["added"] == 1
    assert jobs.refresh("n = 2", priority=9, delay=-1)["added"] == 1
    assert jobs.refresh({"n": 0}, delay=3600)["added"] == 1
    assert lab.square.populate(reserve_jobs=True, refresh=False, priority=4)["success_count"] == 1
    assert lab.made == [3]
    assert lab.square.populate(reserve_jobs=True)["success_count"] == 2
    assert lab.made == [3, 1, 2]
    assert jobs.to_arrays("n", "priority")[0].tolist() == [0]
    set_columns(lab, {"n": 0}, scheduled_time=ago(lab, 1))
    assert lab.square.populate("n > 0", reserve_jobs=True)["success_count"] == 0
    assert lab.square.populate("n < 1", reserve_jobs=True, refresh=False)["success_count"] == 1


def test_max_calls_counts_calls_of_make(lab: Pipeline) -> None:
    assert lab.square.populate(reserve_jobs=True, max_calls=3)["success_count"] == 3
    assert lab.made == [0, 1, 2]
    assert lab.statuses() == {3: "pending"}


def test_kept_jobs_are_made_again_when_their_rows_go(
    database_url: str, schema_prefix: str, tmp_path: Path
) -> None:
    settings = JobSettings(keep_completed=True)
    connection = dj.Connection(database_url, safemode=False, jobs=settings)
    lab = Pipeline(connection, schema_prefix)
    assert lab.square.populate(reserve_jobs=True)["success_count"] == 4
    kept = lab.square.jobs.completed.to_dicts(order_by="KEY")
    assert [job["n"] for job in kept] == [0, 1, 2, 3]
    assert all(0 < job["duration"] < 10 and job["completed_time"] for job in kept)
    (lab.square & "n = 2").delete()
    assert lab.square.jobs.refresh()["re_pended"] == 1
    assert lab.square.populate(reserve_jobs=True)["success_count"] == 1
    assert lab.made == [0, 1, 2, 3, 2]
    connection.close()


def test_jobs_of_keys_that_have_gone(lab: Pipeline) -> None:
    jobs = lab.square.jobs
    jobs.refresh()
    jobs.error({"n": 1}, "failed")
    jobs.ignore({"n": 2})
    lab.number.delete()
    assert jobs.refresh()["removed"] == 1
    assert lab.statuses() == {0: "pending", 2: "ignore", 3: "pending"}
    # A key that has gone is not made, however young its job is.
    assert lab.square.populate(reserve_jobs=True)["success_count"] == 0
    assert (lab.made, lab.statuses()) == ([], {2: "ignore"})
    lab.number.insert1((5,))
    jobs.refresh()
    lab.number.delete()
    set_columns(lab, {"n": 5}, created_time=ago(lab, 4000))
    assert jobs.refresh(stale_timeout=0)["removed"] == 0
    assert jobs.refresh()["removed"] == 1
    assert lab.statuses() == {2: "ignore"}


@pytest.fixture
def old_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server passes for one that was not started just now."""
    monkeypatch.setattr(liveness, "MARGIN", -60.0)


@pytest.mark.usefixtures("old_server")
def test_reservation_of_a_dead_worker_is_taken_up(lab: Pipeline) -> None:
    jobs = lab.square.jobs
    jobs.refresh(delay=-1)
    for n in range(4):
        assert jobs.reserve({"n": n})
    # Alive: this process, and another machine's within its lease.
    set_columns(lab, {"n": 1}, host="elsewhere")
    # Dead: a lease that ran out, and a process that is not there.
    set_columns(lab, {"n": 2}, host="elsewhere", scheduled_time=ago(lab, 1))
    set_columns(lab, {"n": 2}, reserved_time=ago(lab, 400))
    set_columns(lab, {"n": 3}, pid=2**22 + 1, connection_id=0)
    assert jobs.release_dead() == 2
    assert lab.statuses() == {0: "reserved", 1: "reserved", 2: "pending", 3: "pending"}
    # DataJoint gives no leases: only the user can know how long its workers take.
    set_columns(lab, {"n": 1}, reserved_time=ago(lab, 9000), scheduled_time=ago(lab, 9001))
    assert jobs.release_dead() == 0
    assert jobs.refresh(orphan_timeout=8000)["orphaned"] == 1
    assert lab.square.populate(reserve_jobs=True)["success_count"] == 3
    assert lab.statuses() == {0: "reserved"}


@pytest.mark.usefixtures("old_server")
def test_pid_that_belongs_to_a_younger_process_is_dead(lab: Pipeline) -> None:
    jobs = lab.square.jobs
    jobs.refresh(delay=-1)
    assert jobs.reserve({"n": 0})
    # Claimed by DataJoint, which notes the machine's name, long before this process began.
    long = 400 * 86400
    set_columns(lab, {"n": 0}, host=platform.node())
    set_columns(lab, {"n": 0}, reserved_time=ago(lab, long), scheduled_time=ago(lab, long))
    set_columns(lab, {"n": 0}, connection_id=0)
    assert jobs.release_dead() == 1


def test_slow_make_lets_go_of_the_keys_behind_it(
    database_url: str, schema_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "TICK", 0.02)
    monkeypatch.setattr(jobs, "PATIENCE", 0.1)
    lease = JobSettings(lease=0.4)
    connection = dj.Connection(database_url, safemode=False, jobs=lease)
    lab = Pipeline(connection, schema_prefix, numbers=30)
    slow = threading.Event()
    done = threading.Event()

    def make(table: Any, key: dict[str, Any]) -> None:
        if key["n"] == 12:
            slow.set()
            done.wait(PATIENCE)
        table.insert1({**key, "square": 0})

    lab.make = make
    results: list[Any] = []
    worker = threading.Thread(target=lambda: results.append(lab.square.populate(reserve_jobs=True)))
    worker.start()
    assert slow.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    # All that were claimed with it are free, and those before it forgotten.
    while len(lab.square.jobs.reserved) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(lab.statuses()) == list(range(12, 30))
    until = lab.square.jobs.reserved.fetch1("scheduled_time")
    # The lease is renewed, so that nobody takes the key up.
    while lab.square.jobs.reserved.fetch1("scheduled_time") == until:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert lab.square.jobs.release_dead() == 0
    assert lab.square.populate("n < 20", reserve_jobs=True)["success_count"] == 7
    done.set()
    worker.join(PATIENCE)
    assert results == [{"success_count": 23, "error_list": []}]
    assert len(lab.square) == 30
    assert sorted(lab.made) == list(range(30))
    assert lab.statuses() == {}
    connection.close()


def test_sigterm_gives_the_key_back(lab: Pipeline) -> None:
    def make(table: Any, key: dict[str, Any]) -> None:
        if key["n"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        table.insert1({**key, "square": 0})

    lab.make = make
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="SIGTERM"):
        lab.square.populate(reserve_jobs=True, suppress_errors=True)
    assert signal.getsignal(signal.SIGTERM) is before
    assert lab.statuses() == {1: "pending", 2: "pending", 3: "pending"}
    assert len(lab.square) == 1


def test_table_without_foreign_keys_has_no_queue(lab: Pipeline) -> None:
    @lab.schema
    class Lone(dj.Computed):
        definition = """
        n : int32
        """

        key_source = lab.number  # pyright: ignore

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    # Its own key source tells its jobs apart.
    assert Lone.populate(reserve_jobs=True)["success_count"] == 4
    assert Lone.jobs.key == ["n"]


def test_singleton_cannot_be_reserved(connection: dj.Connection, schema_prefix: str) -> None:
    schema = dj.Schema(f"{schema_prefix}one", connection=connection)

    @schema
    class Start(dj.Manual):
        definition = """
        ---
        note : varchar(4)
        """

    @schema
    class Total(dj.Computed):
        definition = """
        -> Start
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    Start.insert1({"note": "go"})
    with pytest.raises(dj.PopulateError, match="cannot reserve jobs"):
        Total.populate(reserve_jobs=True)
    assert Total.populate()["success_count"] == 1


def test_bad_version_method_is_refused(database_url: str, schema_prefix: str) -> None:
    connection = dj.Connection(database_url, safemode=False, jobs=JobSettings(version_method="svn"))
    lab = Pipeline(connection, schema_prefix)
    with pytest.raises(dj.ConfigurationError, match="'svn'"):
        lab.square.populate(reserve_jobs=True)
    connection.close()


def test_settings_reach_the_default_connection(tmp_path: Path) -> None:
    config = dj.config
    with config.override(jobs__keep_completed=True, jobs__default_priority=3):
        connection = config.connect()
        assert connection.job_settings.keep_completed
        assert connection.job_settings.default_priority == 3
    assert not connection.job_settings.keep_completed
    assert connect("sqlite:///:memory:", tmp_path).job_settings == JobSettings()


def test_tables_of_one_name_in_two_tiers_reserve_nothing(lab: Pipeline) -> None:
    """Their queues would have one name, and the failures of one would hold the other's keys."""
    twin = type("Square", (dj.Imported,), {"definition": "-> Number", "make": Pipeline.make})
    other = dj.Schema(lab.schema.name, connection=lab.schema.connection)
    imported: Any = other(twin, context={"Number": lab.number})
    for table in (imported, lab.square):
        with pytest.raises(dj.PopulateError, match=r"square would have the same queue, .*~~square"):
            table.populate(reserve_jobs=True)
    assert lab.square.populate()["success_count"] == 4
