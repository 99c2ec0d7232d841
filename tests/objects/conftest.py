from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dj_dagster.objects.stores.stores import Store, Stores
from tests.services.clouds import CLOUDS


@pytest.fixture
def file_store_settings(tmp_path: Path) -> dict[str, Any]:
    return {"protocol": "file", "location": str(tmp_path / "store")}


@pytest.fixture(params=["file", *CLOUDS])
def store_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a local folder, then of a bucket on each kind of server: the test runs on all."""
    return request.getfixturevalue(f"{request.param}_store_settings")


@pytest.fixture
def folders(file_store_settings: dict[str, Any]) -> Stores:
    """A store that is a folder."""
    return Stores({"default": "main", "main": file_store_settings})


@pytest.fixture
def stores(store_settings: dict[str, Any]) -> Stores:
    """Two stores, of which `main` is the default."""
    other = {**store_settings, "location": f"{store_settings['location']}/other"}
    return Stores({"default": "main", "main": store_settings, "other": other})


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores.get("main")
