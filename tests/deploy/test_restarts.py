"""The processes of a shared lab start in any order, and each survives the others' restart."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.deploy.units import DEPLOY, ENVIRONMENT, UNITS, Supervisor, read_environment, units
from tests.services.dagster_dev import graphql
from tests.services.dagster_runs import STATISTICS
from tests.services.database_server import DatabaseServer
from tests.services.mariadb import MariaDBServer
from tests.services.postgres import PostgresServer
from tests.services.process import eventually, free_port, tail

DEFINITIONS = '''
import time
from pathlib import Path

import dj_dagster as dj
from dj_dagster.orchestration import SensorSettings, build_definitions

schema = dj.Schema("lab")


@schema
class Item(dj.Manual):
    definition = "item : int32"


@schema
class Made(dj.Computed):
    definition = """
    -> Item
    ---
    data : <blob@>
    """

    def make(self, key):
        with open("made", "a") as notes:
            notes.write(f"{key['item']}\\n")
        while Path(f"hold{key['item']}").exists():
            time.sleep(0.05)
        self.insert1({**key, "data": [key["item"]]})


defs = build_definitions(schema, sensor_settings=SensorSettings(interval=1))
'''


@dataclass(frozen=True)
class SharedLab:
    """The processes of a lab, none of which has been started."""

    folder: Path
    postgres: PostgresServer
    mariadb: DatabaseServer
    code_server: Supervisor
    daemon: Supervisor
    webserver: Supervisor
    url: str
    database: sa.Engine

    def insert(self, item: int) -> None:
        """Insert a row, as a client that knows nothing of us, once the table is there."""

        def inserted() -> bool:
            with contextlib.suppress(sa.exc.DBAPIError), self.database.begin() as session:
                session.exec_driver_sql(f"INSERT INTO `lab`.`item` VALUES ({item})")
                return True
            return False

        assert self._waited(inserted)

    def made(self) -> dict[int, bytes]:
        """Return the rows that were made."""
        with contextlib.suppress(sa.exc.DBAPIError), self.database.connect() as session:
            return dict(session.exec_driver_sql("SELECT * FROM `lab`.`__made`").all())
        return {}

    def attempts(self) -> list[int]:
        """Return the keys that `make` was called with."""
        file = self.folder / "made"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def until_begun(self, item: int) -> None:
        """Wait until the key of a row is being made."""
        self._waited(lambda: item in self.attempts())

    def until_shown(self, items: Sequence[int]) -> None:
        """Wait until these keys, and no others, are made and shown as made."""
        wanted = {"numPartitions": len(items), "numMaterialized": len(items), "numFailed": 0}
        self._waited(lambda: set(self.made()) == set(items) and self._statistics() == wanted)

    def _statistics(self) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError, AssertionError, KeyError):
            asked = graphql(self.url, STATISTICS, key={"path": ["lab", "made"]})
            return asked["assetNodeOrError"]["partitionStats"]
        return None

    def _waited(self, ask: Any) -> bool:
        try:
            return eventually(ask, every=0.5)
        except TimeoutError as late:
            processes = (self.code_server, self.daemon, self.webserver)
            logs = "\n\n".join(tail(each.log) for each in processes)
            raise AssertionError(f"{late}; made: {set(self.made())}\n{logs}") from late


@pytest.fixture
def shared_lab(
    tmp_path: Path,
    own_postgres: PostgresServer,
    own_server: DatabaseServer,
    s3_store_settings: dict[str, Any],
) -> Iterator[SharedLab]:
    """A lab with the files that are shipped, in place of the addresses those of this machine."""
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(DEPLOY / name, tmp_path)
    _prepare(own_server)
    root = sa.make_url(own_server.url)
    with contextlib.ExitStack() as stack:
        here = {
            "DJ_HOST": "127.0.0.1",
            "DJ_PORT": str(root.port),
            "DJ_PASS": "tulip",
            "DJ_STORES": json.dumps({"default": "lab", "lab": s3_store_settings}),
            "DAGSTER_POSTGRES_PORT": str(own_postgres.port),
            "DAGSTER_POSTGRES_PASSWORD": "any",
            "DAGSTER_POSTGRES_DB": "postgres",
            "DAGSTER_HOME": str(tmp_path),
            "DAGSTER_LOGS": str(tmp_path / "logs"),
            "DAGSTER_CODE_PORT": str(free_port()),
            "DAGSTER_WEBSERVER_PORT": str(free_port()),
        }
        environment = read_environment(UNITS / ENVIRONMENT)
        assert here.keys() <= environment.keys()
        processes = {
            unit.name.removeprefix("dagster-").replace("-", "_"): Supervisor(
                unit, tmp_path, {**environment, **here}
            )
            for unit in units()
        }
        for process in processes.values():
            stack.callback(process.stop)
        database = sa.create_engine(root, poolclass=sa.NullPool)
        url = f"http://127.0.0.1:{here['DAGSTER_WEBSERVER_PORT']}"
        yield SharedLab(tmp_path, own_postgres, own_server, url=url, database=database, **processes)


def _prepare(mariadb: DatabaseServer) -> None:
    """Make the lab's account with the rights that are shipped, and leave the server stopped."""
    grants = re.sub(r"^--.*$", "", (DEPLOY / "compose" / "grants.sql").read_text(), flags=re.M)
    with sa.create_engine(mariadb.url, poolclass=sa.NullPool).begin() as session:
        session.exec_driver_sql("CREATE USER 'lab'@'%%' IDENTIFIED BY 'tulip'")
        session.exec_driver_sql(grants.replace("%", "%%"))
    mariadb.stop()


@pytest.mark.parametrize("own_server", [MariaDBServer], indirect=True, ids=["mariadb"])
def test_processes_wait_for_each_other_and_survive_each_other(shared_lab: SharedLab) -> None:
    lab = shared_lab
    # What lacks its database ends, and is started again.
    lab.webserver.start()
    eventually(lambda: lab.webserver.failures)
    lab.postgres.start()
    lab.daemon.start()
    lab.code_server.start()
    eventually(lambda: lab.code_server.failures)
    lab.mariadb.start()
    lab.insert(1)
    lab.until_shown([1])

    hold = lab.folder / "hold2"
    hold.touch()
    lab.insert(2)
    lab.until_begun(2)
    # The run is gone with its code server.
    lab.code_server.kill()
    hold.unlink()
    lab.until_shown([1, 2])

    lab.postgres.kill()
    lab.daemon.kill()
    lab.insert(3)
    lab.postgres.start()
    lab.until_shown([1, 2, 3])

    lab.mariadb.kill()
    lab.webserver.kill()
    lab.mariadb.start()
    lab.insert(4)
    lab.until_shown([1, 2, 3, 4])
    assert sorted(lab.attempts()) == [1, 2, 2, 3, 4]
