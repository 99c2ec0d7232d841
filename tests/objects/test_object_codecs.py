"""The codecs whose objects are named by their row, or kept by users: object, npy, filepath."""

from __future__ import annotations

import io
import json
import threading
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.errors import (
    ChecksumError,
    DefinitionError,
    InvalidValueError,
    MissingExternalFile,
    ObjectError,
)
from dj_dagster.model.types import parse_type
from dj_dagster.objects.codecs.arrays import load_arrays
from dj_dagster.objects.codecs.chain import CodecRegistry, ObjectContext
from dj_dagster.objects.layout import key_text, object_path
from dj_dagster.objects.stores.store_settings import FileStoreSettings
from dj_dagster.objects.stores.stores import Store, Stores
from tests.services.process import PATIENCE

# Before numpy 2 such texts are objects.
TEXTS: Any = np.array(["a", "bcd"], getattr(np.dtypes, "StringDType", lambda: object)())
TEXTS_REFUSED = r"StringDType.*astype|object dtype"

KEY = {"subject": "a/b", "day": date(2024, 2, 29)}
FOLDER = "_schema/lab/__scan/subject=a%2Fb/day=2024-02-29"


def place(stores: Stores) -> ObjectContext:
    return ObjectContext(stores, "lab", "__scan", "movie", KEY)


def stored(kind: str, value: Any, stores: Stores) -> Any:
    return CodecRegistry().resolve(parse_type(kind)).encode(value, place(stores))


def fetched(kind: str, reference: Any, stores: Stores) -> Any:
    # What the column gives back has been through JSON.
    reference = json.loads(json.dumps(reference))
    return CodecRegistry().resolve(parse_type(kind)).decode(reference, place(stores))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    folder = tmp_path / "rec.zarr"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.bin").write_bytes(b"bb")
    (folder / "deep" / "er" / "c").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (1.5, "1.5"),
        (datetime(2024, 1, 31, 12, 30, 1, 5), "2024-01-31T12-30-01"),
        (date(2024, 1, 31), "2024-01-31"),
        ("a b", "a b"),
        ('x/\\:*?"<>|', "x%2F%5C%3A%2A%3F%22%3C%3E%7C"),
    ],
)
def test_key_text(value: object, text: str) -> None:
    assert key_text(value) == text


def test_long_key_text_is_cut_and_stays_distinct() -> None:
    one, other = key_text("x" * 200), key_text("x" * 201)
    assert one != other
    assert {len(one), len(other)} == {59}
    # A name on a disk has 255 bytes, 65 of them for the attribute.
    texts = {key_text(letter * count) for letter in "日😀é" for count in (60, 90, 95, 120)}
    assert len(texts) == 12
    assert max(len(text.encode()) for text in texts) <= 180


def test_partition_attributes_come_first() -> None:
    settings = FileStoreSettings(
        protocol="file", location="/d", partition_pattern="{day}/{rig}", schema_prefix="kept"
    )
    path = object_path(settings, "lab", "scan", "movie", KEY, ".tif")
    assert path.startswith("kept/day=2024-02-29/lab/scan/subject=a%2Fb/movie_")
    assert path.endswith(".tif")
    assert path != object_path(settings, "lab", "scan", "movie", KEY, ".tif")


@pytest.mark.parametrize("kind", ["<object>", "<npy>", "<filepath>"])
def test_a_store_is_needed(kind: str) -> None:
    with pytest.raises(DefinitionError, match=f"{kind[:-1]}@"):
        CodecRegistry().resolve(parse_type(kind))


