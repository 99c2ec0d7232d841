"""A conformance suite for authors of stores; see `dj_dagster.testing`."""

from __future__ import annotations

import secrets
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from dj_dagster.errors import MissingExternalFile, ObjectError
from dj_dagster.objects.collection import claim, register, registrations
from dj_dagster.objects.stores.store import OWN_FOLDER, Store

_FORGED = ("", "/etc/passwd", "../outside", "a/../../outside", "a\\b", "\0")
_ODD = ("with space", "per%20cent", "plus+and&", "#hash?", "ü/ñ", "a=1/b=2", "~tilde", "(x)[y]{z}")
_LARGE = 10_240_000
_TRIES = 20
_CLOCKS = 120.0
"""Seconds by which the clock of a store may differ from ours."""


class StoreConformance:
    """The requirements of a store; subclass it and open stores in a place for trials.

    ::

        class TestMyStore(StoreConformance):
            def open(self, location: str) -> Store:
                return MyStore("main", MySettings(protocol="mine", location=location))
    """

    @abstractmethod
    def open(self, location: str) -> Store:
        """Return a store with its objects in a folder; called twice, two stores of one place."""

    def fresh(self) -> Store:
        """Return a store without objects."""
        return self.open(f"conformance/{secrets.token_hex(8)}")

    def test_what_is_put_is_there(self) -> None:
        """Bytes come back as they were, few, many or none, in all ways to read them."""
        store, whole = self.fresh(), bytes(range(256)) * (_LARGE // 256)
        for path, data in (("a/b/object", b"\0bytes\xff"), ("empty", b""), ("large", whole)):
            store.put(path, data)
            pieces = bytearray()
            buffer = store.get_buffer(path, pieces.extend)
            assert store.get(path) == data, f"get() gave other bytes than put() got: {path}"
            assert bytes(buffer) == data, f"get_buffer() gave other bytes: {path}"
            assert pieces == data, "get_buffer() must hand all bytes on, in order"
            assert not buffer.readonly, "get_buffer() must give memory that may be changed"
            assert store.size(path) == len(data)
            assert store.exists(path)

    def test_files_are_put_like_bytes(self) -> None:
        """`put_file` writes what `put` would."""
        store = self.fresh()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "file")
            for size in (0, 1, _LARGE):
                file.write_bytes(secrets.token_bytes(size))
                store.put_file("folder/object", file)
                assert store.get("folder/object") == file.read_bytes()

    def test_putting_again_replaces(self) -> None:
        """A path has one object."""
        store = self.fresh()
        store.put("a/object", b"first, and longer")
        store.put("a/object", b"second")
        assert store.get("a/object") == b"second"
        assert list(store.list()) == ["a/object"]

    def test_readers_see_whole_objects(self) -> None:
        """A reader beside writers of the same path finds one of the objects, never a mixture."""
        store = self.fresh()
        values = {bytes([number]) * 300_000 for number in range(4)}
        store.put("shared", bytes(300_000))
        found = list[bytes]()
        with ThreadPoolExecutor(5) as pool:
            writing = [pool.submit(store.put, "shared", value) for value in [*values] * 4]
            while not all(one.done() for one in writing):
                found.append(store.get("shared"))
        for one in writing:
            one.result()
        assert set(found) <= values, "put() must be atomic: a reader saw part of an object"
        assert list(store.list()) == ["shared"], "put() must leave nothing but the object"

    def test_a_failed_write_leaves_nothing(self) -> None:
        """A file that cannot be read is not an object, and leaves none that readers see."""
        store = self.fresh()
        with tempfile.TemporaryDirectory() as folder, suppress(Exception):
            store.put_file("folder/object", Path(folder, "absent"))
        assert not store.exists("folder/object")
        assert list(store.list()) == []

    def test_what_is_not_there_is_named(self) -> None:
        """MissingExternalFile names store and path; a folder is not an object."""
        store = self.fresh()
        store.put("folder/object", b"x")
        for path in ("absent", "absent/too", "folder"):
            assert not store.exists(path)
            for read in (store.get, store.size, store.stat, store.get_buffer, store.renew):
                error = _error(MissingExternalFile, read, path)
                assert store.name in error, f"{error} does not name the store"
                assert path in error, f"{error} does not name {path}"
            error = _error(MissingExternalFile, store.move, path, "elsewhere")
            assert path in error, f"{error} does not name {path}"

    def test_deleting_needs_no_object(self) -> None:
        """Two may delete the same object."""
        store = self.fresh()
        for path in ("a/1", "a/2", "b"):
            store.put(path, b"x")
        store.delete("b")
        store.delete("b")
        store.delete_many(["a/1", "a/2", "a/3"])
        assert list(store.list()) == []

    def test_listing_gives_a_folder_and_below(self) -> None:
        """A folder's name is not the beginning of others."""
        store = self.fresh()
        for path in ("a/1", "a/b/2", "a/b/c/3", "ab/3", "4"):
            store.put(path, b"xy")
        assert sorted(store.list()) == ["4", "a/1", "a/b/2", "a/b/c/3", "ab/3"]
        assert sorted(store.list("a")) == ["a/1", "a/b/2", "a/b/c/3"]
        assert list(store.list("absent")) == []
        assert {found.size for found in store.scan("a")} == {2}
        assert sorted(store.folders()) == ["a", "ab"], "folders() gives names right in the folder"
        assert store.folders("a") == ["b"]
        assert store.folders("absent") == []

    def test_its_own_folder_counts_for_no_object(self) -> None:
        """Files beside objects are listed when they are asked for, and else left out."""
        store = self.fresh()
        store.put(f"{OWN_FOLDER}/trash/object", b"x")
        store.put("object", b"x")
        assert list(store.list()) == ["object"], f"scan() must leave {OWN_FOLDER} out"
        assert list(store.list(OWN_FOLDER)) == [f"{OWN_FOLDER}/trash/object"]

    def test_any_name_is_a_path(self) -> None:
        """Keys of tables are in paths, with whatever characters they have."""
        store = self.fresh()
        for path in _ODD:
            store.put(f"odd/{path}", path.encode())
        assert sorted(store.list("odd")) == sorted(f"odd/{path}" for path in _ODD)
        for path in _ODD:
            assert store.get(f"odd/{path}") == path.encode()
            store.delete(f"odd/{path}")
        assert list(store.list()) == []

    def test_a_forged_path_stays_inside(self) -> None:
        """A row that somebody forged cannot reach what lies outside; see `checked_path`."""
        store = self.fresh()
        for path in _FORGED:
            for attempt in (store.get, store.size, store.delete, lambda p: store.put(p, b"x")):
                error = _error(ObjectError, attempt, path)
                assert "not a path within a store" in error, f"call checked_path() for {path!r}"

    def test_two_places_are_apart(self) -> None:
        """And two stores of one place have the same objects."""
        place = f"conformance/{secrets.token_hex(8)}"
        one, same, other = self.open(place), self.open(place), self.open(f"{place}-other")
        one.put("object", b"one")
        other.put("object", b"other")
        assert same.get("object") == b"one", "another store of the place must see the object"
        assert other.get("object") == b"other"

    def test_age_is_of_the_last_write(self) -> None:
        """The garbage collector takes what is old: `put`, `renew` and `move` make it young."""
        store = self.fresh()
        store.put("object", b"x")
        first = store.stat("object").modified
        assert abs(first - time.time()) < _CLOCKS, "modified is in seconds of the epoch"
        (listed,) = (found.modified for found in store.scan())
        assert abs(listed - first) <= 1, "scan() and stat() must tell the same age, to the second"
        for change in (
            lambda: store.put("object", b"x"),
            lambda: store.renew("object"),
            lambda: store.renew("object", b"x"),
        ):
            before = store.stat("object").modified
            assert _grows(change, lambda: store.stat("object").modified, before)
        before = store.stat("object").modified
        time.sleep(1.1)
        store.move("object", "moved")
        assert store.stat("moved").modified > before, "move() must make an object young"

    def test_what_is_moved_is_at_its_new_place_only(self) -> None:
        """The trash gives back what it took."""
        store = self.fresh()
        store.put("a/object", b"bytes")
        store.move("a/object", "b/c/object")
        assert store.get("b/c/object") == b"bytes"
        assert list(store.list()) == ["b/c/object"]

    def test_its_file_system_reads_and_writes_objects(self) -> None:
        """Codecs that use fsspec, such as zarr's, see the same objects."""
        store = self.fresh()
        store.put("folder/object", b"bytes")
        files = store.filesystem
        assert files.cat_file(store.full_path("folder/object")) == b"bytes"
        files.pipe_file(store.full_path("folder/other"), b"more")
        store.settle("folder")
        assert store.get("folder/other") == b"more"
        local = store.local_path("folder/object")
        assert local is None or local.read_bytes() == b"bytes"

    def test_tidying_leaves_objects(self) -> None:
        """Empty folders go, where there are such; objects and what is being written stay."""
        store = self.fresh()
        store.put("full/object", b"x")
        store.put("empty/object", b"x")
        store.delete("empty/object")
        store.tidy()
        for found in list(store.unfinished()):
            store.remove_unfinished(found.path)
        assert list(store.list()) == ["full/object"]
        store.put("empty/object", b"again")
        assert store.get("empty/object") == b"again"

    def test_many_may_write_at_once(self) -> None:
        """Threads share a store; the same object may come from all of them."""
        store = self.fresh()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: store.put(f"a/{n % 20}", b"same"), range(60)))
        assert sorted(store.list()) == sorted(f"a/{n}" for n in range(20))

    def test_databases_register_at_once_and_one_may_claim(self) -> None:
        """Ownership is settled by objects alone: a store needs no lock."""
        store = self.fresh()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: register(store, "lab", f"id{n % 4}", "here"), range(16)))
        assert [one.identity for one in registrations(store, "lab")] == ["id0", "id1", "id2", "id3"]
        assert len(claim(store, "lab", "id2", "there")) == 3
        assert [one.place for one in registrations(store, "lab")] == ["there"]

    def test_addresses_tell_the_place(self) -> None:
        """Errors and `repr` name the store and where an object lies."""
        store = self.fresh()
        assert store.name in repr(store)
        assert "folder/object" in store.url("folder/object")


def _error(kind: type[Exception], work: Callable[..., object], *args: object) -> str:
    """Return the message of the error that a call must raise."""
    try:
        work(*args)
    except kind as error:
        return str(error)
    raise AssertionError(f"{getattr(work, '__name__', work)}{args} must raise {kind.__name__}")


def _grows(change: Callable[[], None], value: Callable[[], float], before: float) -> bool:
    """Whether a change makes a value larger; the clocks of some stores tell whole seconds."""
    for _ in range(_TRIES):
        change()
        if value() > before:
            return True
        time.sleep(0.2)
    return False
