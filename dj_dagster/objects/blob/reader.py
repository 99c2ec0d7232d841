"""Reading values in the blob format, from bytes that are not trusted."""

from __future__ import annotations

import datetime
import math
import struct
import uuid
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np

from dj_dagster.errors import BlobError
from dj_dagster.objects.blob.format import (
    BOOL_ID,
    CHAR_ID,
    DEFAULT_LIMITS,
    DTYPES,
    MAX_NDIM,
    OBJECT_ID,
    SIZED_MINIMUM,
    Code,
    MatCell,
    MatStruct,
    ReadLimits,
)

Array = np.ndarray[Any, Any]

_DAMAGE = (
    ValueError,
    TypeError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)


def has_wide_sizes(data: memoryview) -> bool:
    """Return whether a blob of MATLAB's has sizes of 64 bits, as all but very old ones do.

    Old builds of mYm wrote 32 bits, which the blob does not record. Read as 64 bits, its first
    size, the number of dimensions, is then larger than that of any array.
    """
    if bytes(data[:1]) not in (Code.ARRAY, Code.CELL, Code.STRUCT) or len(data) < 9:
        return True
    return struct.unpack("<Q", data[1:9])[0] <= MAX_NDIM


class BlobReader:
    """Reads values from a buffer; every length is checked against the rest of the buffer.

    Parameters
    ----------
    wide
        Whether sizes have 64 bits; they have 32 in blobs of old builds of mYm.
    limits
        Limits on the cost of reading.
    """

    def __init__(
        self, data: memoryview, *, wide: bool = True, limits: ReadLimits = DEFAULT_LIMITS
    ) -> None:
        self._deepest = limits.depth
        self._equal_hashes = limits.equal_hashes
        self._size = "Q" if wide else "I"
        self._data = data
        self._position = 0
        self._end = len(data)
        self._depth = 0

    def read_all(self) -> Any:
        """Return the one value that the buffer holds.

        Raises
        ------
        BlobError
            If the buffer is not exactly one valid value.
        """
        try:
            value = self.read()
        except _DAMAGE as error:
            raise BlobError(f"Damaged blob near byte {self._position}: {error}.") from error
        self._expect_end()
        return value

    def read(self) -> Any:
        """Return the value at the position, which moves past it."""
        code = bytes(self.take(1))
        reader = _READERS.get(code)
        if reader is None:
            raise BlobError(f"Damaged blob: {code!r} is no type code (byte {self._position}).")
        if self._depth > self._deepest:
            raise BlobError(
                f"The blob is nested deeper than read_limits.depth = {self._deepest} levels."
            )
        self._depth += 1
        value = reader(self)
        self._depth -= 1
        return value

    def read_sized(self) -> Any:
        """Return a value that is preceded by its length and must have just that length."""
        size = self.u64()
        outer_end, self._end = self._end, self._position + self.checked(size)
        value = self.read()
        self._expect_end()
        self._end = outer_end
        return value

    @property
    def size(self) -> int:
        """Bytes of the whole blob."""
        return len(self._data)

    def take(self, count: int) -> memoryview:
        """Return the next bytes."""
        start = self._position
        self._position += self.checked(count)
        return self._data[start : self._position]

    def checked(self, count: int) -> int:
        """Return a number of bytes that must still be there."""
        left = self._end - self._position
        if count > left:
            raise BlobError(
                f"Damaged blob: {count} bytes are expected at byte {self._position}, {left} left."
            )
        return count

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Return little-endian numbers in a layout of the `struct` module."""
        layout = f"<{layout}"
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def u64(self) -> int:
        """Return a size: an unsigned number of 64 bits, or of 32 in old blobs."""
        return self.numbers(self._size)[0]

    def items(self, count: int) -> list[Any]:
        """Return `count` sized values."""
        self.checked(count * SIZED_MINIMUM)
        return [self.read_sized() for _ in range(count)]

    def shape(self) -> tuple[int, ...]:
        """Return the shape of an array, in Fortran order as everything here."""
        ndim = self.u64()
        if ndim > MAX_NDIM:
            raise BlobError(f"Damaged blob: an array of {ndim} dimensions.")
        return tuple(self.numbers(f"{ndim}{self._size}"))

    def told_apart(self, keys: list[Any]) -> list[Any]:
        """Return keys, and refuse too many with one hash: a megabyte of such took 12 s to read."""
        most = self._equal_hashes
        if len(keys) > most:
            value, count = Counter(map(hash, keys)).most_common(1)[0]
            if count > most:
                raise BlobError(
                    f"The blob has {count} keys whose hash is {value}, and read_limits.equal_hashes"
                    f" = {most} are read: it was probably made to keep its reader busy."
                )
        return keys

    def name(self) -> str:
        """Return a field's name, which a zero byte ends."""
        letters = bytearray()
        while (letter := self.take(1)[0]) != 0:
            letters.append(letter)
        return letters.decode()

    def names(self) -> list[str]:
        """Return the names of fields, preceded by their number."""
        (count,) = self.numbers("I")
        self.checked(count)
        return [self.name() for _ in range(count)]

    def _expect_end(self) -> None:
        if self._position != self._end:
            raise BlobError(
                f"Damaged blob: {self._end - self._position} bytes too many at byte "
                f"{self._position}."
            )


