"""The codec ``<zarr@store>``: labelled and chunked arrays, read chunk by chunk when they are used.

It needs the packages zarr (its version 3) and xarray: ``pip install 'dj-dagster[zarr]'``.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from dj_dagster.errors import (
    ConfigurationError,
    InvalidValueError,
    MissingExternalFile,
    ObjectError,
)
from dj_dagster.objects.codec import ObjectContext
from dj_dagster.objects.manifest import get_manifest
from dj_dagster.objects.object_codec import ObjectCodec, published
from dj_dagster.objects.object_ref import StagedObject
from dj_dagster.objects.schema_codec import Key, known
from dj_dagster.objects.store import Store, checked_path

_EXT = ".zarr"


class ZarrCodec(ObjectCodec, register=False):
    """Arrays as Zarr folders in a store; what is fetched reads its chunks when they are used.

    An xarray ``Dataset`` or ``DataArray`` comes out as such, of numpy and dask arrays comes a
    ``zarr.Array``, as from a folder that was staged, where a group comes as ``zarr.Group``. A dask
    array is computed and written chunk by chunk; where its chunks are of several sizes, they are
    made as large as the largest.
    """

    name = "zarr"
    lazy = False

    def validate(self, value: Any) -> None:
        """Accept arrays with named dimensions or without."""
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
        value: Any,
        *,
        key: Key = None,
        store_name: str | None = None,
        context: ObjectContext | None = None,
    ) -> dict[str, Any]:
        """Write an array and return its reference."""
        if isinstance(value, StagedObject):
            return value.to_json()
        store, path = self.new_object(context, store_name, _EXT)
        kind = _kind(value)
        if kind == "array":
            _write_array(_zarr_store(store, path), value)
        else:
            _write_labelled(_zarr_store(store, path), value)
        return {**published(store, path, _EXT).to_json(), "kind": kind}

    def decode(self, stored: Any, *, key: Key = None, context: ObjectContext | None = None) -> Any:
        """Open an array; its chunks are read when they are used.

        Raises
        ------
        ObjectError
            If there is no array any more, or it cannot be read.
        """
        store, fields = self.stored_object(context, stored)
        path, place = checked_path(fields["path"]), known(context).place
        source = _zarr_store(store, path, read_only=True)
        try:
            manifest = get_manifest(store, path, fields.get("crc32"))
        except MissingExternalFile:
            # DataJoint writes none of folders that were staged.
            if fields.get("crc32"):
                raise
        else:
            verified = _needed("dj_dagster.objects.verified_zarr")
            url = store.url(path)
            source = verified.VerifiedStore(source, manifest, store.name, url, place)
        try:
            return _opened(source, fields.get("kind"))
        except FileNotFoundError as error:
            raise store.missing(path) from error
        except (ValueError, TypeError, KeyError) as error:
            raise ObjectError(f"{store.url(path)} cannot be read as Zarr: {error}.") from error


def _kind(value: Any) -> str:
    """Return how an array is written, "" for what is none."""
    package, name = _package(value), type(value).__name__
    if package == "xarray" and name in ("Dataset", "DataArray"):
        return name.lower()
    if isinstance(value, np.ndarray):
        return "array"
    return "array" if name in ("Array", "AsyncArray") and package in ("dask", "zarr") else ""


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _check_array(value: Any) -> None:
    """Refuse arrays that would come out as something else, or not at all."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("the mask would be lost: store value.filled(...)")
    if _package(value) != "zarr" and value.dtype.hasobject:
        raise TypeError("<zarr@> holds no Python objects; use <blob@> for object arrays")
    # An unknown size is not a number.
    if any(size != size for size in value.shape):
        raise ValueError("a dask array has chunks of unknown size: call its compute_chunk_sizes()")


def _names(value: Any) -> list[Any]:
    names = list(value.coords)
    return [*names, *value.data_vars] if hasattr(value, "data_vars") else [*names, value.name]


def _write_array(target: Any, value: Any) -> None:
    zarr = _needed("zarr")
    if type(value).__name__ == "AsyncArray":
        value = zarr.Array(value)
    if isinstance(value, zarr.Array):
        zarr.from_array(
            target, data=value, fill_value=value.fill_value, attributes=dict(value.attrs)
        )
    elif isinstance(value, np.ndarray):
        zarr.create_array(target, data=np.asarray(value))
    else:
        # Two of its chunks must never share one in the store, which both would write at once.
        value = value.rechunk(value.chunksize)
        shape, chunks = value.shape, value.chunksize
        array = zarr.create_array(target, shape=shape, dtype=value.dtype, chunks=chunks)
        value.store(array, lock=False)


def _write_labelled(target: Any, value: Any) -> None:
    """Write an xarray object with its dimensions, coordinates and attributes."""
    try:
        evenly = _evenly_chunked(value)
        evenly.to_zarr(target, mode="w", consolidated=False, zarr_format=3)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InvalidValueError(f"the value cannot be written as Zarr: {error}") from error


def _evenly_chunked(value: Any) -> Any:
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
            # How the array that this one comes from was stored; it need not fit any more.
            variable.encoding = {
                name: setting
                for name, setting in variable.encoding.items()
                if name not in ("chunks", "preferred_chunks", "shards")
            }
    return value


def _variables(value: Any) -> list[Any]:
    return list(value.variables.values()) if hasattr(value, "variables") else [value.variable]


def _opened(source: Any, kind: str | None) -> Any:
    if kind == "dataset":
        return _needed("xarray").open_zarr(source, chunks=None, consolidated=False)
    if kind == "dataarray":
        # What DataArray.to_zarr has written has a name of its own for arrays without one.
        return _needed("xarray").open_dataarray(
            source, engine="zarr", chunks=None, consolidated=False
        )
    return _needed("zarr").open(source, mode="r")


def _zarr_store(store: Store, path: str, *, read_only: bool = False) -> Any:
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
