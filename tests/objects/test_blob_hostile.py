from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import dj_dagster as dj
from dj_dagster.errors import BlobError
from dj_dagster.objects.blob.format import ReadLimits
from dj_dagster.objects.blob.reader import unpack
from dj_dagster.objects.blob.writer import pack
from dj_dagster.settings import Config
from tests.objects.equality import same
from tests.objects.golden_blobs import GOLDEN
from tests.objects.test_blob_round_trip import VALUES

HEADERS = st.sampled_from([b"mYm\0", b"dj0\0", b"ZL123\0"])
CODES = st.sampled_from(list(b"ACSPF\x01\x02\x03\x04\x05\x06\x0a\x0b\x0c\x0ddtu\xff"))
PERSISTENT = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def outcome(data: bytes) -> str:
    """What becomes of bytes; any error but a BlobError passes through and fails the test."""
    try:
        unpack(data)
    except BlobError:
        return "refused"
    return "read"


def _u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


@PERSISTENT
@given(HEADERS, CODES, st.binary(max_size=80))
def test_random_bytes_are_a_value_or_refused(header: bytes, code: int, rest: bytes):
    assert outcome(header + bytes([code]) + rest) in {"read", "refused"}


@PERSISTENT
@given(CODES, st.lists(st.integers(0, 3) | st.sampled_from([2**31, 2**63, 2**64 - 1]), max_size=9))
@example(ord("S"), [1, 2**62, 0])
def test_forged_lengths_are_a_value_or_refused(code: int, numbers: list[int]):
    assert outcome(b"dj0\0" + bytes([code]) + _u64(*numbers)) in {"read", "refused"}


@PERSISTENT
@given(VALUES, st.data())
def test_a_truncated_blob_is_refused(value: Any, data: st.DataObject):
    packed = pack(value)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(BlobError):
        unpack(packed[:cut])


@PERSISTENT
@given(VALUES, st.data())
def test_a_corrupted_blob_is_a_value_or_refused(value: Any, data: st.DataObject):
    packed = bytearray(pack(value))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(bytes(packed)) in {"read", "refused"}


@pytest.mark.parametrize(("value", "hexadecimal"), GOLDEN)
def test_every_cut_and_every_addition_is_refused(value: Any, hexadecimal: str):
    packed = bytes.fromhex(hexadecimal)
    for broken in (*(packed[:cut] for cut in range(len(packed))), packed + b"\0"):
        with pytest.raises(BlobError):
            unpack(broken)


def _zl(size: int, data: bytes) -> bytes:
    return b"ZL123\0" + _u64(size) + zlib.compress(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GIF89a", id="another format"),
        pytest.param(b"dj0\0\x99", id="no type code"),
        pytest.param(b"dj0\0A" + _u64(65), id="65 dimensions"),
        pytest.param(b"dj0\0A" + _u64(1, 1) + struct.pack("<II", 1, 0), id="array of cells"),
        pytest.param(b"dj0\0A" + _u64(1, 0) + struct.pack("<II", 5, 1), id="complex objects"),
        pytest.param(b"dj0\0F\0\0\0\0", id="records without fields"),
        pytest.param(b"dj0\0\x03" + _u64(1, 9) + b"\x02" + _u64(0), id="list in a set"),
        pytest.param(b"dj0\0\x05" + _u64(1) + b"\xff", id="str not utf-8"),
        pytest.param(b"dj0\0d" + _u64(1) + b"x", id="decimal of letters"),
        pytest.param(b"dj0\0t" + struct.pack("<iq", 20241301, -1), id="month 13"),
        pytest.param(b"dj0\0t" + struct.pack("<iq", -1, -1), id="no date and no time"),
        pytest.param(_zl(3, b"dj0\0\xff"), id="more than declared"),
        pytest.param(_zl(9, b"dj0\0\xff"), id="less than declared"),
        pytest.param(_zl(5, b"dj0\0\xff") + b"x", id="more behind the compressed"),
        pytest.param(_zl(5, b"dj0\0\xff")[:-2], id="compressed cut off"),
        pytest.param(b"ZL123\0" + _u64(5) + b"garbage", id="not zlib"),
        pytest.param(_zl(33, _zl(5, b"dj0\0\xff")), id="compressed twice"),
    ],
)
def test_damage_is_refused(data: bytes):
    with pytest.raises(BlobError):
        unpack(data)


