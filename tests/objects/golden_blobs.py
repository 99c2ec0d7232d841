"""Values and the bytes that they are, in DataJoint's blob format, written out in hexadecimal."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest

from dj_dagster.objects.blob.format import MatCell, MatStruct


def matlab_cell(*values: object) -> MatCell:
    cell = np.empty(len(values), object)
    for index, value in enumerate(values):
        cell[index] = value
    return cell.view(MatCell)


def matlab_struct(**fields: object) -> MatStruct:
    records = np.empty((1, 1), [(name, object) for name in fields])
    for name, value in fields.items():
        records[name][0, 0] = value
    return records.view(MatStruct)


GOLDEN = [
    pytest.param(
        None,
        "646a3000ff",
        id="none",
    ),
    pytest.param(
        True,
        "646a30000b01",
        id="true",
    ),
    pytest.param(
        0,
        "646a30000a010000",
        id="int-zero",
    ),
    pytest.param(
        127,
        "646a30000a01007f",
        id="int-127",
    ),
    pytest.param(
        128,
        "646a30000a02008000",
        id="int-128",
    ),
    pytest.param(
        -128,
        "646a30000a020080ff",
        id="int-negative",
    ),
    pytest.param(
        1 << 70,
        "646a30000a0900000000000000000040",
        id="big-int",
    ),
    pytest.param(
        1.5,
        "646a30000d000000000000f83f",
        id="float",
    ),
    pytest.param(
        1 - 2j,
        "646a30000c000000000000f03f00000000000000c0",
        id="complex",
    ),
    pytest.param(
        "é中",
        "646a3000050500000000000000c3a9e4b8ad",
        id="str",
    ),
    pytest.param(
        b"\x00ab",
        "646a3000060300000000000000006162",
        id="bytes",
    ),
    pytest.param(
        bytearray(b"ab"),
        "646a30000602000000000000006162",
        id="bytearray",
    ),
    pytest.param(
        np.str_("x"),
        "646a300005010000000000000078",
        id="np-str",
    ),
    pytest.param(
        "\U0001f600",
        "646a3000050400000000000000f09f9880",
        id="surrogates",
    ),
    pytest.param(
        (1, "a"),
        "646a300001020000000000000004000000000000000a0100010a0000000000000005010000000000000061",
        id="tuple",
    ),
    pytest.param(
        [1, [None]],
        "646a300002020000000000000004000000000000000a0100011200000000000000020100"
        "0000000000000100000000000000ff",
        id="list",
    ),
    pytest.param(
        {7},
        "646a300003010000000000000004000000000000000a010007",
        id="set",
    ),
    pytest.param(
        {"a": 1, 2: None},
        "646a30000402000000000000000a00000000000000050100000000000000610400000000"
        "0000000a01000104000000000000000a0100020100000000000000ff",
        id="dict",
    ),
    pytest.param(
        Decimal("1.50"),
        "646a3000640400000000000000312e3530",
        id="decimal",
    ),
    pytest.param(
        dt.date(2024, 2, 29),
        "646a30007465d73401ffffffffffffffff",
        id="date",
    ),
    pytest.param(
        dt.time(1, 2, 3, 4),
        "646a300074ffffffffc46c256002000000",
        id="time",
    ),
    pytest.param(
        dt.datetime(2024, 2, 29, 13, 4, 5, 678),
        "646a30007465d73401e665be5c1e000000",
        id="datetime",
    ),
    pytest.param(
        UUID("12345678-1234-5678-1234-567812345678"),
        "646a30007512345678123456781234567812345678",
        id="uuid",
    ),
    pytest.param(
        np.arange(4),
        "6d596d0041010000000000000004000000000000000e0000000000000000000000000000"
        "00010000000000000002000000000000000300000000000000",
        id="int64-array",
    ),
    pytest.param(
        np.array([[1, 2], [3, 4]], "int8"),
        "6d596d0041020000000000000002000000000000000200000000000000080000000000000001030204",
        id="fortran",
    ),
    pytest.param(
        np.zeros((0, 2), "float32"),
        "6d596d00410200000000000000000000000000000002000000000000000700000000000000",
        id="empty",
    ),
    pytest.param(
        np.array([True, False]),
        "6d596d00410100000000000000020000000000000003000000000000000100",
        id="bool-array",
    ),
    pytest.param(
        np.array([1 + 2j, 3 - 4j], "complex64"),
        "6d596d00410100000000000000020000000000000007000000010000000000803f000040"
        "4000000040000080c0",
        id="complex64-array",
    ),
    pytest.param(
        np.array(["2024-01-01"], "datetime64[D]"),
        "646a3000410100000000000000010000000000000003000100000000000b4d000000000000",
        id="datetime64",
    ),
    pytest.param(
        np.array([258], ">u2"),
        "6d596d0041010000000000000001000000000000000b000000000000000201",
        id="big-dtypes",
    ),
    pytest.param(
        np.float32(0.5),
        "646a300041000000000000000007000000000000000000003f",
        id="scalar",
    ),
    pytest.param(
        np.array(["a", "bc"]),
        "646a3000410100000000000000020000000000000005000000000000000a000000000000"
        "00050100000000000000610b000000000000000502000000000000006263",
        id="unicode",
    ),
    pytest.param(
        np.array([1, None], object),
        "646a30004101000000000000000200000000000000050000000000000004000000000000"
        "000a0100010100000000000000ff",
        id="object",
    ),
    pytest.param(
        np.array([(1, 2.0)], dtype=[("a", "int16"), ("b", "float64")]),
        "646a300046020000006100620041010000000000000001000000000000000a0000000000"
        "000001004101000000000000000100000000000000060000000000000000000000000000"
        "40",
        id="records",
    ),
    pytest.param(
        matlab_cell(np.ones((1, 1)), np.array([[True]])),
        "6d596d004301000000000000000200000000000000290000000000000041020000000000"
        "0000010000000000000001000000000000000600000000000000000000000000f03f2200"
        "000000000000410200000000000000010000000000000001000000000000000300000000"
        "00000001",
        id="cell",
    ),
    pytest.param(
        matlab_struct(a=np.ones((1, 1)), b=np.array([[2]], "uint8")),
        "6d596d005302000000000000000100000000000000010000000000000002000000610062"
        "002900000000000000410200000000000000010000000000000001000000000000000600"
        "000000000000000000000000f03f22000000000000004102000000000000000100000000"
        "0000000100000000000000090000000000000002",
        id="struct",
    ),
]
