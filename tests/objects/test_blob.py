from __future__ import annotations

import collections
import datetime as dt
import struct
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dj_dagster.errors import BlobError
from dj_dagster.objects.blob.format import MatCell, MatStruct
from dj_dagster.objects.blob.reader import is_packed, unpack
from dj_dagster.objects.blob.writer import pack
from tests.objects.equality import same
from tests.objects.golden_blobs import GOLDEN


@pytest.mark.parametrize(("value", "hexadecimal"), GOLDEN)
def test_values_are_written_as_datajoint_writes_them(value: Any, hexadecimal: str):
    assert pack(value).hex() == hexadecimal


@pytest.mark.parametrize(("value", "hexadecimal"), GOLDEN)
def test_values_are_read_from_what_datajoint_writes(value: Any, hexadecimal: str):
    read = unpack(bytes.fromhex(hexadecimal))
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        value = value.astype(object)
    if isinstance(value, np.ndarray) and value.dtype.names and not isinstance(value, MatStruct):
        value = value.view(np.recarray)
    if isinstance(value, np.ndarray) and value.dtype.byteorder == ">":
        value = value.astype(value.dtype.newbyteorder("<"))
    if isinstance(value, bytearray | np.str_):
        value = type(read)(value)
    assert same(read, value)


def test_a_long_compressible_value_is_compressed():
    value = np.zeros(1000)
    packed = pack(value)
    assert packed.startswith(b"ZL123\0")
    assert packed[6:14] == struct.pack("<Q", 4 + 1 + 8 + 8 + 8 + 8000)
    assert len(packed) < 100
    assert same(unpack(packed), value)
    assert pack(value, compress=False)[:4] == b"mYm\0"


def test_compression_as_datajoint_writes_it_is_read():
    packed = bytes.fromhex(
        "5a4c313233005d06000000000000789ccb8dcc65706464808013509a0f4ab38fd2a3f428"
        "3d4a8fd2a334193400bec307c4"
    )
    assert same(unpack(packed), np.full(200, 7, "i8"))


def test_what_compression_does_not_shorten_is_not_compressed():
    noise = np.random.default_rng(1).bytes(5000)
    assert pack(noise)[:4] == b"dj0\0"
    assert pack("a" * 900)[:4] == b"dj0\0"


def test_arrays_come_back_writable_in_fortran_order_and_independent_of_the_blob():
    read = unpack(pack(np.arange(6).reshape(2, 3)))
    assert read.flags.f_contiguous
    assert read.flags.aligned
    read[0, 0] = 7
    assert read.tolist() == [[7, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.deque([1]), [1]),
        (range(3), (0, 1, 2)),
        (frozenset([1]), {1}),
        (memoryview(b"ab"), b"ab"),
        (pd.Timestamp("2024-01-01T00:00:01"), dt.datetime(2024, 1, 1, 0, 0, 1)),
        (np.array("abc"), np.array("abc", object)),
        (np.array(2.5), np.float64(2.5)),
        (np.array([1, 2])[::-1], np.array([2, 1])),
        (np.array([1.5], ">f8"), np.array([1.5])),
        (np.ma.masked_array([1, 2]).filled(), np.array([1, 2])),
    ],
)
def test_relatives_come_back_as_the_nearest_type(value: Any, expected: Any):
    assert same(unpack(pack(value)), expected)


def test_a_record_is_kept():
    record = np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])[0]
    read = unpack(pack(record))
    assert (read.a, read.b) == (1, 2.0)


def test_records_of_records_come_back():
    value = np.zeros((2, 3), dtype=[("a", [("x", "i4"), ("y", "O")]), ("b", "U3")])
    value["a"]["x"] = np.arange(6).reshape(2, 3)
    read = unpack(pack(value))
    assert read.a.x.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read.b.shape == (2, 3)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "time zone"),
        ({"at": [dt.time(1, tzinfo=dt.UTC)]}, "time zone"),
        (pd.Timestamp("2024-01-01", tz="Europe/Paris"), "time zone"),
        (pd.Timestamp(2024, 1, 1, nanosecond=1), "nanoseconds"),
    ],
)
def test_moments_that_would_lose_something_are_refused(value: Any, reason: str):
    with pytest.raises(BlobError, match=reason):
        pack(value)


