"""Jobs that nobody will end: of workers killed after their rows were in, of keys made elsewhere."""

from __future__ import annotations

import multiprocessing
import os
import signal
import uuid
from collections.abc import Callable
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.model.job_settings import JobSettings
from dj_dagster.workflow import liveness
from dj_dagster.workflow.jobs import Claims
from dj_dagster.workflow.populate import pending_keys
from tests.services.process import PATIENCE
from tests.services.statements import statement_with_bytes
from tests.workflow.test_job_queue import Pipeline, ago, set_columns


@pytest.fixture(autouse=True)
def old_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the server for one that has run for long: else workers have time to say they live."""
    monkeypatch.setattr(liveness, "RENEWAL", 0.0)
    monkeypatch.setattr(liveness, "MARGIN", 0.0)


@pytest.fixture
def lab(connection: dj.Connection, schema_prefix: str) -> Pipeline:
    return Pipeline(connection, schema_prefix)


def die_after_commit(lab: Pipeline, patch: pytest.MonkeyPatch) -> None:
    """Populate in a process that is killed when its first key is in and the job not yet ended."""
    with patch.context() as patched:
        patched.setattr(Claims, "finish", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        worker = multiprocessing.get_context("fork").Process(
            target=lab.square.populate, kwargs={"reserve_jobs": True, "order": "reverse"}
        )
        worker.start()
        worker.join(PATIENCE)
    assert worker.exitcode == -signal.SIGKILL
    assert (len(lab.square), lab.statuses()[3]) == (1, "reserved")


CLEANERS: dict[str, Callable[[Pipeline], Any]] = {
    "release_dead": lambda lab: lab.square.jobs.release_dead(),
    "pending_keys": lambda lab: pending_keys(lab.square()),
    "populate": lambda lab: lab.square.populate("n = 0", reserve_jobs=True),
}


@pytest.mark.parametrize("cleaner", CLEANERS)
def test_job_of_a_worker_killed_after_its_commit_goes(
    lab: Pipeline, monkeypatch: pytest.MonkeyPatch, cleaner: str
) -> None:
    die_after_commit(lab, monkeypatch)
    CLEANERS[cleaner](lab)
    assert 3 not in lab.statuses()
    assert set(lab.statuses().values()) == {"pending"}
    assert lab.square.populate(reserve_jobs=True)["success_count"] == 3 - (cleaner == "populate")
    assert 3 not in lab.made
    assert lab.statuses() == {}


def test_job_of_a_killed_worker_goes_beside_a_statement_with_bytes(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = dj.Connection(server_url, safemode=False)
    lab = Pipeline(connection, f"t{uuid.uuid4().hex[:8]}_")
    die_after_commit(lab, monkeypatch)
    with statement_with_bytes(server_url):
        lab.square.jobs.release_dead()
        assert 3 not in lab.statuses()
    lab.schema.drop()
    connection.close()


def test_such_a_job_is_kept_as_done_where_done_jobs_are_kept(
    database_url: str, schema_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = JobSettings(keep_completed=True)
    connection = dj.Connection(database_url, safemode=False, jobs=settings)
    lab = Pipeline(connection, schema_prefix)
    die_after_commit(lab, monkeypatch)
    assert lab.square.jobs.release_dead() == 0
    assert lab.statuses() == {0: "pending", 1: "pending", 2: "pending", 3: "success"}
    lab.square.jobs.error({"n": 2}, "too early")
    lab.square.populate()
    lab.square.jobs.refresh()
    assert lab.statuses() == dict.fromkeys(range(4), "success")
    assert lab.square.jobs.errors.to_dicts() == []
    connection.close()


def test_jobs_of_keys_made_without_them_go_with_the_next_refresh(lab: Pipeline) -> None:
    jobs = lab.square.jobs
    jobs.refresh()
    jobs.error({"n": 1}, "the disk was full")
    jobs.ignore({"n": 2})
    assert lab.square.populate("n > 0")["success_count"] == 3
    assert jobs.refresh()["removed"] == 2
    assert lab.statuses() == {0: "pending", 2: "ignore"}


def test_lease_that_is_renewed_while_it_is_looked_at_is_not_taken_back(
    lab: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = lab.square.jobs
    jobs.refresh(delay=-1)
    assert jobs.reserve({"n": 0})
    set_columns(lab, {"n": 0}, host="elsewhere", reserved_time=ago(lab, 400))
    set_columns(lab, {"n": 0}, scheduled_time=ago(lab, 1))
    found = jobs.rows.lost()
    set_columns(lab, {"n": 0}, scheduled_time=ago(lab, -60))
    monkeypatch.setattr(type(jobs.rows), "lost", lambda _: found)
    assert len(found) == 1
    assert jobs.release_dead() == 0
    assert lab.statuses()[0] == "reserved"