def test_a_file_is_opened_in_place(stores: Stores, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "movie.tif"
    file.write_bytes(b"frames")
    reference = stored("<object@>", str(file), stores)
    assert reference["path"].startswith(f"{FOLDER}/movie_")
    assert (reference["store"], reference["size"], reference["ext"]) == ("main", 6, ".tif")
    ref = fetched("<object@>", reference, stores)
    assert ref.read() == b"frames"
    with ref.open() as stream:
        stream.seek(2)
        assert stream.read() == b"ames"
    assert ref.exists()
    assert ref.verify()
    assert ref.download(tmp_path / "copies").read_bytes() == b"frames"
    store.put(ref.path, b"fr")
    with pytest.raises(ChecksumError, match="6 were written"):
        ref.verify()
    store.delete(ref.path)
    assert not ref.exists()
    for call in (ref.read, ref.open, ref.verify):
        with pytest.raises(MissingExternalFile):
            call()


def test_a_file_that_is_read_to_its_end_is_verified(
    stores: Stores, store: Store, recording: Path
) -> None:
    text = b"one\ntwo\nthree"
    (recording / "a.txt").write_bytes(text)
    folder = fetched("<object@>", stored("<object@>", recording, stores), stores)
    file = fetched("<object@>", stored("<object@>", (".txt", text), stores), stores)
    for ref, name in ((file, None), (folder, "a.txt")):

        def lines(mode: str, ref: Any = ref, name: str | None = name) -> list[Any]:
            with ref.open(name, mode) as stream:
                # Formats look at the beginning first.
                stream.read(2)
                stream.seek(0)
                return list(stream)

        assert lines("rb") == [b"one\n", b"two\n", b"three"]
        assert lines("r") == ["one\n", "two\n", "three"]
        assert ref.open(name).readline(2) == b"on"
        path = ref.path if name is None else f"{ref.path}/{name}"
        store.put(path, text.replace(b"w", b"W"))
        with pytest.raises(ChecksumError, match=r"lab\.__scan\.movie.*has changed"):
            ref.open(name).read()
        for mode in ("rb", "r"):
            with pytest.raises(ChecksumError, match="has changed"):
                lines(mode)
        with ref.open(name) as stream:
            stream.seek(8)
            assert stream.read() == b"three"


def test_bytes_become_a_file(stores: Stores) -> None:
    reference = stored("<object@other>", b"frames", stores)
    assert fetched("<object@other>", reference, stores).read() == b"frames"
    assert reference["store"] == "other"


def test_a_folder_is_walked_in_place(
    stores: Stores, store: Store, recording: Path, tmp_path: Path
) -> None:
    reference = stored("<object@>", recording, stores)
    assert (reference["is_dir"], reference["item_count"], reference["size"]) == (True, 3, 3)
    ref = fetched("<object@>", reference, stores)
    assert ref.listdir() == ["a.txt", "deep"]
    assert ref.listdir("deep") == ["b.bin", "er"]
    assert list(ref.walk()) == [
        ("", ["deep"], ["a.txt"]),
        ("deep", ["er"], ["b.bin"]),
        ("deep/er", [], ["c"]),
    ]
    assert ref.read("deep/b.bin") == b"bb"
    assert ref.fsmap["deep/b.bin"] == b"bb"
    assert ref.exists("deep")
    assert not ref.exists("deep/x")
    copy = ref.download(tmp_path / "copies")
    assert (copy / "deep" / "b.bin").read_bytes() == b"bb"
    assert ref.verify()
    store.delete(f"{ref.path}/deep/b.bin")
    with pytest.raises(MissingExternalFile, match=r"b\.bin"):
        ref.verify()
    with pytest.raises(ObjectError, match="is a folder"):
        ref.read()


@pytest.mark.parametrize("bad", ["../../secrets", "/etc/passwd", "deep/../../../x"])
def test_a_path_cannot_leave_its_object(stores: Stores, recording: Path, bad: str) -> None:
    ref = fetched("<object@>", stored("<object@>", recording, stores), stores)
    with pytest.raises(ObjectError):
        ref.read(bad)


def test_objects_are_not_opened_for_writing(stores: Stores) -> None:
    ref = fetched("<object@>", stored("<object@>", b"x", stores), stores)
    with pytest.raises(ObjectError, match="never changed"):
        ref.open(mode="wb")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype="i2").reshape(2, 3)),
        np.asfortranarray(np.arange(60_000).reshape(200, 300)),
        np.array(5),
        np.zeros((0, 3), dtype="c8"),
        np.array(["2024-01-01"], dtype="M8[D]"),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["ü", "abc"]),
        np.zeros(2, [("p", [("x", "f4"), ("y", "f4", 3)], 2), ("q", "U3")]),
        np.zeros(2, [(("a title", "x"), "f4"), ("y", "i1")]),
        np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    ],
)
def test_arrays_are_loaded_late(stores: Stores, array: np.ndarray[Any, Any]) -> None:
    ref = fetched("<npy@>", stored("<npy@>", array, stores), stores)
    assert (ref.shape, ref.dtype, ref.ndim, ref.size) == (
        array.shape, array.dtype, array.ndim, array.size,
    )  # fmt: skip
    assert ref.nbytes == array.nbytes
    assert not ref.is_loaded
    assert np.array_equal(np.asarray(ref), array)
    assert ref.load().flags.writeable
    assert ref.load().flags.f_contiguous == array.flags.f_contiguous
    assert ref.is_loaded
    if array.ndim:
        assert len(ref) == len(array)
        assert np.array_equal(ref[:1], array[:1])


