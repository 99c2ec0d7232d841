"""Writing values in the blob format, which holds any common Python value.

Values come back as they went in, except where the format cannot tell types apart: other
mappings become `dict`, other sequences `list` or `tuple`, any set a `set`, a `bytearray` `bytes`, a
pandas ``Timestamp`` a `datetime`, a unicode array an object array of `str`,
a zero-dimensional numeric array a numpy scalar, a structured array a `numpy.recarray`.
"""

from __future__ import annotations

import datetime
import io
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence, Set
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar

import numpy as np
from isal import isal_zlib

from dj_dagster.errors import BlobError
from dj_dagster.objects.blob.format import (
    COMPLEX_PARTS,
    COMPRESS_ABOVE,
    DTYPE_IDS,
    MATLAB_HEADER,
    MAX_DEPTH,
    OBJECT_ID,
    PYTHON_HEADER,
    ZLIB_HEADER,
    Array,
    Code,
    DType,
    MatCell,
    MatStruct,
)

LEVEL = 2
"""Of 0 to 3: about as small as zlib's 1 on measured data, at the speed of ISA-L's fastest."""

_PIECE = 2**20
_SMALL = 2**16


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


Chunk = bytes | memoryview

_INT_BYTES_LIMIT = 0xFFFF

_ADVICE = {
    "DataFrame": "store value.to_records(index=False) or value.to_dict('list')",
    "Series": "store value.to_numpy()",
    "timedelta": "store value.total_seconds()",
}
_DTYPE_ADVICE = {
    "e": "convert it with .astype('float32')",
    "g": "convert it with .astype('float64')",
    "G": "convert it with .astype('complex128')",
    "S": "convert it with .astype(str), or store .tolist()",
    "m": "store .astype('int64') and its unit, or seconds as float64",
    "M": "give it a plain unit, as in .astype('datetime64[us]')",
}


T = TypeVar("T")
_Writer: TypeAlias = "Callable[[BlobWriter, Any], None]"


class BlobWriter:
    """Writes one value as a list of byte chunks, without copying large arrays.

    Attributes
    ----------
    chunks
        The bytes written so far, to be joined.
    needs_python
        Whether a value occurred that MATLAB's older format does not have.
    """

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.needs_python = False
        self._size = 0
        self._depth = 0
        self._writers: dict[type, _Writer] = {}

    def write(self, value: object) -> None:
        """Append a value, its type code first.

        Raises
        ------
        BlobError
            If the value, or a value in it, cannot be held by the format.
        """
        if self._depth > MAX_DEPTH:
            raise BlobError(
                f"The value is nested deeper than {MAX_DEPTH} levels, or contains itself."
            )
        self._depth += 1
        try:
            self._writer_of(value)(self, value)
        except (ValueError, OverflowError, RecursionError) as error:
            kind = type(value).__name__
            raise BlobError(f"Cannot store a {kind} in a blob: {error}.") from error
        self._depth -= 1

    def _writer_of(self, value: object) -> _Writer:
        # Values of one type come in thousands, and going through all kinds takes most of the time.
        kind: type = type(value)
        writer = self._writers.get(kind)
        if writer is None:
            self._writers[kind] = writer = _find_writer(value)
        return writer

    def put(self, chunk: Chunk) -> None:
        """Append raw bytes."""
        self.chunks.append(chunk)
        self._size += len(chunk)

    def put_sized(self, value: object) -> None:
        """Append a value preceded by its length in bytes, which is known only afterwards."""
        slot, before = len(self.chunks), self._size
        self.put(b"")
        self.write(value)
        self.chunks[slot] = _u64(self._size - before)
        self._size += 8

    def put_items(self, code: bytes, items: Iterable[object], count: int) -> None:
        """Append a container of sized items that only Python's format has."""
        self.needs_python = True
        self.put(code + _u64(count))
        for item in items:
            self.put_sized(item)


def _u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def _shape(array: Array) -> bytes:
    return _u64(array.ndim, *array.shape)


