"""Attributes whose bytes are in a store: rows and objects stay together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.objects.stores.stores import Store


@pytest.fixture(params=["folder", "s3"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> dj.Stores:
    """A store named `raw` in a folder, then in a bucket."""
    settings: dict[str, Any] = {"protocol": "file", "location": str(tmp_path / "store")}
    if request.param == "s3":
        settings = request.getfixturevalue("s3_store_settings")
    return dj.Stores({"default": "raw", "raw": settings})


@pytest.fixture
def trace(database_url: str, schema_prefix: str, stores: dj.Stores) -> Iterator[Any]:
    """A table with a blob in the row and one in the store."""
    connection = dj.Connection(database_url, stores=stores, safemode=False)
    schema = dj.Schema(f"{schema_prefix}lab", connection=connection)

    @schema
    class Trace(dj.Manual):
        definition = """
        trace_id : int32
        ---
        small : longblob
        large = null : <blob@raw>
        other = null : <blob@>     # in the default store
        """

    yield Trace
    connection.close()


def objects(table: Any) -> tuple[Store, list[str]]:
    store = table.connection.stores.get("raw")
    return store, sorted(store.list())


def test_values_come_back_from_row_and_store(trace: Any) -> None:
    value = {"signal": np.arange(5000.0), "unit": "mV"}
    trace.insert1({"trace_id": 1, "small": [1, "two"], "large": value, "other": {3}})
    row = trace.fetch1()
    assert row["small"] == [1, "two"]
    assert row["large"]["unit"] == "mV"
    assert np.array_equal(row["large"]["signal"], value["signal"])
    assert row["other"] == {3}
    trace.insert1({"trace_id": 2, "small": 0})
    assert (trace & {"trace_id": 2}).fetch1("large") is None


def test_equal_values_are_one_object_named_by_its_content(trace: Any) -> None:
    trace.insert([{"trace_id": n, "small": n, "large": "the same"} for n in range(5)])
    _, paths = objects(trace)
    (path,) = paths
    folder, schema, digest = path.split("/")
    assert (folder, schema) == ("_hash", trace.database)
    assert len(digest) == 26


def test_a_damaged_object_is_noticed_and_named(trace: Any) -> None:
    trace.insert1({"trace_id": 7, "small": 0, "large": list(range(100))})
    store, (path,) = objects(trace)
    damaged = bytearray(store.get(path))
    damaged[-1] ^= 1
    store.put(path, bytes(damaged))
    with pytest.raises(dj.ChecksumError, match=r"lab\.trace\.large .trace_id=7"):
        trace.to_dicts()


def test_a_lost_object_is_named(trace: Any) -> None:
    trace.insert1({"trace_id": 7, "small": 0, "large": 1})
    store, (path,) = objects(trace)
    store.delete(path)
    with pytest.raises(dj.MissingExternalFile, match=r"lab\.trace\.large .trace_id=7"):
        trace.fetch1("large")
    assert trace.fetch1("small") == 0


def test_a_value_that_cannot_be_packed_leaves_no_row(trace: Any) -> None:
    rows = [
        {"trace_id": 1, "small": 0, "large": 1},
        {"trace_id": 2, "small": 0, "large": open},
    ]
    with pytest.raises(dj.DataJointError, match=r"lab\.trace\.large .trace_id=2"):
        trace.insert(rows)
    assert len(trace) == 0


def test_an_unknown_store_is_refused_by_name(trace: Any) -> None:
    without = dj.Connection(trace.connection.engine.url, safemode=False)
    schema = dj.Schema(trace.database, connection=without)

    @schema
    class Trace(dj.Manual):
        definition = trace.definition

    with pytest.raises(dj.ConfigurationError, match="raw"):
        Trace.insert1({"trace_id": 1, "small": 0, "large": 1})
    without.close()


def test_a_store_that_is_not_configured_is_told_early_and_named(trace: Any) -> None:
    schema = dj.Schema(trace.database, connection=trace.connection)

    class Lost(dj.Manual):
        definition = """
        lost_id : int32
        ---
        movie = null : <object@rwa>
        """

    with pytest.warns(UserWarning, match=r"lost\.movie cannot be inserted here yet.*'rwa'.*'raw'"):
        schema(Lost)
    Lost.insert1({"lost_id": 1})
    with pytest.raises(
        dj.ConfigurationError, match=r"lost\.movie \(lost_id=2\): .*no store 'rwa'; known are 'raw'"
    ):
        Lost.insert1({"lost_id": 2, "movie": b"x"})
    assert len(Lost()) == 1
