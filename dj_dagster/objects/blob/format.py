r"""The blob format: headers, type codes, array types, MATLAB's containers, compression.

All numbers are little-endian and unpadded. A blob is ``P``, or ``ZL123\0``, the length of ``P``
as u64, and zlib of ``P``; ``P`` is ``mYm\0`` or ``dj0\0`` and one value. A value is a one-byte type
code, followed by the bytes that `BlobWriter` writes for that type. ``mYm`` is the older format,
which MATLAB reads: numeric and boolean arrays, cells and structs only. Readers treat both headers
alike.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from isal import isal_zlib

from dj_dagster.errors import BlobError

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
        How deep values may be nested.
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

DTYPES: Final[dict[int, np.dtype[Any]]] = {
    BOOL_ID: np.dtype("?"),
    **{6 + i: np.dtype(f"<{code}") for i, code in enumerate(_NUMBERS)},
    **{65536 + i: np.dtype(f"<M8[{unit}]") for i, unit in enumerate(_UNITS)},
}
"""The numpy type of each array type id whose elements have a fixed size."""

DTYPE_IDS: Final[dict[np.dtype[Any], int]] = {dtype: i for i, dtype in DTYPES.items()}

COMPLEX_PARTS: Final[dict[np.dtype[Any], np.dtype[Any]]] = {
    np.dtype("<c16"): np.dtype("<f8"),
    np.dtype("<c8"): np.dtype("<f4"),
}
"""The type of the real and imaginary parts of each complex type."""


class MatCell(np.ndarray[Any, np.dtype[np.object_]]):
    """A MATLAB cell array: an object array that is written back as a cell array."""


class MatStruct(np.recarray[Any, np.dtype[Any]]):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A MATLAB struct array: a record array of objects that is written back as a struct array."""


LEVEL = 2
"""Of 0 to 3: about as small as zlib's 1 on measured data, at the speed of ISA-L's fastest."""

_PIECE = 2**20
_SMALL = 2**16

# A blob of one array of numbers has its data 5 bytes behind a multiple of 8.
_MISALIGNMENT = 3

# zlib decompresses one byte to at most 1032; a blob that declares more is damaged.
_MOST_INFLATION = 1032


def deflated(chunks: Sequence[bytes | memoryview], size: int) -> bytes | None:
    """Return a compressed blob, None if it would not be shorter.

    Parameters
    ----------
    chunks
        The blob in pieces. They are not joined, so that large arrays are not copied.
    size
        Bytes of all pieces together.
    """
    deflater = isal_zlib.compressobj(LEVEL)
    # A stream grows in place and gives its bytes away without a copy.
    packed = io.BytesIO()
    packed.write(ZLIB_HEADER)
    packed.write(struct.pack("<Q", size))
    for piece in _pieces(chunks):
        packed.write(deflater.compress(piece))
    packed.write(deflater.flush())
    return packed.getvalue() if packed.tell() < size else None


def inflated(view: memoryview, most: int) -> memoryview:
    """Decompress the bytes after the header ``ZL123``, never beyond the size that they declare.

    Parameters
    ----------
    most
        The largest permitted size, in bytes.

    Returns
    -------
    memoryview
        A view of a new buffer, in which the data of a blob that is a single array is aligned, so
        that the array need not be copied.

    Raises
    ------
    BlobError
        If the blob is damaged, differs from its declared size, or is larger than `most`.
    """
    if len(view) < 8:
        raise BlobError("A compressed blob ends within its header.")
    (size,) = struct.unpack("<Q", view[:8])
    if size > len(view) * _MOST_INFLATION:
        raise BlobError(f"A compressed blob of {len(view)} bytes claims to hold {size} bytes.")
    if size > most:
        raise BlobError(
            f"A compressed blob holds {size} bytes, and read_limits.unpacked_bytes = {most} may be "
            "read: set it higher if the blob can be trusted."
        )
    inflater = isal_zlib.decompressobj()
    # Grown as it fills: a forged size must not take memory.
    data = bytearray(_MISALIGNMENT)
    try:
        # One byte more than declared, so that a blob that holds more is noticed.
        for piece in _inflated_pieces(inflater, view[8:], size + 1):
            data += piece
    except isal_zlib.error as error:  # pyright: ignore[reportGeneralTypeIssues]
        raise BlobError(f"A compressed blob is damaged: {error}.") from error
    filled = len(data) - _MISALIGNMENT
    if filled != size or not inflater.eof or inflater.unused_data:
        raise BlobError(f"A compressed blob should hold {size} bytes, it holds {filled}.")
    return memoryview(data)[_MISALIGNMENT:]


def _inflated_pieces(inflater: Any, packed: memoryview, most: int) -> Iterator[bytes]:
    """Yield decompressed bytes in pieces, `most` bytes at most: few bytes can become many."""
    for start in range(0, len(packed), _PIECE):
        if inflater.eof:
            raise BlobError("A compressed blob has bytes behind its end.")
        rest: bytes | memoryview = packed[start : start + _PIECE]
        full = True
        while most and (len(rest) or full):
            room = min(_PIECE, most)
            piece = inflater.decompress(rest, room)
            rest, most, full = inflater.unconsumed_tail, most - len(piece), len(piece) == room
            yield piece


def _pieces(chunks: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the same bytes in pieces that compress fast: neither tiny nor huge."""
    small: list[bytes | memoryview] = []
    waiting = 0
    for chunk in chunks:
        if len(chunk) <= _SMALL and waiting <= _PIECE:
            small.append(chunk)
            waiting += len(chunk)
            continue
        yield b"".join(small)
        small, waiting = [], 0
        view = memoryview(chunk).cast("B")
        yield from (view[start : start + _PIECE] for start in range(0, len(view), _PIECE))
    yield b"".join(small)
