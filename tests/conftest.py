"""Fixtures shared by all tests: databases, object stores, a browser.

A test runs where the fixtures it requests take it: one that asks for `database_url` runs on SQLite,
MariaDB and MySQL, one that asks for `s3_store_settings` talks to a real S3 server. A service that
is not installed skips its tests with the line that installs it, and fails them under
`--require-services` or with `CI` set in the environment.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, Page, expect
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.edited_module import EditedModule
from tests.services import azure, gcs
from tests.services.browser import chromium
from tests.services.database_server import DatabaseServer, database_server, drop_databases
from tests.services.mariadb import MariaDBServer, mariadb
from tests.services.mysql import MySQLServer, mysql
from tests.services.postgres import PostgresServer, postgres, postgres_server
from tests.services.process import PATIENCE, ServiceMissingError
from tests.services.redis import RedisServer, redis
from tests.services.s3 import S3Server, bucket_files, s3
from tests.services.slurm import SlurmCluster, slurm

T = TypeVar("T")

SERVERS = ["mariadb", "mysql"]

_BROWSER = "tests/ui/"

_SERVICES = {
    *("mariadb_url", "mysql_url", "server_url", "own_server", "old_datajoint"),
    *("postgres_url", "own_postgres", "s3_server", "gcs_url", "azure_connection_string", "browser"),
    *("slurm_cluster", "deployment", "redis_server", "celery_deployment"),
}
"""Fixtures that start a service."""

_KINDS = {*SERVERS, "s3", "gcs", "azure"}
"""Parameters by which other fixtures choose one."""

_EXTRAS = {"ephys": "spikeinterface", "release": "prov"}
"""Markers of tests that need an extra, which not every environment has, by a package of it."""

_MEMORY = Path("/dev/shm")
_ROOM = 4 * 2**30
"""Bytes that a folder in memory must have free to be used."""


def _keep_bytecode() -> None:
    """Let processes that tests start find their modules compiled, whatever the environment says.

    Compiling what `import dagster` reads takes ten times as long as reading it.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def _use_memory() -> None:
    """Keep temporary folders in memory where there is room; TMPDIR has the last word.

    A commit waits for the disk, which is most of the time of a small test. Nothing here has to
    survive a power cut; a process that is killed leaves the same in either.
    """
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(_MEMORY).free > _ROOM:
        # Programs that tests start, and the processes that pytest-xdist starts, take it over.
        os.environ["TMPDIR"] = str(_MEMORY)
        tempfile.tempdir = None


_keep_bytecode()
_use_memory()