def _object_array(items: list[Any], shape: tuple[int, ...]) -> Array:
    # Not np.array(items), which would look into items that are arrays themselves.
    flat = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        flat[index] = item
    return flat.reshape(shape, order="F")


def _array(reader: BlobReader) -> Any:
    shape = reader.shape()
    type_id, is_complex = reader.numbers("II")
    if is_complex not in (0, 1) or (is_complex and not _is_number(type_id)):
        raise BlobError(f"Damaged blob: array type {type_id} with complex flag {is_complex}.")
    count = math.prod(shape)
    if type_id == OBJECT_ID:
        return _object_array(reader.items(count), shape)
    if type_id == CHAR_ID:
        return _text(np.frombuffer(reader.take(count * 2), "<u2"), shape)
    if type_id not in DTYPES:
        raise BlobError(f"Arrays of MATLAB's type {type_id} cannot be read.")
    flat = _complex(reader, type_id, count) if is_complex else _plain(reader, type_id, count)
    # The [()] makes a zero-dimensional array a scalar and leaves others alone.
    return flat.reshape(shape, order="F")[()]


def _is_number(type_id: int) -> bool:
    return type_id in DTYPES and DTYPES[type_id].kind in "iuf"


def _plain(reader: BlobReader, type_id: int, count: int) -> Array:
    dtype = DTYPES[type_id]
    raw = reader.take(count * dtype.itemsize)
    if type_id == BOOL_ID:
        return np.frombuffer(raw, np.uint8) != 0
    array = np.frombuffer(raw, dtype)
    if array.flags.writeable and array.flags.aligned and 2 * array.nbytes > reader.size:
        # Nothing else uses the blob's buffer, and the array is most of it.
        return array
    # A copy is aligned and writable, and does not keep the whole blob alive.
    return array.copy()


def _complex(reader: BlobReader, type_id: int, count: int) -> Array:
    real = _plain(reader, type_id, count)
    flat = np.empty(count, np.result_type(real.dtype, np.complex64))
    flat.real = real
    flat.imag = _plain(reader, type_id, count)
    return flat


def _text(units: Array, shape: tuple[int, ...]) -> Array:
    """Return MATLAB text: one string for a row, else an array of single characters."""
    if len(shape) == 1 or (len(shape) == 2 and shape[0] == 1):
        return np.array([units.tobytes().decode("utf-16-le", "surrogatepass")])
    return units.astype("<u4").view("<U1").reshape(shape, order="F")