def _itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (pd.DataFrame({"a": [1]}), "to_records"),
        (pd.Series([1]), "to_numpy"),
        (pd.NaT, "None"),
        (dt.timedelta(1), "total_seconds"),
        (np.zeros(1, "float16"), "float32"),
        (np.zeros(1, "longdouble"), "float64"),
        (np.array([b"a"]), "tolist"),
        (np.array([1], "m8[s]"), "int64"),
        (np.array([1], "M8[10s]"), "plain unit"),
        (np.ma.masked_array([1], [True]), "filled"),
        (np.zeros(2, [("a", "i4", (3,))]), "dict of arrays"),
        (np.zeros(2, [("a\0", "i4")]), "NUL"),
        pytest.param(1 << (8 * 65536), "integer", id="integer"),
        ("\ud800", "str"),
        (object(), "codec"),
        ([{"x": object()}], "codec"),
        (_itself(), "contains itself"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_with_advice(value: Any, advice: str):
    with pytest.raises(BlobError, match=advice):
        pack(value)


def _u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def _sized(body: bytes) -> bytes:
    return _u64(len(body)) + body


def _matlab_array(shape: tuple[int, ...], type_id: int, data: bytes, is_complex: int = 0) -> bytes:
    ids = struct.pack("<II", type_id, is_complex)
    return b"A" + _u64(len(shape), *shape) + ids + data


TEXT = _matlab_array((1, 3), 4, "abc".encode("utf-16-le"))
ONE = _matlab_array((1, 1), 6, struct.pack("<d", 1))


def test_matlab_text_is_read():
    assert unpack(b"mYm\0" + TEXT).tolist() == ["abc"]
    rows = _matlab_array((2, 3), 4, "adbecf".encode("utf-16-le"))
    assert unpack(b"mYm\0" + rows).tolist() == [["a", "b", "c"], ["d", "e", "f"]]


def test_matlab_complex_integers_are_read():
    data = _matlab_array((2,), 8, b"\x01\x02\x03\xff", is_complex=1)
    assert unpack(b"mYm\0" + data).tolist() == [1 + 3j, 2 - 1j]


def test_matlab_cells_are_read():
    cell = unpack(b"mYm\0C" + _u64(2, 1, 2) + _sized(TEXT) + _sized(ONE))
    assert isinstance(cell, MatCell)
    assert cell.shape == (1, 2)
    assert cell[0, 0].tolist() == ["abc"]
    assert cell[0, 1].tolist() == [[1.0]]


def test_matlab_structs_are_read():
    fields = struct.pack("<I", 2) + b"who\0rate\0"
    elements = (_sized(TEXT) + _sized(ONE)) * 2
    read = unpack(b"mYm\0S" + _u64(2, 1, 2) + fields + elements)
    assert isinstance(read, MatStruct)
    assert read.shape == (1, 2)
    assert read.who[0, 1].tolist() == ["abc"]
    assert read["rate"][0, 0].tolist() == [[1.0]]


def test_a_matlab_struct_without_fields_is_read():
    assert unpack(b"mYm\0S" + _u64(2, 1, 1) + struct.pack("<I", 0)).shape == (1, 1)


def test_sparse_matrices_are_refused_by_name():
    with pytest.raises(BlobError, match="sparse"):
        unpack(b"mYm\0P")


def test_packed_bytes_are_told_from_others():
    assert is_packed(pack(1))
    assert is_packed(pack(np.zeros(1000)))
    assert is_packed(memoryview(pack(np.zeros(2))))
    assert not is_packed(b"")
    assert not is_packed(b"mYm")
    assert not is_packed(b"\x89PNG\r\n")


def test_arrays_are_squeezed_where_that_is_asked_for():
    value = {"gain": np.array([[5.0]]), "traces": [np.ones((1, 3)), "text"], "n": (1, None)}
    squeezed = unpack(pack(value), squeeze=True)
    assert squeezed["gain"] == 5.0
    assert np.ndim(squeezed["gain"]) == 0
    assert squeezed["traces"][0].shape == (3,)
    assert squeezed["n"] == (1, None)
    assert unpack(pack(np.ones((1, 3)))).shape == (1, 3)
