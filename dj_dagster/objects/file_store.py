"""Objects as files in a folder."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fsspec.implementations.local import LocalFileSystem

from dj_dagster.errors import ObjectError
from dj_dagster.objects.store import Store, checked_path
from dj_dagster.objects.store_settings import FileStoreSettings

_TEMPORARY = ".writing-"


class FileStore(Store):
    """A folder, made when the first object is written."""

    def __init__(self, name: str, settings: FileStoreSettings) -> None:
        super().__init__(name, settings)
        # Absolute from the start, so that a later change of directory moves nothing.
        self.root = Path(settings.location).expanduser().absolute()

    def put(self, path: str, data: bytes) -> None:
        """Write a file beside its place and move it there once it is on the disk."""
        with self._translated(path), _replacing(self._file(path)) as stream:
            stream.write(data)

    def put_file(self, path: str, file: Path) -> None:
        """Copy a file beside its place and move it there once it is on the disk."""
        with (
            self._translated(path),
            _replacing(self._file(path)) as stream,
            file.open("rb") as source,
        ):
            shutil.copyfileobj(source, stream)

    @property
    def filesystem(self) -> LocalFileSystem:
        """The files of this machine."""
        return LocalFileSystem()

    def full_path(self, path: str) -> str:
        """Return the file's absolute path."""
        return str(self._file(path))

    def local_path(self, path: str) -> Path:
        """Return the file's absolute path."""
        return self._file(path)

    def get(self, path: str) -> bytes:
        """Return a file's bytes."""
        with self._translated(path):
            return self._file(path).read_bytes()

    def size(self, path: str) -> int:
        """Return a file's size in bytes."""
        file = self._file(path)
        with self._translated(path):
            size = file.stat().st_size
        if not file.is_file():
            raise self.missing(path)
        return size

    def delete(self, path: str) -> None:
        """Delete a file; the folders stay."""
        with self._translated(path):
            self._file(path).unlink(missing_ok=True)

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all files in a folder and below."""
        folder = self._file(prefix) if prefix else self.root
        for directory, _, files in os.walk(folder):
            for file in files:
                if not file.startswith(_TEMPORARY):
                    yield (Path(directory) / file).relative_to(self.root).as_posix()

    def url(self, path: str = "") -> str:
        """Return the file's place on this machine."""
        return str(self.root / path)

    def _file(self, path: str) -> Path:
        return self.root / checked_path(path)

    @contextmanager
    def _translated(self, path: str) -> Generator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise self.missing(path) from error
        except OSError as error:
            raise ObjectError(
                f"Store '{self.name}' could not read or write {self.url(path)}: {error.strerror}."
            ) from error


@contextmanager
def _replacing(file: Path) -> Generator[BinaryIO]:
    """Give a stream whose bytes become the file when the block ends well."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # Replacing is atomic: readers find the old file or the whole new one.
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    """Make a file's new name survive a power cut; Windows has and needs no such call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
