"""Zarr folders by version 2 of the package zarr, which writes and reads only its format 2."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn

import zarr

from dj_dagster.errors import ChecksumError, MissingExternalFile, ObjectError
from dj_dagster.model.heading import Value
from dj_dagster.objects.checksums import Manifest, placed
from dj_dagster.objects.stores.store import Store


def folder(store: Store, path: str) -> MutableMapping[str, bytes]:
    """Return a folder of a store as the mapping from names to bytes that zarr 2 works on."""
    return store.filesystem.get_mapper(store.full_path(path))


def write_array(target: MutableMapping[str, bytes], value: Value) -> None:
    """Write a zarr, numpy or dask array.

    Parameters
    ----------
    value
        The array; a dask array must have chunks of one size.
    """
    # Its stubs are those of version 3.
    package: Any = zarr
    if isinstance(value, package.Array):
        _copy(package, target, value)
    elif type(value).__module__.startswith("dask."):
        array = package.create(
            shape=value.shape,
            chunks=value.chunksize,
            dtype=value.dtype,
            store=target,
            overwrite=True,
        )
        value.store(array, lock=False)
    else:
        package.array(value, store=target, overwrite=True)


def _copy(package: Any, target: MutableMapping[str, bytes], source: Value) -> None:
    array = package.create(
        shape=source.shape,
        chunks=source.chunks,
        dtype=source.dtype,
        compressor=source.compressor,
        filters=source.filters,
        fill_value=source.fill_value,
        order=source.order,
        store=target,
        overwrite=True,
    )
    array.attrs.update(source.attrs.asdict())
    if not source.shape:
        array[...] = source[...]
        return
    # Some rows of chunks at a time: the whole may not fit into memory.
    for first in range(0, source.shape[0], source.chunks[0]):
        rows = slice(first, first + source.chunks[0])
        array[rows] = source[rows]


class VerifiedFolder(MutableMapping[str, bytes]):
    """Reads a folder; each file is compared with the folder's manifest.

    Zarr takes a missing chunk for an empty one; the manifest tells the two apart.

    Parameters
    ----------
    store_name, url
        The place of the folder, for errors.
    place
        The row that it belongs to, for errors.
    """

    def __init__(
        self,
        files: MutableMapping[str, bytes],
        manifest: Manifest | None,
        store_name: str,
        url: str,
        place: str,
    ) -> None:
        self._files, self._written = files, manifest.files if manifest else {}
        self._is_listed = manifest is not None
        self._name, self._url, self._place = store_name, url, place
        self._refuse_format_3()

    def _refuse_format_3(self) -> None:
        """Raise an error for a folder in format 3, in which zarr 2 would find nothing."""
        if "zarr.json" in self:
            raise ObjectError(
                f"{self._url} was written in Zarr's format 3, which needs zarr 3: "
                "pip install 'zarr>=3'."
            )

    def __getitem__(self, key: str) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        KeyError
            If the folder lacks the file, and did so when it was written.
        MissingExternalFile, ChecksumError
            If the file was written and is missing or has changed, or is there and was not written:
            a chunk would replace an empty one.
        """
        written = self._written.get(key)
        if written is None and not (self._is_listed and key in self._files):
            return self._files[key]
        with placed(self._place):
            if written is None:
                raise ChecksumError(
                    f"{self._url}/{key} in store '{self._name}' was not written with its folder."
                )
            try:
                data = self._files[key]
            except KeyError:
                raise MissingExternalFile(
                    f"Store '{self._name}' has no object {self._url}/{key}."
                ) from None
            written.check_bytes(data, f"{self._url}/{key} in store '{self._name}'")
        return data

    def __contains__(self, key: object) -> bool:
        return key in self._written or key in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __setitem__(self, key: str, value: bytes) -> NoReturn:
        raise ObjectError(f"Objects are never changed: {self._url} is open for reading alone.")

    def __delitem__(self, key: str) -> NoReturn:
        raise ObjectError(f"Objects are never changed: {self._url} is open for reading alone.")
