"""Workers on other machines, whose names and clocks may be those of this one, or hours off."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.workflow import jobs, liveness
from dj_dagster.workflow.job_rows import JobRows
from dj_dagster.workflow.liveness import is_gone, own_host, process_mark
from tests.services.process import PATIENCE
from tests.workflow.test_job_queue import Pipeline, ago, set_columns

NOBODY = 2**22 + 1
"""A number that no process of this machine has."""

OWN_SPACE, CONTAINER = "pid:[4026531836]", "pid:[4026532281]"


@contextmanager
def another_machine(*, name: str | None = None, ahead: float = 0) -> Generator[None]:
    """Be another machine, by default of the same name, with a clock that is off by some seconds."""
    clock = time.time
    with pytest.MonkeyPatch.context() as patch:
        if name is not None:
            patch.setattr(platform, "node", lambda: name)
        patch.setattr(liveness, "_numbering", lambda: "0ddba115")
        patch.setattr(time, "time", lambda: clock() + ahead)
        yield


@pytest.fixture
def lab(connection: dj.Connection, schema_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A queue with due jobs, on a server that passes for one that was not started just now."""
    monkeypatch.setattr(liveness, "MARGIN", -60.0)
    lab = Pipeline(connection, schema_prefix)
    lab.square.jobs.refresh(delay=-1)
    return lab


def job(lab: Pipeline) -> dict[str, Any]:
    return (lab.square.jobs & "n = 0").fetch1()


@pytest.mark.parametrize("hours", [-5, 0, 5])
@pytest.mark.parametrize("name", [None, "elsewhere"])
def test_a_worker_of_another_machine_lives_until_its_lease_runs_out(
    lab: Pipeline, name: str | None, hours: int
) -> None:
    jobs, ahead = lab.square.jobs, 3600 * hours
    with another_machine(name=name, ahead=ahead):
        assert jobs.reserve({"n": 0})
    # Its number means nothing here, nor does that of a connection that it has lost meanwhile.
    set_columns(lab, {"n": 0}, pid=NOBODY, connection_id=0)
    lease = timedelta(seconds=lab.square.connection.job_settings.lease)
    assert timedelta() < job(lab)["scheduled_time"] - jobs.rows.now() <= lease
    assert jobs.release_dead() == 0
    with another_machine(name="third", ahead=-ahead):
        assert jobs.release_dead() == 0
        set_columns(lab, {"n": 0}, reserved_time=ago(lab, 400), scheduled_time=ago(lab, 1))
        assert jobs.release_dead() == 1


def taken_over(lab: Pipeline, *numbers: int) -> None:
    """Let another machine have the jobs of keys, from outside of a make."""
    columns = {"host": "elsewhere 0ddba115.1", "scheduled_time": ago(lab, -60)}

    def change() -> None:
        for n in numbers:
            set_columns(lab, {"n": n}, **columns)

    other = threading.Thread(target=change)
    other.start()
    other.join()


