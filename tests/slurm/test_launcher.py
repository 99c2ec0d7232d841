"""Runs are jobs of a real Slurm, under a real `dagster dev`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping

import pytest

from dj_dagster.slurm.jobs import job_name, run_of
from tests.services.process import eventually
from tests.services.slurm import SlurmCluster, limits_memory
from tests.slurm.deployment import Deployment, running_deployment


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, slurm_cluster: SlurmCluster
) -> Iterator[Deployment]:
    """Dagster beside a Slurm."""
    with running_deployment(tmp_path_factory.mktemp("slurm"), slurm_cluster) as running:
        yield running


def run_of_job(deployment: Deployment, job: str) -> str:
    """Return the run of a job that is at work."""
    found = run_of(deployment.cluster.run("squeue", "-h", "-j", job, "-o", "%j").strip())
    assert found is not None
    return found


LIMITS = {"time": ("TIMEOUT (TimeLimit)", "%l", ["1:00", "10:00"])}
"""Slurm's words on a job that uses too much, and what it has at first and when it goes on."""
if limits_memory():
    LIMITS["memory"] = ("OUT_OF_MEMORY (OutOfMemory)", "%m", ["300M", "3000M"])


@pytest.fixture(scope="module")
def short_runs(deployment: Deployment) -> Mapping[str, str]:
    """A run that has a minute, and works on until there is a file; and one that lacks memory."""
    gate, most, apart = deployment.folder / "enough", {"memory": "300M"}, {"partition": "apart"}
    memory = deployment.wait_for_file(gate, megabytes=600, **most, **apart)
    return {"time": deployment.wait_for_file(gate, time="1", **apart), "memory": memory}


@pytest.mark.usefixtures("short_runs")
def test_a_project_without_tables_runs(deployment: Deployment) -> None:
    # A run that is executed again begins with the tags of the run before.
    before = {"dj-slurm/attempt": "before/3", "dj-slurm/job_id": "999"}
    wishes = {"dj-slurm/partition": "urgent", "dj-slurm/gres": "gpu:1"}
    run = deployment.launch("plain", tags={**wishes, **before})
    deployment.until(run, "SUCCESS")
    job = deployment.job(run)
    # Step and run say together what the job gets.
    assert deployment.notes("measure", run) == [["measure", run, job, "2"]]
    assert deployment.notes("multiply", run) == [["multiply", run, "42"]]
    shown = deployment.cluster.run("scontrol", "show", "job", "-o", job)
    assert "Partition=urgent" in shown
    assert "TimeLimit=00:05:00" in shown
    assert "NodeList=node1" in shown
    assert "gpu:1" in shown
    log = deployment.log(run)
    assert (
        f"Submitted to Slurm as job {job}, with time 5, cpus 2, gres gpu:1, partition urgent."
        in log
    )
    assert f"Slurm job {job} runs on node" in log
    # What the job was told, passwords perhaps, is gone; its output is left.
    assert [path.name for path in (deployment.folder / "jobs%j" / run).iterdir()] == ["1.out"]


def test_a_value_that_slurm_would_not_understand_is_an_error_that_names_its_tag(
    deployment: Deployment,
) -> None:
    run = deployment.launch("plain", tags={"dj-slurm/time": "soon"})
    deployment.until(run, "FAILURE")
    assert "The run's tag dj-slurm/time is 'soon': write minutes such as 90" in deployment.log(run)


def test_a_run_that_slurm_refuses_fails_with_its_words(deployment: Deployment) -> None:
    run = deployment.launch("plain", tags={"dj-slurm/partition": "nowhere"})
    deployment.until(run, "FAILURE")
    assert "invalid partition specified: nowhere" in deployment.log(run)
    assert not list((deployment.folder / "jobs%j" / run).iterdir())


def test_a_run_that_waits_is_cancelled_in_dagster_or_in_slurm(deployment: Deployment) -> None:
    inside, outside = (
        deployment.launch("plain", tags={"dj-slurm/partition": "closed"}) for _ in range(2)
    )
    cluster, jobs = deployment.cluster, [deployment.job(run) for run in (inside, outside)]
    # Dagster cancels a run that has not begun in no other way.
    deployment.terminate(inside, "MARK_AS_CANCELED_IMMEDIATELY")
    cluster.run("scancel", jobs[1])
    for run, job in zip((inside, outside), jobs, strict=True):
        deployment.until(run, "CANCELED")
        eventually(lambda job=job: cluster.state(job) == "CANCELLED")
    assert f"Slurm job {jobs[1]} is CANCELLED" in deployment.log(outside)
    # The monitoring looks at runs that wait as at others.
    assert "Hit error while monitoring run" not in deployment.dev.log.read_text()


