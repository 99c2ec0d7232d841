"""Fixtures for tests of tables: a connection with a store, and a schema in an empty database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import dj_dagster as dj


def connect(url: str, folder: Path) -> dj.Connection:
    """Return a connection whose default store is a folder."""
    local = {"protocol": "file", "location": str(folder / "store")}
    stores = dj.Stores({"default": "local", "local": local})
    return dj.Connection(url, stores=stores, safemode=False)


@pytest.fixture
def connection(database_url: str, tmp_path: Path) -> Iterator[dj.Connection]:
    """A connection that does not ask before it deletes."""
    opened = connect(database_url, tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def schema(connection: dj.Connection, schema_prefix: str) -> dj.Schema:
    """A schema without tables."""
    return dj.Schema(f"{schema_prefix}lab", connection=connection)