def _cell(reader: BlobReader) -> MatCell:
    shape = reader.shape()
    return _object_array(reader.items(math.prod(shape)), shape).view(MatCell)


def _struct(reader: BlobReader) -> MatStruct:
    shape, names = reader.shape(), reader.names()
    count = math.prod(shape)
    items = reader.items(count * len(names))
    dtype = np.dtype((np.record, [(name, object) for name in names]))
    flat = np.empty(count, dtype)
    for index, name in enumerate(names):
        flat[name] = _object_array(items[index :: len(names)], (count,))
    return flat.reshape(shape, order="F").view(MatStruct)


def _field(reader: BlobReader) -> Array:
    value = reader.read()
    if not isinstance(value, np.ndarray | np.generic):
        raise BlobError(f"Damaged blob: a field of records holds a {type(value).__name__}.")
    return np.asarray(value)


def _records(reader: BlobReader) -> Array:
    names = reader.names()
    if not names:
        raise BlobError("Damaged blob: records without fields.")
    fields = [_field(reader) for _ in names]
    shape = min((field.shape for field in fields), key=len)
    ndim = len(shape)
    if any(field.shape[:ndim] != shape for field in fields):
        raise BlobError("Damaged blob: the fields of records have different shapes.")
    columns = [
        (name, field.dtype, field.shape[ndim:]) for name, field in zip(names, fields, strict=True)
    ]
    records = np.empty(shape, np.dtype((np.record, columns)), order="F")
    for name, field in zip(names, fields, strict=True):
        records[name] = field
    return records.view(np.recarray)


def _dict(reader: BlobReader) -> dict[Any, Any]:
    parts = reader.items(reader.u64() * 2)
    return dict(zip(reader.told_apart(parts[::2]), parts[1::2], strict=True))


def _set(reader: BlobReader) -> set[Any]:
    return set(reader.told_apart(reader.items(reader.u64())))


def _int(reader: BlobReader) -> int:
    (count,) = reader.numbers("H")
    return int.from_bytes(reader.take(count), "little", signed=True)


def _moment(reader: BlobReader) -> datetime.date | datetime.time:
    day, clock = reader.numbers("iq")
    date = datetime.date(day // 10000, day // 100 % 100, day % 100) if day != -1 else None
    if clock == -1 and date is not None:
        return date
    seconds, micros = divmod(clock, 1_000_000)
    time = datetime.time(seconds // 10000, seconds // 100 % 100, seconds % 100, micros)
    return datetime.datetime.combine(date, time) if date is not None else time


def _sparse(reader: BlobReader) -> Any:
    raise BlobError("MATLAB's sparse matrices cannot be read: store full(matrix) in MATLAB.")


def _bytes(reader: BlobReader) -> bytes:
    return bytes(reader.take(reader.u64()))


_READERS: dict[bytes, Callable[[BlobReader], Any]] = {
    Code.ARRAY: _array,
    Code.CELL: _cell,
    Code.STRUCT: _struct,
    Code.SPARSE: _sparse,
    Code.RECORDS: _records,
    Code.TUPLE: lambda reader: tuple(reader.items(reader.u64())),
    Code.LIST: lambda reader: reader.items(reader.u64()),
    Code.SET: _set,
    Code.DICT: _dict,
    Code.STR: lambda reader: _bytes(reader).decode(),
    Code.BYTES: _bytes,
    Code.INT: _int,
    Code.BOOL: lambda reader: reader.take(1)[0] != 0,
    Code.COMPLEX: lambda reader: complex(*reader.numbers("dd")),
    Code.FLOAT: lambda reader: reader.numbers("d")[0],
    Code.DECIMAL: lambda reader: Decimal(_bytes(reader).decode()),
    Code.DATETIME: _moment,
    Code.UUID: lambda reader: uuid.UUID(bytes=bytes(reader.take(16))),
    Code.NONE: lambda _: None,
}
