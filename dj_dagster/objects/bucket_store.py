"""What the stores have in common that are reached through an fsspec file system."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from dj_dagster.errors import ConfigurationError, ObjectError, TransientError
from dj_dagster.objects.store import Stat, Store, checked_path
from dj_dagster.objects.store_settings import StoreSettings

_TIMES = ("LastModified", "mtime", "last_modified", "updated", "created")


class BucketStore(Store):
    """A bucket, or a folder in one; the bucket must exist.

    A subclass opens the file system and says how its errors read.
    """

    scheme: ClassVar[str]
    """How addresses begin, ``"s3"``."""

    refusals: tuple[type[Exception], ...] = (PermissionError,)
    """What the client raises for credentials that are missing or wrong."""

    failures: tuple[type[Exception], ...] = (OSError,)
    """What it raises when the server does not answer, or fails."""

    def __init__(self, name: str, settings: StoreSettings, bucket: str) -> None:
        super().__init__(name, settings)
        self._bucket = bucket
        self._root = "/".join(filter(None, [bucket, settings.location.strip("/")]))

    @abstractmethod
    def connect(self) -> Any:
        """Return a new fsspec file system, without caches of listings."""

    @property
    @abstractmethod
    def server(self) -> str:
        """The server's address, for messages."""

    @property
    @abstractmethod
    def credentials(self) -> str:
        """The settings that hold the credentials, for messages."""

    @property
    def filesystem(self) -> Any:
        """The bucket's server."""
        return self._client

    @cached_property
    def _client(self) -> Any:
        return self.connect()

    def put(self, path: str, data: bytes) -> None:
        """Upload an object; a failed upload leaves nothing."""
        with self._uploading(path):
            self.filesystem.pipe_file(self.full_path(path), data)

    def put_file(self, path: str, file: Path) -> None:
        """Upload a file, a large one in parts; a failed upload leaves nothing."""
        with self._uploading(path):
            self.filesystem.put_file(str(file), self.full_path(path))

    def full_path(self, path: str) -> str:
        """Return bucket and key."""
        return f"{self._root}/{checked_path(path)}"

    def get(self, path: str) -> bytes:
        """Download an object."""
        with self._reading(path):
            data: Any = self.filesystem.cat_file(self.full_path(path))
            return data

    def stat(self, path: str) -> Stat:
        """Ask for an object's size and age."""
        with self._reading(path):
            info: dict[str, Any] = self.filesystem.info(self.full_path(path))
        if info["type"] != "file":
            raise self.missing(path)
        return Stat(path, int(info["size"]), _modified(info))

    def delete(self, path: str) -> None:
        """Delete an object, if it is there."""
        try:
            with self._translated(path):
                self.filesystem.rm_file(self.full_path(path))
        except FileNotFoundError:
            return

    def scan(self, prefix: str = "") -> Iterator[Stat]:
        """Yield size and age of all objects in a folder and below."""
        with self._translated(prefix):
            found: dict[str, Any] = self.filesystem.find(self._folder(prefix), detail=True)
        # A dict, because some servers list an object twice that several clients created at once.
        return (
            Stat(key.strip("/").removeprefix(f"{self._root}/"), int(info["size"]), _modified(info))
            for key, info in found.items()
            if info["type"] == "file"
        )

    def folders(self, prefix: str = "") -> list[str]:
        """Return the names of the folders right in a folder."""
        folder = self._folder(prefix)
        try:
            with self._translated(prefix):
                found: list[dict[str, Any]] = self.filesystem.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        paths = [str(info["name"]).strip("/") for info in found if info["type"] == "directory"]
        return sorted(path.rpartition("/")[2] for path in paths if path != folder)

    def url(self, path: str = "") -> str:
        """Return the address, ``s3://bucket/path``."""
        return f"{self.scheme}://{self._root}/{path}"

    def _folder(self, prefix: str) -> str:
        return self.full_path(prefix) if prefix else self._root

    @contextmanager
    def _reading(self, path: str) -> Generator[None]:
        try:
            with self._translated(path):
                yield
        except FileNotFoundError as error:
            raise self.missing(path) from error

    @contextmanager
    def _uploading(self, path: str) -> Generator[None]:
        try:
            with self._translated(path):
                yield
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"Store '{self.name}': bucket '{self._bucket}' does not exist at {self.server}; "
                "create it first."
            ) from error

    @contextmanager
    def _translated(self, path: str) -> Generator[None]:
        """Turn errors of the client into ours, but leave FileNotFoundError to the callers."""
        try:
            yield
        except (FileNotFoundError, ObjectError):
            raise
        except self.refusals as error:
            raise ConfigurationError(
                f"Store '{self.name}': {self.server} refused access to {self.url(path)} "
                f"({error}); check {self.credentials}."
            ) from error
        except self.failures as error:
            raise TransientError(
                f"Store '{self.name}' at {self.server} failed for {self.url(path)}: {error}."
            ) from error


def _modified(info: Mapping[str, Any]) -> float:
    """Return when an object was written, from whatever its file system calls it."""
    value = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.timestamp()
    if value is None:
        raise ObjectError(f"The store does not say how old {info.get('name')} is.")
    return float(value)
