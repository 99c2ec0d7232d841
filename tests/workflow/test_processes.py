"""Populating in worker processes, also when they die, and twenty workers on one table."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.workflow.job_rows import JobRows
from tests.services.process import PATIENCE
from tests.workflow.test_job_queue import Pipeline


class UnsendableError(Exception):
    """An exception that cannot be sent to another process."""

    def __init__(self, place: str, lock: Any) -> None:
        super().__init__(f"nothing at {place}")
        self.lock = lock


class Calls:
    """Which process made which key, noted in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def note(self, key: dict[str, Any]) -> None:
        with self.file.open("a") as stream:
            stream.write(f"{key['n']} {os.getpid()}\n")

    def __call__(self) -> list[tuple[int, int]]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [(int(n), int(pid)) for n, pid in map(str.split, lines)]


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path / "calls")


@pytest.fixture
def lab(connection: dj.Connection, schema_prefix: str, calls: Calls) -> Pipeline:
    lab = Pipeline(connection, schema_prefix, numbers=12)

    def make(table: Any, key: dict[str, Any]) -> None:
        calls.note(key)
        time.sleep(0.02)
        table.insert1({**key, "square": 0})

    lab.make = make
    return lab


@pytest.mark.parametrize("reserve", [False, True])
def test_processes_share_the_keys(lab: Pipeline, calls: Calls, reserve: bool) -> None:
    result = lab.square.populate(processes=3, reserve_jobs=reserve, display_progress=True)
    assert result == {"success_count": 12, "error_list": []}
    assert sorted(n for n, _ in calls()) == list(range(12))
    workers = {pid for _, pid in calls()}
    assert len(workers) == 3
    assert os.getpid() not in workers
    assert len(lab.square) == 12
    assert not multiprocessing.active_children()
    assert lab.square.populate(processes=3)["success_count"] == 0


def test_max_calls_holds_for_all_processes_together(lab: Pipeline, calls: Calls) -> None:
    assert lab.square.populate(processes=4, max_calls=5)["success_count"] == 5
    assert len(calls()) == 5


def test_errors_of_workers(lab: Pipeline, calls: Calls) -> None:
    def make(table: Any, key: dict[str, Any]) -> None:
        if key["n"] == 3:
            raise UnsendableError("the place", threading.Lock())
        if key["n"] == 5:
            raise KeyError("missing")
        table.insert1({**key, "square": 0})

    lab.make = make
    result = lab.square.populate(processes=2, suppress_errors=True)
    assert result["success_count"] == 10
    assert sorted(result["error_list"], key=str) == [
        ({"n": 3}, "UnsendableError: nothing at the place"),
        ({"n": 5}, "KeyError: 'missing'"),
    ]
    with pytest.raises((KeyError, dj.PopulateError)) as caught:
        lab.square.populate(processes=2)
    assert "in make" in "".join(caught.value.__notes__)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("reserve", [False, True])
def test_worker_that_dies_fails_its_key_alone(lab: Pipeline, calls: Calls, reserve: bool) -> None:
    def make(table: Any, key: dict[str, Any]) -> None:
        calls.note(key)
        if key["n"] == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        if key["n"] == 7:
            os._exit(3)
        table.insert1({**key, "square": 0})

    lab.make = make
    result = lab.square.populate(processes=2, suppress_errors=True, reserve_jobs=reserve)
    errors = {key["n"]: text for key, text in result["error_list"]}
    assert set(errors) == {4, 7}
    assert "killed by signal 9" in errors[4]
    assert "exit code 3" in errors[7]
    assert result["success_count"] == len(lab.square) == 10
    assert max(Counter(n for n, _ in calls()).values()) == 1
    assert lab.statuses() == ({4: "error", 7: "error"} if reserve else {})


def test_make_may_have_processes_of_its_own(lab: Pipeline) -> None:
    def make(table: Any, key: dict[str, Any]) -> None:
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(
            target=lambda: theirs.send(2 * key["n"])
        )
        child.start()
        table.insert1({**key, "square": ours.recv()})
        child.join()

    lab.make = make
    assert lab.square.populate("n < 2", processes=2)["success_count"] == 2
    assert lab.square.to_arrays("square", order_by="KEY").tolist() == [0, 2]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts, also where the tests run in the background, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_stops_the_workers(lab: Pipeline, calls: Calls) -> None:
    def make(table: Any, key: dict[str, Any]) -> None:
        calls.note(key)
        if key["n"] == 0:
            os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)

    lab.make = make
    with pytest.raises(KeyboardInterrupt):
        lab.square.populate(processes=2, reserve_jobs=True)
    assert not multiprocessing.active_children()
    assert set(lab.statuses().values()) == {"pending"}
    assert len(lab.square) == 0


def test_an_interrupted_claim_is_given_back(lab: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = JobRows.claim

    def interrupted(self: JobRows, *args: Any) -> None:
        assert claim(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(JobRows, "claim", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lab.square.populate(reserve_jobs=True)
    statuses = lab.statuses()
    assert set(statuses.values()) == {"pending"}
    assert lab.square.populate(reserve_jobs=True)["success_count"] == len(statuses)


def test_database_in_memory_stays_in_its_process() -> None:
    lab = Pipeline(dj.Connection("sqlite:///:memory:", safemode=False), "memory_")
    with pytest.raises(dj.PopulateError, match="one process only"):
        lab.square.populate(processes=2)
    assert lab.square.populate(reserve_jobs=True)["success_count"] == 4


def test_twenty_workers_make_no_key_twice(
    connection: dj.Connection, schema_prefix: str, calls: Calls
) -> None:
    lab = Pipeline(connection, schema_prefix, numbers=200)
    victim = Path(f"{calls.file}.victim")

    def make(table: Any, key: dict[str, Any]) -> None:
        calls.note(key)
        if key["n"] == 90 and not victim.exists():
            victim.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.002)
        table.insert1({**key, "square": os.getpid() % 1000})

    lab.make = make
    fork = multiprocessing.get_context("fork")
    workers = [
        fork.Process(target=lab.square.populate, kwargs={"reserve_jobs": True}) for _ in range(20)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE)
    assert sorted(worker.exitcode or 0 for worker in workers) == [-signal.SIGKILL] + [0] * 19
    # Nobody may have been left to take up what the victim held.
    lab.square.populate(reserve_jobs=True)
    times = Counter(n for n, _ in calls())
    assert times == Counter({**dict.fromkeys(range(200), 1), 90: 2})
    assert len(lab.square) == 200
    assert lab.square.jobs.progress()["total"] == 0
