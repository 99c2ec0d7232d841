"""What every object store can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dj_dagster.errors import MissingExternalFile, ObjectError
from dj_dagster.objects.store_settings import StoreSettings


class Store(ABC):
    """A place for bytes under relative paths, ``folder/name``.

    Objects are written whole or not at all, and never changed: their paths are made from their
    content or from a random token. All methods may be called from several threads and processes.

    Parameters
    ----------
    name
        What definitions call the store, as in ``<blob@name>``.
    """

    def __init__(self, name: str, settings: StoreSettings) -> None:
        self.name = name
        self.settings = settings

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write an object, so that readers see all of it or nothing; replaces one that is there."""

    @abstractmethod
    def get(self, path: str) -> bytes:
        """Return an object's bytes.

        Raises
        ------
        MissingExternalFile
            If the store has no object there.
        """

    @abstractmethod
    def size(self, path: str) -> int:
        """Return an object's size in bytes; raises as `get` does."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete an object, if it is there."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all objects in the folder `prefix` and below, in no special order."""

    @abstractmethod
    def url(self, path: str = "") -> str:
        """Return where an object lies, for people; it holds no secret."""

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
        """Return where an object lies on this machine, None if it lies elsewhere."""
        del path
        return None

    def exists(self, path: str) -> bool:
        """Whether there is an object."""
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
