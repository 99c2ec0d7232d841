"""Copies of stores' objects in a folder, each under the checksum of its bytes.

A copy that is there is never written again, so that a later backup copies only new objects, and
objects with the same bytes are kept once. A copy is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from dj_dagster.errors import ChecksumError, MissingExternalFile, ObjectError
from dj_dagster.objects.checksums import manifest_path, told
from dj_dagster.objects.collection import is_managed, trash_folder
from dj_dagster.objects.expected import Expected, FileDigests
from dj_dagster.objects.stores.store import Stat, Store, Take, checked_path, ignore, sync_folder

_AT_ONCE = 2**24
_PIECE = 2**22
_UNFINISHED = ".writing-"
_ABANDONED = 86_400.0
"""Seconds after which the files that a killed writer has left are removed."""

_TRIES = 3
"""Number of attempts to find or copy an object that a collector is moving."""


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """A file of a store and the checksums of its copy.

    Attributes
    ----------
    crc32
        The CRC-32 of the copy, "" if an earlier version made it.
    damaged
        Whether the file was not as its row says when it was copied; it is then copied again.
    """

    store: str
    path: str
    size: int
    modified: float
    sha256: str
    crc32: str = ""
    damaged: bool = False


class Copies:
    """A folder of copies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, sha256: str) -> Path:
        """Return the path of the copy with a checksum."""
        return self._folder / sha256[:2] / sha256

    def add(self, store: Store, path: str, take: Take = ignore) -> tuple[int, str]:
        """Copy an object and return its size and checksum.

        Parameters
        ----------
        take
            A function that is called with the bytes in order, for other checksums.

        Raises
        ------
        MissingExternalFile
            If the store lacks the object.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._folder / f"{_UNFINISHED}{secrets.token_hex(8)}"
        digest, size = hashlib.sha256(), 0
        try:
            with _opened(store, path) as source, temporary.open("xb") as target:
                while piece := source.read(_PIECE):
                    digest.update(piece)
                    take(memoryview(piece))
                    size += target.write(piece)
                target.flush()
                os.fsync(target.fileno())
            place = self.place(digest.hexdigest())
            place.parent.mkdir(exist_ok=True)
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(place.parent)
        return size, digest.hexdigest()

    def damage(self, sha256: str, size: int, *, read: bool = True) -> str:
        """Return a description of the damage to a copy, "" for an intact one.

        Parameters
        ----------
        read
            Whether the copy is read; otherwise only its size is compared.
        """
        return file_damage(self.place(sha256), sha256, size, read=read)

    def keep(self, wanted: Collection[str]) -> int:
        """Remove the copies whose checksum is not wanted, and return the bytes freed.

        Copies of the last day stay: a backup that is at work may have made them.
        """
        freed, before = 0, time.time() - _ABANDONED
        for place in self._folder.glob("??/*"):
            with suppress(FileNotFoundError):
                found = place.stat()
                if place.name not in wanted and found.st_mtime < before:
                    place.unlink()
                    freed += found.st_size
        return freed

    def tidy(self) -> None:
        """Remove the files that killed writers have left."""
        remove_abandoned(self._folder)


def file_damage(file: Path, sha256: str, size: int, *, read: bool = True) -> str:
    """Return how a file differs from the one that was written, "" if it does not."""
    try:
        found = file.stat().st_size
        if found != size:
            return f"{file} has {found} bytes, {size} were written"
        if read:
            with file.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    return f"{file} has changed since it was written"
    except FileNotFoundError:
        return f"{file} is missing"
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    return ""


def remove_abandoned(folder: Path) -> list[Path]:
    """Remove the files that killed writers have left in a folder; return such folders."""
    folders: list[Path] = []
    before = time.time() - _ABANDONED
    for left in folder.glob(f"{_UNFINISHED}*"):
        with suppress(FileNotFoundError):
            if left.is_dir():
                folders += [left] if left.stat().st_mtime < before else []
            elif left.stat().st_mtime < before:
                left.unlink()
    return folders


def files_of(store: Store, path: str, schema: str) -> list[tuple[str, Stat]]:
    """Return the files of an object: the path of each, and the facts of where it is now.

    An object whose row was deleted meanwhile is found in the trash.

    Raises
    ------
    MissingExternalFile
        If the object is neither at its path nor in the trash.
    """
    path = checked_path(path)
    trash = f"{trash_folder(schema)}/"
    before: dict[str, Stat] | None = None
    for _ in range(_TRIES):
        found = {file.path: file for file in _files(store, path)}
        if path in found:
            return list(found.items())
        removed = {file.path.removeprefix(trash): file for file in _files(store, f"{trash}{path}")}
        both = removed | found
        # A folder's files move one by one.
        if both and (not removed or both == before):
            return list(both.items())
        before = both
    if before:
        return list(before.items())
    raise store.missing(path)


def _files(store: Store, path: str) -> Iterator[Stat]:
    try:
        single = store.stat(path)
    except MissingExternalFile:
        yield from store.scan(path)
        with suppress(MissingExternalFile):
            yield store.stat(manifest_path(path))
    else:
        yield single


def copied(
    copies: Copies,
    store: Store,
    path: str,
    found: Stat,
    schema: str,
    known: CopiedFile | None,
    expected: Callable[[], Collection[Expected]],
    *,
    read: bool,
) -> tuple[CopiedFile, bool, tuple[str, ...]]:
    """Copy a file of a store unless it was copied before.

    Returns the facts of the copy, whether it was made now, and how it differs from what rows say.

    Parameters
    ----------
    found
        The file's present path and facts, as `files_of` gives them.
    known
        The copy that an earlier backup has of this path.
    expected
        Returns what rows say of the file, if it is read.
    read
        Whether an earlier copy is read, to copy the file again if the copy is damaged.
    """
    if (
        known is not None
        and not known.damaged
        and _is_same(store, path, known, found)
        and not copies.damage(known.sha256, known.size, read=read)
        and not (read and _differs(copies.place(known.sha256), expected()))
    ):
        return known, False, ()
    for _ in range(_TRIES):
        with suppress(MissingExternalFile):
            digests = FileDigests(expected())
            size, sha256 = copies.add(store, found.path, digests.take)
            if size == found.size:
                problems = tuple(digests.problems(told(store, path)))
                facts = (size, found.modified, sha256, digests.crc32, bool(problems))
                return CopiedFile(store.name, path, *facts), True, problems
        # A collector has just moved the file, or its user has written it anew.
        found = dict(files_of(store, path, schema))[path]
    raise ChecksumError(f"{store.url(path)} in store '{store.name}' changes while it is read.")


def _differs(copy: Path, expected: Collection[Expected]) -> bool:
    """Whether a copy is not what rows say, which an earlier version did not compare."""
    digests = FileDigests(expected)
    with copy.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digests.take(piece)
    return any(digests.problems(""))


def _is_same(store: Store, path: str, known: CopiedFile, found: Stat) -> bool:
    """Whether an object is still the one that was copied; users may replace their own files."""
    if known.size != found.size:
        return False
    return is_managed(store, path) or known.modified == found.modified


@contextmanager
def _opened(store: Store, path: str) -> Generator[IO[bytes]]:
    if store.size(path) <= _AT_ONCE:
        yield BytesIO(store.get(path))
        return
    try:
        with store.filesystem.open(store.full_path(path), "rb") as stream:
            yield stream
    except FileNotFoundError as error:
        raise store.missing(path) from error


def give_back(copies: Copies, store: Store, file: CopiedFile) -> bool:
    """Write a copy to its object's path; return False if the object was there already.

    Raises
    ------
    ObjectError
        If other content is at that path.
    """
    place = copies.place(file.sha256)
    try:
        size = store.size(file.path)
    except MissingExternalFile:
        store.put_file(file.path, place)
        return True
    with _opened(store, file.path) as stream:
        same = size == file.size and _digest(stream) == file.sha256
    if not same:
        raise ObjectError(
            f"{store.url(file.path)} in store '{store.name}' is there and is not what was backed "
            "up: move it away first."
        )
    return False


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()
