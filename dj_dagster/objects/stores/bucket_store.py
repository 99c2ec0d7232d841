"""Stores reached through an fsspec file system: their base, Azure and Google Cloud Storage."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, NoReturn
from urllib.parse import quote

from fsspec import AbstractFileSystem
from pydantic import SecretStr

from dj_dagster.errors import ConfigurationError, DataJointError, ObjectError, TransientError
from dj_dagster.objects.stores.store import OWN_FOLDER, Stat, Store, checked_path, without_account
from dj_dagster.objects.stores.store_settings import (
    AzureStoreSettings,
    GcsStoreSettings,
    StoreSettings,
)

_TIMES = ("LastModified", "mtime", "last_modified", "updated", "created")


class BucketStore(Store):
    """A bucket, or a folder in one; the bucket must exist.

    A subclass opens the file system and translates its errors.
    """

    scheme: ClassVar[str]
    """The scheme of addresses, ``"s3"``."""

    refusals: tuple[type[Exception], ...] = (PermissionError,)
    """The errors that the client raises for missing or wrong credentials."""

    failures: tuple[type[Exception], ...] = (OSError,)
    """The errors that the client raises when the server does not answer, or fails."""

    def __init__(self, name: str, settings: StoreSettings, bucket: str) -> None:
        super().__init__(name, settings)
        self._bucket = bucket
        self._root = "/".join(filter(None, [bucket, settings.location.strip("/")]))
        self._clients = dict[int, AbstractFileSystem]()

    @abstractmethod
    def connect(self) -> AbstractFileSystem:
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
        """The fsspec file system of the bucket's server."""
        # One for each process: a fork does not copy a client's threads and connections.
        process = os.getpid()
        if process not in self._clients:
            self._clients.setdefault(process, self._connected())
        return self._clients[process]

    def understood(self, error: Exception) -> Exception:
        """Return the error that fsspec's own file systems would raise in place of a client's.

        It is FileNotFoundError for missing objects and buckets, PermissionError for a refusal.
        """
        return error

    @property
    def secrets(self) -> list[str]:
        """The texts that messages must not show."""
        values = [getattr(self.settings, name) for name in type(self.settings).model_fields]
        return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]

    def upload(self, key: str, data: bytes) -> None:
        """Write an object; its key begins with the bucket."""
        self.filesystem.pipe_file(key, data)

    def download(self, key: str) -> bytes:
        """Read an object; its key begins with the bucket."""
        return self.filesystem.cat_file(key)

    def describe(self, key: str) -> Mapping[str, Any]:
        """Return fsspec's `info` of an object; its key begins with the bucket."""
        return self.filesystem.info(key)

    def put(self, path: str, data: bytes) -> None:
        """Upload an object; a failed upload leaves nothing."""
        with self._uploading(path):
            self.upload(self.full_path(path), data)

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
            return self.download(self.full_path(path))

    def stat(self, path: str) -> Stat:
        """Ask for an object's size and age."""
        with self._reading(path):
            info = self.describe(self.full_path(path))
        if info["type"] != "file":
            raise self.missing(path)
        return Stat(path, int(info["size"]), _modified(info))

    def move(self, source: str, target: str) -> None:
        """Have the server copy an object, then delete it at its old path."""
        with self._reading(source):
            self.duplicate(self.full_path(source), self.full_path(target))
        self.delete(source)

    def duplicate(self, key: str, other: str) -> None:
        """Copy an object to another key; the copy is complete when this returns."""
        self.filesystem.cp_file(key, other)

    def delete(self, path: str) -> None:
        """Delete an object, if it is there."""
        try:
            with self._translated(path):
                self.filesystem.rm_file(self.full_path(path))
        except FileNotFoundError:
            return

    def scan(self, prefix: str = "") -> Iterator[Stat]:
        """Yield size and age of all objects in a folder and below."""
        with self._uploading(prefix):
            found: Any = self.filesystem.find(self._folder(prefix), detail=True)
        own = f"{self._root}/{OWN_FOLDER}/"
        # A dict, because some servers list an object twice that several clients created at once.
        return (
            Stat(key.strip("/").removeprefix(f"{self._root}/"), int(info["size"]), _modified(info))
            # Azure's client gives a list if the folder does not exist.
            for key, info in (found.items() if isinstance(found, dict) else ())
            if info["type"] == "file" and (prefix or not key.strip("/").startswith(own))
        )

    def folders(self, prefix: str = "") -> list[str]:
        """Return the names of the folders directly in a folder."""
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
        except Exception as error:
            self._raise(error, self.url(path))

    def _connected(self) -> AbstractFileSystem:
        try:
            return self.connect()
        except Exception as error:
            self._raise(error, self.url(), failure=ConfigurationError)

    def _raise(
        self, error: Exception, url: str, failure: type[DataJointError] | None = None
    ) -> NoReturn:
        """Raise an error of the client as ours, without secrets.

        Parameters
        ----------
        failure
            The class that replaces other errors than the client's own; None leaves them unchanged.
        """
        known = self.understood(error)
        if isinstance(known, DataJointError):
            raise known
        if isinstance(known, FileNotFoundError) and failure is None:
            raise known from error
        text = self._shown(error)
        # A traceback would show the cause, and with it the secrets.
        cause = error if text == str(error) else None
        if isinstance(known, self.refusals):
            raise ConfigurationError(
                f"Store '{self.name}': {self.server} refused access to {url} ({text}); check "
                f"{self.credentials}."
            ) from cause
        if isinstance(known, self.failures) and not isinstance(known, FileNotFoundError):
            raise TransientError(
                f"Store '{self.name}' at {self.server} failed for {url}: {text}."
            ) from cause
        if failure is None:
            raise error
        raise failure(
            f"Store '{self.name}': no connection to {self.server} can be made "
            f"({type(error).__name__}: {text}); check {self.credentials}."
        ) from cause

    def _shown(self, error: Exception) -> str:
        text = str(error)
        for secret in self.secrets:
            for spelling in {secret, quote(secret), quote(secret, safe="")}:
                text = text.replace(spelling, "**********")
        return without_account(text)


