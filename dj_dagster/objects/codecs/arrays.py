"""The codecs of arrays in stores: ``<npy@store>`` and ``<zarr@store>``.

``<zarr@>`` needs the packages zarr and xarray: ``pip install 'dj-dagster[zarr]'``. Version 3 of
zarr writes its format 3 and reads both; version 2.18, beside packages that need it, writes and
reads format 2.
"""

from __future__ import annotations

import io
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from math import prod
from operator import index
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from dj_dagster.errors import (
    ChecksumError,
    ConfigurationError,
    InvalidValueError,
    MissingExternalFile,
    ObjectError,
)
from dj_dagster.model.heading import Value
from dj_dagster.objects.blob.format import Array, DType
from dj_dagster.objects.checksums import Manifest, Written, get_manifest, placed, told
from dj_dagster.objects.codecs.codec import (
    GivenKey,
    ObjectContext,
    Reference,
    SchemaCodec,
    known,
    read_reference,
)
from dj_dagster.objects.codecs.files import ObjectCodec, published
from dj_dagster.objects.codecs.object_ref import StagedObject
from dj_dagster.objects.previews import array_text
from dj_dagster.objects.stores.store import Store, checked_path, in_flight

if TYPE_CHECKING:
    import xarray as xr

Mode = Literal["r", "c"]

_HEADER = 2**16
"""Bytes that hold any header: numpy does not read headers of more than 10,000."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpyRef:
    """An array in a store; shape and type are known, the rest is loaded when it is first used.

    numpy takes it for an array: ``np.mean(ref)``, ``ref[3:5]``.
    """

    def __init__(self, fields: Mapping[str, Value], store: Store, place: str = "") -> None:
        self.path = checked_path(fields["path"])
        self._store = store
        self._written = Written.of(fields)
        self._place = place
        self.shape: tuple[int, ...] = tuple(map(_length, fields["shape"]))
        self.dtype = _dtype(fields["dtype"])
        self._loaded: Array | None = None

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

    def load(self, mmap_mode: Mode | None = None) -> Array:
        """Return the array; it stays in memory unless it is mapped.

        Parameters
        ----------
        mmap_mode
            ``"r"``, or ``"c"`` for a copy in memory on change, maps a local file instead of
            reading it. Arrays of other stores are read whole.

        Raises
        ------
        ObjectError
            If the file is missing or not as it was written (of a mapped file only the size is
            compared), or is not an array of this shape and type.
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

    def _checked(self, array: Array) -> Array:
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ChecksumError(
                f"{self._store.url(self.path)} holds an array of {array.dtype} {array.shape}, "
                f"{self.dtype} {self.shape} was written."
            )
        return array

    def __array__(self, dtype: DType | None = None, copy: bool | None = None) -> Array:
        # numpy 1 does not know of a copy that is made if need be.
        if copy is None:
            return np.asarray(self.load(), dtype=dtype)
        return np.array(self.load(), dtype=dtype, copy=copy)

    def __getitem__(self, item: Any) -> Value:
        return self.load()[item]

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a 0-dimensional array has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Value]:
        return iter(self.load())

    def __repr__(self) -> str:
        state = "loaded" if self.is_loaded else "not loaded"
        return f"NpyRef(shape={self.shape}, dtype={self.dtype}, {state})"


def load_arrays(refs: Iterable[NpyRef | None]) -> Iterator[Array | None]:
    """Load many arrays, several at once, and yield them in order; None is yielded for None.

    An array stays in memory for as long as its handle is kept.

    Raises
    ------
    ObjectError
        As `NpyRef.load` does, when the array would be yielded.

    Examples
    --------
    >>> list(load_arrays([None]))
    [None]

    With a table, which waits for its store far less often than ``trace.load()`` in a loop would::

        for trace in dj.load_arrays(Trace.to_arrays("trace")):
            print(trace.mean())
    """
    return in_flight(_loaded, refs)


def _loaded(ref: Any) -> Array | None:
    if ref is not None and not hasattr(ref, "load"):
        raise InvalidValueError(
            f"{ref!r:.80} is not an array in a store: write load_arrays(Trace.to_arrays('trace'))."
        )
    return None if ref is None else ref.load()