def test_a_run_that_works_is_cancelled_in_dagster_or_in_slurm(deployment: Deployment) -> None:
    gate = deployment.folder / "never"
    inside, outside = (deployment.wait_for_file(gate, "waiting_apart") for _ in range(2))
    eventually(lambda: deployment.notes("wait", inside) and deployment.notes("wait", outside))
    deployment.terminate(inside)
    deployment.cluster.run("scancel", deployment.job(outside))
    for run in (inside, outside):
        deployment.until(run, "CANCELED")
        assert deployment.cluster.state(deployment.job(run)) == "CANCELLED"
    assert "it was cancelled in Slurm" in deployment.log(outside)


def test_a_run_goes_on_after_it_was_preempted(deployment: Deployment) -> None:
    gate, cluster = deployment.folder / "gate", deployment.cluster
    run = deployment.wait_for_file(gate)
    ((*_, first, node),) = eventually(lambda: deployment.notes("wait", run))
    urgent = ["sbatch", "-p", "urgent", "-w", node, "-N", "1", "-c", "2", "-o", "/dev/null"]
    cluster.run(*urgent, "--wrap", "sleep 1")
    eventually(lambda: len(deployment.notes("wait", run)) == 2)
    assert cluster.state(first) == "PREEMPTED"
    gate.touch()
    deployment.until(run, "SUCCESS")
    second = deployment.job(run)
    assert deployment.notes("waited", run) == [["waited", run, second]]
    assert f"Slurm job {first} is PREEMPTED" in deployment.log(run)


def test_a_run_survives_the_controller_and_one_is_submitted_when_it_is_back(
    deployment: Deployment,
) -> None:
    gate, cluster = deployment.folder / "controller", deployment.cluster
    works = deployment.wait_for_file(gate)
    eventually(lambda: deployment.notes("wait", works))
    cluster.end("slurmctld")
    refused = deployment.wait_for_file(gate)
    deployment.until(refused, "FAILURE")
    assert "Unable to contact slurm controller" in deployment.log(refused)
    taken = deployment.launch("plain")
    eventually(lambda: deployment.tags(taken).get("dj-slurm/attempt"))
    cluster.start("slurmctld")
    deployment.until(taken, "SUCCESS")
    assert deployment.status(works) == "STARTED"
    gate.touch()
    deployment.until(works, "SUCCESS")


def test_keys_over_two_nodes_are_made_exactly_once(deployment: Deployment) -> None:
    wells = range(2000)
    deployment.insert(wells, "well")
    eventually(lambda: len(deployment.rows("imaged")) == len(wells))
    made = deployment.notes("image")
    assert sorted(int(well) for _, well, _ in made) == list(wells)
    assert {node for _, _, node in made} == {"node1", "node2"}
    eventually(lambda: deployment.counts("shop", "imaged") == (2000, 2000, 0), every=1)


def test_a_run_goes_on_elsewhere_while_its_lost_node_works_on_unheard(
    deployment: Deployment,
) -> None:
    items, hold, cluster = range(1, 11), deployment.folder / "hold1", deployment.cluster
    hold.touch()
    deployment.insert(items)
    ((*_, node, first),) = eventually(lambda: deployment.notes("make", 1))
    run = run_of_job(deployment, first)
    cluster.kill(node)
    # Both jobs of the run live: the first waits in `make`, until it sees that it was replaced.
    eventually(lambda: len(deployment.notes("make", 1)) == 2)
    hold.unlink()
    eventually(lambda: set(items) <= set(deployment.rows()))
    deployment.until(run, "SUCCESS")
    assert cluster.state(first) == "NODE_FAIL"
    assert f"Slurm job {first} is NODE_FAIL" in deployment.log(run)
    made = [note[1:] for note in deployment.notes("make") if int(note[1]) in items]
    second = deployment.job(run)
    (other,) = {"node1", "node2"} - {node}
    assert made == [["1", node, first], *([str(item), other, second] for item in items)]
    assert {deployment.rows()[item] for item in items} == {other}
    cluster.start(node)


