"""Pytest's plugin for pipelines: a temporary lab, a Dagster instance, and ticks of the sensor.

Pytest imports this module in every run where dj_dagster is installed. Dagster, which takes seconds
to import, is therefore imported by the fixtures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun, Definitions

    from dj_dagster.temporary.lab import TemporaryLab

DATABASES = ("sqlite", "mariadb")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting that choose the databases of `dj_lab`."""
    parser.getgroup("dj_dagster").addoption(
        "--dj-database",
        action="append",
        choices=DATABASES,
        help="database of temporary labs; given twice, each of their tests runs on both",
    )
    parser.addini(
        "dj_databases",
        f"databases of temporary labs, of {' and '.join(DATABASES)}; by default {DATABASES[0]}",
        type="args",
        default=[DATABASES[0]],
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of temporary labs once on each chosen database."""
    if "dj_database" in metafunc.fixturenames:
        metafunc.parametrize("dj_database", _chosen(metafunc.config), indirect=True)


def _chosen(config: pytest.Config) -> list[str]:
    chosen = config.getoption("dj_database") or config.getini("dj_databases")
    if not chosen:
        raise pytest.UsageError(f"dj_databases is empty: write {' or '.join(DATABASES)}.")
    unknown = [name for name in chosen if name not in DATABASES]
    if unknown:
        raise pytest.UsageError(
            f"dj_databases has {', '.join(unknown)}: write {' or '.join(DATABASES)}."
        )
    return list(dict.fromkeys(chosen))


@pytest.fixture(scope="session")
def dj_mariadb_url() -> Iterator[str]:
    """URL of a private MariaDB server; without ``mariadbd`` its tests are skipped."""
    from dj_dagster.errors import ConfigurationError
    from dj_dagster.temporary import mariadb

    # The names of pytest's own folders can be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="djdb") as folder:
        try:
            mariadb.command(Path(folder))
        except ConfigurationError as error:
            pytest.skip(str(error))
        with mariadb.server(Path(folder)) as url:
            yield url


@pytest.fixture
def _dj_folder(tmp_path: Path) -> Path:
    """Folder of the lab, with a name that no test gives to one of its own."""
    return Path(tempfile.mkdtemp(prefix="dj_lab_", dir=tmp_path))


@pytest.fixture
def dj_database(request: pytest.FixtureRequest, _dj_folder: Path) -> Iterator[str]:
    """URL of an empty database: a SQLite file, or a private MariaDB server.

    A test that asks for it by name as it runs, or in a unittest.TestCase, has the first one chosen.
    """
    if getattr(request, "param", _chosen(request.config)[0]) == "sqlite":
        yield f"sqlite:///{_dj_folder / 'lab.sqlite'}"
        return
    from dj_dagster.temporary import mariadb

    url: str = request.getfixturevalue("dj_mariadb_url")
    yield url
    mariadb.drop_all(url)


@pytest.fixture
def dj_lab(dj_database: str, _dj_folder: Path) -> Iterator[TemporaryLab]:
    """Open a temporary lab: the default connection goes to an empty database, stores are folders.

    Import the modules of the pipeline by ``dj_lab.load("definitions")``.
    """
    from dj_dagster.temporary.lab import TemporaryLab

    lab = TemporaryLab(dj_database, _dj_folder)
    yield lab
    lab.close()


@pytest.fixture
def dj_instance() -> Iterator[DagsterInstance]:
    """Open a Dagster instance in memory, without a history."""
    from dagster import DagsterInstance

    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def dj_run(dj_instance: DagsterInstance) -> Callable[[Definitions], list[DagsterRun]]:
    """Return a function that lets the sensor work until it asks for nothing more.

    It evaluates the sensor of the definitions, executes the runs that it requests in this process,
    and does so again until none is requested. It returns the runs, failed ones too.
    """
    from dj_dagster.orchestration.headless import run_until_idle

    return lambda defs: list(run_until_idle(defs, instance=dj_instance))
