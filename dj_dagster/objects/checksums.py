"""Sizes and checksums of objects: written into references, compared wherever one is read in full.

The checksum is CRC-32, as in ZIP and PNG: it tells any flipped bit and all but one in four thousand
million of other damages, in a fortieth of the time that reading takes from a local disk. It is
not meant to withstand people who forge objects.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from isal import isal_zlib

from dj_dagster.errors import ChecksumError, ObjectError
from dj_dagster.objects.store import Store

_PIECE = 2**22
_AT_ONCE = 2**24
"""Bytes of an object of a server that is read in one request."""


@dataclass(frozen=True, slots=True)
class Written:
    """What is known of an object's bytes as they were written, None for what is not.

    DataJoint writes sizes only, of arrays not even these.
    """

    size: int | None = None
    crc32: str | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Written:
        """Return what the fields of a reference, or of a list of files, say."""
        return cls(fields.get("size"), fields.get("crc32"))

    @classmethod
    def from_bytes(cls, data: Any) -> Written:
        """Return what is written of bytes.

        Examples
        --------
        >>> Written.from_bytes(b"frames")
        Written(size=6, crc32='fe6e893a')
        """
        return cls(len(data), f"{isal_zlib.crc32(data):08x}")

    @classmethod
    def from_stream(cls, stream: IO[bytes]) -> Written:
        """Return what is written of a file's bytes, which are read piece by piece."""
        size = crc = 0
        while piece := stream.read(_PIECE):
            size, crc = size + len(piece), isal_zlib.crc32(piece, crc)
        return cls(size, f"{crc:08x}")

    @classmethod
    def from_file(cls, file: Path) -> Written:
        """Return what is written of a local file."""
        with file.open("rb") as stream:
            return cls.from_stream(stream)

    @classmethod
    def from_store(cls, store: Store, path: str) -> Written:
        """Read an object in full; raises as `Store.get` does."""
        if store.size(path) <= _AT_ONCE:
            return cls.from_bytes(store.get(path))
        with store.filesystem.open(store.full_path(path), "rb") as stream:
            return cls.from_stream(stream)

    @property
    def fields(self) -> dict[str, Any]:
        """What a reference, or a list of files, holds of it."""
        return {"size": self.size} | ({"crc32": self.crc32} if self.crc32 else {})

    def check(self, found: Written, url: str) -> None:
        """Compare with what was found, as far as both are known.

        Raises
        ------
        ChecksumError
            If it is something else.
        """
        if self.size is not None and found.size != self.size:
            raise ChecksumError(f"{url} has {found.size} bytes, {self.size} were written.")
        if self.crc32 and found.crc32 and found.crc32 != self.crc32:
            raise ChecksumError(
                f"{url} has changed since it was written: its CRC-32 is {found.crc32}, not "
                f"{self.crc32}."
            )

    def check_bytes(self, data: Any, url: str) -> None:
        """Compare with bytes; raises as `check` does."""
        self.check(Written.from_bytes(data) if self.crc32 else Written(len(data)), url)

    def read(self, store: Store, path: str) -> memoryview:
        """Return an object's bytes, compared while each piece is still in the processor's cache.

        Raises
        ------
        MissingExternalFile, ChecksumError
            If it is not there, or something else.
        """
        crc = 0

        def take(piece: memoryview) -> None:
            nonlocal crc
            crc = isal_zlib.crc32(piece, crc)

        data = store.get_buffer(path, take) if self.crc32 else store.get_buffer(path)
        self.check(Written(len(data), f"{crc:08x}" if self.crc32 else None), told(store, path))
        return data


def told(store: Store, path: str) -> str:
    """Return how errors name an object."""
    return f"{store.url(path)} in store '{store.name}'"


@contextmanager
def placed(place: str) -> Generator[None]:
    """Say in errors to which row an object belongs."""
    try:
        yield
    except ObjectError as error:
        if not place or str(error).startswith(place):
            raise
        raise type(error)(f"{place}: {error}") from error
