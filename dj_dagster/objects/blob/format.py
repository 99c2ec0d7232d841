r"""The blob format: headers, type codes, array types, MATLAB's containers, compression.

All numbers are little-endian and unpadded. A blob is ``P``, or ``ZL123\0``, the length of ``P``
as u64, and zlib of ``P``; ``P`` is ``mYm\0`` or ``dj0\0`` and one value; a value is a one-byte type
code and what `BlobWriter` writes after it. ``mYm`` is the older format, which MATLAB reads: numeric
and boolean arrays, cells and structs only. Readers treat both headers alike.
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
"""Bytes: a shorter blob is never compressed."""

MAX_DEPTH: Final = 128
"""Values inside values inside values: deeper ones are refused, written or read."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What reading one packed value may cost, whoever has written it: settings ``read_limits``.

    Attributes
    ----------
    unpacked_bytes
        Bytes that a compressed blob may become: a thousandth of it is enough to pack them.
    depth
        Values inside values inside values.
    equal_hashes
        Keys of one dict or set that may have the same hash: each is compared with all before it.
    """

    unpacked_bytes: int = 4 * 2**30
    depth: int = MAX_DEPTH
    equal_hashes: int = 1000


DEFAULT_LIMITS: Final = ReadLimits()

MAX_NDIM: Final = 64
"""What numpy 2 can hold."""

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

# zlib makes at most 1032 bytes of one; a blob that claims more is not one.
_MOST_INFLATION = 1032


def deflated(chunks: Sequence[bytes | memoryview], size: int) -> bytes | None:
    """Compress a blob, None if that does not make it shorter.

    Parameters
    ----------
    chunks
        The blob in pieces, which are not joined: large arrays are in memory once already.
    size
        Bytes of all of them.
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
    """Decompress what follows the header ``ZL123``, never beyond the size that it declares.

    Parameters
    ----------
    most
        Bytes that it may become.

    Returns
    -------
    memoryview
        Of a buffer that nobody else has, and in which the data of a blob that is a single array is
        aligned, so that the array can stay where it is.

    Raises
    ------
    BlobError
        If it is damaged, or holds more or less than it declares, or more than it may.
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
        # One more than declared, so that a blob that holds more is noticed.
        for piece in _inflated_pieces(inflater, view[8:], size + 1):
            data += piece
    except isal_zlib.error as error:  # pyright: ignore[reportGeneralTypeIssues]
        raise BlobError(f"A compressed blob is damaged: {error}.") from error
    filled = len(data) - _MISALIGNMENT
    if filled != size or not inflater.eof or inflater.unused_data:
        raise BlobError(f"A compressed blob should hold {size} bytes, it holds {filled}.")
    return memoryview(data)[_MISALIGNMENT:]


def _inflated_pieces(inflater: Any, packed: memoryview, most: int) -> Iterator[bytes]:
    """Yield what bytes hold, up to so many, little by little: few bytes can become many."""
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
    """Yield the same bytes in pieces of a size that is good to compress, neither tiny nor huge."""
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
