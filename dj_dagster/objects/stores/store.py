"""The protocol of object stores, folders as stores, and work on many objects at once."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

import numpy as np
from fsspec.implementations.local import LocalFileSystem

from dj_dagster.errors import MissingExternalFile, ObjectError
from dj_dagster.local_files import make_folder
from dj_dagster.objects.stores.store_settings import FileStoreSettings, StoreSettings

_ACCOUNT = re.compile(r"(?<=://)[^/\s]+(?=@)")
OWN_FOLDER = ".dj_dagster"
"""The folder for a store's own files, which are not objects."""


Take = Callable[[memoryview], None]


def ignore(piece: memoryview) -> None:
    """Do nothing with a piece of an object's bytes."""
    del piece


@dataclass(frozen=True, slots=True)
class Stat:
    """Size and age of an object in a store.

    Attributes
    ----------
    size
        Bytes.
    modified
        The time of the last write, in seconds of the epoch by the store's own clock.
    """

    path: str
    size: int
    modified: float


class Store(ABC):
    """A place for bytes under relative paths, ``folder/name``.

    A new kind of store is a subclass, with settings in `store_settings` and a line in `open_store`;
    a file system of fsspec's needs a `StorageAdapter` alone. `dj_dagster.testing.StoreConformance`
    tests the promises that a subclass must keep:

    Atomic writes
        `put` and `put_file` write an object whole or not at all, replacing one that is there. A
        reader meanwhile gets the old or the new object. The remains of a writer that died are not
        an object: they appear only in `unfinished`, or nowhere.
    Order
        A written object is seen by all readers afterwards, in listings too, and survives a power
        cut as far as its disk or service does.
    Folders
        They need not be made, and empty ones do not count: a path is a name. `folders` and `scan`
        match whole parts of it, so that ``a`` does not contain ``ab/1``.
    Clock
        `Stat.modified` is by the store's own clock. `put`, `renew` and `move` make an object as
        young as one that is written now: the garbage collector takes only what is old.
    Locks
        Stores need not offer locks. Objects are never changed, as their paths are made from their
        content or from a random token; where two writers could want to change the same thing, each
        of them has an object of its own. All methods may be called from several threads and
        processes.
    Errors
        MissingExternalFile for a missing object, ConfigurationError for a wrong place or wrong
        credentials, TransientError where another try may help, ObjectError for anything else.
        Messages must not show secrets.
    Paths
        They pass through `checked_path`, since forged rows may name paths outside the store.

    The other methods are built on the abstract ones; override them where that is faster.

    Parameters
    ----------
    name
        The name that definitions use for the store, as in ``<blob@name>``.

    Attributes
    ----------
    verified
        The time of the last write of objects whose content was compared, by their path; see
        `dj_dagster.objects.codecs.bytes`.
    """

    def __init__(self, name: str, settings: StoreSettings) -> None:
        self.name = name
        self.settings = settings
        self.verified: dict[str, float] = {}

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write an object, so that readers see all of it or nothing; replaces one that is there."""

    @abstractmethod
    def get(self, path: str) -> bytes:
        """Return an object's bytes.

        Raises
        ------
        MissingExternalFile
            If the store lacks the object.
        """

    def get_buffer(self, path: str, take: Take = ignore) -> memoryview:
        """Return an object's bytes in memory that may be changed; raises as `get` does.

        Parameters
        ----------
        take
            A function that is called with the bytes in order, a piece at a time, for a checksum.
        """
        data = memoryview(bytearray(self.get(path)))
        take(data)
        return data

    @abstractmethod
    def stat(self, path: str) -> Stat:
        """Return an object's size and age; raises as `get` does."""

    @abstractmethod
    def scan(self, prefix: str = "") -> Iterator[Stat]:
        """Yield the `Stat` of all objects in a folder and below, in any order.

        Without a folder, the objects in `OWN_FOLDER` are left out.
        """

    @abstractmethod
    def folders(self, prefix: str = "") -> list[str]:
        """Return the names of the folders directly in a folder."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete an object, if it is there."""

    @abstractmethod
    def url(self, path: str = "") -> str:
        """Return the address of an object for people, without secrets."""

    @property
    @abstractmethod
    def filesystem(self) -> Any:
        """The fsspec file system that the objects can be read through."""

    @abstractmethod
    def full_path(self, path: str) -> str:
        """Return an object's path in `filesystem`."""

    @abstractmethod
    def put_file(self, path: str, file: Path) -> None:
        """Write a local file as an object, piece by piece; otherwise as `put`."""

    def local_path(self, path: str) -> Path | None:
        """Return the path of an object on this machine, None if it lies elsewhere."""
        del path
        return None

    def size(self, path: str) -> int:
        """Return an object's size in bytes; raises as `get` does."""
        return self.stat(path).size

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all objects in the folder `prefix` and below, in any order."""
        return (found.path for found in self.scan(prefix))

    def renew(self, path: str, data: bytes | None = None) -> None:
        """Make an object as young as one that is written now, which keeps it from the collector.

        Parameters
        ----------
        data
            The object's bytes, if they are at hand; without them this raises as `get` does.
        """
        self.put(path, self.get(path) if data is None else data)

    def delete_many(self, paths: Collection[str]) -> None:
        """Delete objects; skip those that are not there."""
        for _ in in_flight(self.delete, paths):
            pass

    @abstractmethod
    def move(self, source: str, target: str) -> None:
        """Give an object another path, where it is as young as one that is written now.

        The object may lie at both paths for a moment, never at neither; raises as `get` does.
        """

    def settle(self, path: str) -> None:  # noqa: B027 - most stores keep what they have taken
        """Make what was written through `filesystem`, a file or a folder, survive a power cut."""

    def unfinished(self, prefix: str = "") -> Iterator[Stat]:
        """Yield the remains of writers that died, in a folder and below; readers never see them."""
        del prefix
        return iter(())

    def remove_unfinished(self, path: str) -> None:
        """Remove a file that `unfinished` yielded."""
        self.delete(path)

    def tidy(self, prefix: str = "") -> None:  # noqa: B027 - most stores have no folders
        """Remove the empty folders in a folder and below, if the store has folders."""

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        try:
            self.size(path)
        except MissingExternalFile:
            return False
        return True

    def missing(self, path: str) -> MissingExternalFile:
        """Return the error for an object that is not there."""
        return MissingExternalFile(f"Store '{self.name}' has no object {self.url(path)}.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.url()!r})"


def checked_path(path: str) -> str:
    """Return a path that stays within its store.

    Raises
    ------
    ObjectError
        For an absolute path or one that climbs out with ``..``, as a forged row could name.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ObjectError(f"{path!r} is not a path within a store; write 'folder/name'.")
    return "/".join(parts)


