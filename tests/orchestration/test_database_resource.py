"""The database and its stores as a Dagster resource."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.orchestration import DatabaseResource, build_definitions
from tests.orchestration.running import key_of, run_until_quiet


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatabaseResource:
    monkeypatch.setenv("LAB_URL", f"sqlite:///{tmp_path / 'lab.sqlite'}")
    monkeypatch.setenv("LAB_STORE", str(tmp_path / "store"))
    store = {"protocol": "file", "location": dg.EnvVar("LAB_STORE")}
    return DatabaseResource(url=dg.EnvVar("LAB_URL"), stores={"default": "raw", "raw": store})


def declared(database: DatabaseResource) -> dj.Schema:
    schema = database.open_schema("lab")

    @schema
    class Scan(dj.Manual):
        definition = """
        scan : int32
        ---
        pixels : <blob@>
        """

    @schema
    class Mean(dj.Computed):
        definition = """
        -> Scan
        ---
        mean : float64
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1({**key, "mean": (Scan & key).fetch1("pixels").mean()})

    return schema


def test_definitions_and_assets_use_its_database_and_stores(
    database: DatabaseResource, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    schema = declared(database)

    @dg.asset(deps=[["lab", "mean"]])
    def summary(database: DatabaseResource) -> dg.MaterializeResult[Any]:
        mean = database.open_schema("lab")["Mean"]
        return dg.MaterializeResult(metadata={"rows": len(mean)})

    schema["Scan"].insert1({"scan": 1, "pixels": np.ones((3, 3))})
    defs = build_definitions([schema], assets=[summary], resources={"database": database})
    assert all(run_until_quiet(defs, instance))
    assert schema["Mean"].fetch1("mean") == 1.0
    assert (tmp_path / "store" / "_hash").is_dir()
    result = dg.materialize([summary], instance=instance, resources={"database": database})
    event = result.asset_materializations_for_node("summary")[0]
    assert event.metadata["rows"].value == 1
    schema.connection.close()


def test_patterns_look_where_it_says(database: DatabaseResource) -> None:
    declared(database).connection.close()
    connection = database.connect()
    defs = build_definitions("lab", connection=connection)
    assert key_of("lab/scan") in {spec.key for spec in defs.resolve_all_asset_specs()}
    connection.close()


def test_missing_variables_and_secrets(
    database: DatabaseResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAB_STORE")
    with pytest.raises(dj.DataJointError, match=r"stores\.raw\.location is the variable LAB_STORE"):
        database.connect()
    monkeypatch.setenv("LAB_URL", "mysql+pymysql://me:topsecret@127.0.0.1:1/")
    monkeypatch.setenv("LAB_STORE", "/x")
    assert "topsecret" not in repr(database) + repr(database.connect())


@pytest.mark.parametrize("given", [{"url": ["my://me:sekret@h"]}, {"stores": "s3://me:sekret@h"}])
def test_errors_do_not_quote_secrets(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))) as caught:
        DatabaseResource(**{"url": "sqlite://", **given})
    assert "sekret" not in str(caught.value)


def test_displays_mask_secrets() -> None:
    store = {"protocol": "s3", "endpoint": "http://me:sekret@s3.example", "bucket": "lab"}
    resource = DatabaseResource(
        url="mysql+pymysql://bob:sekret@db.example/?passwd=sekret",
        stores={
            "default": "raw",
            "raw": {**store, "location": "", "secret_key": "sekret", "keys": ["sekret"]},
        },
    )
    for shown in (repr(resource), str(resource), f"{[resource]}"):
        assert "sekret" not in shown
        assert "bob:***@db.example" in shown
        assert "s3.example" in shown
