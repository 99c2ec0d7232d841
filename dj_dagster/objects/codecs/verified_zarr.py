"""Zarr folders whose files are compared with their manifest.

Zarr takes a missing chunk for an empty one; the manifest tells the two apart.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from dj_dagster.errors import ChecksumError, MissingExternalFile
from dj_dagster.objects.checksums import Manifest, placed


class VerifiedStore(WrapperStore[Store]):
    """Reads a folder; each file that is read whole is verified.

    Parameters
    ----------
    store_name, url
        The place of the folder, for errors.
    place
        The row that it belongs to, for errors.
    """

    def __init__(
        self, store: Store, manifest: Manifest, store_name: str, url: str, place: str
    ) -> None:
        super().__init__(store)
        self._manifest, self._place = manifest, place
        self._name, self._url = store_name, url

    def _with_store(self, store: Store) -> VerifiedStore:
        return type(self)(store, self._manifest, self._name, self._url, self._place)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a file's bytes.

        Raises
        ------
        MissingExternalFile, ChecksumError
            If the file was written and is missing or has changed, or is there and was not written:
            a chunk would replace an empty one.
        """
        found = await self._store.get(key, prototype, byte_range)
        written = self._manifest.files.get(key)
        if written is None and found is None:
            return None
        told = f"{self._url}/{key} in store '{self._name}'"
        with placed(self._place):
            if written is None:
                raise ChecksumError(f"{told} was not written with its folder.")
            if found is None:
                raise MissingExternalFile(f"Store '{self._name}' has no object {self._url}/{key}.")
            if byte_range is None:
                written.check_bytes(found.to_bytes(), told)
        return found

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return parts of files."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for key, prototype, part in requests:
            yield key, await self.get(key, prototype, part)
