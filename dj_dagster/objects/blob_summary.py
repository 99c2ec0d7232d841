"""What a packed blob holds, told by its first bytes."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import numpy as np
from isal import isal_zlib

from dj_dagster.errors import BlobError
from dj_dagster.objects.blob import is_packed
from dj_dagster.objects.blob_format import (
    CHAR_ID,
    DTYPES,
    OBJECT_ID,
    ZLIB_HEADER,
    Code,
)
from dj_dagster.objects.blob_reader import BlobReader
from dj_dagster.objects.previews import array_text, byte_text

_ENOUGH = 4096
"""Unpacked bytes that are looked at."""

_UNREADABLE = (BlobError, ValueError, KeyError, struct.error)


def blob_summary(beginning: bytes, size: int) -> str | None:
    """Return a few words on a blob, None where its beginning does not say.

    Parameters
    ----------
    beginning
        The first bytes of the blob, or all.
    size
        Bytes of the whole blob.

    Examples
    --------
    >>> from dj_dagster.objects.blob import pack
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
    """Return how many bytes a blob says that it holds once it is unpacked."""
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
