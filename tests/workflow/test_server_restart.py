"""Who is alive after the database server was killed and started again, its numbers begun anew."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

import dj_dagster as dj
from dj_dagster.model.job_settings import JobSettings
from dj_dagster.workflow import job_rows, liveness
from tests.services.database_server import DatabaseServer
from tests.services.process import PATIENCE, eventually
from tests.workflow.test_job_queue import Pipeline

ELSEWHERE = 2**22 + 5
"""A process number that no process here can have, as one in another container."""


class Lab(Pipeline):
    """One key, which a worker of its own makes until it is let go."""

    def __init__(self, server: DatabaseServer, folder: Path, lease: float) -> None:
        settings = JobSettings(lease=lease)
        connection = dj.Connection(server.url, safemode=False, jobs=settings)
        super().__init__(connection, f"{folder.name[:20]}_", numbers=1)
        self.server = server
        self.begun, self.free = folder / "begun", folder / "free"
        self.square.jobs.refresh(delay=-1)

    def make(self, table: Any, key: dict[str, Any]) -> None:
        self.begun.touch()
        eventually(self.free.exists, every=0.02)
        table.insert1({**key, "square": 0})

    def work(self, pid: int | None = None) -> Any:
        """Start a worker and wait until it makes the key."""
        worker = multiprocessing.get_context("fork").Process(target=self._populate, args=(pid,))
        worker.start()
        eventually(self.begun.exists, every=0.02)
        return worker

    def _populate(self, pid: int | None) -> None:
        if pid is not None:
            job_rows.os = SimpleNamespace(getpid=lambda: pid)  # type: ignore[assignment]
        self.square.populate(reserve_jobs=True)

    def restart(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.server.kill()
        meanwhile()
        self.server.start()

    def job(self) -> dict[str, Any]:
        return self.square.jobs.fetch1()

    def finish(self, worker: Any) -> None:
        self.free.touch()
        worker.join(PATIENCE)
        assert worker.exitcode == 0
        assert len(self.square) == 1
        assert self.statuses() == {}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers say more often that they live, and be waited for less."""
    monkeypatch.setattr(liveness, "RENEWAL", 1.0)
    monkeypatch.setattr(liveness, "MARGIN", 3.0)


@pytest.mark.usefixtures("soon")
def test_live_worker_of_another_container_is_given_time_to_say_so(
    own_server: DatabaseServer, tmp_path: Path
) -> None:
    lab = Lab(own_server, tmp_path, lease=300)
    worker = lab.work(ELSEWHERE)
    before = lab.job()
    lab.restart()
    assert lab.square.jobs.release_dead() == 0
    eventually(lambda: lab.job()["scheduled_time"] > before["scheduled_time"])
    # The number that its connection has now is the one that is looked for.
    numbers = lab.square.connection.query("SELECT id FROM information_schema.processlist")
    assert (lab.job()["connection_id"],) in numbers.fetchall()
    time.sleep(liveness.RENEWAL + liveness.MARGIN)
    assert lab.square.jobs.release_dead() == 0
    lab.finish(worker)


@pytest.mark.usefixtures("soon")
def test_dead_worker_is_not_taken_for_the_one_that_has_its_number_now(
    own_server: DatabaseServer, tmp_path: Path
) -> None:
    lab = Lab(own_server, tmp_path, lease=300)
    worker = lab.work()
    number = lab.job()["connection_id"]

    def die() -> None:
        worker.kill()
        worker.join(PATIENCE)

    lab.restart(die)
    engine = sa.create_engine(own_server.url, poolclass=sa.NullPool)
    others = [engine.connect() for _ in range(number + 5)]
    try:
        found = {other.exec_driver_sql("SELECT connection_id()").scalar() for other in others}
        assert number in found
        assert eventually(lab.square.jobs.release_dead, every=0.2) == 1
    finally:
        for other in others:
            other.close()
    assert lab.statuses() == {0: "pending"}


@pytest.mark.usefixtures("soon")
def test_lease_that_ran_out_while_the_server_was_away_can_be_renewed(
    own_server: DatabaseServer, tmp_path: Path
) -> None:
    lab = Lab(own_server, tmp_path, lease=2.5)
    worker = lab.work()
    lab.restart(lambda: time.sleep(3))
    assert lab.square.jobs.release_dead() == 0
    deadline = time.monotonic() + liveness.RENEWAL + liveness.MARGIN + 2
    while time.monotonic() < deadline:
        assert lab.square.jobs.release_dead() == 0
        time.sleep(0.3)
    lab.finish(worker)


@pytest.mark.usefixtures("soon")
def test_lease_of_a_worker_that_died_meanwhile_runs_out_a_little_later(
    own_server: DatabaseServer, tmp_path: Path
) -> None:
    lab = Lab(own_server, tmp_path, lease=2.5)
    worker = lab.work(ELSEWHERE)

    def die() -> None:
        worker.kill()
        worker.join(PATIENCE)

    lab.restart(die)
    assert eventually(lab.square.jobs.release_dead, every=0.2) == 1
    assert lab.statuses() == {0: "pending"}


def test_keys_of_a_populate_that_the_server_left_are_free_when_it_is_back(
    own_server: DatabaseServer, tmp_path: Path
) -> None:
    lab = Lab(own_server, tmp_path, lease=300)

    def make(table: Any, key: dict[str, Any]) -> None:
        own_server.kill()
        threading.Timer(1, own_server.start).start()
        len(table)

    lab.make = make  # type: ignore[method-assign]
    with pytest.raises(dj.ConnectionFailedError):
        lab.square.populate(reserve_jobs=True)
    # This process lives on, and nobody could tell that it has given up.
    assert lab.statuses() == {0: "pending"}
