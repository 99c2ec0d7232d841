"""What is read in full is what was written, or an error that names the row and the object."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dj_dagster.errors import ChecksumError, InvalidValueError, ObjectError
from dj_dagster.model.types import parse_type
from dj_dagster.objects.codecs.chain import CodecRegistry, ObjectContext
from dj_dagster.objects.stores.stores import Store, Stores

ROW = r"lab\.scan\.data \(scan=1\)"


def context(stores: Stores) -> ObjectContext:
    return ObjectContext(stores, "lab", "scan", "data", {"scan": 1})


def stored(codec: str, value: Any, stores: Stores) -> dict[str, Any]:
    return CodecRegistry().resolve(parse_type(codec)).encode(value, context(stores))


def fetched(codec: str, reference: Any, stores: Stores) -> Any:
    return CodecRegistry().resolve(parse_type(codec)).decode(reference, context(stores))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "session.d"
    (made / "deep").mkdir(parents=True)
    (made / "a.bin").write_bytes(os.urandom(700))
    (made / "deep" / "b.bin").write_bytes(os.urandom(500))
    return made


Read = Callable[[Any], object]

KINDS: dict[str, tuple[str, Read]] = {
    "array": ("<npy@>", lambda found: found.load()),
    "file": ("<object@>", lambda found: found.read()),
    "folder": ("<object@>", lambda found: found.verify()),
    "own file": ("<filepath@>", lambda found: found.read()),
    "own folder": ("<filepath@>", lambda found: found.verify()),
    "zarr": ("<zarr@>", lambda found: np.asarray(found[:])),
    "blob": ("<blob@>", lambda found: found),
    "bytes": ("<hash@>", lambda found: found),
}


@pytest.mark.parametrize("place", [0, 2**21 - 1, 2**21, 5_000_000, -1])
def test_a_bit_of_any_piece_of_a_large_array_is_seen(stores: Stores, place: int) -> None:
    array = np.arange(700_000, dtype="f8")
    reference = stored("<npy@>", array, stores)
    assert np.array_equal(fetched("<npy@>", reference, stores).load(), array)
    store = stores.get(reference["store"])
    data = bytearray(store.get(reference["path"]))
    data[place] ^= 1
    store.put(reference["path"], bytes(data))
    with pytest.raises(ChecksumError, match=ROW):
        fetched("<npy@>", reference, stores).load()


def put(kind: str, stores: Stores, store: Store, folder: Path, *, name: str = "own") -> Any:
    """Store a value of a kind, which is another one at each call."""
    numbers = np.random.default_rng().normal(size=200)
    if kind == "own file":
        store.put(f"{name}.bin", os.urandom(600))
        return stored("<filepath@>", f"{name}.bin", stores)
    if kind == "own folder":
        for file in ("a.bin", "b.bin"):
            store.put(f"{name}/{file}", os.urandom(600))
        return stored("<filepath@>", name, stores)
    values = {"array": numbers, "zarr": numbers, "blob": numbers, "folder": folder}
    return stored(KINDS[kind][0], values.get(kind, numbers.tobytes()), stores)


def files_of(store: Store, reference: Any) -> list[str]:
    path = reference["path"]
    return sorted([*store.list(path)] or [path])


def damage(store: Store, path: str, how: str, other: str, chance: random.Random) -> None:
    data = bytearray(store.get(path))
    match how:
        case "flip":
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case "cut":
            del data[chance.randrange(len(data)) :]
        case "swap":
            data = bytearray(store.get(other))
        case _:
            store.delete(path)
            return
    store.put(path, bytes(data))


@pytest.mark.parametrize("how", ["flip", "cut", "swap", "lose"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_is_an_error_of_its_row(
    kind: str, how: str, file_store_settings: dict[str, Any], folder: Path
) -> None:
    stores = Stores({"default": "main", "main": file_store_settings})
    store, chance = stores.get(), random.Random()
    codec, read = KINDS[kind]
    for number in range(3):
        reference = put(kind, stores, store, folder, name=f"own{number}")
        assert read(fetched(codec, reference, stores)) is not None
        for file in ("a.bin", "deep/b.bin"):
            (folder / file).write_bytes(os.urandom(700))
        other = put(kind, stores, store, folder, name=f"other{number}")
        files, others = files_of(store, reference), files_of(store, other)
        place = chance.randrange(len(files))
        if how == "swap":
            # The headers of arrays of one shape are equal.
            place = max(range(len(files)), key=[store.size(file) for file in files].__getitem__)
        damage(store, files[place], how, others[place], chance)
        with pytest.raises(ObjectError, match=ROW):
            read(fetched(codec, reference, stores))


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_told_by_object_on_each_kind_of_store(
    kind: str, stores: Stores, store: Store, folder: Path
) -> None:
    codec, read = KINDS[kind]
    reference = put(kind, stores, store, folder)
    file = max(files_of(store, reference), key=store.size)
    data = bytearray(store.get(file))
    data[-1] ^= 1
    store.put(file, bytes(data))
    with pytest.raises(ChecksumError, match=rf"(?s){ROW}.*{store.name}"):
        read(fetched(codec, reference, stores))


def test_files_that_were_not_written_with_a_folder(
    file_store_settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    stores = Stores({"default": "main", "main": file_store_settings})
    store = stores.get()
    reference = stored("<object@>", folder, stores)
    store.put(f"{reference['path']}/deep/c.bin", b"added")
    ref = fetched("<object@>", reference, stores)
    with pytest.raises(ChecksumError, match=rf"{ROW}.*c\.bin.*not written with"):
        ref.verify()
    assert ref.listdir("deep") == ["b.bin"]
    assert not (ref.download(tmp_path / "copy") / "deep" / "c.bin").exists()
    with pytest.raises(ObjectError, match=r"c\.bin"):
        ref.read("deep/c.bin")
    # Zarr writes no chunk of nothing but zeros, so that a chunk that is added changes the array.
    empty = stored("<zarr@>", zarr.zeros((4,), chunks=(2,)), stores)
    full = stored("<zarr@>", zarr.array(np.arange(4.0), chunks=(2,)), stores)
    assert fetched("<zarr@>", empty, stores)[:].tolist() == [0, 0, 0, 0]
    chunk = max(file for file in store.list(full["path"]) if "zarr" not in Path(file).name)
    store.put(chunk.replace(full["path"], empty["path"]), store.get(chunk))
    with pytest.raises(ChecksumError, match=rf"{ROW}.*not written with"):
        fetched("<zarr@>", empty, stores)[:]


def test_references_without_checksums_are_read(stores: Stores, store: Store, folder: Path) -> None:
    array = stored("<npy@>", np.arange(3), stores)
    plain = {name: array[name] for name in ("path", "store", "dtype", "shape")}
    assert fetched("<npy@>", plain, stores).load().tolist() == [0, 1, 2]
    for value in (b"frames", folder):
        reference = stored("<object@>", value, stores)
        del reference["crc32"]
        assert fetched("<object@>", reference, stores).verify()
    store.delete(f"{reference['path']}.manifest.json")
    ref = fetched("<object@>", reference, stores)
    assert ref.verify()
    assert len(ref.read("a.bin")) == 700
    store.delete(f"{reference['path']}/a.bin")
    with pytest.raises(ChecksumError, match="1 files, 2 were written"):
        ref.verify()


def test_a_lost_or_changed_list_of_a_folder_is_noticed(
    stores: Stores, store: Store, folder: Path, tmp_path: Path
) -> None:
    reference = stored("<object@>", folder, stores)
    manifest = f"{reference['path']}.manifest.json"
    listing = store.get(manifest)
    store.put(manifest, listing.replace(b"a.bin", b"c.bin"))
    with pytest.raises(ChecksumError, match=r"manifest\.json"):
        fetched("<object@>", reference, stores).listdir()
    store.delete(manifest)
    with pytest.raises(ObjectError, match=r"manifest\.json"):
        fetched("<object@>", reference, stores).download(tmp_path / "copy")


def test_a_folder_keeps_empty_folders_and_links_inside_it(
    stores: Stores, folder: Path, tmp_path: Path
) -> None:
    (folder / "none" / "inside").mkdir(parents=True)
    (folder / "deep" / ".writing-notes").write_text("mine")
    (folder / "latest").symlink_to("deep", target_is_directory=True)
    ref = fetched("<object@>", stored("<object@>", folder, stores), stores)
    copy = ref.download(tmp_path / "copies")
    assert (copy / "latest" / "b.bin").read_bytes() == (folder / "deep" / "b.bin").read_bytes()
    assert list((copy / "none" / "inside").iterdir()) == []
    assert (copy / "deep" / ".writing-notes").read_text() == "mine"
    assert ref.listdir() == ["a.bin", "deep", "latest", "none"]
    assert ref.listdir("none") == ["inside"]
    assert ("none/inside", [], []) in list(ref.walk())
    assert ref.exists("none/inside")
    assert not ref.exists("none/outside")
    assert ref.verify()


def test_a_folder_without_files_stays_one(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ref = fetched("<object@>", stored("<object@>", tmp_path / "empty", stores), stores)
    assert ref.exists()
    assert ref.verify()
    assert ref.listdir() == []
    assert list(ref.walk()) == [("", [], [])]
    assert list(ref.download(tmp_path / "copies").iterdir()) == []


def _leaving(place: Path) -> None:
    place.symlink_to(place.parent.parent)


def _leaving_file(place: Path) -> None:
    outside = place.parent.parent / "outside.bin"
    outside.write_bytes(b"x")
    place.symlink_to(outside)


def _socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        # Paths of sockets are short.
        before = Path.cwd()
        os.chdir(place.parent)
        try:
            made.bind(place.name)
        finally:
            os.chdir(before)


ODD: dict[str, Callable[[Path], object]] = {
    "leaving": _leaving,
    "leaving_file": _leaving_file,
    "broken": lambda place: place.symlink_to("nowhere"),
    "looping": lambda place: place.symlink_to(place.parent),
    "endless": lambda place: place.symlink_to(place),
    "pipe": os.mkfifo,
    "socket": _socket,
    ".writing-0123456789abcdef": Path.touch,
}


@pytest.mark.skipif(os.name != "posix", reason="links and pipes are those of POSIX")
@pytest.mark.parametrize("name", ODD)
def test_what_a_store_cannot_keep_is_refused_by_name(
    name: str, stores: Stores, store: Store, folder: Path
) -> None:
    ODD[name](folder / name)
    with pytest.raises(InvalidValueError, match=rf"{ROW}: .*/{name}\b"):
        stored("<object@>", folder, stores)
    assert list(store.list()) == []


LINKED: dict[str, Callable[[Path], object]] = {
    "linked": lambda place: place.symlink_to("deep", target_is_directory=True),
    **{name: ODD[name] for name in ("broken", "endless", "pipe", ".writing-0123456789abcdef")},
}


@pytest.mark.skipif(os.name != "posix", reason="links and pipes are those of POSIX")
@pytest.mark.parametrize("name", LINKED)
def test_what_a_users_folder_would_lose_is_refused_by_name(name: str, folders: Stores) -> None:
    store = folders.get("main")
    store.put("own/day/deep/a.bin", b"a")
    LINKED[name](Path(store.url("own/day"), name))
    with pytest.raises(InvalidValueError, match=rf"{ROW}: .*/{name}\b"):
        stored("<filepath@>", "own/day", folders)


def test_a_users_folder_keeps_its_empty_folders(folders: Stores, tmp_path: Path) -> None:
    store = folders.get("main")
    store.put("own/day/deep/a.bin", b"a")
    Path(store.url("own/day/none/inside")).mkdir(parents=True)
    ref = fetched("<filepath@>", stored("<filepath@>", "own/day", folders), folders)
    assert ref.listdir() == ["deep", "none"]
    assert ref.listdir("none/inside") == []
    assert ref.verify()
    assert list((ref.download(tmp_path / "copies") / "none" / "inside").iterdir()) == []
    assert ref.to_json()["folders"] == ["none/inside"]


@pytest.mark.skipif(os.name != "posix", reason="pipes are those of POSIX")
def test_a_pipe_is_no_file(stores: Stores, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidValueError, match="neither a file nor a folder"):
        stored("<object@>", tmp_path / "pipe", stores)
