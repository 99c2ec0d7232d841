"""What stores over an fsspec file system share, on fsspec's own in memory.

The stores of Google and Azure differ from it by their client only, which is not tried here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dj_dagster.errors import MissingExternalFile
from dj_dagster.objects.bucket_store import BucketStore
from dj_dagster.objects.store_settings import GcsStoreSettings


class MemoryStore(BucketStore):
    scheme = "memory"
    server = "this process"
    credentials = "nothing"

    def connect(self) -> Any:
        files = MemoryFileSystem(skip_instance_cache=True)
        files.store, files.pseudo_dirs = {}, [""]
        return files


@pytest.fixture
def store() -> MemoryStore:
    settings = GcsStoreSettings(protocol="gcs", bucket="lab", location="dj")
    return MemoryStore("cloud", settings, settings.bucket)


def test_objects_come_back_and_go(store: MemoryStore, tmp_path: Path):
    store.put("a/b/c", b"12")
    (tmp_path / "file").write_bytes(b"345")
    store.put_file("a/d", tmp_path / "file")
    assert (store.get("a/b/c"), store.get("a/d")) == (b"12", b"345")
    assert {found.path: found.size for found in store.scan("a")} == {"a/b/c": 2, "a/d": 3}
    assert store.folders("a") == ["b"]
    assert store.folders("nowhere") == []
    assert abs(store.stat("a/d").modified - time.time()) < 60
    assert store.url("a/d") == "memory://lab/dj/a/d"
    store.delete_many(["a/d", "a/b/c", "not/there"])
    assert list(store.list()) == []
    with pytest.raises(MissingExternalFile):
        store.get("a/d")


def test_renewing_makes_young(store: MemoryStore):
    store.put("a", b"12")
    before = store.stat("a").modified
    time.sleep(0.01)
    store.renew("a")
    assert store.stat("a").modified > before
    assert store.get("a") == b"12"
    with pytest.raises(MissingExternalFile):
        store.renew("b")
