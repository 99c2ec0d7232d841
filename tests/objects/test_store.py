"""What every store does, on a folder and on a server of each protocol."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from dj_dagster.errors import MissingExternalFile, ObjectError
from dj_dagster.objects.collection import Trash
from dj_dagster.objects.store_users import claim, register, registrations
from dj_dagster.objects.stores.stores import Store


def test_what_is_put_is_there(store: Store):
    store.put("a/b/object", b"\0bytes\xff")
    assert store.get("a/b/object") == b"\0bytes\xff"
    assert store.size("a/b/object") == 7
    assert store.exists("a/b/object")


def test_an_empty_object_is_an_object(store: Store):
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert store.exists("empty")


def test_putting_again_replaces(store: Store):
    store.put("a/object", b"first")
    store.put("a/object", b"second")
    assert store.get("a/object") == b"second"
    assert list(store.list()) == ["a/object"]


def test_a_large_object_comes_back(store: Store):
    data = bytes(range(256)) * 40_000
    store.put("large", data)
    assert store.get("large") == data


@pytest.mark.parametrize("path", ["absent", "absent/too", "folder"])
def test_what_is_not_there_is_named(store: Store, path: str):
    store.put("folder/object", b"x")
    assert not store.exists(path)
    for read in (store.get, store.size):
        with pytest.raises(MissingExternalFile, match=rf"Store 'main' has no object .*{path}"):
            read(path)


def test_deleting_twice_is_fine(store: Store):
    store.put("a/object", b"x")
    store.delete("a/object")
    store.delete("a/object")
    assert not store.exists("a/object")


def test_listing_gives_the_paths_below_a_folder(store: Store):
    for path in ("a/1", "a/b/2", "ab/3", "4"):
        store.put(path, b"x")
    assert sorted(store.list()) == ["4", "a/1", "a/b/2", "ab/3"]
    assert sorted(store.list("a")) == ["a/1", "a/b/2"]
    assert list(store.list("absent")) == []


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../outside", "a/../../outside", "a\\b", "\0"])
def test_a_forged_path_does_not_leave_the_store(store: Store, path: str):
    for attempt in (store.get, store.size, store.delete, lambda path: store.put(path, b"x")):
        with pytest.raises(ObjectError, match="not a path within a store"):
            attempt(path)


def test_two_stores_of_one_place_are_apart(stores):
    stores.get("main").put("object", b"main")
    stores.get("other").put("object", b"other")
    assert stores.get("main").get("object") == b"main"
    assert stores.get("other").get("object") == b"other"


def test_representations_show_no_secrets(store: Store):
    shown = f"{store!r} {store.settings!r} {store.settings} {store.url('a')}"
    assert "dj-test-secret" not in shown
    assert "main" in shown


def test_several_may_write_the_same_object_at_once(store: Store):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.put("shared", b"same"), range(8)))
    assert store.get("shared") == b"same"
    assert list(store.list()) == ["shared"]


def test_what_is_moved_is_at_its_new_place_only(store: Store):
    store.put("a/object", b"bytes")
    store.move("a/object", "b/c/object")
    assert store.get("b/c/object") == b"bytes"
    assert not store.exists("a/object")
    with pytest.raises(MissingExternalFile):
        store.move("a/object", "b/c/object")


def test_a_trash_gives_back_what_it_took_and_nothing_sees_it(store: Store):
    trash = Trash(store, "lab")
    store.put("_hash/lab/one", b"1")
    store.put("_hash/lab/two", b"2")
    trash.take(["_hash/lab/one", "_hash/lab/two", "_hash/lab/gone"])
    assert list(store.list()) == []
    files = trash.files()
    assert sorted(map(trash.original, files)) == ["_hash/lab/one", "_hash/lab/two"]
    store.put("_hash/lab/two", b"anew")
    trash.put_back(files)
    assert (store.get("_hash/lab/one"), store.get("_hash/lab/two")) == (b"1", b"anew")
    trash.take(["_hash/lab/one"])
    trash.empty(trash.files())
    assert trash.files() == []


def test_databases_register_at_once_and_one_may_claim(store: Store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: register(store, "lab", f"id{n % 4}", "here"), range(16)))
    found = registrations(store, "lab")
    assert [one.identity for one in found] == ["id0", "id1", "id2", "id3"]
    assert not any(one.found_objects for one in found)
    assert len(claim(store, "lab", "id2", "there")) == 3
    assert [one.place for one in registrations(store, "lab")] == ["there"]
    store.put("_hash/old/" + "a" * 26, b"before")
    register(store, "old", "id0", "here")
    assert [one.found_objects for one in registrations(store, "old")] == [True]