def test_deep_nesting_is_refused_before_the_stack_ends():
    body = b"\xff"
    for _ in range(100_000 // 17):
        body = b"\x02" + _u64(1, len(body)) + body
    with pytest.raises(BlobError, match="nested"):
        unpack(b"dj0\0" + body)


def test_what_can_be_written_deep_can_be_read():
    value: list[Any] = []
    for _ in range(127):
        value = [value]
    assert unpack(pack(value)) == value


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"dj0\0\x02" + _u64(2**40), id="list"),
        pytest.param(b"dj0\0\x05" + _u64(2**40), id="str"),
        pytest.param(b"dj0\0A" + _u64(1, 2**40) + struct.pack("<II", 6, 0), id="numbers"),
        pytest.param(b"dj0\0A" + _u64(1, 2**40) + struct.pack("<II", 5, 0), id="objects"),
        pytest.param(b"mYm\0C" + _u64(1, 2**40), id="cell"),
        pytest.param(b"ZL123\0" + _u64(2**40) + zlib.compress(bytes(10**6)), id="zip bomb"),
        pytest.param(_zl(100, bytes(10**8)), id="zip bomb that lies"),
    ],
)
def test_a_forged_size_takes_no_memory(data: bytes):
    tracemalloc.start()
    try:
        with pytest.raises(BlobError):
            unpack(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_corrupted_compressed_blob_is_refused():
    packed = bytearray(pack(np.arange(1000)))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(BlobError):
        unpack(bytes(packed))
    with pytest.raises(BlobError, match="bytes behind its end"):
        unpack(pack(np.arange(1000)) + b"x")


def test_keys_of_equal_hashes_are_refused_at_once() -> None:
    keys = [number * (2**61 - 1) for number in range(20_000)]
    for blob in (pack(dict.fromkeys(keys, 0)), pack(set(keys))):
        with pytest.raises(BlobError, match="hash"):
            unpack(blob)
    assert len(unpack(pack(set(range(20_000))))) == 20_000


def test_sizes_of_32_bits_are_read() -> None:
    """Old builds of mYm wrote them; nothing in the blob says so."""
    array = np.arange(6.0).reshape(2, 3)
    head = b"mYm\0A" + struct.pack("<IIIII", 2, 2, 3, 6, 0)
    assert np.array_equal(unpack(head + array.tobytes("F")), array)
    with pytest.raises(BlobError):
        unpack(head + array.tobytes("F")[:-1])
    fields = struct.pack("<I", 2) + b"gain\0a_longer_name\0"
    ends = {b"A": struct.pack("<II", 6, 0), b"C": b"", b"S": fields}
    shapes = [(code, shape) for code in ends for shape in ((0, 0), (3, 0), (1, 0, 2))]
    for code, shape in [*shapes, (b"A", (0, 3))]:
        sizes, end = struct.pack(f"<{1 + len(shape)}I", len(shape), *shape), ends[code]
        assert unpack(b"mYm\0" + code + sizes + end).shape == shape
        with pytest.raises(BlobError):
            unpack(b"mYm\0" + code + sizes + end + b"\0")


@pytest.mark.parametrize("wrap", [lambda array: array, lambda array: {"names": array}])
def test_variable_width_strings_of_numpy_are_read_as_objects(wrap: Any) -> None:
    # Before numpy 2 such strings are objects.
    kind = getattr(np.dtypes, "StringDType", lambda: object)()
    found = unpack(pack(wrap(np.array(["a", "bcd"], dtype=kind))))
    assert (found["names"] if isinstance(found, dict) else found).tolist() == ["a", "bcd"]


def _deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (np.zeros(100_000), {"unpacked_bytes": 799_999}),
        (_deep(30), {"depth": 20}),
        ({number * (2**61 - 1): 0 for number in range(51)}, {"equal_hashes": 50}),
        ({number * (2**61 - 1) for number in range(51)}, {"equal_hashes": 50}),
    ],
)
def test_what_costs_more_than_a_limit_is_refused_by_the_limits_name(
    value: Any, limits: dict[str, int], tmp_path: Path
):
    data = pack(value)
    assert same(unpack(data), value)
    (name,) = limits
    with pytest.raises(BlobError, match=rf"read_limits\.{name}"):
        unpack(data, limits=ReadLimits(**limits))
    config = Config({"database.url": f"sqlite:///{tmp_path / 'lab.sqlite'}"})
    connection = config.connect()
    table: Any = dj.Schema("lab", connection=connection)(
        type("Probe", (dj.Manual,), {"definition": "probe : int32\n---\ndata : <blob>"})
    )
    table.insert1((1, value))
    config[f"read_limits.{name}"] = limits[name]
    with pytest.raises(dj.DataJointError, match=rf"lab\.probe\.data.*read_limits\.{name}"):
        table.fetch1("data")
    assert "probe" in repr(table())
    connection.close()


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DJ_READ_LIMITS_UNPACKED_BYTES", "1000")
    assert Config.found()["read_limits.unpacked_bytes"] == 1000
