"""Labs whose runs are on two machines, by Slurm or by Celery, all of whose parts can be broken.

Dagster's history is in PostgreSQL and the tables are in MariaDB or MySQL. Each node has a name of
its own where that is possible, so that only leases tell whether a worker lives.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil
import yaml
from celery import Celery

from tests.orchestration.fault_lab import FaultLab, fault_lab
from tests.services.database_server import DatabaseServer, database_server
from tests.services.hosts import hosts_are_possible
from tests.services.mariadb import MariaDBServer
from tests.services.redis import CeleryWorker, RedisServer, redis
from tests.services.slurm import SlurmCluster, slurm

REPOSITORY = Path(__file__).parents[2]

LEASE = 20
"""Seconds for which a worker's reservations last without renewal."""

LOST_AFTER = 10
"""Seconds without a word after which a node is given up."""

SECONDS = 0.15
"""What a make takes."""

SETTINGS = """
telemetry: {{enabled: false}}
nux: {{enabled: false}}
run_coordinator:
  module: dagster._core.run_coordinator.queued_run_coordinator
  class: QueuedRunCoordinator
  config: {{max_concurrent_runs: 4, dequeue_interval_seconds: 1}}
run_monitoring:
  enabled: true
  poll_interval_seconds: 2
  start_timeout_seconds: {start_timeout}
  cancel_timeout_seconds: 60
  max_resume_run_attempts: 3
run_launcher: {launcher}
"""


class Engine(ABC):
    """What runs the runs: two nodes, and what stands between them and Dagster."""

    name: str
    nodes: tuple[str, ...]

    @property
    @abstractmethod
    def env(self) -> Mapping[str, str]:
        """Variables by which Dagster finds it."""

    @abstractmethod
    def settings(self, folder: Path) -> str:
        """Return `dagster.yaml`, but for the storage."""

    @abstractmethod
    @contextlib.contextmanager
    def running(self, lab: FaultLab) -> Generator[None]:
        """Run what executes runs until the block ends."""

    @abstractmethod
    def node_of(self, process: psutil.Process) -> str:
        """Return the node on which a run's process works; empty if it has just ended."""

    @abstractmethod
    def processes(self, node: str) -> list[psutil.Process]:
        """Return the processes of a node, its daemon first."""

    @abstractmethod
    def kill(self, node: str) -> None:
        """End a node's daemon and all its runs without a word."""

    @abstractmethod
    def start(self, node: str) -> None:
        """Start a node that was killed."""

    @abstractmethod
    def number(self, run: dg.DagsterRun) -> str:
        """Return what the engine calls a run; empty if it does not have it."""

    @abstractmethod
    def withdraw(self, number: str) -> None:
        """End a run in the engine itself, without asking Dagster."""

    @abstractmethod
    def left(self) -> list[str]:
        """Return what of runs there still is in the engine."""


class SlurmEngine(Engine):
    """Two nodes of a Slurm cluster.

    Parameters
    ----------
    array
        The number of jobs that work on each run.
    """

    name = "slurm"
    nodes = ("node1", "node2")

    def __init__(self, cluster: SlurmCluster, array: int = 1) -> None:
        self.cluster = cluster
        self._array = array

    @property
    def env(self) -> Mapping[str, str]:
        array = {"FAULT_ARRAY": str(self._array)} if self._array > 1 else {}
        return {**self.cluster.env, **array}

    def settings(self, folder: Path) -> str:
        launcher = {
            "module": "dj_dagster.slurm",
            "class": "SlurmRunLauncher",
            "config": {"folder": f"{folder}/jobs", "time": "10", "poll_seconds": 2},
        }
        return _settings(launcher, start_timeout=365 * 24 * 3600)

    @contextlib.contextmanager
    def running(self, lab: FaultLab) -> Generator[None]:
        yield

    def node_of(self, process: psutil.Process) -> str:
        return process.environ().get("SLURMD_NODENAME", "")

    def processes(self, node: str) -> list[psutil.Process]:
        daemon = psutil.Process(self.cluster.daemon(node))
        return [daemon, *self.cluster.processes(node)]

    def kill(self, node: str) -> None:
        self.cluster.kill(node)
        self.cluster.end_jobs(node)

    def start(self, node: str) -> None:
        self.cluster.start(node)

    def number(self, run: dg.DagsterRun) -> str:
        return run.tags.get("dj-slurm/job_id", "")

    def withdraw(self, number: str) -> None:
        self.cluster.run("scancel", number)

    def left(self) -> list[str]:
        return self.cluster.run("squeue", "-h", "-o", "%i %T %j").splitlines()