class NpyCodec(SchemaCodec, register=False):
    """Arrays as ``.npy`` files in a store; fetched as `NpyRef`."""

    name = "npy"
    concurrent = True
    lazy = True
    previews = True

    def validate(self, value: Value) -> None:
        """Accept arrays whose elements are plain bytes."""
        if isinstance(value, NpyRef):
            return
        if not isinstance(value, np.ndarray):
            raise InvalidValueError(f"<npy@> requires numpy.ndarray, not {type(value).__name__}")
        if isinstance(value, np.ma.MaskedArray):
            raise InvalidValueError("the mask would be lost: store value.filled(...)")
        _check_texts(value.dtype)
        if value.dtype.hasobject:
            raise InvalidValueError("<npy@> takes no arrays of object dtype; use <blob@> for them")
        if not _is_kept(value.dtype):
            raise InvalidValueError(
                f"<npy@> cannot hold the dtype {value.dtype}, whose fields overlap or are not in "
                "order: store numpy.lib.recfunctions.repack_fields(value)"
            )

    def encode(
        self,
        value: Value,
        *,
        key: GivenKey = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> Reference:
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
        self, stored: Value, *, key: GivenKey = None, context: ObjectContext | None = None
    ) -> NpyRef:
        """Return the handle of an array; nothing is read yet."""
        store, fields = self.stored_object(context, stored)
        try:
            return NpyRef(fields, store, known(context).place)
        except (KeyError, TypeError, ValueError) as error:
            raise ObjectError(f"{dict(read_reference(stored))} describes no array.") from error

    def describe(self, stored: Value, size: int | None = None) -> str | None:
        """Return type, shape and bytes."""
        fields = read_reference(stored)
        dtype, shape = _dtype(fields["dtype"]), tuple(fields["shape"])
        return array_text(dtype, shape, prod(shape) * dtype.itemsize)


def _check_texts(dtype: DType) -> None:
    """Refuse numpy's texts of variable width, which are no Python objects but count as such."""
    if dtype.kind == "T":
        raise InvalidValueError(
            "texts of numpy's StringDType are not written: store value.astype(object).astype(str), "
            "or use <blob@>"
        )


def _length(value: Value) -> int:
    """Return a dimension of a shape that a row holds, which may be damaged."""
    if (length := index(value)) < 0:
        raise ValueError(f"{value!r} is not a length")
    return length


def _spelled(dtype: DType) -> str | Sequence[object]:
    """Return a type as JSON: its name, as DataJoint writes it, where the name is enough."""
    if dtype.names is not None:
        return dtype.descr
    try:
        return dtype.name if np.dtype(dtype.name) == dtype else dtype.str
    except TypeError:
        return dtype.str


def _dtype(spelled: Value) -> DType:
    return np.lib.format.descr_to_dtype(_described(spelled))


def _described(spelled: Value) -> Any:
    """Return a type's description as numpy writes it into files, where JSON has lists only.

    A field is its name, or title and name, its type, which may have fields, and perhaps its shape.
    """
    if isinstance(spelled, str):
        return spelled
    return [
        (tuple(name) if isinstance(name, list) else name, _described(kind), *map(tuple, shape))
        for name, kind, *shape in spelled
    ]


def _is_kept(dtype: DType) -> bool:
    """Whether a type with fields can be read back from its description, in row and file."""
    if dtype.names is None:
        return True
    try:
        return _dtype(json.loads(json.dumps(_spelled(dtype)))) == dtype
    except (ValueError, TypeError):
        return False


def _read(source: Path | memoryview, mode: Mode | None, path: str) -> Array:
    try:
        # numpy reads the header as Python text, and Python 3.11 may confuse the depths of texts
        # that threads parse at once.
        for _ in range(9):
            with suppress(SystemError):
                return _parsed(source, mode)
        return _parsed(source, mode)
    except Exception as error:
        # A damaged header fails in any way.
        raise ObjectError(f"{path} is not a .npy file: {error}.") from error


def _parsed(source: Path | memoryview, mode: Mode | None) -> Array:
    if isinstance(source, Path):
        return np.load(source, mmap_mode=mode, allow_pickle=False)
    return _in_place(source)


