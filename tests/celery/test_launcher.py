"""Runs are in workers of a real Celery with a real Redis, under a real `dagster dev`."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from celery import Celery

from dj_dagster.celery.health import SENT, Health
from tests.celery.deployment import Deployment, running_deployment
from tests.services.process import eventually
from tests.services.redis import RedisServer


@pytest.fixture(scope="module")
def celery_deployment(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer
) -> Iterator[Deployment]:
    """Dagster beside two workers."""
    with running_deployment(tmp_path_factory.mktemp("celery"), redis_server) as running:
        yield running


def test_keys_over_two_workers_are_made_exactly_once(celery_deployment: Deployment) -> None:
    deployment, wells = celery_deployment, range(2000)
    deployment.insert("well", wells)
    eventually(lambda: len(deployment.rows("imaged")) == len(wells))
    made = deployment.notes("image")
    assert sorted(int(well) for well, *_ in made) == list(wells)
    assert {worker for _, worker, _ in made} == {"one", "two"}
    eventually(lambda: deployment.counts("shop", "imaged") == (2000, 2000, 0), every=1)


def test_the_runs_of_a_table_go_to_its_queue(celery_deployment: Deployment) -> None:
    deployment, gate = celery_deployment, celery_deployment.folder / "gate"
    held = deployment.wait_for_file(gate, queue="one")
    eventually(lambda: deployment.notes("wait", held))
    # The default queue is that of both workers, and one that is busy takes nothing from it.
    free = [deployment.start("greeting") for _ in range(3)]
    deployment.insert("scan", range(3))
    eventually(lambda: deployment.rows("rendered") == dict.fromkeys(range(3), "two"))
    for run in free:
        deployment.until(run, "SUCCESS")
        assert [worker for worker, _ in deployment.notes("greet", run)] == ["two"]
    gate.touch()
    deployment.until(held, "SUCCESS")
    assert "Sent to queue one of Celery as task" in deployment.log(held)


def test_a_priority_that_makes_no_sense_is_an_error_that_names_its_tag(
    celery_deployment: Deployment,
) -> None:
    run = celery_deployment.start("greeting", run_priority="high")
    celery_deployment.until(run, "FAILURE")
    log = celery_deployment.log(run)
    assert "The run's tag dagster-celery/run_priority is 'high': write a number from 0" in log


def test_a_run_that_works_in_two_processes_is_cancelled(celery_deployment: Deployment) -> None:
    deployment = celery_deployment
    run = deployment.wait_for_file(deployment.folder / "never", "waiting_apart", queue="two")
    ((_, step),) = eventually(lambda: deployment.notes("wait", run))
    deployment.terminate(run)
    deployment.until(run, "CANCELED")
    eventually(lambda: not _runs(int(step)))
    after = deployment.start("greeting", queue="two")
    deployment.until(after, "SUCCESS")


def test_keys_of_a_worker_that_was_killed_are_made_exactly_once_by_the_other(
    celery_deployment: Deployment,
) -> None:
    deployment, hold = celery_deployment, celery_deployment.folder / "hold1"
    hold.touch()
    deployment.insert("item", range(1, 11))
    ((killed, _),) = eventually(lambda: deployment.notes("make", 1))
    deployment.workers[killed].kill()
    _, (other, _) = eventually(lambda: _two(deployment.notes("make", 1)))
    assert {killed, other} == {"one", "two"}
    hold.unlink()
    eventually(lambda: set(range(1, 11)) <= set(deployment.rows("measured")))
    made = [int(item) for item, *_ in deployment.notes("make") if int(item) <= 10]
    assert sorted(made) == [1, *range(1, 11)]
    assert {deployment.rows("measured")[item] for item in range(1, 11)} == {other}
    eventually(lambda: deployment.counts("shop", "measured") == (10, 10, 0), every=1)
    deployment.workers[killed].start()


def test_the_keys_of_a_worker_that_is_cut_off_are_made_by_the_other_and_not_again_by_it(
    celery_deployment: Deployment,
) -> None:
    deployment, hold = celery_deployment, celery_deployment.folder / "hold201"
    items = range(201, 211)
    hold.touch()
    deployment.insert("item", items)
    ((cut, _),) = eventually(lambda: deployment.notes("make", 201))
    stopped = deployment.stop(cut)
    # Its lease has to run out before the other takes the key over.
    _, (other, _) = eventually(lambda: _two(deployment.notes("make", 201)))
    assert {cut, other} == {"one", "two"}
    hold.unlink()
    eventually(lambda: set(items) <= set(deployment.rows("measured")))
    # It goes on with its make, and must leave the keys after that.
    for process in stopped:
        process.resume()
    after = deployment.start("greeting", queue=cut)
    deployment.until(after, "SUCCESS")
    made = [int(item) for item, *_ in deployment.notes("make") if int(item) in items]
    assert sorted(made) == [201, *items]
    assert {deployment.rows("measured")[item] for item in items} == {other}
    eventually(lambda: deployment.counts("shop", "measured") == (20, 20, 0), every=1)


def test_a_run_goes_on_after_its_process_and_its_worker_were_killed(
    celery_deployment: Deployment,
) -> None:
    deployment, gate = celery_deployment, celery_deployment.folder / "second"
    run = deployment.wait_for_file(gate, queue="one")
    ((_, process),) = eventually(lambda: deployment.notes("wait", run))
    os.kill(int(process), signal.SIGKILL)
    eventually(lambda: _two(deployment.notes("wait", run)))
    deployment.workers["one"].kill()
    deployment.workers["one"].start()
    eventually(lambda: len(deployment.notes("wait", run)) == 3)
    gate.touch()
    deployment.until(run, "SUCCESS")
    log = deployment.log(run)
    assert "has ended (FAILURE), and its run has not: Worker exited prematurely" in log
    assert log.count("Resuming run") == 2


def test_the_doctor_looks_from_the_worker_of_a_queue(celery_deployment: Deployment) -> None:
    found = celery_deployment.doctor("two")
    assert {what: text for what, (state, text) in found.items() if state != "fine"} == {}
    assert {"Python", "settings", "database", "clock", "code location"} <= {*found}
    assert f"in {celery_deployment.folder} with" in found["Python"][1]


def test_without_a_broker_runs_fail_with_its_words_and_hold_no_keys(
    celery_deployment: Deployment,
) -> None:
    deployment, gate = celery_deployment, celery_deployment.folder / "third"
    works = deployment.wait_for_file(gate, queue="one")
    eventually(lambda: deployment.notes("wait", works))
    deployment.redis.end()
    refused = deployment.start("greeting")
    deployment.insert("scan", [10])
    deployment.until(refused, "FAILURE")
    log = deployment.log(refused)
    assert "The run was not sent to Celery." in log
    assert "Connection refused" in log
    assert deployment.status(works) == "STARTED"
    deployment.redis.start()
    eventually(lambda: 10 in deployment.rows("rendered"))
    gate.touch()
    deployment.until(works, "SUCCESS")
    assert len(deployment.notes("wait", works)) == 1


def test_a_run_whose_task_was_lost_before_it_began_fails(celery_deployment: Deployment) -> None:
    deployment = celery_deployment
    run = deployment.start("greeting", queue="nobody")
    task = eventually(lambda: deployment.tags(run).get("dagster-celery/task_id"))
    app = Celery(backend=f"{deployment.redis.url}/1")
    eventually(lambda: app.AsyncResult(task).state == SENT)
    app.AsyncResult(task).forget()
    deployment.until(run, "FAILURE")
    assert f"Celery has no record of task {task}" in deployment.log(run)


def test_a_task_that_waits_is_told_from_one_that_was_lost(celery_deployment: Deployment) -> None:
    url = celery_deployment.redis.url
    app = Celery(broker=f"{url}/0", backend=f"{url}/1")
    health, record = Health(app, lost_after=60), app.backend.store_result
    assert not health.judge("lost").is_alive
    record("waits", None, SENT)
    assert health.judge("waits").is_alive
    assert "Not a single worker that answers takes runs from queue x" in health.words("waits", "x")
    words = health.words("waits", "dagster")
    assert "take runs from queue dagster: one@here, two@here" in words
    record("forgotten", {"hostname": "one@here"}, "STARTED")
    told = health.judge("forgotten")
    assert not told.is_alive
    assert told.message == "Worker one@here was restarted, and does not have task forgotten."
    record("elsewhere", {"hostname": "three@there"}, "STARTED")
    assert health.judge("elsewhere").is_alive
    assert not Health(app, lost_after=0).judge("elsewhere").is_alive


def _two(notes: list[list[str]]) -> list[list[str]]:
    return notes if len(notes) == 2 else []


def _runs(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False