class CeleryEngine(Engine):
    """Two workers of Celery, with a Redis."""

    name = "celery"
    nodes = ("one", "two")

    def __init__(self, server: RedisServer) -> None:
        self.redis = server
        self._app = Celery(broker=f"{server.url}/0", backend=f"{server.url}/1")
        self._workers: Mapping[str, CeleryWorker] = {}

    @property
    def env(self) -> Mapping[str, str]:
        return {}

    def settings(self, folder: Path) -> str:
        del folder
        config = {"broker": f"{self.redis.url}/0", "backend": f"{self.redis.url}/1"}
        launcher = {
            "module": "dj_dagster.celery",
            "class": "CeleryRunLauncher",
            "config": {**config, "lost_after": LOST_AFTER},
        }
        return _settings(launcher, start_timeout=120)

    @contextlib.contextmanager
    def running(self, lab: FaultLab) -> Generator[None]:
        env = {**os.environ, **lab.env}
        home, named = lab.folder / "home", hosts_are_possible()
        self._workers = {
            name: CeleryWorker(name, "dagster", home, env, host=name if named else None)
            for name in self.nodes
        }
        with contextlib.ExitStack() as stack:
            for worker in self._workers.values():
                stack.callback(worker.end)
                worker.start()
            yield

    def node_of(self, process: psutil.Process) -> str:
        return process.environ().get("CELERY_TEST_WORKER", "")

    def processes(self, node: str) -> list[psutil.Process]:
        return self._workers[node].processes()

    def kill(self, node: str) -> None:
        self._workers[node].kill()

    def end(self, node: str) -> None:
        """End a worker in order: after its run, or after ten seconds."""
        self._workers[node].end()

    def start(self, node: str) -> None:
        self._workers[node].start()

    def number(self, run: dg.DagsterRun) -> str:
        return run.tags.get("dagster-celery/task_id", "")

    def withdraw(self, number: str) -> None:
        self._app.control.revoke(number, terminate=True)

    def forget(self) -> None:
        """Let Redis lose all that it knows."""
        self._app.backend.client.flushall()

    def left(self) -> list[str]:
        answers = self._app.control.inspect(timeout=2).active() or {}
        return [f"{worker}: {task['id']}" for worker, has in answers.items() for task in has]


def _settings(launcher: Mapping[str, object], start_timeout: int) -> str:
    text = yaml.safe_dump(dict(launcher), default_flow_style=True, width=10_000).strip()
    return SETTINGS.format(launcher=text, start_timeout=start_timeout)


@dataclass
class EngineLab:
    """A lab and its engine."""

    lab: FaultLab
    engine: Engine

    def at_work(self) -> list[psutil.Process]:
        """Return the processes that are in a make and not stopped."""
        open_calls = dict[tuple[str, str], str]()
        for kind, table, item, pid, _ in self.lab.calls():
            if kind == "start":
                open_calls[table, item] = pid
            else:
                open_calls.pop((table, item), None)
        found = list[psutil.Process]()
        for pid in sorted({int(pid) for pid in open_calls.values()}):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if self.lab.runs(pid) and process.status() != psutil.STATUS_STOPPED:
                    found.append(process)
        return found

    def unfinished(self) -> dict[str, str]:
        """Return the runs that have not ended, with their states."""
        with self.lab.instance() as instance:
            return {run.run_id: run.status.value for run in _unfinished(instance)}

    def begun(self) -> list[str]:
        """Return what the engine calls the runs that have begun."""
        started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
        with self.lab.instance() as instance:
            return [number for run in instance.get_runs(started) if (number := self._number(run))]

    def _number(self, run: dg.DagsterRun) -> str:
        return self.engine.number(run)


def _unfinished(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    ended = {*map(dg.DagsterRunStatus, ("SUCCESS", "FAILURE", "CANCELED"))}
    yield from instance.get_runs(
        dg.RunsFilter(statuses=[status for status in dg.DagsterRunStatus if status not in ended])
    )


@contextlib.contextmanager
def slurm_engine(array: int = 1) -> Generator[SlurmEngine]:
    """Run a cluster until the block ends."""
    with slurm(timeout=LOST_AFTER, named=hosts_are_possible()) as cluster, _resuming(cluster):
        yield SlurmEngine(cluster, array)


@contextlib.contextmanager
def _resuming(cluster: SlurmCluster) -> Generator[None]:
    """Resume nodes that are set aside, every two seconds, until the block ends."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(2):
            # The controller may be away.
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                cluster.resume()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def celery_engine() -> Generator[CeleryEngine]:
    """Run a Redis until the block ends; its workers begin with a lab."""
    with redis() as server:
        yield CeleryEngine(server)


@contextlib.contextmanager
def engine_lab(
    engine: Engine,
    folder: Path,
    chosen: random.Random,
    *,
    batch: int,
    storage: str | None = None,
    kind: type[DatabaseServer] = MariaDBServer,
) -> Generator[EngineLab]:
    """Start a database, a code server and a daemon, in an empty folder; see `fault_lab`."""
    env = {
        **engine.env,
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{folder}",
        "DJ_JOBS_LEASE": str(LEASE),
    }
    with (
        _environment(engine.env),
        database_server(kind, durable=True) as database,
        fault_lab(
            folder,
            database,
            batch=batch,
            seconds=SECONDS,
            storage=storage,
            settings=engine.settings(folder),
            env=env,
        ) as lab,
        engine.running(lab),
    ):
        lab.chosen = chosen
        yield EngineLab(lab, engine)


@contextlib.contextmanager
def _environment(env: Mapping[str, str]) -> Generator[None]:
    """Let what is called here find the engine, as Dagster does, until the block ends."""
    before = dict(os.environ)
    os.environ.update(env)
    try:
        yield
    finally:
        for name in env:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in env if name in before})
