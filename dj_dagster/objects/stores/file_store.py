"""Objects as files in a folder."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from fsspec.implementations.local import LocalFileSystem

from dj_dagster.errors import MissingExternalFile, ObjectError
from dj_dagster.local_files import make_folder
from dj_dagster.objects.stores.store import OWN_FOLDER, Stat, Store, Take, checked_path, ignore
from dj_dagster.objects.stores.store_settings import FileStoreSettings

_TEMPORARY = ".writing-"
_TRIES = 20
_PIECE = 2**21
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class FileStore(Store):
    """A folder, made when the first object is written."""

    def __init__(self, name: str, settings: FileStoreSettings) -> None:
        super().__init__(name, settings)
        # Absolute from the start, so that a later change of directory moves nothing.
        self.root = Path(settings.location).expanduser().absolute()

    def put(self, path: str, data: bytes) -> None:
        """Write a file beside its place and move it there once it is on the disk."""
        with self._translated(path), self._replacing(path) as stream:
            stream.write(data)

    def put_file(self, path: str, file: Path) -> None:
        """Copy a file beside its place and move it there once it is on the disk."""
        with (
            self._translated(path),
            self._replacing(path) as stream,
            file.open("rb") as source,
        ):
            shutil.copyfileobj(source, stream)

    @property
    def filesystem(self) -> LocalFileSystem:
        """The files of this machine."""
        return LocalFileSystem(auto_mkdir=True)

    def full_path(self, path: str) -> str:
        """Return the file's absolute path."""
        return str(self._file(path))

    def local_path(self, path: str) -> Path:
        """Return the file's absolute path."""
        return self._file(path)

    def settle(self, path: str) -> None:
        """Make files that were written otherwise survive a power cut."""
        place = self._file(path)
        with self._translated(path):
            for folder, _, files in os.walk(place):
                for name in files:
                    _sync(Path(folder) / name)
                sync_folder(Path(folder))
            if place.is_file():
                _sync(place)
            sync_folder(place.parent)

    def get(self, path: str) -> bytes:
        """Return a file's bytes."""
        with self._translated(path):
            return self._file(path).read_bytes()

    def get_buffer(self, path: str, take: Take = ignore) -> memoryview:
        """Read a file into memory, in pieces that fit the processor's cache."""
        with self._translated(path), self._file(path).open("rb", buffering=0) as stream:
            # Unlike a bytearray this memory is not filled with zeros first.
            data = np.empty(os.fstat(stream.fileno()).st_size, np.uint8).data
            end = 0
            while count := stream.readinto(data[end : end + _PIECE]):
                take(data[end : end + count])
                end += count
            return data[:end]

    def stat(self, path: str) -> Stat:
        """Return a file's size and age."""
        file = self._file(path)
        with self._translated(path):
            found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise self.missing(path)
        return Stat(path, found.st_size, found.st_mtime)

    def renew(self, path: str, data: bytes | None = None) -> None:
        """Set a file's time to now; if the file is gone, write it again from `data`."""
        try:
            # A folder has a time as well.
            self.stat(path)
            with self._translated(path):
                os.utime(self._file(path))
        except MissingExternalFile:
            if data is None:
                raise
            self.put(path, data)

    def move(self, source: str, target: str) -> None:
        """Rename a file, or copy it to a target on another disk."""
        origin, goal = self._file(source), self._file(target)
        # A folder would be renamed with all that is in it.
        self.stat(source)
        with self._translated(source):
            os.utime(origin)
            try:
                _rename(origin, goal)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self.put_file(target, origin)
                origin.unlink(missing_ok=True)
            sync_folder(goal.parent)

    def delete(self, path: str) -> None:
        """Delete a file; the folders stay."""
        with self._translated(path):
            self._file(path).unlink(missing_ok=True)

    def scan(self, prefix: str = "") -> Iterator[Stat]:
        """Yield size and age of all files in a folder and below."""
        return (found for name, found in self._walk(prefix) if not name.startswith(_TEMPORARY))

    def unfinished(self, prefix: str = "") -> Iterator[Stat]:
        """Yield the temporary files of writers, killed ones and those at work."""
        return (found for name, found in self._walk(prefix) if name.startswith(_TEMPORARY))

    def folders(self, prefix: str = "") -> list[str]:
        """Return the names of the folders directly in a folder."""
        try:
            with os.scandir(self._folder(prefix)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def tidy(self, prefix: str = "") -> None:
        """Remove the empty folders in a folder and below."""
        for directory, _, _ in os.walk(self._folder(prefix), topdown=False):
            # It refuses a folder that is not empty, even if a file has just appeared in it.
            with suppress(OSError):
                Path(directory).rmdir()

    def url(self, path: str = "") -> str:
        """Return the file's path on this machine."""
        return str(self.root / path)

    @contextmanager
    def _replacing(self, path: str) -> Generator[BinaryIO]:
        with _replacing(self._file(path)) as stream:
            yield stream
            if not self.root.parent.stat().st_mode & _OTHERS:
                # As in the folder ``.dj``: a file that is moved elsewhere stays private.
                Path(stream.name).chmod(0o600)

    def _file(self, path: str) -> Path:
        return self.root / checked_path(path)

    def _folder(self, path: str) -> Path:
        return self._file(path) if path else self.root

    def _walk(self, prefix: str) -> Iterator[tuple[str, Stat]]:
        """Yield name and size of the files below a folder, without those that vanish meanwhile."""
        for directory, folders, files in os.walk(self._folder(prefix)):
            if not prefix and OWN_FOLDER in folders and Path(directory) == self.root:
                folders.remove(OWN_FOLDER)
            for name in files:
                file = Path(directory) / name
                with suppress(FileNotFoundError):
                    found = file.stat()
                    path = file.relative_to(self.root).as_posix()
                    yield name, Stat(path, found.st_size, found.st_mtime)

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
    """Yield a stream whose bytes become the file when the block ends without an error."""
    temporary = file.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
    try:
        with _opened(temporary) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # Replacing is atomic: readers find the old file or the whole new one.
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(file.parent)


def _opened(file: Path) -> BinaryIO:
    """Open a new file in a folder that another process may be tidying away."""
    for _ in range(_TRIES):
        # A folder may vanish after it was made, and also while it is being made.
        with suppress(FileNotFoundError, FileExistsError):
            make_folder(file.parent)
            return file.open("xb")
    make_folder(file.parent)
    return file.open("xb")


def _rename(origin: Path, goal: Path) -> None:
    """Rename a file into a folder that another process may be tidying away."""
    for _ in range(_TRIES):
        with suppress(FileNotFoundError, FileExistsError):
            goal.parent.mkdir(parents=True, exist_ok=True)
            origin.replace(goal)
            return
        if not origin.exists():
            break
    origin.replace(goal)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut; on Windows this does nothing."""
    if os.name == "posix":
        _sync(folder)


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