def _in_place(data: memoryview) -> Array:
    """Return an array that uses the memory of its file's bytes; numpy's own reading copies them."""
    stream = io.BytesIO(data[:_HEADER])
    read = _HEADERS.get(np.lib.format.read_magic(stream))
    if read is not None:
        shape, fortran, dtype = read(stream)
        count = prod(shape)
        if count and dtype.itemsize and not dtype.hasobject:
            array = np.frombuffer(data, dtype, count, stream.tell())
            return array.reshape(shape, order="F" if fortran else "C")
    return np.load(io.BytesIO(data), allow_pickle=False)


_EXT = ".zarr"


class ZarrCodec(ObjectCodec, register=False):
    """Arrays as Zarr folders in a store; fetched arrays read their chunks when they are used.

    An xarray ``Dataset`` or ``DataArray`` is fetched as such; numpy and dask arrays are fetched as
    ``zarr.Array``. A folder that was staged is fetched as ``zarr.Array`` or ``zarr.Group``. A dask
    array is computed and written chunk by chunk; if its chunks differ in size, they are made as
    large as the largest.
    """

    name = "zarr"
    lazy = False

    def validate(self, value: Value) -> None:
        """Accept arrays with or without named dimensions."""
        if isinstance(value, StagedObject):
            return
        kind = _kind(value)
        if not kind:
            raise TypeError(
                f"<zarr@> holds an xarray Dataset or DataArray, or a dask, zarr or numpy array, "
                f"not {type(value).__name__}"
            )
        if kind == "array":
            _check_array(value)
        elif unwritable := [name for name in _names(value) if "/" in str(name)]:
            raise ValueError(
                f"the variable {unwritable[0]!r} would be lost in a group of its own: rename it, "
                "without '/'"
            )

    def encode(
        self,
        value: Value,
        *,
        key: GivenKey = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> Reference:
        """Write an array and return its reference."""
        if isinstance(value, StagedObject):
            return value.to_json()
        store, path = self.new_object(context, store_name, _EXT)
        kind = _kind(value)
        try:
            _written(_zarr_store(store, path), value, kind)
        except BaseException:
            with suppress(ObjectError):
                store.delete_many(list(store.list(path)))
                store.tidy(path)
            raise
        return {**published(store, path, _EXT).to_json(), "kind": kind}

    def decode(
        self, stored: Value, *, key: GivenKey = None, context: ObjectContext | None = None
    ) -> Value:
        """Open an array; its chunks are read when they are used.

        Raises
        ------
        ObjectError
            If the array is missing or cannot be read.
        """
        store, fields = self.stored_object(context, stored)
        path, place = checked_path(fields["path"]), known(context).place
        try:
            manifest = get_manifest(store, path, fields.get("crc32"))
        except MissingExternalFile:
            # DataJoint does not write one for folders that were staged.
            if fields.get("crc32"):
                raise
            manifest = None
        try:
            source = _verified(store, path, manifest, place)
            return _opened(source, fields.get("kind"))
        except FileNotFoundError as error:
            raise store.missing(path) from error
        except (ValueError, TypeError, KeyError) as error:
            raise ObjectError(f"{store.url(path)} cannot be read as Zarr: {error}.") from error


def _kind(value: Value) -> str:
    """Return the way to write an array, "" for other values."""
    package, name = _package(value), type(value).__name__
    if package == "xarray" and name in ("Dataset", "DataArray"):
        return name.lower()
    if isinstance(value, np.ndarray):
        return "array"
    return "array" if name in ("Array", "AsyncArray") and package in ("dask", "zarr") else ""


def _package(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _check_array(value: Value) -> None:
    """Refuse arrays that could not be written, or would be read back as something else."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("the mask would be lost: store value.filled(...)")
    if _package(value) != "zarr":
        _check_texts(value.dtype)
        if value.dtype.hasobject:
            raise TypeError("<zarr@> holds no Python objects; use <blob@> for object arrays")
    if value.dtype == np.dtype("M8"):
        # Zarr writes it, and cannot read it.
        raise TypeError("its times have no unit: store value.astype('M8[s]')")
    # An unknown size is not a number.
    if any(size != size for size in value.shape):
        raise ValueError("a dask array has chunks of unknown size: call its compute_chunk_sizes()")


def _names(value: xr.Dataset | xr.DataArray) -> list[Hashable]:
    names = list(value.coords)
    return [*names, *value.data_vars] if hasattr(value, "data_vars") else [*names, value.name]


def _written(target: object, value: Value, kind: str) -> None:
    try:
        write = _write_array if kind == "array" else _write_labelled
        write(target, value)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InvalidValueError(f"the value cannot be written as Zarr: {error}") from error


def _write_array(target: object, value: Value) -> None:
    zarr = _needed("zarr")
    if _package(value) == "dask":
        # Two of its chunks must never share a chunk in the store: both would write it at once.
        value = value.rechunk(value.chunksize)
    if _is_zarr_2():
        _zarr_2().write_array(target, value)
        return
    if type(value).__name__ == "AsyncArray":
        value = zarr.Array(value)
    if isinstance(value, zarr.Array):
        zarr.from_array(
            target, data=value, fill_value=value.fill_value, attributes=dict(value.attrs)
        )
    elif isinstance(value, np.ndarray):
        zarr.create_array(target, data=np.asarray(value))
    else:
        shape, chunks = value.shape, value.chunksize
        array = zarr.create_array(target, shape=shape, dtype=value.dtype, chunks=chunks)
        value.store(array, lock=False)


def _write_labelled(target: object, value: xr.Dataset | xr.DataArray) -> None:
    """Write an xarray object with its dimensions, coordinates and attributes."""
    evenly = _evenly_chunked(value)
    version = 2 if _is_zarr_2() else 3
    evenly.to_zarr(target, mode="w", consolidated=False, zarr_format=version)


def _evenly_chunked(value: xr.Dataset | xr.DataArray) -> xr.Dataset | xr.DataArray:
    """Give the dask arrays of an xarray object chunks of one size, as Zarr has them."""
    if not any(variable.chunks for variable in _variables(value)):
        return value
    value = value.unify_chunks()
    uneven = {
        name: max(sizes)
        for name, sizes in value.chunksizes.items()
        if len({*sizes[:-1]}) > 1 or sizes[-1] > sizes[0]
    }
    value = (value.chunk(uneven) if uneven else value).copy(deep=False)
    for variable in _variables(value):
        if variable.chunks:
            # The storage options of the array that this one was made from need not fit this one.
            variable.encoding = {
                name: setting
                for name, setting in variable.encoding.items()
                if name not in ("chunks", "preferred_chunks", "shards")
            }
    return value


def _variables(value: xr.Dataset | xr.DataArray) -> list[xr.Variable]:
    return list(value.variables.values()) if hasattr(value, "variables") else [value.variable]


def _opened(source: object, kind: str | None) -> Value:
    if kind == "dataset":
        return _needed("xarray").open_zarr(source, chunks=None, consolidated=False)
    if kind == "dataarray":
        # What DataArray.to_zarr has written has a name of its own for arrays without one.
        return _needed("xarray").open_dataarray(
            source, engine="zarr", chunks=None, consolidated=False
        )
    return _needed("zarr").open(source, mode="r")


def _verified(store: Store, path: str, manifest: Manifest | None, place: str) -> object:
    """Return a folder for reading whose files are compared with its manifest, if it has one."""
    source = _zarr_store(store, path, read_only=True)
    if _is_zarr_2():
        return _zarr_2().VerifiedFolder(source, manifest, store.name, store.url(path), place)
    if manifest is None:
        return source
    verified = _needed("dj_dagster.objects.codecs.verified_zarr")
    return verified.VerifiedStore(source, manifest, store.name, store.url(path), place)


def _is_zarr_2() -> bool:
    return _needed("zarr").__version__.startswith("2.")


def _zarr_2() -> ModuleType:
    return _needed("dj_dagster.objects.codecs.zarr_2")


def _zarr_store(store: Store, path: str, *, read_only: bool = False) -> object:
    if _is_zarr_2():
        return _zarr_2().folder(store, path)
    storage = _needed("zarr").storage
    local = store.local_path(path)
    if local is not None:
        return storage.LocalStore(local, read_only=read_only)
    # zarr runs a loop of its own, and a client of another loop cannot be used in it as it is.
    files = AsyncFileSystemWrapper(store.filesystem, asynchronous=True)
    return storage.FsspecStore(files, read_only=read_only, path=store.full_path(path))


def _needed(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigurationError(
            f"<zarr@> needs the package {error.name}: pip install 'dj-dagster[zarr]'"
        ) from error
