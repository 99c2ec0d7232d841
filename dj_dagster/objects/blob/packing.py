"""Packed blobs: any common Python value as bytes, in DataJoint's format.

Values come back as they went in, except where the format cannot tell types apart: other
mappings become `dict`, other sequences `list` or `tuple`, any set a `set`, a `bytearray` `bytes`, a
pandas ``Timestamp`` a `datetime`, a unicode array an object array of `str`,
a zero-dimensional numeric array a numpy scalar, a structured array a `numpy.recarray`.

Arrays are returned Fortran-ordered, as they are stored, and unlike in DataJoint writable: each owns
its memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from isal import isal_zlib

from dj_dagster.errors import BlobError
from dj_dagster.objects.blob.format import (
    CHAR_ID,
    COMPRESS_ABOVE,
    DEFAULT_LIMITS,
    DTYPES,
    HEADERS,
    MATLAB_HEADER,
    OBJECT_ID,
    PYTHON_HEADER,
    ZLIB_HEADER,
    Code,
    MatCell,
    MatStruct,
    ReadLimits,
    deflated,
    inflated,
)
from dj_dagster.objects.blob.reader import BlobReader, has_wide_sizes
from dj_dagster.objects.blob.writer import BlobWriter
from dj_dagster.objects.previews import array_text, byte_text

__all__ = ["MatCell", "MatStruct", "ReadLimits", "is_packed", "pack", "squeezed", "unpack"]


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
    chunks = [PYTHON_HEADER if writer.needs_python else MATLAB_HEADER, *writer.chunks]
    size = sum(map(len, chunks))
    shorter = deflated(chunks, size) if compress and size > COMPRESS_ABOVE else None
    return b"".join(chunks) if shorter is None else shorter


def unpack(
    data: bytes | bytearray | memoryview,
    squeeze: bool = False,
    *,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> Any:
    """Read the value of a blob, trusting nothing in it.

    Parameters
    ----------
    squeeze
        Whether arrays lose their dimensions of length 1; one of a single number is that number.
    limits
        Limits on the cost of reading.

    Raises
    ------
    BlobError
        If the bytes are not a whole, valid blob, or reading them exceeds `limits`. Whatever the
        bytes are, this function does not run code, take memory out of proportion to their length,
        or recurse without bound.
    """
    # Read-only, so that arrays do not use memory that belongs to the caller.
    view = memoryview(data).cast("B").toreadonly()
    if bytes(view[: len(ZLIB_HEADER)]) == ZLIB_HEADER:
        view = inflated(view[len(ZLIB_HEADER) :], limits.unpacked_bytes)
    header = bytes(view[:4])
    if header not in (MATLAB_HEADER, PYTHON_HEADER):
        raise BlobError(
            f"Not a packed blob: it starts with {header!r}, not with one of "
            f"{', '.join(map(repr, HEADERS))}."
        )
    wide = header != MATLAB_HEADER or has_wide_sizes(view[4:])
    value = BlobReader(view[4:], wide=wide, limits=limits).read_all()
    return squeezed(value) if squeeze else value


def squeezed(value: Any) -> Any:
    """Return a value whose arrays, nested ones included, are without dimensions of length 1.

    Examples
    --------
    >>> import numpy as np
    >>> squeezed({"gain": np.array([[5.0]]), "trace": np.ones((1, 3))})
    {'gain': np.float64(5.0), 'trace': array([1., 1., 1.])}
    """
    match value:
        case np.ndarray():
            return value.squeeze()[()]
        case dict():
            return {name: squeezed(item) for name, item in value.items()}
        case list() | tuple():
            return type(value)(map(squeezed, value))
        case _:
            return value


def is_packed(data: bytes | bytearray | memoryview) -> bool:
    """Whether bytes begin as a packed blob does.

    Examples
    --------
    >>> is_packed(pack(1)), is_packed(b"anything else")
    (True, False)
    """
    return bytes(memoryview(data).cast("B")[:6]).startswith(HEADERS)


_ENOUGH = 4096
"""Number of unpacked bytes that a summary looks at."""

_UNREADABLE = (BlobError, ValueError, KeyError, struct.error)


def blob_summary(beginning: bytes, size: int) -> str | None:
    """Return a few words on a blob, None if its beginning does not tell.

    Parameters
    ----------
    beginning
        The first bytes of the blob, or all.
    size
        Bytes of the whole blob.

    Examples
    --------
    >>> from dj_dagster.objects.blob.packing import pack
    >>> blob = pack(np.arange(3000.0))
    >>> blob_summary(blob[:1000], len(blob))
    'float64 array 3000, 24 kB'
    """
    if not is_packed(beginning):
        return f"bytes, {byte_text(size)}"
    try:
        reader = BlobReader(memoryview(_unpacked(bytes(beginning))[4:]))
        code = bytes(reader.take(1))
        summary = _SUMMARIES.get(code)
        return summary(reader) if summary else _NAMES.get(code)
    except _UNREADABLE:
        return None


def unpacked_size(beginning: bytes, size: int) -> int:
    """Return the number of bytes that a blob declares for its unpacked content."""
    start = len(ZLIB_HEADER)
    if beginning[:start] != ZLIB_HEADER or len(beginning) < start + 8:
        return size
    (inner,) = struct.unpack("<Q", beginning[start : start + 8])
    return inner


def _unpacked(beginning: bytes) -> bytes:
    if not beginning.startswith(ZLIB_HEADER):
        return beginning
    try:
        return isal_zlib.decompressobj().decompress(beginning[len(ZLIB_HEADER) + 8 :], _ENOUGH)
    except isal_zlib.error as error:  # pyright: ignore[reportGeneralTypeIssues]
        raise BlobError(f"A compressed blob is damaged: {error}.") from error


def _array(reader: BlobReader) -> str:
    shape = reader.shape()
    type_id, is_complex = reader.numbers("II")
    if type_id in (OBJECT_ID, CHAR_ID):
        return array_text("object" if type_id == OBJECT_ID else "text", shape)
    dtype = DTYPES[type_id]
    if is_complex:
        dtype = np.result_type(dtype, np.complex64)
    return array_text(dtype, shape, math.prod(shape) * dtype.itemsize)


def _text(reader: BlobReader) -> str:
    return f"text, {byte_text(reader.u64())}"


def _struct(reader: BlobReader) -> str:
    reader.shape()
    return f"struct: {', '.join(reader.names())}"


_SUMMARIES: dict[bytes, Callable[[BlobReader], str]] = {
    Code.ARRAY: _array,
    Code.CELL: lambda reader: array_text("cell", reader.shape()),
    Code.STRUCT: _struct,
    Code.RECORDS: lambda reader: f"records: {', '.join(reader.names())}",
    Code.TUPLE: lambda reader: f"tuple of {reader.u64()}",
    Code.LIST: lambda reader: f"list of {reader.u64()}",
    Code.SET: lambda reader: f"set of {reader.u64()}",
    Code.DICT: lambda reader: f"dict of {reader.u64()}",
    Code.STR: _text,
    Code.BYTES: lambda reader: f"bytes, {byte_text(reader.u64())}",
}

_NAMES = {Code.SPARSE: "sparse matrix", Code.NONE: "None"}
