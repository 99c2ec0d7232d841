"""Staged inserts and Zarr: objects written in place, a row that publishes them, lazy reading."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import dj_dagster as dj
from tests.services.clouds import CLOUDS


@pytest.fixture(params=["folder", *CLOUDS])
def scan(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    settings: dict[str, Any] = {"protocol": "file", "location": str(tmp_path / "store")}
    if request.param != "folder":
        settings = request.getfixturevalue(f"{request.param}_store_settings")
    stores = dj.Stores({"default": "raw", "raw": settings})
    connection = dj.Connection(f"sqlite:///{tmp_path}/lab.sqlite", stores=stores, safemode=False)

    @dj.Schema("lab", connection=connection)
    class Scan(dj.Manual):
        definition = """
        scan_id : int32
        ---
        movie = null : <object@>
        cube = null : <zarr@raw>
        number = 5 : int32
        """

    yield Scan
    connection.close()


def paths(scan: Any) -> list[str]:
    return list(scan.connection.stores.get().list())


def test_files_and_folders_are_published_by_the_row(scan: Any) -> None:
    with scan.staged_insert1 as staged:
        staged.rec["scan_id"] = 1
        folder = staged.store("movie", ".zarr")
        folder["a"] = b"aa"
        folder["deep/b"] = b"bbb"
        assert len(scan) == 0
    with scan.staged_insert1 as staged:
        staged.rec |= {"scan_id": 2, "number": 7}
        stream = staged.open("movie", ".bin")
        stream.write(b"frames")
    one, two = scan.to_dicts(order_by="KEY")
    assert one["movie"].path.startswith("_schema/lab/scan/scan_id=1/movie_")
    assert (one["movie"].size, one["movie"].ext, one["movie"].item_count) == (5, ".zarr", 2)
    assert one["movie"].verify()
    assert one["movie"].fsmap["deep/b"] == b"bbb"
    assert (two["movie"].read(), two["movie"].is_dir, two["number"]) == (b"frames", False, 7)
    assert staged.rec["movie"].size == 6


def test_a_failure_leaves_neither_row_nor_object(scan: Any) -> None:
    with pytest.raises(RuntimeError, match="camera"), scan.staged_insert1 as staged:  # noqa: PT012
        staged.rec["scan_id"] = 1
        staged.store("cube", ".zarr")["a/b"] = b"x"
        staged.open("movie").write(b"frames")
        raise RuntimeError("camera")
    with pytest.raises(dj.UnknownAttributeError), scan.staged_insert1 as staged:  # noqa: PT012
        staged.rec |= {"scan_id": 1, "numbre": 3}
        staged.store("movie")["a"] = b"x"
    assert len(scan) == 0
    assert paths(scan) == []


STRAY: dict[str, Callable[[Path], object]] = {
    "linked": lambda place: place.symlink_to("deep", target_is_directory=True),
    "leaving": lambda place: place.symlink_to(__file__),
    "broken": lambda place: place.symlink_to("nowhere"),
    "pipe": os.mkfifo,
}


@pytest.mark.skipif(os.name != "posix", reason="links and pipes are those of POSIX")
@pytest.mark.parametrize("name", STRAY)
@pytest.mark.parametrize("scan", ["folder"], indirect=True)
def test_what_could_not_be_given_back_is_named_and_stays(scan: Any, name: str) -> None:
    with pytest.raises(dj.InvalidValueError, match=rf"lab\.scan\.movie.*/{name}\b.*stays at"):  # noqa: PT012, SIM117
        with scan.staged_insert1 as staged:
            staged.rec["scan_id"] = 1
            mapping = staged.store("movie")
            mapping["deep/a"] = b"a"
            STRAY[name](Path(mapping.root, name))
    assert len(scan) == 0
    assert Path(mapping.root, "deep", "a").read_bytes() == b"a"


@pytest.mark.parametrize("scan", ["folder"], indirect=True)
def test_a_staged_folder_keeps_its_empty_folders(scan: Any, tmp_path: Path) -> None:
    with scan.staged_insert1 as staged:
        staged.rec["scan_id"] = 1
        mapping = staged.store("movie")
        mapping["deep/.writing-notes"] = b"a"
        Path(mapping.root, "none").mkdir()
        Path(mapping.root, "same").symlink_to("deep/.writing-notes")
    copy = scan.fetch1("movie").download(tmp_path / "copies")
    assert list((copy / "none").iterdir()) == []
    assert (copy / "deep" / ".writing-notes").read_bytes() == (copy / "same").read_bytes() == b"a"


def test_what_is_asked_for_wrongly_is_told(scan: Any) -> None:
    with pytest.raises(dj.QueryError, match="'scan_id'"), scan.staged_insert1 as staged:
        staged.store("movie")
    for name in ("number", "moive"):
        with pytest.raises(dj.QueryError, match=f"'{name}'"), scan.staged_insert1 as staged:  # noqa: PT012
            staged.rec["scan_id"] = 1
            staged.open(name)
    with pytest.raises(dj.InvalidValueError, match=r"lab\.scan\.movie: .*'a/b'"):  # noqa: PT012, SIM117
        with scan.staged_insert1 as staged:
            staged.rec["scan_id"] = 1
            staged.open("movie", "a/b")
    with pytest.raises(dj.MissingExternalFile), scan.staged_insert1 as staged:  # noqa: PT012
        staged.rec["scan_id"] = 1
        staged.store("movie")


def test_labelled_arrays_come_out_lazily(scan: Any) -> None:
    trace = xr.DataArray(
        np.arange(12.0).reshape(3, 4), dims=("t", "x"), coords={"t": [1, 2, 3]}, attrs={"unit": "V"}
    )
    values = [trace, trace.rename("v"), xr.Dataset({"v": trace, "n": ("x", np.arange(4))})]
    scan.insert({"scan_id": n, "cube": value} for n, value in enumerate(values))
    for given, row in zip(values, scan.to_dicts(order_by="KEY"), strict=True):
        xr.testing.assert_identical(row["cube"], given)
    lazy = (scan & {"scan_id": 0}).fetch1("cube")
    assert not lazy.variable._in_memory
    assert float(lazy.sel(t=2)[1]) == 5.0


def test_plain_and_chunked_arrays_come_out_as_zarr(scan: Any) -> None:
    plain = np.arange(6, dtype="i2").reshape(2, 3)
    chunked = zarr.create(shape=(4, 4), chunks=(2, 2), dtype="f8", store={})
    chunked[...] = 3
    scan.insert([{"scan_id": 1, "cube": plain}, {"scan_id": 2, "cube": chunked}])
    with scan.staged_insert1 as staged:
        staged.rec["scan_id"] = 3
        array = zarr.open(staged.store("cube", ".zarr"), mode="w", shape=(5,), dtype="f4")
        array[:] = 1
    one, two, three = (row["cube"] for row in scan.to_dicts(order_by="KEY"))
    assert isinstance(one, zarr.Array)
    assert np.array_equal(one[...], plain)
    assert (two.chunks, two[3, 3]) == ((2, 2), 3)
    assert np.array_equal(three[:], np.ones(5))


def test_a_lost_array_is_named(scan: Any) -> None:
    scan.insert1({"scan_id": 4, "cube": np.zeros(3)})
    scan.connection.stores.get().delete_many(paths(scan))
    with pytest.raises(dj.MissingExternalFile, match=r"^lab\.scan\.cube \(scan_id=4\): Store"):
        scan.fetch1()
    with pytest.raises(dj.InvalidValueError, match="<zarr@> holds an xarray"):
        scan.insert1({"scan_id": 5, "cube": [1, 2]})