def without_account(text: str) -> str:
    """Mask the account in each URL of a text.

    Examples
    --------
    >>> without_account("GET http://me:secret@proxy:8080/lab failed")
    'GET http://***@proxy:8080/lab failed'
    >>> without_account("http://me:se@cret@proxy")
    'http://***@proxy'
    """
    return _ACCOUNT.sub("***", text)


T = TypeVar("T")
R = TypeVar("R")

IN_FLIGHT = 16
"""Number of objects that are read or written at once."""


def in_flight(work: Callable[[T], R], items: Iterable[T], at_once: int = IN_FLIGHT) -> Iterator[R]:
    """Call a function with all items, several at once, and yield the results in order.

    Items are taken as results are requested, so that no more than twice `at_once` results wait in
    memory. An error is raised in place of its item's result; items that were not yet taken are then
    left alone.

    Examples
    --------
    >>> list(in_flight(lambda number: number * 2, [1, 2, 3]))
    [2, 4, 6]
    """
    rest = iter(items)
    first = list(islice(rest, 2))
    if len(first) < 2:
        yield from map(work, first)
        return
    with ThreadPoolExecutor(at_once, thread_name_prefix="dj-objects") as pool:
        waiting: deque[Future[R]] = deque(pool.submit(work, item) for item in first)
        waiting.extend(pool.submit(work, item) for item in islice(rest, 2 * at_once - 2))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(rest, 1))
        finally:
            for future in waiting:
                future.cancel()


_TEMPORARY = ".writing-"
_IS_TEMPORARY = re.compile(r"\.writing-[0-9a-f]{16}").fullmatch
_TRIES = 20
_PIECE = 2**21
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def is_unfinished(name: str) -> bool:
    """Whether a file of a folder's store has the name of one that is being written."""
    return _IS_TEMPORARY(name) is not None


class FileStore(Store):
    """A folder, made when the first object is written."""

    def __init__(self, name: str, settings: FileStoreSettings) -> None:
        super().__init__(name, settings)
        self.root = Path(settings.location)

    def put(self, path: str, data: bytes) -> None:
        """Write a file beside its place and move it there once it is on the disk."""
        with self._translated(path, writes=True), self._replacing(path) as stream:
            stream.write(data)

    def put_file(self, path: str, file: Path) -> None:
        """Copy a file beside its place and move it there once it is on the disk."""
        with (
            self._translated(path, writes=True),
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
                for file in (Path(folder) / name for name in files):
                    # Opening a pipe would wait for its other end.
                    if file.is_file():
                        _sync(file)
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
        return (found for name, found in self._walk(prefix) if not is_unfinished(name))

    def unfinished(self, prefix: str = "") -> Iterator[Stat]:
        """Yield the temporary files of writers, killed ones and those at work."""
        return (found for name, found in self._walk(prefix) if is_unfinished(name))

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
                try:
                    found = file.stat()
                except OSError as error:
                    # Gone, or a link that leads nowhere.
                    if error.errno not in (errno.ENOENT, errno.ELOOP):
                        raise
                    continue
                if stat.S_ISREG(found.st_mode):
                    path = file.relative_to(self.root).as_posix()
                    yield name, Stat(path, found.st_size, found.st_mtime)

    @contextmanager
    def _translated(self, path: str, *, writes: bool = False) -> Generator[None]:
        try:
            yield
        except OSError as error:
            absent = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
            if absent and not writes:
                raise self.missing(path) from error
            # A folder on the way may be a file, or may not be made.
            place = f": {error.filename}" if writes and error.filename else ""
            raise ObjectError(
                f"Store '{self.name}' could not read or write {self.url(path)}: "
                f"{error.strerror}{place}."
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
