"""Fixtures: a connection and a schema, as for tables of today, and a client of DataJoint 0.14."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from tests.lab import connection, schema
from tests.services.database_server import drop_databases
from tests.services.old_datajoint import PACKAGES, OldClient, install, old_client
from tests.services.process import ServiceMissingError

__all__ = ["connection", "schema"]

# It is run as a script of its own, with packages that are not installed here.
collect_ignore = ["elements_pipeline.py"]


@pytest.fixture(scope="session")
def old_datajoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with DataJoint 0.14 in it."""
    return installed(request, tmp_path_factory.mktemp("datajoint_014"), PACKAGES)


def installed(request: pytest.FixtureRequest, folder: Path, packages: Sequence[str]) -> Path:
    """Put packages into a folder and return it; skip or fail the test if they cannot be had."""
    try:
        install(folder, packages)
    except ServiceMissingError as error:
        if request.config.getoption("require_services"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    return folder


@dataclass(frozen=True)
class Eras:
    """Two clients of one server with the same stores: ours, and one of DataJoint 0.14."""

    connection: dj.Connection
    old: OldClient
    name: str
    stores: Path

    def schema(self, **options: Any) -> Any:
        """Return the schema for our classes."""
        return dj.Schema(self.name, connection=self.connection, **options)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Run a statement in the schema, and return its rows."""
        with self.connection.cursor() as session:
            found = session.exec_driver_sql(statement.replace("{}", f"`{self.name}`"), values)
            return [tuple(row) for row in found] if found.returns_rows else []


@pytest.fixture(scope="session")
def clients(
    server_url: str, old_datajoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dj.Connection, OldClient, Path]]:
    """Both clients; the old one takes a while to start."""
    folder = tmp_path_factory.mktemp("eras")
    for name in ("main", "stage"):
        (folder / name).mkdir()
    place = {"location": str(folder / "main"), "stage": str(folder / "stage")}
    stores = {"main": {"protocol": "file", **place}}
    ours = dj.Connection(
        server_url,
        stores=dj.Stores({"default": "main", **stores}),
        safemode=False,
        download_path=folder / "downloads",
    )
    with old_client(old_datajoint, server_url, stores, folder) as old:
        yield ours, old, folder
    ours.close()


@pytest.fixture
def eras(clients: tuple[dj.Connection, OldClient, Path], server_url: str) -> Iterator[Eras]:
    """Both clients, and the name of a schema that the old one has made, empty."""
    ours, old, folder = clients
    name = f"t{uuid.uuid4().hex[:8]}_eras"
    old.run(f"schema = dj.schema({name!r})")
    yield Eras(ours, old, name, folder)
    drop_databases(server_url, name)
