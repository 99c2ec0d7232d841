"""Both libraries on one server: dj_dagster and DataJoint 2.3 itself."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa

import dj_dagster
from tests.services.database_server import drop_databases

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it misses a datajoint.json
    import datajoint


@dataclass(frozen=True)
class Library:
    """One of the two, with a connection of its own."""

    dj: ModuleType
    connection: Any

    def schema(self, name: str) -> Any:
        """Return a schema that definitions in this process can be written for."""
        return self.dj.Schema(name, connection=self.connection)

    def module(self, name: str) -> Any:
        """Return the classes of what is in the database."""
        return self.dj.VirtualModule(f"module_{name}", name, connection=self.connection)


@dataclass(frozen=True)
class Libraries:
    """Both, and the name of a schema for the test."""

    ours: Library
    theirs: Library
    schema: str

    def pair(self, declares: str) -> tuple[Library, Library]:
        """Return the library that declares and the other one."""
        return (self.ours, self.theirs) if declares == "ours" else (self.theirs, self.ours)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the store that both use."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def server(server_url: str, store: Path) -> Iterator[tuple[Any, Any]]:
    """A connection of each library; DataJoint has one configuration a process."""
    url = sa.make_url(server_url)
    stores = {"default": "main", "main": {"protocol": "file", "location": str(store)}}
    datajoint.config["safemode"] = False
    datajoint.config["stores"] = stores
    datajoint.logger.setLevel("ERROR")
    theirs = datajoint.Connection(
        url.host or "", url.username or "", str(url.password or ""), url.port
    )
    ours = dj_dagster.Connection(server_url, stores=dj_dagster.Stores(stores), safemode=False)
    yield ours, theirs
    theirs.close()
    ours.close()


@pytest.fixture
def libraries(server: tuple[Any, Any], server_url: str) -> Iterator[Libraries]:
    """Both libraries, and a schema that is dropped at the end."""
    ours, theirs = server
    name = f"t{uuid.uuid4().hex[:8]}_both"
    yield Libraries(Library(dj_dagster, ours), Library(datajoint, theirs), name)
    drop_databases(server_url, name)


@pytest.fixture(params=["ours", "theirs"])
def declares(request: pytest.FixtureRequest) -> str:
    """Which library declares the tables; the other one uses them."""
    return request.param


@pytest.fixture
def attachment(tmp_path: Path) -> Path:
    """A file to attach."""
    file = tmp_path / "notes.txt"
    file.write_text("a note")
    return file
