"""The codec ``<zarr@store>``: labelled and chunked arrays, read chunk by chunk when they are used.

It needs the packages zarr (its version 3) and xarray: ``pip install 'dj-dagster[zarr]'``.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from dj_dagster.errors import ConfigurationError, ObjectError
from dj_dagster.objects.codec import ObjectContext
from dj_dagster.objects.object_codec import ObjectCodec, published
from dj_dagster.objects.object_ref import StagedObject
from dj_dagster.objects.schema_codec import Key
from dj_dagster.objects.store import Store, checked_path

_EXT = ".zarr"


class ZarrCodec(ObjectCodec, register=False):
    """Arrays as Zarr folders in a store; what is fetched reads its chunks when they are used.

    An xarray ``Dataset`` or ``DataArray`` comes out as such, of numpy and dask arrays comes a
    ``zarr.Array``, as from a folder that was staged, where a group comes as ``zarr.Group``. A dask
    array is computed and written chunk by chunk.
    """

    name = "zarr"
    lazy = False

    def validate(self, value: Any) -> None:
        """Accept arrays with named dimensions or without."""
        if isinstance(value, StagedObject) or _kind(value):
            return
        raise TypeError(
            f"<zarr@> holds an xarray Dataset or DataArray, or a dask, zarr or numpy array, not "
            f"{type(value).__name__}"
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
            # Dimensions and coordinates of both kinds; which of them it was, the reference says.
            value.to_zarr(_zarr_store(store, path), mode="w", consolidated=False, zarr_format=3)
        return {**published(store, path, _EXT).to_json(), "kind": kind}

    def decode(self, stored: Any, *, key: Key = None, context: ObjectContext | None = None) -> Any:
        """Open an array; its chunks are read when they are used.

        Raises
        ------
        ObjectError
            If there is no array any more, or it cannot be read.
        """
        store, fields = self.stored_object(context, stored)
        path = checked_path(fields["path"])
        try:
            return _opened(_zarr_store(store, path, read_only=True), fields.get("kind"))
        except FileNotFoundError as error:
            raise store.missing(path) from error
        except (ValueError, TypeError, KeyError) as error:
            raise ObjectError(f"{store.url(path)} cannot be read as Zarr: {error}.") from error


def _kind(value: Any) -> str:
    """Return how an array is written, "" for what is none."""
    package = type(value).__module__.partition(".")[0]
    name = type(value).__name__
    if package == "xarray" and name in ("Dataset", "DataArray"):
        return name.lower()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return "array"
    return "array" if name in ("Array", "AsyncArray") and package in ("dask", "zarr") else ""


def _write_array(target: Any, value: Any) -> None:
    zarr = _needed("zarr")
    if isinstance(value, np.ndarray):
        zarr.create_array(target, data=value)
        return
    chunks = getattr(value, "chunksize", None) or value.chunks
    array = zarr.create_array(target, shape=value.shape, dtype=value.dtype, chunks=chunks)
    if hasattr(value, "dask"):
        value.store(array, lock=False)
    else:
        array[...] = value[...]


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
