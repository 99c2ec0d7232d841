"""`dagster dev` whose runs are in two workers of Celery."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.services.dagster_dev import dagster_dev
from tests.services.dagster_runs import DagsterRuns
from tests.services.process import PATIENCE, eventually
from tests.services.redis import CeleryWorker, RedisServer

REPOSITORY = Path(__file__).parents[2]

LEASE = 20
"""Seconds for which a worker's reservations last without renewal."""

WORKSPACE = """
load_from:
  - python_module: {module_name: tests.celery.project, location_name: shop}
"""


@dataclass(frozen=True)
class Deployment(DagsterRuns):
    """Dagster, the server and the workers that it gives runs to, and the notes that runs take.

    Attributes
    ----------
    workers
        Each takes runs from the queue of its own name and from the default one.
    env
        The environment of Dagster and of commands beside it.
    """

    redis: RedisServer
    workers: Mapping[str, CeleryWorker]
    folder: Path
    env: Mapping[str, str]

    def start(self, job: str, **tags: str) -> str:
        """Launch a job."""
        given = {f"dagster-celery/{key}": value for key, value in tags.items()}
        return self.launch(job, tags=given, location="shop")

    def wait_for_file(self, gate: Path, job: str = "waiting", **tags: str) -> str:
        """Launch a run that works until a file is there."""
        config = {"ops": {"wait": {"config": {"gate": str(gate)}}}}
        given = {f"dagster-celery/{key}": value for key, value in tags.items()}
        return self.launch(job, config, given, location="shop")

    def insert(self, table: str, keys: Iterable[int]) -> None:
        """Insert rows, as a client that knows nothing of us."""
        with closing(self._database()) as database, database:
            database.executemany(f'INSERT INTO "shop.{table}" VALUES (?)', [(key,) for key in keys])

    def rows(self, table: str) -> dict[int, str]:
        """Return the worker that made each key of a table."""
        with closing(self._database()) as database:
            return dict(database.execute(f'SELECT * FROM "shop.__{table}"').fetchall())

    def notes(self, *words: object) -> list[list[str]]:
        """Return what is left of the notes that begin with some words: worker and process."""
        path = self.folder / "notes"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        start = [str(word) for word in words]
        return [line[len(start) :] for line in lines if line[: len(start)] == start]

    def stop(self, worker: str) -> list[psutil.Process]:
        """Stop a worker's processes, none of which holds the database's file; return them."""

        def stopped() -> list[psutil.Process]:
            found = self.workers[worker].processes()
            for process in found:
                process.suspend()
            with closing(self._database()) as database:
                database.execute("PRAGMA busy_timeout = 0")
                with contextlib.suppress(sqlite3.OperationalError):
                    database.execute("BEGIN IMMEDIATE")
                    return found
            for process in found:
                process.resume()
            return []

        return eventually(stopped, every=0.05)

    def doctor(self, queue: str) -> dict[str, tuple[str, str]]:
        """Return what the command finds in a worker: states and texts, by what it looks at."""
        command = [str(Path(sys.executable).with_name("dj-dagster")), "doctor", "--launcher"]
        command += ["--json", "--tag", f"dagster-celery/queue={queue}"]
        command += ["-m", "tests.celery.project"]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.env, "DAGSTER_HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.stdout, done.stderr
        there = [each for each in json.loads(done.stdout) if each["what"].startswith("run: ")]
        return {each["what"][5:]: (each["state"], each["found"]) for each in there}

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder / "lab.sqlite", timeout=PATIENCE)


def _settings(folder: Path, redis: RedisServer) -> Mapping[str, Any]:
    """Return the settings of `deploy/celery`, with files instead of PostgreSQL, and in a hurry."""
    given = yaml.safe_load((REPOSITORY / "deploy/celery/dagster.yaml").read_text())
    launcher = given["run_launcher"]["config"]
    launcher |= {"broker": f"{redis.url}/0", "backend": f"{redis.url}/1", "lost_after": 5}
    # A server that is away is given up soon.
    retries = {"retry_policy": {"max_retries": 1}}
    launcher["config_source"] = {"result_backend_transport_options": retries}
    given["run_monitoring"]["poll_interval_seconds"] = 2
    logs = {
        "module": "dagster._core.storage.local_compute_log_manager",
        "class": "LocalComputeLogManager",
        "config": {"base_dir": str(folder / "logs")},
    }
    storage = {"sqlite": {"base_dir": str(folder / "history")}}
    return {**given, "storage": storage, "compute_logs": logs}


@contextlib.contextmanager
def running_deployment(folder: Path, redis: RedisServer) -> Generator[Deployment]:
    """Run `dagster dev` and two workers in an empty folder until the block ends."""
    (folder / "dagster.yaml").write_text(yaml.safe_dump(_settings(folder, redis)))
    (folder / "workspace.yaml").write_text(WORKSPACE)
    env = {
        "CELERY_TEST_FOLDER": str(folder),
        "PYTHONPATH": str(REPOSITORY),
        "DJ_DATABASE_URL": f"sqlite:///{folder}/lab.sqlite",
        # The workers are on this machine.
        "DJ_DATABASE_SHARED": "true",
        "DJ_JOBS_LEASE": str(LEASE),
    }
    ours = [name for name in os.environ if name.startswith("DJ_")]
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    workers = {
        name: CeleryWorker(name, f"dagster,{name}", folder, {**inherited, **env})
        for name in ("one", "two")
    }
    with contextlib.ExitStack() as stack:
        for worker in workers.values():
            stack.callback(worker.end)
            worker.start()
        dev = stack.enter_context(dagster_dev(folder, env=env, without=ours))
        yield Deployment(dev, redis, workers, folder, {**inherited, **env})