def test_the_keys_of_a_killed_process_are_made_by_the_next_run(deployment: Deployment) -> None:
    items, hold = range(61, 71), deployment.folder / "hold61"
    hold.touch()
    deployment.insert(items)
    ((*_, job),) = eventually(lambda: deployment.notes("make", 61))
    run = run_of_job(deployment, job)
    deployment.cluster.kill_job(job)
    hold.unlink()
    deployment.until(run, "FAILURE")
    assert f"Slurm job {job} is FAILED" in deployment.log(run)
    eventually(lambda: set(items) <= set(deployment.rows()))
    made = [int(item) for _, item, *_ in deployment.notes("make") if int(item) in items]
    assert sorted(made) == [61, *items]


def shared_run(deployment: Deployment, plates: range) -> tuple[str, str]:
    """Return a run of these plates and its helper, once each of its two jobs has a key."""

    def jobs() -> set[str]:
        return {job for _, plate, job in deployment.notes("count") if int(plate) in plates}

    eventually(lambda: len(jobs()) == 2)
    run = run_of_job(deployment, min(jobs()))
    (helper,) = jobs() - {deployment.job(run)}
    return run, helper


def test_an_array_shares_a_run_whose_keys_are_made_though_a_helper_is_lost(
    deployment: Deployment,
) -> None:
    plates, spread = range(1, 13), deployment.folder / "spread"
    deployment.insert(plates, "plate")
    run, helper = shared_run(deployment, plates)
    spread.touch()
    deployment.until(run, "SUCCESS")
    assert {*deployment.rows("counted").values()} == {deployment.job(run), helper}
    assert sorted(int(plate) for _, plate, _ in deployment.notes("count")) == [*plates]
    eventually(lambda: deployment.cluster.state(helper) == "COMPLETED")
    spread.unlink()

    plates = range(21, 33)
    deployment.insert(plates, "plate")
    run, helper = shared_run(deployment, plates)
    deployment.cluster.run("scancel", helper)
    eventually(lambda: deployment.cluster.state(helper) == "CANCELLED")
    spread.touch()
    deployment.until(run, "SUCCESS")
    made = [note for note in deployment.notes("count") if int(note[1]) in plates]
    (lost,) = (int(plate) for _, plate, job in made if job == helper)
    assert sorted(int(plate) for _, plate, _ in made) == sorted([*plates, lost])
    assert {deployment.rows("counted")[plate] for plate in plates} == {deployment.job(run)}
    eventually(lambda: deployment.counts("shop", "counted") == (24, 24, 0), every=1)


def test_the_demo_goes_from_a_row_to_marks(deployment: Deployment) -> None:
    run = deployment.launch("record_session", location="demo")
    deployment.until(run, "SUCCESS")
    eventually(lambda: deployment.counts("lab", "heart_rate") == (2, 2, 0), every=1)
    assert deployment.counts("lab", "processed") == (1, 1, 0)
    assert len(list((deployment.folder / "jobs%j").glob("*/1.out"))) > 1


def test_the_doctor_says_what_is_wrong_on_a_node(deployment: Deployment) -> None:
    found = deployment.doctor()
    assert {what: text for what, (state, text) in found.items() if state != "fine"} == {}
    assert {"Python", "settings", "database", "clock", "store local", "code location"} < {*found}
    assert f"in {deployment.folder / 'doctor'} with" in found["Python"][1]
    other = {"default": "local", "local": {"protocol": "file", "location": "other"}}
    found = deployment.doctor(
        f"export DJ_STORES={shlex.quote(json.dumps(other))}\nexport DJ_DATABASE_URL=sqlite:///other.db"
    )
    wrong = {what: text for what, (state, text) in found.items() if state == "wrong"}
    assert {*wrong} == {"store local", "database"}
    assert "an object that was just written is not there" in wrong["store local"]
    assert "it is another one here, sqlite:///other.db" in wrong["database"]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_run_that_was_out_of_time_or_memory_gets_more(
    deployment: Deployment, short_runs: Mapping[str, str], limit: str
) -> None:
    run, (words, shown, both) = short_runs[limit], LIMITS[limit]
    eventually(lambda: f" is {words} on node3" in deployment.log(run), every=1)
    if limit == "time":
        (deployment.folder / "enough").touch()
    deployment.until(run, "SUCCESS")
    ask = ["squeue", "-h", "-t", "all", "-o", shown, "-n"]
    had = [deployment.cluster.run(*ask, job_name(run, attempt)).strip() for attempt in (1, 2)]
    assert had == both
