from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dj_dagster.errors import ConfigurationError, MissingExternalFile, ObjectError
from dj_dagster.objects.stores.stores import Stores


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path):
    return Stores({"main": {"protocol": "file", "location": str(folder)}}).get("main")


def test_nothing_is_made_before_the_first_object(store, folder: Path):
    assert list(store.list()) == []
    assert not folder.exists()
    store.put("a", b"x")
    assert (folder / "a").read_bytes() == b"x"


def test_a_failed_write_leaves_nothing(store, folder: Path):
    store.put("a/object", b"x")
    with pytest.raises((ObjectError, MissingExternalFile)):
        store.put("a/object/below", b"x")
    with pytest.raises((ObjectError, MissingExternalFile)):
        store.put("a", b"x")
    assert [path.name for path in folder.rglob("*")] == ["a", "object"]


def test_a_folder_that_cannot_be_made_is_not_a_missing_object(store, folder: Path):
    folder.write_text("a file")
    for write in (lambda: store.put("a/b", b"x"), lambda: store.put_file("a/b", folder)):
        with pytest.raises(ObjectError, match=rf"'main'.*Not a directory: {folder}") as raised:
            write()
        assert not isinstance(raised.value, MissingExternalFile)


def test_what_a_crash_left_behind_is_not_listed(store, folder: Path):
    store.put("a/object", b"x")
    (folder / "a" / ".writing-0123456789abcdef").write_bytes(b"ha")
    assert list(store.list()) == ["a/object"]


def test_a_relative_location_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    stores = Stores({"main": {"protocol": "file", "location": "here"}})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    stores.get("main").put("a", b"x")
    assert (tmp_path / "here" / "a").exists()


@pytest.mark.parametrize("setting", ["location", "stage"])
def test_a_folder_in_the_home_of_nobody_is_refused(setting: str):
    settings = {"protocol": "file", "location": "/data", setting: "~nobody-here/data"}
    with pytest.raises(ConfigurationError, match=rf"Store 'main'.*{setting}.*~nobody-here.*write"):
        Stores({"main": settings})


def test_readers_never_see_half_an_object(store):
    versions = [bytes([number]) * 100_000 for number in range(4)]
    store.put("shared", versions[0])
    done = threading.Event()

    def watch() -> set[bytes]:
        seen: set[bytes] = set()
        while not done.is_set():
            seen.add(store.get("shared"))
        return seen

    with ThreadPoolExecutor(4) as pool:
        watcher = pool.submit(watch)
        list(pool.map(lambda data: store.put("shared", data), versions * 3))
        done.set()
        assert watcher.result() <= set(versions)
    assert list(store.list()) == ["shared"]