def test_a_local_array_is_mapped(stores: Stores, store: Store) -> None:
    array = np.arange(1000)
    ref = fetched("<npy@>", stored("<npy@>", array, stores), stores)
    mapped = ref.load(mmap_mode="r")
    assert np.array_equal(mapped, array)
    assert isinstance(mapped, np.memmap) == (store.local_path("x") is not None)


def test_many_arrays_are_loaded_in_their_order(stores: Stores, store: Store) -> None:
    arrays = [np.full(3, n) for n in range(40)]
    refs = [fetched("<npy@>", stored("<npy@>", array, stores), stores) for array in arrays]
    refs.insert(1, None)
    store.delete(refs[-1].path)
    found = load_arrays(refs)
    first = [None if array is None else array.tolist() for array in islice(found, 40)]
    assert first == [[0] * 3, None, *([n] * 3 for n in range(1, 39))]
    assert refs[0].is_loaded
    with pytest.raises(MissingExternalFile):
        next(found)


def test_arrays_are_loaded_at_once(
    stores: Stores, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [fetched("<npy@>", stored("<npy@>", np.zeros(3), stores), stores) for _ in range(4)]
    together = threading.Barrier(4, timeout=PATIENCE)
    get = store.get

    def meet(path: str) -> bytes:
        together.wait()
        return get(path)

    monkeypatch.setattr(store, "get", meet)
    assert len(list(load_arrays(refs))) == 4
    with pytest.raises(InvalidValueError, match="not an array in a store: write load_arrays"):
        list(load_arrays([{"trace": 1}]))


def test_an_array_that_changed_is_refused(stores: Stores, store: Store) -> None:
    reference = stored("<npy@>", np.zeros(3), stores)
    # As DataJoint writes it, without size and checksum.
    del reference["size"], reference["crc32"]
    ref = fetched("<npy@>", reference, stores)
    other = io.BytesIO()
    np.save(other, np.zeros(4))
    store.put(ref.path, other.getvalue())
    with pytest.raises(ChecksumError, match=r"\(3,\) was written"):
        ref.load()
    header = other.getvalue()[:10]
    for damaged in (b"no array" * 10, header + b"{'descr': (" + bytes(100)):
        store.put(ref.path, damaged)
        with pytest.raises(ObjectError, match=r"not a \.npy file"):
            ref.load()


@pytest.mark.parametrize("shape", ["xyz", [-1], [2.5], ["2"], 3, None, {}, [None]])
def test_a_damaged_shape_is_told(stores: Stores, shape: Any) -> None:
    reference = stored("<npy@>", np.zeros(3), stores)
    with pytest.raises(ObjectError, match=r"\.npy|describes no array"):
        fetched("<npy@>", {**reference, "shape": shape}, stores).load()


@pytest.mark.parametrize("length", [10**10, 10**15])
def test_a_forged_length_of_an_array_is_told(stores: Stores, store: Store, length: int) -> None:
    reference = stored("<npy@>", np.zeros(3), stores)
    header = io.BytesIO()
    description = {"descr": "<f8", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(header, description)
    store.put(reference["path"], header.getvalue() + bytes(24))
    for forged in (reference, {**reference, "shape": [length]}):
        with pytest.raises(ObjectError, match=reference["path"]):
            fetched("<npy@>", forged, stores).load()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "<npy@> requires numpy.ndarray, not list"),
        ("x", "<npy@> requires numpy.ndarray, not str"),
        (np.array([object()]), "object dtype"),
        (TEXTS, TEXTS_REFUSED),
        (np.ma.masked_array([1, 2], [0, 1]), "mask would be lost"),
        (np.zeros(2, [("a", "i4"), ("b", "i2")])[["b", "a"]], "repack_fields"),
    ],
)
def test_what_is_no_array_is_refused(stores: Stores, value: object, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        stored("<npy@>", value, stores)


def test_a_users_file_is_referred_to(stores: Stores, store: Store) -> None:
    store.put("raw/day1/x.dat", b"12345")
    store.put("raw/day1/y.dat", b"1")
    reference = stored("<filepath@>", "raw/day1/x.dat", stores)
    assert (reference["path"], reference["size"], reference["is_dir"]) == (
        "raw/day1/x.dat", 5, False,
    )  # fmt: skip
    assert fetched("<filepath@>", reference, stores).read() == b"12345"
    folder = stored("<filepath@>", "raw/day1", stores)
    assert (folder["size"], folder["is_dir"]) == (6, True)
    assert fetched("<filepath@>", folder, stores).listdir() == ["x.dat", "y.dat"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("raw/none.dat", "put it there first"),
        ("_hash/lab/abc", "keep your own files elsewhere"),
        ("_schema/lab", "keep your own files elsewhere"),
        (3, "holds a path"),
    ],
)
def test_what_is_no_users_file_is_refused(stores: Stores, value: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        stored("<filepath@>", value, stores)


def test_users_files_have_a_store_and_folder_of_their_own(tmp_path: Path) -> None:
    hot = {"protocol": "file", "location": str(tmp_path / "hot")}
    raw = {"protocol": "file", "location": str(tmp_path / "raw"), "filepath_prefix": "acquired"}
    stores = Stores({"default": "hot", "filepath_default": "raw", "hot": hot, "raw": raw})
    stores.get("raw").put("acquired/x.dat", b"12345")
    stores.get("raw").put("other/x.dat", b"12345")
    assert stored("<filepath@>", "acquired/x.dat", stores)["store"] == "raw"
    absolute = tmp_path / "raw" / "acquired" / "x.dat"
    reference = stored("<filepath@raw>", absolute, stores)
    assert reference["path"] == "acquired/x.dat"
    with Path(fetched("<filepath@raw>", reference, stores)).open("rb") as stream:
        assert stream.read() == b"12345"
    with pytest.raises(InvalidValueError, match="acquired/"):
        stored("<filepath@raw>", "other/x.dat", stores)
    with pytest.raises(InvalidValueError, match="does not lie in store"):
        stored("<filepath@raw>", "/etc/hosts", stores)


def test_a_stream_is_written_with_an_extension(stores: Stores) -> None:
    reference = stored("<object@>", (".txt", io.BytesIO(b"words")), stores)
    ref = fetched("<object@>", reference, stores)
    assert (ref.ext, ref.size, ref.read()) == (".txt", 5, b"words")
    for wrong in ((".txt", io.StringIO("words")), ("txt", io.BytesIO(b"")), io.BytesIO(b"")):
        with pytest.raises(InvalidValueError, match="<object@> holds"):
            stored("<object@>", wrong, stores)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "working directory"),
        (".", "working directory"),
        (Path(), "working directory"),
        ("..", "its copy would lie"),
        (("bin", b""), "extension.* not 'bin'"),
        (("", b""), "extension.* not ''"),
        ((".a/b", b""), "extension.* not '.a/b'"),
    ],
)
def test_what_names_no_file_or_too_many_is_refused(
    folders: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, message: str
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".secrets").write_text("hunter2")
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(InvalidValueError, match=message):
        stored("<object@>", value, folders)
    assert list(folders.get("main").list()) == []
    assert stored("<object@>", tmp_path / "work", folders)["item_count"] == 1


