"""Packed blobs: any common Python value as bytes, in DataJoint's format, which both libraries read.

Values come back as they went in, with these differences, which the format has no room for: other
mappings become `dict`, other sequences `list` or `tuple`, any set a `set`, a `bytearray` `bytes`, a
pandas ``Timestamp`` a `datetime`, a unicode array an object array of `str`,
a zero-dimensional numeric array a numpy scalar, a structured array a `numpy.recarray`.

Arrays are returned Fortran-ordered, as they are stored, and unlike in DataJoint writable: each owns
its memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dj_dagster.errors import BlobError
from dj_dagster.objects.blob_compression import deflated, inflated
from dj_dagster.objects.blob_format import (
    COMPRESS_ABOVE,
    DEFAULT_LIMITS,
    HEADERS,
    MATLAB_HEADER,
    PYTHON_HEADER,
    ZLIB_HEADER,
    MatCell,
    MatStruct,
    ReadLimits,
)
from dj_dagster.objects.blob_reader import BlobReader, has_wide_sizes
from dj_dagster.objects.blob_writer import BlobWriter

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
        What that may cost.

    Raises
    ------
    BlobError
        If the bytes are not a whole, valid blob, or reading them would cost more. No bytes can make
        this function run code, take memory out of proportion to their length, or recurse without
        bound.
    """
    # Read-only, so that no array is made of bytes that belong to the caller.
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
    """Return a value whose arrays, also those inside it, have no dimensions of length 1.

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
