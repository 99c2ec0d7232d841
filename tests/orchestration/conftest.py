"""A small lab, its Dagster definitions, and a Dagster instance of its own for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from sqlalchemy import QueuePool

from dj_dagster.orchestration import SensorSettings
from dj_dagster.orchestration.sensor.sensor_settings import Budget
from dj_dagster.relational.database.connection import Connection
from tests.orchestration.lab import Lab, declare_lab

SETTINGS = {
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},
    # Else two processes are started for each step, which copy what it prints.
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    },
}


def _kept(create_engine: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that gives the same engine, with its connections, for the same file."""
    made: dict[str, Any] = {}

    def engine(url: str, **options: Any) -> Any:
        found = made.pop(url, None)
        if found is not None and not Path(found.url.database).exists():
            # Its connections would still be to the file that was removed.
            found = found.disposed()
        if found is None:
            given = {**options.pop("connect_args", {}), "check_same_thread": False}
            found = create_engine(url, **{**options, "poolclass": QueuePool}, connect_args=given)
            found.disposed, found.dispose = found.dispose, lambda: None
        made[url] = found
        if len(made) > 20:
            made.pop(next(iter(made))).disposed()
        return found

    return engine


@pytest.fixture(scope="session", autouse=True)
def quick_storage() -> Iterator[None]:
    """Keep Dagster from reading its hundred migration scripts anew for each database file.

    It does so for each run, and has an engine and a connection for each statement, which would be a
    third of the time of these tests.
    """
    read = cache(lambda directory: list(load(directory)))
    load = ScriptDirectory._load_revisions
    directories: dict[str, ScriptDirectory] = {}

    def load_once(self: ScriptDirectory) -> list[Any]:
        return read(directories.setdefault(self.dir, self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "_load_revisions", load_once)
        for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
            patch.setattr(module, "create_engine", _kept(module.create_engine))
        yield


@pytest.fixture(scope="session")
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the empty databases of an instance, which take a second to create."""
    folder = tmp_path_factory.mktemp("dagster_home")
    with dg.DagsterInstance.local_temp(str(folder), overrides=SETTINGS) as instance:
        instance.get_dynamic_partitions("any")
        instance.get_runs_count()
    return folder


@pytest.fixture
def instance(dagster_home: Path, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with the storage of `dagster dev`, SQLite files."""
    folder = tmp_path / "dagster_home"
    shutil.copytree(dagster_home, folder)
    with dg.DagsterInstance.local_temp(str(folder), overrides=SETTINGS) as made:
        yield made


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """The lab on SQLite."""
    connection = Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}", safemode=False)
    yield declare_lab(connection, "lab")
    connection.close()


@pytest.fixture
def any_lab(database_url: str, schema_prefix: str) -> Iterator[Lab]:
    """The lab on SQLite, then on MariaDB and MySQL."""
    connection = Connection(database_url, safemode=False)
    yield declare_lab(connection, f"{schema_prefix}lab")
    connection.close()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a tick do all that there is to do, on a machine that is busy as well.

    The seconds that a tick has by default are over soon there, and what is left comes in the next
    one, for which most tests do not wait.
    """
    monkeypatch.setattr("dj_dagster.orchestration.sensor.sensor.HURRY", 60.0)
    monkeypatch.setattr("dj_dagster.orchestration.sensor.sensor.Budget", _Patient)


class _Patient(Budget):
    """The time that a tick has, which is long unless a test has chosen it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(600.0 if seconds == SensorSettings.tick_seconds else seconds)