def test_a_handle_without_a_store_knows_what_its_reference_says() -> None:
    fields = {
        "path": "a/b.dat",
        "size": 7,
        "ext": ".dat",
        "is_dir": False,
        "timestamp": "2026-01-05",
    }
    ref = dj.ObjectRef.from_json(json.dumps(fields))
    assert (ref.path, ref.size, ref.ext, ref.is_dir, ref.hash) == (
        "a/b.dat",
        7,
        ".dat",
        False,
        None,
    )
    assert {name: ref.to_json()[name] for name in fields} == fields
    assert ref.store is None
    made = dj.ObjectRef(path="a/b", hash="x", is_dir=True, timestamp=datetime(2026, 1, 5))
    assert (made.to_json()["hash"], made.to_json()["timestamp"]) == ("x", "2026-01-05T00:00:00")
    assert "folder" in repr(made)
    with pytest.raises(ObjectError, match="without a store"):
        ref.read()


def test_files_and_folders_are_not_taken_for_each_other(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.dat").write_bytes(b"1")
    folder = fetched("<object@>", stored("<object@>", tmp_path / "folder", stores), stores)
    file = fetched("<object@>", stored("<object@>", b"12", stores), stores)
    with pytest.raises(ObjectError, match=r"Cannot read .*folder"):
        folder.read()
    with pytest.raises(ObjectError, match=r"Cannot listdir .*file"):
        file.listdir()
