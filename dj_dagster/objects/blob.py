"""Packed blobs: any common Python value as bytes, in DataJoint's format, which both libraries read.

Values come back as they went in, with these differences, which the format has no room for: other
mappings become `dict`, other sequences `list` or `tuple`, any set a `set`, a `bytearray` `bytes`, a
pandas ``Timestamp`` a `datetime` (nanoseconds are lost), a unicode array an object array of `str`,
a zero-dimensional numeric array a numpy scalar, a structured array a `numpy.recarray`.

Arrays are returned Fortran-ordered, as they are stored, and unlike in DataJoint writable: each owns
its memory.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

from dj_dagster.errors import BlobError
from dj_dagster.objects.blob_format import (
    COMPRESS_ABOVE,
    HEADERS,
    MATLAB_HEADER,
    PYTHON_HEADER,
    ZLIB_HEADER,
    MatCell,
    MatStruct,
)
from dj_dagster.objects.blob_reader import BlobReader
from dj_dagster.objects.blob_writer import BlobWriter

__all__ = ["MatCell", "MatStruct", "is_packed", "pack", "unpack"]

# zlib makes at most 1032 bytes of one; a blob that claims more is not one.
_MOST_INFLATION = 1032


def pack(value: Any, *, compress: bool = True) -> bytes:
    """Write a value as a blob.

    Parameters
    ----------
    value
        None, bool, int, float, complex, str, bytes, Decimal, UUID, date, time, datetime, numpy
        arrays and scalars, `MatCell`, `MatStruct`, and mappings, sequences and sets of them.
    compress
        Whether blobs of more than 1000 bytes are compressed where that makes them shorter.

    Raises
    ------
    BlobError
        For a value that the format cannot hold; the message says what to store instead.

    Examples
    --------
    >>> pack("hi").hex(" ")
    '64 6a 30 00 05 02 00 00 00 00 00 00 00 68 69'
    >>> unpack(pack({"rate": 30.5, "gains": (1, 2)}))
    {'rate': 30.5, 'gains': (1, 2)}
    """
    writer = BlobWriter()
    writer.write(value)
    header = PYTHON_HEADER if writer.needs_python else MATLAB_HEADER
    packed = b"".join([header, *writer.chunks])
    return _deflated(packed) if compress and len(packed) > COMPRESS_ABOVE else packed


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """Read the value of a blob, trusting nothing in it.

    Raises
    ------
    BlobError
        If the bytes are not a whole, valid blob. No bytes can make this function run code, take
        memory out of proportion to their length, or recurse without bound.
    """
    view = memoryview(data).cast("B")
    if bytes(view[: len(ZLIB_HEADER)]) == ZLIB_HEADER:
        view = memoryview(_inflated(view[len(ZLIB_HEADER) :]))
    header = bytes(view[:4])
    if header not in (MATLAB_HEADER, PYTHON_HEADER):
        raise BlobError(
            f"Not a packed blob: it starts with {header!r}, not with one of "
            f"{', '.join(map(repr, HEADERS))}."
        )
    return BlobReader(view[4:]).read_all()


def is_packed(data: bytes | bytearray | memoryview) -> bool:
    """Whether bytes begin as a packed blob does.

    Examples
    --------
    >>> is_packed(pack(1)), is_packed(b"anything else")
    (True, False)
    """
    return bytes(memoryview(data).cast("B")[:6]).startswith(HEADERS)


def _deflated(packed: bytes) -> bytes:
    """Compress a blob if the whole becomes shorter."""
    shorter = ZLIB_HEADER + struct.pack("<Q", len(packed)) + zlib.compress(packed)
    return shorter if len(shorter) < len(packed) else packed


def _inflated(view: memoryview) -> bytes:
    """Decompress what follows the header ``ZL123``, never beyond the size that it declares."""
    if len(view) < 8:
        raise BlobError("A compressed blob ends within its header.")
    (size,) = struct.unpack("<Q", view[:8])
    if size > len(view) * _MOST_INFLATION:
        raise BlobError(f"A compressed blob of {len(view)} bytes claims to hold {size} bytes.")
    inflater = zlib.decompressobj()
    try:
        # One more than declared, so that a blob that holds more is noticed.
        data = inflater.decompress(view[8:], size + 1)
    except zlib.error as error:
        raise BlobError(f"A compressed blob is damaged: {error}.") from error
    if len(data) != size or not inflater.eof or inflater.unused_data:
        raise BlobError(f"A compressed blob should hold {size} bytes, it holds {len(data)}.")
    return data
