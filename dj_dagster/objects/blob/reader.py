"""Reading values in the blob format, from bytes that are not trusted.

Arrays are returned Fortran-ordered, as they are stored, and unlike in DataJoint writable: each owns
its memory.
"""

from __future__ import annotations

import datetime
import math
import struct
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NoReturn

import numpy as np
from isal import isal_zlib

from dj_dagster.errors import BlobError
from dj_dagster.objects.blob.format import (
    BOOL_ID,
    CHAR_ID,
    DEFAULT_LIMITS,
    DTYPES,
    HEADERS,
    MATLAB_HEADER,
    MAX_NDIM,
    OBJECT_ID,
    PYTHON_HEADER,
    SIZED_MINIMUM,
    ZLIB_HEADER,
    Array,
    Code,
    MatCell,
    MatStruct,
    ReadLimits,
)
from dj_dagster.objects.previews import array_text, byte_text

# A blob of one array of numbers has its data 5 bytes behind a multiple of 8.
_MISALIGNMENT = 3

_PIECE = 2**20

_BEHIND = "A compressed blob has bytes behind its end."

# zlib decompresses one byte to at most 1032; a blob that declares more is damaged.
_MOST_INFLATION = 1032


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
    if inflater.unused_data:
        raise BlobError(_BEHIND)
    filled = len(data) - _MISALIGNMENT
    if filled != size:
        raise BlobError(f"A compressed blob should hold {size} bytes, it holds {filled}.")
    if not inflater.eof:
        raise BlobError("A compressed blob ends before its data do.")
    return memoryview(data)[_MISALIGNMENT:]


def _inflated_pieces(
    inflater: isal_zlib.Decompress, packed: memoryview, most: int
) -> Iterator[bytes]:
    """Yield decompressed bytes in pieces, `most` bytes at most: few bytes can become many."""
    for start in range(0, len(packed), _PIECE):
        if inflater.eof:
            raise BlobError(_BEHIND)
        rest: bytes | memoryview = packed[start : start + _PIECE]
        full = True
        while most and (len(rest) or full):
            room = min(_PIECE, most)
            piece = inflater.decompress(rest, room)
            rest, most, full = inflater.unconsumed_tail, most - len(piece), len(piece) == room
            yield piece


_DAMAGE = (
    ValueError,
    TypeError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)


def _widths(data: memoryview) -> Sequence[bool]:
    """Return whether a blob of MATLAB's may have sizes of 64 bits, as all but very old ones do.

    Old builds of mYm wrote 32 bits, which the blob does not record. Read as 64 bits, its first
    size, the number of dimensions, is then larger than that of any array, unless the next size is
    0: an empty value, which is too short to be read so.
    """
    if bytes(data[:1]) not in (Code.ARRAY, Code.CELL, Code.STRUCT) or len(data) < 9:
        return (True,)
    return (True, False) if struct.unpack("<Q", data[1:9])[0] <= MAX_NDIM else (False,)


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

    def read_all(self) -> object:
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

    def read(self) -> object:
        """Return the value at the position, which moves past it."""
        code = bytes(self.take(1))
        reader = _READERS.get(code)
        if reader is None:
            raise BlobError(f"Damaged blob: {code!r} is not a type code (byte {self._position}).")
        if self._depth > self._deepest:
            raise BlobError(
                f"The blob is nested deeper than read_limits.depth = {self._deepest} levels."
            )
        self._depth += 1
        value = reader(self)
        self._depth -= 1
        return value

    def read_sized(self) -> object:
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

    def items(self, count: int) -> list[object]:
        """Return `count` sized values."""
        self.checked(count * SIZED_MINIMUM)
        return [self.read_sized() for _ in range(count)]

    def shape(self) -> tuple[int, ...]:
        """Return the shape of an array, in Fortran order as everything here."""
        ndim = self.u64()
        if ndim > MAX_NDIM:
            raise BlobError(f"Damaged blob: an array of {ndim} dimensions.")
        return tuple(self.numbers(f"{ndim}{self._size}"))

    def told_apart(self, keys: list[object]) -> list[object]:
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


def _object_array(items: list[object], shape: tuple[int, ...]) -> Array:
    # Not np.array(items), which would look into items that are arrays themselves.
    flat = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        flat[index] = item
    return flat.reshape(shape, order="F")


def _array(reader: BlobReader) -> object:
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


def _dict(reader: BlobReader) -> dict[object, object]:
    parts = reader.items(reader.u64() * 2)
    return dict(zip(reader.told_apart(parts[::2]), parts[1::2], strict=True))


def _set(reader: BlobReader) -> set[object]:
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


def _sparse(reader: BlobReader) -> NoReturn:
    raise BlobError("MATLAB's sparse matrices cannot be read: store full(matrix) in MATLAB.")


def _bytes(reader: BlobReader) -> bytes:
    return bytes(reader.take(reader.u64()))


_READERS: dict[bytes, Callable[[BlobReader], object]] = {
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
    wide, *narrow = _widths(view[4:]) if header == MATLAB_HEADER else (True,)
    try:
        value = BlobReader(view[4:], wide=wide, limits=limits).read_all()
    except BlobError:
        if not narrow:
            raise
        value = _read_narrow(view[4:], limits)
        if value is None:
            raise
    return squeezed(value) if squeeze else value


def _read_narrow(data: memoryview, limits: ReadLimits) -> Array | None:
    """Return an empty value with sizes of 32 bits, None if the blob is not clearly one.

    The beginning of a blob with sizes of 64 bits, of which the rest is lost, may look like an empty
    array of 1 or 3 dimensions, or like cells or structs of 0 × 5.
    """
    try:
        value: Any = BlobReader(data, wide=False, limits=limits).read_all()
    except BlobError:
        return None
    is_clear = value.ndim == 2 and (type(value) is np.ndarray or value.shape == (0, 0))
    return value if is_clear else None


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
    >>> from dj_dagster.objects.blob.writer import pack
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
    >>> from dj_dagster.objects.blob.writer import pack
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


def _array_summary(reader: BlobReader) -> str:
    shape = reader.shape()
    type_id, is_complex = reader.numbers("II")
    if type_id in (OBJECT_ID, CHAR_ID):
        return array_text("object" if type_id == OBJECT_ID else "text", shape)
    dtype = DTYPES[type_id]
    if is_complex:
        dtype = np.result_type(dtype, np.complex64)
    return array_text(dtype, shape, math.prod(shape) * dtype.itemsize)


def _text_summary(reader: BlobReader) -> str:
    return f"text, {byte_text(reader.u64())}"


def _struct_summary(reader: BlobReader) -> str:
    reader.shape()
    return f"struct: {', '.join(reader.names())}"


_SUMMARIES: dict[bytes, Callable[[BlobReader], str]] = {
    Code.ARRAY: _array_summary,
    Code.CELL: lambda reader: array_text("cell", reader.shape()),
    Code.STRUCT: _struct_summary,
    Code.RECORDS: lambda reader: f"records: {', '.join(reader.names())}",
    Code.TUPLE: lambda reader: f"tuple of {reader.u64()}",
    Code.LIST: lambda reader: f"list of {reader.u64()}",
    Code.SET: lambda reader: f"set of {reader.u64()}",
    Code.DICT: lambda reader: f"dict of {reader.u64()}",
    Code.STR: _text_summary,
    Code.BYTES: lambda reader: f"bytes, {byte_text(reader.u64())}",
}


_NAMES = {Code.SPARSE: "sparse matrix", Code.NONE: "None"}
