"""The codec ``<npy@store>``: arrays as ``.npy`` files, loaded when they are used."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from operator import index
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dj_dagster.errors import ChecksumError, InvalidValueError, ObjectError
from dj_dagster.objects.checksums import Written, placed, told
from dj_dagster.objects.codec import ObjectContext
from dj_dagster.objects.flight import in_flight
from dj_dagster.objects.previews import array_text
from dj_dagster.objects.reference import read_reference
from dj_dagster.objects.schema_codec import Key, SchemaCodec, known
from dj_dagster.objects.store import Store, checked_path

Mode = Literal["r", "c"]

_HEADER = 2**16
"""Bytes that hold any header: numpy reads none above 10,000."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpyRef:
    """An array in a store; shape and type are known, the rest is loaded when it is first used.

    numpy takes it for an array: ``np.mean(ref)``, ``ref[3:5]``.
    """

    def __init__(self, fields: Mapping[str, Any], store: Store, place: str = "") -> None:
        self.path = checked_path(fields["path"])
        self._store = store
        self._written = Written.of(fields)
        self._place = place
        self.shape: tuple[int, ...] = tuple(map(_length, fields["shape"]))
        self.dtype = _dtype(fields["dtype"])
        self._loaded: np.ndarray[Any, Any] | None = None

    @property
    def store(self) -> str:
        """The name of the store."""
        return self._store.name

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the loaded array."""
        return self.size * self.dtype.itemsize

    @property
    def is_loaded(self) -> bool:
        """Whether the array is in memory."""
        return self._loaded is not None

    def load(self, mmap_mode: Mode | None = None) -> np.ndarray[Any, Any]:
        """Return the array; it stays in memory unless it is mapped.

        Parameters
        ----------
        mmap_mode
            ``"r"``, or ``"c"`` for a copy in memory on change, maps a local file instead of
            reading it. Arrays of other stores are read whole.

        Raises
        ------
        ObjectError
            If the file is missing or not what was written, which of a mapped one only the size
            tells, or is no array of this shape and type.
        """
        local = self._store.local_path(self.path) if mmap_mode else None
        if self._loaded is None:
            with placed(self._place):
                source = self._mapped(local) if local else self._whole()
                array = self._checked(_read(source, mmap_mode if local else None, self.path))
            if local:
                return array
            self._loaded = array
        return self._loaded

    def _mapped(self, file: Path) -> Path:
        found = Written(self._store.size(self.path))
        self._written.check(found, told(self._store, self.path))
        return file

    def _whole(self) -> memoryview:
        data = self._written.read(self._store, self.path)
        # Before memory is taken for an array that a damaged row or header describes.
        if len(data) < self.nbytes:
            raise ChecksumError(
                f"{self._store.url(self.path)} has {len(data)} bytes; the array of {self.dtype} "
                f"{self.shape} that was written has {self.nbytes}."
            )
        return data

    def _checked(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ChecksumError(
                f"{self._store.url(self.path)} holds an array of {array.dtype} {array.shape}, "
                f"{self.dtype} {self.shape} was written."
            )
        return array

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> np.ndarray[Any, Any]:
        return np.array(self.load(), dtype=dtype, copy=copy)

    def __getitem__(self, item: Any) -> Any:
        return self.load()[item]

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a 0-dimensional array has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.load())

    def __repr__(self) -> str:
        state = "loaded" if self.is_loaded else "not loaded"
        return f"NpyRef(shape={self.shape}, dtype={self.dtype}, {state})"


def load_arrays(refs: Iterable[NpyRef | None]) -> Iterator[np.ndarray[Any, Any] | None]:
    """Load many arrays, several at once, and yield them in their order; None stays None.

    An array stays in memory for as long as its handle is kept.

    Raises
    ------
    ObjectError
        As `NpyRef.load`, where the array would be.

    Examples
    --------
    >>> list(load_arrays([None]))
    [None]

    With a table, which waits for its store far less often than ``trace.load()`` in a loop would::

        for trace in dj.load_arrays(Trace.to_arrays("trace")):
            print(trace.mean())
    """
    return in_flight(lambda ref: None if ref is None else ref.load(), refs)


class NpyCodec(SchemaCodec, register=False):
    """Arrays as ``.npy`` files in a store; fetched as `NpyRef`."""

    name = "npy"
    concurrent = True
    lazy = True
    previews = True

    def validate(self, value: Any) -> None:
        """Accept arrays whose elements are plain bytes."""
        if isinstance(value, NpyRef):
            return
        if not isinstance(value, np.ndarray):
            raise InvalidValueError(f"<npy@> requires numpy.ndarray, not {type(value).__name__}")
        if isinstance(value, np.ma.MaskedArray):
            raise InvalidValueError("the mask would be lost: store value.filled(...)")
        if value.dtype.hasobject:
            raise InvalidValueError("<npy@> takes no arrays of object dtype; use <blob@> for them")

    def encode(
        self,
        value: Any,
        *,
        key: Key = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> dict[str, Any]:
        """Write an array and return its reference."""
        array = np.asarray(value)
        store, path = self.new_object(context, store_name, ".npy")
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=False)
        data = stream.getvalue()
        store.put(path, data)
        shape = list(array.shape)
        described = {"dtype": _spelled(array.dtype), "shape": shape}
        return {
            "path": path,
            "store": store.name,
            **described,
            **Written.from_bytes(data).fields,
        }

    def decode(
        self, stored: Any, *, key: Key = None, context: ObjectContext | None = None
    ) -> NpyRef:
        """Return the handle of an array; nothing is read yet."""
        store, fields = self.stored_object(context, stored)
        try:
            return NpyRef(fields, store, known(context).place)
        except (KeyError, TypeError, ValueError) as error:
            raise ObjectError(f"{dict(read_reference(stored))} describes no array.") from error

    def describe(self, stored: Any, size: int | None = None) -> str | None:
        """Return type, shape and bytes."""
        fields = read_reference(stored)
        dtype, shape = _dtype(fields["dtype"]), tuple(fields["shape"])
        return array_text(dtype, shape, prod(shape) * dtype.itemsize)


def _length(value: Any) -> int:
    """Return a dimension of a shape that a row holds, which may be damaged."""
    if (length := index(value)) < 0:
        raise ValueError(f"{value!r} is no length")
    return length


def _spelled(dtype: np.dtype[Any]) -> Any:
    """Return a type as JSON: its name, as DataJoint writes it, where that says all."""
    if dtype.names is not None:
        return dtype.descr
    try:
        return dtype.name if np.dtype(dtype.name) == dtype else dtype.str
    except TypeError:
        return dtype.str


def _dtype(spelled: Any) -> np.dtype[Any]:
    if isinstance(spelled, str):
        return np.dtype(spelled)
    return np.dtype([(name, kind, *map(tuple, shape)) for name, kind, *shape in spelled])


def _read(source: Path | memoryview, mode: Mode | None, path: str) -> np.ndarray[Any, Any]:
    try:
        if isinstance(source, Path):
            return np.load(source, mmap_mode=mode, allow_pickle=False)
        return _in_place(source)
    except Exception as error:
        # numpy reads the header as Python text: damaged, it fails in any way.
        raise ObjectError(f"{path} is no .npy file: {error}.") from error


def _in_place(data: memoryview) -> np.ndarray[Any, Any]:
    """Return the array whose memory is that of its file's bytes; numpy's own reading copies."""
    stream = io.BytesIO(data[:_HEADER])
    read = _HEADERS.get(np.lib.format.read_magic(stream))
    if read is not None:
        shape, fortran, dtype = read(stream)
        count = prod(shape)
        if count and dtype.itemsize and not dtype.hasobject:
            array = np.frombuffer(data, dtype, count, stream.tell())
            return array.reshape(shape, order="F" if fortran else "C")
    return np.load(io.BytesIO(data), allow_pickle=False)
