r"""The blob format: headers, type codes, array types, MATLAB's containers, compression.

All numbers are little-endian and unpadded. A blob is ``P``, or ``ZL123\0``, the length of ``P``
as u64, and zlib of ``P``; ``P`` is ``mYm\0`` or ``dj0\0`` and one value. A value is a one-byte type
code, followed by the bytes that `BlobWriter` writes for that type. ``mYm`` is the older format,
which MATLAB reads: numeric and boolean arrays, cells and structs only. Readers treat both headers
alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
"""An array of any shape and type."""

DType = np.dtype[np.generic]

MATLAB_HEADER: Final = b"mYm\0"
PYTHON_HEADER: Final = b"dj0\0"
ZLIB_HEADER: Final = b"ZL123\0"
HEADERS: Final = (MATLAB_HEADER, PYTHON_HEADER, ZLIB_HEADER)

COMPRESS_ABOVE: Final = 1000
"""Bytes of the shortest blob that is compressed."""

MAX_DEPTH: Final = 128
"""The deepest nesting of values; a value nested deeper is refused, written or read."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Limits on the cost of reading one packed value, trusted or not: settings ``read_limits``.

    Attributes
    ----------
    unpacked_bytes
        Bytes that a blob may have once decompressed; it may be packed in a thousandth of them.
    depth
        The depth to which values may be nested.
    equal_hashes
        Keys of one dict or set that may have the same hash: each is compared with all before it.
    """

    unpacked_bytes: int = 4 * 2**30
    depth: int = MAX_DEPTH
    equal_hashes: int = 1000


DEFAULT_LIMITS: Final = ReadLimits()

MAX_NDIM: Final = 64
"""The number of dimensions that an array of numpy 2 can have."""

SIZED_MINIMUM: Final = 9
"""Bytes that the smallest sized value takes: its u64 length and its type code."""


class Code:
    """The type codes, the first byte of each value."""

    ARRAY: Final = b"A"
    CELL: Final = b"C"
    STRUCT: Final = b"S"
    SPARSE: Final = b"P"
    RECORDS: Final = b"F"
    TUPLE: Final = b"\x01"
    LIST: Final = b"\x02"
    SET: Final = b"\x03"
    DICT: Final = b"\x04"
    STR: Final = b"\x05"
    BYTES: Final = b"\x06"
    INT: Final = b"\x0a"
    BOOL: Final = b"\x0b"
    COMPLEX: Final = b"\x0c"
    FLOAT: Final = b"\x0d"
    DECIMAL: Final = b"d"
    DATETIME: Final = b"t"
    UUID: Final = b"u"
    NONE: Final = b"\xff"


BOOL_ID: Final = 3
CHAR_ID: Final = 4
OBJECT_ID: Final = 5

_NUMBERS = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")

DTYPES: Final[dict[int, DType]] = {
    BOOL_ID: np.dtype("?"),
    **{6 + i: np.dtype(f"<{code}") for i, code in enumerate(_NUMBERS)},
    **{65536 + i: np.dtype(f"<M8[{unit}]") for i, unit in enumerate(_UNITS)},
}
"""The numpy type of each array type id whose elements have a fixed size."""

DTYPE_IDS: Final[dict[DType, int]] = {dtype: i for i, dtype in DTYPES.items()}

COMPLEX_PARTS: Final[dict[DType, DType]] = {
    np.dtype("<c16"): np.dtype("<f8"),
    np.dtype("<c8"): np.dtype("<f4"),
}
"""The type of the real and imaginary parts of each complex type."""


class MatCell(np.ndarray[tuple[int, ...], np.dtype[np.object_]]):
    """A MATLAB cell array: an object array that is written back as a cell array."""


class MatStruct(np.recarray[tuple[int, ...], np.dtype[np.void]]):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A MATLAB struct array: a record array of objects that is written back as a struct array."""