def pytest_collection_finish() -> None:
    """Have the garbage collector look less often, and never at what stays until the end.

    It took an eighth of the time of tests that tick.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


# Type checkers, and processes of tests, alone see them: their code writes into the database that
# is configured.
collect_ignore = ["example", "celery/project.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-services",
        action="store_true",
        default=bool(os.environ.get("CI")),
        help="fail, instead of skip, where MariaDB, MySQL, PostgreSQL or Chromium is not installed",
    )
    parser.addoption(
        "--save-screenshots",
        action="store_true",
        help="write the pictures of the README into docs/",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the tests in a browser, which take longest; mark those that need a service.

    Those of published packages are left out unless they are asked for by their marker.
    """
    if "packages" not in config.getoption("markexpr"):
        left_out = [item for item in items if item.get_closest_marker("packages")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    items.sort(key=lambda item: not item.nodeid.startswith(_BROWSER))
    _leave_out_extras(items)
    for item in items:
        if _needs_service(item):
            item.add_marker("services")


def _leave_out_extras(items: list[pytest.Item]) -> None:
    """Leave out the tests of extras that are not installed."""
    absent = {mark for mark, package in _EXTRAS.items() if not importlib.util.find_spec(package)}
    kept, left_out = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        needed = absent & {mark.name for mark in item.iter_markers()}
        (left_out if needed else kept).append(item)
    items[:] = kept
    if left_out:
        left_out[0].config.hook.pytest_deselected(items=left_out)


def _needs_service(item: pytest.Item) -> bool:
    given = getattr(item, "callspec", None)
    values = given.params.values() if given else ()
    chosen = {value for value in values if isinstance(value, str)}
    wanted = {*getattr(item, "fixturenames", ())}
    return item.nodeid.startswith(_BROWSER) or bool(wanted & _SERVICES or chosen & _KINDS)


class _Together(LoadFileScheduling):
    """Gives a process the tests of a whole file, and to one all that use a browser.

    They share what they start, and two of `dagster dev` at once are slow beyond their patience.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _BROWSER if nodeid.startswith(_BROWSER) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Together:
    """Say which tests stay together when they are run in parallel."""
    return _Together(config, log)


@contextlib.contextmanager
def _service(request: pytest.FixtureRequest, start: AbstractContextManager[T]) -> Generator[T]:
    """Enter `start`; a missing service skips the tests that want it, or fails them."""
    required = request.config.getoption("require_services")
    with contextlib.ExitStack() as stack:
        try:
            service = stack.enter_context(start)
        except ServiceMissingError as missing:
            if required:
                raise pytest.fail.Exception(str(missing), pytrace=False) from None
            raise pytest.skip.Exception(str(missing)) from None
        yield service


@pytest.fixture(scope="session")
def mariadb_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a MariaDB server."""
    with _service(request, mariadb()) as url:
        yield url


@pytest.fixture(scope="session")
def mysql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a MySQL server: DJ_TEST_MYSQL_URL, or one of our own."""
    if given := os.environ.get("DJ_TEST_MYSQL_URL"):
        yield given
        return
    with _service(request, mysql()) as url:
        yield url


@pytest.fixture(scope="session", params=SERVERS)
def server_url(request: pytest.FixtureRequest) -> str:
    """URL of the MariaDB server, then of the MySQL server: the test runs on both."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(scope="module", params=[MariaDBServer, MySQLServer], ids=SERVERS)
def own_server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """A server of the module's own, which can be killed and started again; of both kinds."""
    with _service(request, database_server(request.param, durable=True)) as running:
        yield running


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty PostgreSQL database, for Dagster's storage."""
    with _service(request, postgres()) as url:
        yield url


@pytest.fixture(scope="module")
def own_postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A PostgreSQL server of the module's own, to be started, killed and started again."""
    with _service(request, postgres_server(durable=True)) as prepared:
        yield prepared


@pytest.fixture(params=["sqlite", *SERVERS])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty SQLite file, then of each server: the test runs on all three."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'lab.sqlite'}"
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def schema_prefix(database_url: str) -> Iterator[str]:
    """Beginning of this test's schema names; databases that have it are dropped at the end."""
    with _prefix(database_url) as prefix:
        yield prefix


@pytest.fixture
def server_prefix(server_url: str) -> Iterator[str]:
    """Beginning of the schema names of a test on `server_url`, as `schema_prefix`."""
    with _prefix(server_url) as prefix:
        yield prefix


@contextlib.contextmanager
def _prefix(url: str) -> Iterator[str]:
    prefix = f"t{uuid.uuid4().hex[:8]}_"
    yield prefix
    if not url.startswith("sqlite"):
        drop_databases(url, prefix)


@pytest.fixture(scope="session")
def seed_of_commit() -> int:
    """Seed for random values: another for each commit, and the same when a commit runs again."""
    command = ["git", "rev-parse", "--short=8", "HEAD"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    # A release's archive is not a clone.
    return int(found.stdout, 16) if found.returncode == 0 else 1


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """An S3 server without buckets."""
    with _service(request, s3()) as service:
        yield service


@pytest.fixture(scope="module")
def slurm_cluster(request: pytest.FixtureRequest) -> Iterator[SlurmCluster]:
    """A Slurm of three nodes, whose daemons can be killed."""
    with _service(request, slurm()) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Redis, which can be ended and started again."""
    with _service(request, redis()) as running:
        yield running


@pytest.fixture
def s3_store_settings(s3_server: S3Server) -> dict[str, Any]:
    """DataJoint's settings of a store in a fresh bucket of the S3 server."""
    settings = s3_server.store_settings(f"lab-{uuid.uuid4().hex[:8]}")
    bucket_files(settings).mkdir(settings["bucket"])
    return settings


@pytest.fixture(scope="session")
def gcs_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a server of Google Cloud Storage's protocol, without buckets."""
    with _service(request, gcs.gcs()) as url:
        yield url


@pytest.fixture
def gcs_store_settings(gcs_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a store in a fresh bucket of that server."""
    monkeypatch.setenv(gcs.VARIABLE, gcs_url)
    return gcs.bucket_settings(gcs_url, f"lab-{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="session")
def azure_connection_string() -> Iterator[str]:
    """Address and credentials of an Azure Blob Storage server without containers."""
    with azure.azurite() as connection_string:
        yield connection_string


@pytest.fixture
def azure_store_settings(azure_connection_string: str) -> dict[str, Any]:
    """Settings of a store in a fresh container of that server."""
    return azure.container_settings(azure_connection_string, f"lab-{uuid.uuid4().hex[:8]}")


# Playwright's loop counts as running in this thread while the browser is open, and other modules'
# tests may want to run one: hence a browser per module, not per session.
@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Headless Chromium."""
    with _service(request, chromium()) as driven:
        yield driven


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page of 1440 × 900 pixels."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(1000 * PATIENCE)
    expect.set_options(timeout=1000 * PATIENCE)
    yield context.new_page()
    context.close()


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EditedModule]:
    """A module that is written anew and imported at each `load`."""
    folder = tmp_path / tmp_path.name
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield EditedModule(folder)
    for name in set(sys.modules) - before:
        if name.startswith("written_"):
            del sys.modules[name]
