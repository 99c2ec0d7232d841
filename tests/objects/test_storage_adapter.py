"""Stores whose file system a program or a package brings."""

from __future__ import annotations

import logging
from typing import Any

import fsspec
import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.objects.stores import stores as storage_adapter


class Memory(dj.StorageAdapter):
    protocol = "lab_memory"
    required_keys = ("volume",)
    allowed_keys = ("token",)

    def create_filesystem(self, spec: dict[str, Any]) -> Any:
        return fsspec.filesystem("memory")

    def full_path(self, spec: dict[str, Any], relpath: str) -> str:
        return f"/{spec['volume']}/{super().full_path(spec, relpath)}"


SETTINGS = {"protocol": "lab_memory", "volume": "v1", "location": "lab", "token": "sekret"}


def test_a_store_of_a_file_system_that_is_brought(tmp_path: Any) -> None:
    stores = dj.Stores({"default": "raw", "raw": SETTINGS})
    connection = dj.Connection("sqlite:///:memory:", stores=stores, safemode=False)
    schema = dj.Schema("lab", connection=connection)
    definition = "item : int32\n---\ndata : <blob@>\nfile : <object@>"
    table: Any = schema(type("Item", (dj.Manual,), {"definition": definition}))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.dat").write_bytes(b"123")
    table.insert1({"item": 1, "data": np.arange(5), "file": tmp_path / "folder"})
    table.insert1({"item": 2, "data": 7, "file": (".txt", b"words")})
    (data, file), (other, text) = zip(*table.to_arrays("data", "file"), strict=True)
    assert data.tolist() == [0, 1, 2, 3, 4]
    assert (other, text.read(), file.listdir(), file.read("x.dat")) == (
        7,
        b"words",
        ["x.dat"],
        b"123",
    )
    assert fsspec.filesystem("memory").find("/v1/lab/_hash")
    assert "sekret" not in repr(stores.get().settings)
    (table & "item = 1").delete()
    collector = dj.GarbageCollector(schema)
    assert len(collector.collect(dry_run=False, grace=0, keep=0).garbage) == 2
    assert collector.scan(grace=0).kept == 2
    assert table.fetch1("data") == 7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"protocol": "lab_memory"}, "'raw'.*missing: volume"),
        ({**SETTINGS, "bogus": 1}, "Invalid keys.*bogus"),
        ({**SETTINGS, "schema_prefix": "_hash/x"}, "overlap"),
        ({"protocol": "nowhere"}, "Install a plugin"),
    ],
)
def test_settings_that_an_adapter_refuses(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(dj.ConfigurationError, match=words) as caught:
        dj.Stores({"raw": settings})
    assert "sekret" not in str(caught.value)


def test_what_paths_and_addresses_are_by_default() -> None:
    class Plain(Memory):
        protocol = "plain_memory"

        def full_path(self, spec: dict[str, Any], relpath: str) -> str:
            return dj.StorageAdapter.full_path(self, spec, relpath)

    plain = dj.get_storage_adapter("plain_memory")
    assert isinstance(plain, Plain)
    assert plain.full_path({"location": "a/b"}, "c") == "a/b/c"
    assert plain.full_path({}, "c") == "c"
    assert plain.get_url({}, "c") == "plain_memory://c"


def test_packages_bring_adapters(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Point:
        def __init__(self, name: str, loaded: Any) -> None:
            self.name, self._loaded = name, loaded

        def load(self) -> Any:
            if self._loaded is None:
                raise RuntimeError("boom")
            return self._loaded

    class Brought(Memory):
        protocol = "brought"

    points = [Point("bad", None), Point("good", Brought)]
    monkeypatch.setattr(storage_adapter, "_adapter_registry", {})
    monkeypatch.setattr(storage_adapter, "_adapters_loaded", False)
    monkeypatch.setattr(
        storage_adapter.metadata,
        "entry_points",
        lambda group: points if group == "datajoint.storage" else [],
    )
    with caplog.at_level(logging.WARNING):
        assert isinstance(dj.get_storage_adapter("brought"), Brought)
    assert "bad cannot be loaded: boom" in caplog.text
    assert dj.get_storage_adapter("unknown") is None