def _python(code: bytes, encode: Callable[[T], bytes]) -> Callable[[BlobWriter, T], None]:
    """Return the writer of a scalar of Python's format, from its type code and encoding."""

    def write(writer: BlobWriter, value: T) -> None:
        writer.needs_python = True
        writer.put(code + encode(value))

    return write


def _with_length(data: bytes) -> bytes:
    return _u64(len(data)) + data


def _int(value: int) -> bytes:
    count = value.bit_length() // 8 + 1
    if count > _INT_BYTES_LIMIT:
        raise BlobError(f"Cannot store an integer of {count} bytes, only up to {_INT_BYTES_LIMIT}.")
    return struct.pack("<H", count) + int(value).to_bytes(count, "little", signed=True)


def _moment(value: datetime.date | datetime.time) -> bytes:
    """Encode a date, time or datetime as yyyymmdd and HHMMSSffffff, -1 for a missing part."""
    # Only pandas' NaT, which is an instance of datetime, differs from itself.
    if value != value:
        raise ValueError("it is NaT; store None instead")
    if getattr(value, "tzinfo", None) is not None:
        raise ValueError(
            f"{value!r} has a time zone, for which the format of blobs has no room: convert it to "
            "UTC and drop tzinfo, or store value.isoformat()"
        )
    if getattr(value, "nanosecond", 0):
        raise ValueError(
            f"{value!r} has nanoseconds, for which the format of blobs has no room: store "
            "value.to_datetime64(), or value.floor('us')"
        )
    day, clock = -1, -1
    if isinstance(value, datetime.date):
        day = (value.year * 100 + value.month) * 100 + value.day
    if isinstance(value, datetime.datetime | datetime.time):
        seconds = (value.hour * 100 + value.minute) * 100 + value.second
        clock = seconds * 1_000_000 + value.microsecond
    return struct.pack("<iq", day, clock)


def _dict(writer: BlobWriter, value: Mapping[object, object]) -> None:
    items = (part for item in value.items() for part in item)
    writer.put_items(Code.DICT, items, len(value))


def _list(writer: BlobWriter, value: Sequence[object]) -> None:
    writer.put_items(Code.LIST, value, len(value))


def _tuple(writer: BlobWriter, value: Sequence[object]) -> None:
    writer.put_items(Code.TUPLE, value, len(value))


def _set(writer: BlobWriter, value: Set[object]) -> None:
    writer.put_items(Code.SET, value, len(value))


def _cell(writer: BlobWriter, value: MatCell) -> None:
    writer.put(Code.CELL + _shape(value))
    for element in np.asarray(value, object).ravel(order="F"):
        writer.put_sized(element)


def _names(array: Array) -> bytes:
    names: tuple[str, ...] = array.dtype.names or ()
    if any("\0" in name for name in names):
        raise BlobError(f"Cannot store records of type {array.dtype}: a field name holds a NUL.")
    return struct.pack("<I", len(names)) + b"".join(name.encode() + b"\0" for name in names)


def _struct(writer: BlobWriter, value: MatStruct) -> None:
    writer.put(Code.STRUCT + _shape(value) + _names(value))
    for element in np.asarray(value).ravel(order="F"):
        for name in value.dtype.names or ():
            writer.put_sized(element[name])


def _records(writer: BlobWriter, value: Array) -> None:
    writer.needs_python = True
    names: tuple[str, ...] = value.dtype.names or ()
    if not names or any(value.dtype[name].subdtype for name in names):
        raise BlobError(
            f"Cannot store records of type {value.dtype}: each field must be a scalar; store a "
            "dict of arrays instead."
        )
    writer.put(Code.RECORDS + _names(value))
    for name in names:
        writer.write(np.asarray(value[name]))


def _array(writer: BlobWriter, value: Array) -> None:
    if isinstance(value, np.ma.MaskedArray):
        raise BlobError(
            "Cannot store a masked array, its mask would be lost: store value.filled(...), or a "
            "tuple of value.data and value.mask."
        )
    if value.dtype.names is not None:
        _records(writer, value)
    elif value.dtype.kind in "OUT":
        # NumPy's variable-width strings (T) are read back as objects, as fixed-width ones (U) are.
        _objects(writer, value)
    else:
        _numbers(writer, value)


