"""Compression of blobs: zlib's format, by ISA-L, which is several times faster than zlib itself."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from isal import isal_zlib

from dj_dagster.errors import BlobError
from dj_dagster.objects.blob_format import ZLIB_HEADER

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
