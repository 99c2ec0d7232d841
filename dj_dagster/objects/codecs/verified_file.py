"""Files of stores that are compared with their checksum as they are read to their end."""

from __future__ import annotations

import io
import os
from typing import IO, Any

from isal import isal_zlib

from dj_dagster.objects.checksums import Written, placed


class VerifiedFile(io.BufferedIOBase):
    """A file open for reading, which is summed up as it is read from its beginning.

    The read that reaches its end raises `ChecksumError` if the file has changed. Parts that are
    read after a jump are not compared.

    Parameters
    ----------
    source
        The open file, at its beginning. Attributes that files do not have in general are its.
    written
        The size and checksum that the file had.
    url
        The name of the file, for errors.
    place
        The row that it belongs to, for errors.
    """

    def __init__(self, source: IO[bytes], written: Written, url: str, place: str) -> None:
        self._source, self._written = source, written
        self._url, self._place = url, place
        self._position = self._summed = self._crc = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes, all that are left by default."""
        return self._verified(self._source.read(-1 if size is None else size))

    def read1(self, size: int = -1, /) -> bytes:
        """Return some of the next bytes."""
        return self.read(size if size >= 0 else io.DEFAULT_BUFFER_SIZE)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line."""
        if size is None or size < 0:
            # Not all of fsspec's files take a size.
            return self._verified(self._source.readline())
        return super().readline(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position and return it."""
        self._source.seek(offset, whence)
        self._position = self._source.tell()
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the operating system's number of a local file, which it reads unverified."""
        return self._source.fileno()

    def close(self) -> None:
        """Close the file."""
        self._source.close()
        super().close()

    def __getattr__(self, name: str) -> Any:
        if name == "_source":
            raise AttributeError(name)
        return getattr(self._source, name)

    def _verified(self, data: bytes) -> bytes:
        start, self._position = self._position, self._position + len(data)
        if start <= self._summed < self._position:
            self._crc = isal_zlib.crc32(memoryview(data)[self._summed - start :], self._crc)
            self._summed = self._position
        if self._summed == self._written.size:
            with placed(self._place):
                self._written.check(Written(self._summed, f"{self._crc:08x}"), self._url)
        return data
