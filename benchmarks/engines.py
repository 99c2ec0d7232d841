"""Labs as many people share them, whose runs are started by Dagster itself, by Slurm or by Celery.

Tables are in MariaDB and Dagster's history is in PostgreSQL; `dagster dev` runs the sensor.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
import yaml
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable

from benchmarks.orchestration import has_ticked
from benchmarks.peers import driver
from tests.services.dagster_dev import dagster_dev
from tests.services.process import eventually
from tests.services.redis import CeleryWorker, redis
from tests.services.slurm import slurm

REPOSITORY = Path(__file__).parents[1]
SCHEMA = "many_machines"
WORKSPACE = """
load_from:
  - python_module: {module_name: benchmarks.pipelines.many_machines, location_name: machines}
"""


@dataclass(frozen=True)
class EngineLab:
    """A running lab.

    Attributes
    ----------
    url
        Of the server with the tables.
    instance
        Dagster's instance.
    calls
        File with a line for each call of `make`.
    """

    url: sa.URL
    instance: dg.DagsterInstance
    calls: Path

    def await_daemon(self) -> None:
        """Wait until the sensor has seen the empty tables."""
        eventually(lambda: any(map(has_ticked, self.instance.all_instigator_state())))

    def insert(self, items: Iterable[int]) -> None:
        """Insert rows, as a client that knows nothing of us."""
        with contextlib.closing(driver(self.url)) as connection, connection.cursor() as cursor:
            values = ", ".join(f"({item})" for item in items)
            cursor.execute(f"INSERT INTO {SCHEMA}.item VALUES {values}")
            connection.commit()

    def rows(self) -> dict[int, tuple[str, float]]:
        """Return where each key was made, and when."""
        with contextlib.closing(driver(self.url)) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT item, place, made FROM {SCHEMA}.__measured")
            return {item: (place, made) for item, place, made in cursor.fetchall()}

    def await_shown(self, items: int) -> float:
        """Wait until so many items and their results are shown; return the time."""
        eventually(lambda: self.marks()[0] == 2 * items, timeout=1800, every=0.2)
        return time.time()

    def marks(self) -> tuple[int, int]:
        """Return how many partitions of both tables are shown, and how many events say so."""
        log = SqlEventLogStorageTable.c
        select = sa.select(
            sa.func.count(sa.distinct(log.asset_key + log.partition)), sa.func.count()
        ).where(
            log.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            log.partition.is_not(None),
        )
        storage: Any = self.instance.event_log_storage
        with storage.index_connection() as connection:
            shown, events = connection.execute(select).one()
        return shown, events

    def await_runs(self) -> list[dg.RunRecord]:
        """Wait until all runs have ended, and return them, the youngest first."""
        return eventually(self._ended_runs, every=0.2)

    def _ended_runs(self) -> list[dg.RunRecord]:
        records = self.instance.get_run_records()
        return records if all(record.dagster_run.is_finished for record in records) else []

    def check(self, items: int) -> Counter[str]:
        """Assert that each item was made exactly once, and return how many were made where."""
        calls = Counter(map(int, self.calls.read_text().split()))
        assert calls == Counter(range(items)), {key: n for key, n in calls.items() if n > 1}
        rows = self.rows()
        assert sorted(rows) == list(range(items))
        return Counter(place for place, _ in rows.values())


@contextlib.contextmanager
def engine_lab(
    engine: str, url: str, storage: str, folder: Path, *, workers: int, batch: int
) -> Generator[EngineLab]:
    """Run `dagster dev` in an empty folder, with all that an engine needs.

    Parameters
    ----------
    engine
        The name of one in `ENGINES`.
    url, storage
        Of the servers of tables and of Dagster's history.
    workers
        Runs that work at once.
    batch
        Keys of a run.
    """
    env = {
        "DAGSTER_HOME": str(folder),
        "DJ_DATABASE_URL": url,
        "MACHINES_BATCH": str(batch),
        "MACHINES_CALLS": str(folder / "calls"),
        "PYTHONPATH": str(REPOSITORY),
    }
    (folder / "workspace.yaml").write_text(WORKSPACE)
    settings = _settings(folder, storage, workers)
    with (
        ENGINES[engine](folder, settings, env, workers) as found,
        dagster_dev(folder, env={**env, **found}),
        dg.DagsterInstance.from_config(str(folder)) as instance,
    ):
        yield EngineLab(sa.make_url(url), instance, folder / "calls")


def _settings(folder: Path, storage: str, workers: int) -> dict[str, Any]:
    return {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "storage": {"postgres": {"postgres_url": storage}},
        "compute_logs": {
            "module": "dagster._core.storage.local_compute_log_manager",
            "class": "LocalComputeLogManager",
            "config": {"base_dir": str(folder / "logs")},
        },
        "run_coordinator": {
            "module": "dagster._core.run_coordinator.queued_run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": {"max_concurrent_runs": workers, "dequeue_interval_seconds": 1},
        },
        "run_monitoring": {
            "enabled": True,
            "start_timeout_seconds": 0,
            "max_resume_run_attempts": 3,
            "poll_interval_seconds": 30,
        },
    }


Settings = Mapping[str, Any]
Env = Mapping[str, str]


def _write(folder: Path, settings: Settings) -> None:
    (folder / "dagster.yaml").write_text(yaml.safe_dump(dict(settings)))


@contextlib.contextmanager
def _by_default(folder: Path, settings: Settings, env: Env, workers: int) -> Generator[Env]:
    del env, workers
    monitoring = {**settings["run_monitoring"], "max_resume_run_attempts": 0}
    _write(folder, {**settings, "run_monitoring": monitoring})
    yield {}


@contextlib.contextmanager
def _by_slurm(folder: Path, settings: Settings, env: Env, workers: int) -> Generator[Env]:
    del env
    # Two nodes of two CPUs: up to two runs have a node each.
    config = {"folder": str(folder / "jobs"), "time": "30", "cpus": 2 if workers <= 2 else 1}
    launcher = {"module": "dj_dagster.slurm", "class": "SlurmRunLauncher", "config": config}
    with slurm() as cluster:
        _write(folder, {**settings, "run_launcher": launcher})
        yield cluster.env


@contextlib.contextmanager
def _by_celery(folder: Path, settings: Settings, env: Env, workers: int) -> Generator[Env]:
    with redis() as server, contextlib.ExitStack() as stack:
        config = {"broker": f"{server.url}/0", "backend": f"{server.url}/1"}
        launcher = {"module": "dj_dagster.celery", "class": "CeleryRunLauncher", "config": config}
        _write(folder, {**settings, "run_launcher": launcher})
        for number in range(1, workers + 1):
            worker = CeleryWorker(f"worker{number}", "dagster", folder, {**os.environ, **env})
            stack.callback(worker.end)
            worker.start()
        yield {}


Engine = Callable[[Path, Settings, Env, int], contextlib.AbstractContextManager[Env]]

ENGINES: Mapping[str, Engine] = {"default": _by_default, "slurm": _by_slurm, "celery": _by_celery}
"""What starts runs: processes of Dagster's machine, jobs of two nodes, or workers that stay."""
