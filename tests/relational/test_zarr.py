"""The kinds of arrays that ``<zarr@store>`` takes: how they come out, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import dj_dagster as dj

FORMAT_3 = pytest.mark.skipif(
    zarr.__version__.startswith("2."),
    reason="format 2 has no shards and no names of dimensions, and takes fields of any shape",
)
VALUES = np.arange(1000.0).reshape(10, 100)


@pytest.fixture(params=["folder", "s3"])
def scan(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    settings: dict[str, Any] = {"protocol": "file", "location": str(tmp_path / "store")}
    if request.param == "s3":
        settings = request.getfixturevalue("s3_store_settings")
    stores = dj.Stores({"default": "raw", "raw": settings})
    connection = dj.Connection(f"sqlite:///{tmp_path}/lab.sqlite", stores=stores, safemode=False)

    @dj.Schema("lab", connection=connection)
    class Scan(dj.Manual):
        definition = """
        scan_id : int32
        ---
        cube : <zarr@>
        """

    yield Scan
    connection.close()


def kept(scan: Any, value: Any) -> Any:
    """Insert a value and fetch it again."""
    scan.insert1({"scan_id": len(scan), "cube": value})
    return (scan & {"scan_id": len(scan) - 1}).fetch1("cube")


@pytest.mark.parametrize(
    ("chunks", "written"),
    [((3, 40), (3, 40)), (((3, 3, 4), (50, 50)), (4, 50)), (((1, 9), (100,)), (9, 100))],
)
def test_a_dask_array_is_written_in_its_chunks(scan: Any, chunks: Any, written: Any) -> None:
    array = kept(scan, da.from_array(VALUES, chunks=chunks) * 2)
    assert isinstance(array, zarr.Array)
    assert array.chunks == written
    assert np.array_equal(array[...], VALUES * 2)
    # It is a lazy array again.
    assert da.from_zarr(array)[2:4].sum().compute() == (VALUES * 2)[2:4].sum()


def test_chunks_of_a_dask_array_are_computed_one_by_one_and_none_before(scan: Any) -> None:
    shapes: list[tuple[int, ...]] = []

    def computed(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        shapes.append(block.shape)
        return block

    lazy = da.zeros((40, 50), chunks=(10, 50)).map_blocks(computed, meta=np.zeros((0, 0)))
    assert kept(scan, lazy).shape == (40, 50)
    assert shapes == [(10, 50)] * 4


def test_labelled_dask_arrays_come_out_lazily(scan: Any) -> None:
    trace = xr.DataArray(
        da.from_array(VALUES, chunks=((3, 3, 4), (60, 40))),
        dims=("t", "channel"),
        coords={"t": np.arange(10)},
        attrs={"unit": "V"},
        name="trace",
    )
    mixed = xr.Dataset({"a": trace, "b": ("t", da.arange(10, chunks=3))}, attrs={"rig": "x"})
    for given in (trace, mixed):
        fetched = kept(scan, given)
        variables = [fetched] if given is trace else list(fetched.data_vars.values())
        assert not any(variable.variable._in_memory for variable in variables)
        xr.testing.assert_identical(fetched.compute(), given.compute())


def test_what_was_fetched_can_be_chunked_anew_and_kept(scan: Any) -> None:
    trace = xr.DataArray(VALUES, dims=("t", "channel"), name="trace")
    first = kept(scan, trace.chunk({"t": 5}))
    assert first.encoding["chunks"] == (5, 100)
    again = kept(scan, first.chunk({"t": 4}) + 1)
    dataset = kept(scan, first.to_dataset().chunk({"t": 3}))
    assert (again.encoding["chunks"], dataset.trace.encoding["chunks"]) == ((4, 100), (3, 100))
    xr.testing.assert_equal(again, trace + 1)
    xr.testing.assert_equal(dataset.trace, trace)
    assert first.encoding["chunks"] == (5, 100)


@pytest.mark.parametrize("shape", [(8, 8), (9,), ()])
def test_a_zarr_array_keeps_its_chunks_attributes_and_what_is_not_written(
    scan: Any, shape: tuple[int, ...]
) -> None:
    chunks = tuple(2 for _ in shape)
    source = zarr.create(shape=shape, chunks=chunks, dtype="f8", fill_value=3, store={})
    source.attrs["unit"] = "V"
    if shape:
        source[:4] = 1
    copy = kept(scan, source)
    assert (copy.chunks, copy.attrs["unit"], copy.fill_value) == (chunks, "V", 3)
    assert np.array_equal(copy[...], source[...])
    assert np.array_equal(kept(scan, copy)[...], source[...])


def test_a_format_that_cannot_be_read_is_named(scan: Any) -> None:
    with scan.staged_insert1 as staged:
        staged.rec["scan_id"] = 0
        staged.store("cube", ".zarr")["zarr.json"] = b"[]"
    with pytest.raises(dj.errors.ObjectError, match=r"lab\.scan\.cube|[Zz]arr"):
        scan.fetch1("cube")


@FORMAT_3
def test_a_zarr_array_keeps_what_describes_it(scan: Any) -> None:
    source = zarr.create_array(
        {}, shape=(8, 8), chunks=(2, 2), shards=(4, 4), dtype="f8", fill_value=3,
        attributes={"unit": "V"}, dimension_names=("t", "x"),
    )  # fmt: skip
    source[:4] = 1
    copy = kept(scan, source)
    assert (copy.chunks, copy.shards, copy.attrs["unit"]) == ((2, 2), (4, 4), "V")
    assert (copy.metadata.dimension_names, copy.fill_value) == (("t", "x"), 3)
    assert np.array_equal(copy[...], source[...])
    again = kept(scan, copy)
    assert np.array_equal(again[...], source[...])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (da.ones(9, chunks=3)[da.ones(9, chunks=3) > 0], "compute_chunk_sizes"),
        (da.from_array(np.array(["a", {}], dtype=object), chunks=1), "no Python objects"),
        (np.array([{}]), "no Python objects"),
        # Before numpy 2 such texts are objects.
        (
            np.array(["a"], getattr(np.dtypes, "StringDType", lambda: object)()),
            "StringDType.*astype|no Python objects",
        ),
        (np.ma.masked_array([1, 2], [0, 1]), "mask would be lost"),
        pytest.param(np.zeros(2, [("x", "f4", 3)]), "cannot be written as Zarr", marks=FORMAT_3),
        (np.array("NaT", "M8"), r"M8\[s\]"),
        (xr.DataArray(np.array([{}, 2], dtype=object), dims="t"), "cannot be written as Zarr"),
        (xr.DataArray([1], dims="t", attrs={"x": object()}), "cannot be written as Zarr"),
        (xr.Dataset({"a/b": ("t", [1])}), "'a/b'"),
        ([1, 2], "holds an xarray"),
    ],
)
def test_what_cannot_be_kept_is_refused(scan: Any, value: Any, message: str) -> None:
    with pytest.raises(dj.InvalidValueError, match=rf"lab\.scan\.cube \(scan_id=0\).*{message}"):
        kept(scan, value)
    assert len(scan) == 0
    assert list(scan.connection.stores.get().list("_schema")) == []


def test_what_fails_while_it_is_computed_leaves_no_row(scan: Any) -> None:
    def fail(block: Any) -> Any:
        raise RuntimeError("the camera stopped")

    with pytest.raises(RuntimeError, match="the camera stopped"):
        kept(scan, da.zeros(4, chunks=2).map_blocks(fail, meta=np.zeros(0)))
    assert len(scan) == 0
    assert list(scan.connection.stores.get().list("_schema")) == []