def _modified(info: Mapping[str, Any]) -> float:
    """Return the time at which an object was written, which file systems name differently."""
    value = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.timestamp()
    if value is None:
        raise ObjectError(f"The store does not say how old {info.get('name')} is.")
    return float(value)


_NOT_FOUND = 404
_REFUSED = (401, 403)
_SECRET_PARTS = ("AccountKey=", "SharedAccessSignature=")


class AzureStore(BucketStore):
    """A container of Azure Blob Storage; making one raises ImportError without adlfs."""

    scheme = "abfs"

    def __init__(self, name: str, settings: AzureStoreSettings) -> None:
        super().__init__(name, settings, settings.container)
        self._azure = settings
        self._package = import_module("adlfs")
        errors = import_module("azure.core.exceptions")
        self.refusals = (PermissionError, errors.ClientAuthenticationError)
        self.failures = (OSError, errors.AzureError)

    @property
    def server(self) -> str:
        """The account's name."""
        return f"Azure account '{self._azure.account_name or 'of the connection string'}'"

    @property
    def credentials(self) -> str:
        """The settings that hold the credentials."""
        return "account_name, account_key and connection_string"

    @property
    def secrets(self) -> list[str]:
        """The key, and the parts of a connection string."""
        parts = [part for text in super().secrets for part in [text, *text.split(";")]]
        values = (part.partition("=")[2] for part in parts if part.startswith(_SECRET_PARTS))
        return [*super().secrets, *filter(None, values)]

    def understood(self, error: Exception) -> Exception:
        """Translate by the status of the answer, as the client has few classes of errors."""
        status = getattr(error, "status_code", None)
        if status == _NOT_FOUND:
            return FileNotFoundError(str(error))
        return PermissionError(str(error)) if status in _REFUSED else error

    def duplicate(self, key: str, other: str) -> None:
        """Copy by way of this machine: the service answers before it has made its own copy."""
        with TemporaryDirectory() as folder:
            file = f"{folder}/object"
            self.filesystem.get_file(key, file)
            self.filesystem.put_file(file, other, overwrite=True)

    def connect(self) -> AbstractFileSystem:
        """Return a client of the account."""
        key, text = self._azure.account_key, self._azure.connection_string
        given = {
            "account_name": self._azure.account_name,
            "account_key": key and key.get_secret_value(),
            "connection_string": text and text.get_secret_value(),
        }
        return self._package.AzureBlobFileSystem(
            # An option that is None could not be written as JSON, as zarr does to copy a client.
            **{name: value for name, value in given.items() if value is not None},
            use_listings_cache=False,
            skip_instance_cache=True,
        )


class GcsStore(BucketStore):
    """A bucket of Google Cloud Storage; making one raises ImportError without gcsfs."""

    scheme = "gs"

    def __init__(self, name: str, settings: GcsStoreSettings) -> None:
        super().__init__(name, settings, settings.bucket)
        self._gcs = settings
        # Not what gcsfs itself names first: that asks over gRPC what kind each bucket is, which
        # costs a minute if a server lacks it, and does not matter for flat names.
        self._package = import_module("gcsfs").core
        client_error = import_module("aiohttp").ClientError
        self.refusals = (PermissionError, import_module("google.auth.exceptions").GoogleAuthError)
        http_error = import_module("gcsfs.retry").HttpError
        self.failures = (OSError, http_error, client_error, asyncio.TimeoutError)

    @property
    def server(self) -> str:
        """The service's name."""
        return "Google Cloud Storage"

    @property
    def credentials(self) -> str:
        """The settings that hold the credentials."""
        return "token and project"

    @property
    def secrets(self) -> list[str]:
        """The token, unless it is a file's path or one of gcsfs's words, which people must see."""
        return [text for text in super().secrets if not (text.isalpha() or Path(text).suffix)]

    def connect(self) -> AbstractFileSystem:
        """Return a client of the service."""
        token = self._gcs.token
        return self._package.GCSFileSystem(
            project=self._gcs.project,
            token=token and token.get_secret_value(),
            cache_timeout=0,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