def test_a_worker_that_was_stopped_leaves_keys_that_others_have_taken_over(
    lab: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, clock = lab.square.connection.job_settings.lease, jobs.elapsed

    def make(table: Any, key: dict[str, Any]) -> None:
        table.insert1({**key, "square": 0})
        if key["n"] == 1:
            # 0 was claimed alone, and 1 to 3 together. A laptop sleeps, for example.
            monkeypatch.setattr(jobs, "elapsed", lambda: clock() + lease)
            taken_over(lab, 2)

    lab.make = make
    assert lab.square.populate(reserve_jobs=True)["success_count"] == 3
    assert lab.made == [0, 1, 3]
    assert lab.statuses() == {2: "reserved"}


def test_keys_are_given_back_once_the_database_is_there_again(
    lab: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_back, away = JobRows.give_back, threading.Event()

    def fail_at_first(rows: JobRows, keys: Any) -> int:
        if not away.is_set():
            away.set()
            raise dj.LostConnectionError("The database is being restarted.")
        return give_back(rows, keys)

    def make(table: Any, key: dict[str, Any]) -> None:
        assert key["n"] == 0 or away.wait(PATIENCE)
        table.insert1({**key, "square": 0})

    monkeypatch.setattr(jobs, "PATIENCE", 0.0)
    monkeypatch.setattr(JobRows, "give_back", fail_at_first)
    lab.make = make
    assert lab.square.populate(reserve_jobs=True)["success_count"] == 4
    assert sorted(lab.made) == [0, 1, 2, 3]
    assert lab.statuses() == {}


def test_a_failure_is_not_kept_of_a_key_that_another_has_taken_over(lab: Pipeline) -> None:
    def make(table: Any, key: dict[str, Any]) -> None:
        if key["n"] < 2:
            taken_over(lab, key["n"])
        raise ConnectionError("The network was cut.")

    lab.make = make
    lab.square.populate("n in (1, 3)", reserve_jobs=True, suppress_errors=True)
    assert lab.made == [1, 3]
    assert [lab.statuses()[n] for n in (1, 3)] == ["reserved", "error"]
    # What a person says of a job holds for any.
    lab.square.jobs.error({"n": 1}, "ValueError: no")
    assert lab.statuses()[1] == "error"


def test_a_worker_is_not_taken_for_the_one_of_its_number_in_a_container_of_its_name(
    lab: Pipeline,
) -> None:
    jobs = lab.square.jobs
    with another_machine():
        # The first process of each container has the number 1.
        assert jobs.reserve({"n": 0})
    before = job(lab)
    assert before["pid"] == os.getpid()
    assert jobs.rows.give_back([(0,)]) == 0
    jobs.rows.renew([(0,)], 9000)
    assert job(lab) == before
    with another_machine():
        jobs.rows.renew([(0,)], 9000)
        assert job(lab)["scheduled_time"] > before["scheduled_time"]
        assert jobs.rows.give_back([(0,)]) == 1


def test_a_dead_worker_of_this_machine_is_noticed_at_once_by_its_number_and_beginning(
    lab: Pipeline,
) -> None:
    jobs, mine = lab.square.jobs, own_host()
    assert mine.startswith(f"{platform.node()} ")
    for n in range(3):
        assert jobs.reserve({"n": n})
    set_columns(lab, {"n": 1}, pid=NOBODY, connection_id=0)
    # The number is this process's now, which began after the one that had it.
    set_columns(lab, {"n": 2}, host=f"{mine.rpartition('.')[0]}.12", connection_id=0)
    assert jobs.release_dead() == 2
    assert lab.statuses() == {0: "reserved", 1: "pending", 2: "pending", 3: "pending"}


def test_a_long_name_leaves_room_for_what_tells_processes_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = own_host().removeprefix(platform.node())
    monkeypatch.setattr(platform, "node", lambda: "x" * 300)
    assert own_host() == "x" * (255 - len(end)) + end


@pytest.mark.parametrize(
    ("space", "changed", "gone"),
    [
        (OWN_SPACE, "_machine", False),
        (OWN_SPACE, "_start", True),
        (CONTAINER, "_start", False),
        (CONTAINER, "_space", False),
    ],
    ids=["its twin", "started anew", "a container started anew", "another container"],
)
def test_the_process_of_a_run_is_looked_for_on_its_own_machine_only(
    monkeypatch: pytest.MonkeyPatch, space: str, changed: str, gone: bool
) -> None:
    monkeypatch.setattr(liveness, "_space", lambda: space)
    alive, dead = process_mark(os.getpid()), process_mark(NOBODY)
    assert (is_gone(alive), is_gone(dead)) == (False, True)
    monkeypatch.setattr(liveness, changed, lambda: "pid:[4026532999]")
    assert (is_gone(alive), is_gone(dead)) == (gone, gone)