def _objects(writer: BlobWriter, value: Array) -> None:
    writer.needs_python = True
    writer.put(Code.ARRAY + _shape(value) + struct.pack("<II", OBJECT_ID, 0))
    for element in np.asarray(value).astype(object).ravel(order="F"):
        writer.put_sized(element)


def _numbers(writer: BlobWriter, value: Array) -> None:
    dtype: DType = value.dtype.newbyteorder("<")
    part = COMPLEX_PARTS.get(dtype) or dtype
    if part not in DTYPE_IDS:
        raise BlobError(
            f"Cannot store an array of type {value.dtype} in a blob: "
            f"{_DTYPE_ADVICE.get(value.dtype.char, 'convert it with .astype(...)')}."
        )
    is_complex = part != dtype
    # MATLAB's format has neither zero dimensions nor datetime64.
    writer.needs_python |= value.ndim == 0 or part.kind == "M"
    writer.put(Code.ARRAY + _shape(value) + struct.pack("<II", DTYPE_IDS[part], is_complex))
    flat: Array = np.asarray(value).ravel(order="F").astype(dtype, copy=False)
    for piece in (flat.real, flat.imag) if is_complex else (flat,):
        writer.put(np.ascontiguousarray(piece).view(np.uint8).data)


def _scalar(writer: BlobWriter, value: np.generic) -> None:
    _array(writer, np.asarray(value))


def _none(writer: BlobWriter, _: None) -> None:
    writer.needs_python = True
    writer.put(Code.NONE)


# The first that fits: bool is an int, datetime a date, numpy's str_ a str, memoryview a Sequence.
_WRITERS: tuple[tuple[type | tuple[type, ...], _Writer], ...] = (
    (type(None), _none),
    (MatCell, _cell),
    (MatStruct, _struct),
    (np.ndarray, _array),
    (str, _python(Code.STR, lambda value: _with_length(value.encode()))),
    ((bytes, bytearray, memoryview), _python(Code.BYTES, lambda v: _with_length(bytes(v)))),
    (np.generic, _scalar),
    (bool, _python(Code.BOOL, lambda value: struct.pack("<?", value))),
    (int, _python(Code.INT, _int)),
    (float, _python(Code.FLOAT, lambda value: struct.pack("<d", value))),
    (complex, _python(Code.COMPLEX, lambda z: struct.pack("<dd", z.real, z.imag))),
    (Decimal, _python(Code.DECIMAL, lambda value: _with_length(str(value).encode()))),
    ((datetime.date, datetime.time), _python(Code.DATETIME, _moment)),
    (uuid.UUID, _python(Code.UUID, lambda value: value.bytes)),
    (Mapping, _dict),
    (MutableSequence, _list),
    (Sequence, _tuple),
    (Set, _set),
)


def _find_writer(value: object) -> _Writer:
    for kind, writer in _WRITERS:
        if isinstance(value, kind):
            return writer
    name = type(value).__name__
    advice = _ADVICE.get(name, "store the numbers, strings, lists and dicts it is made of")
    raise BlobError(f"Cannot store a {name} in a blob: {advice}, or write a codec for the type.")


def pack(value: object, *, compress: bool = True) -> bytes:
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
    >>> from dj_dagster.objects.blob.reader import unpack
    >>> unpack(pack({"rate": 30.5, "gains": (1, 2)}))
    {'rate': 30.5, 'gains': (1, 2)}
    """
    writer = BlobWriter()
    writer.write(value)
    chunks = [PYTHON_HEADER if writer.needs_python else MATLAB_HEADER, *writer.chunks]
    size = sum(map(len, chunks))
    shorter = deflated(chunks, size) if compress and size > COMPRESS_ABOVE else None
    return b"".join(chunks) if shorter is None else shorter
