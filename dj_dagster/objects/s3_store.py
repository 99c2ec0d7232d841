"""Objects in a bucket of an S3 server; to be imported only where s3fs is installed."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import s3fs
from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError

from dj_dagster.errors import ConfigurationError, TransientError
from dj_dagster.objects.store import Store, checked_path
from dj_dagster.objects.store_settings import S3StoreSettings

_REFUSED = (PermissionError, NoCredentialsError, PartialCredentialsError)


class S3Store(Store):
    """A bucket, or a folder in one; the bucket must exist."""

    def __init__(self, name: str, settings: S3StoreSettings) -> None:
        super().__init__(name, settings)
        self._s3 = settings
        self._root = "/".join(filter(None, [settings.bucket, settings.location.strip("/")]))

    def put(self, path: str, data: bytes) -> None:
        """Upload an object; a failed upload leaves nothing."""
        with self._uploading(path):
            self._client.pipe_file(self._key(path), data)

    def put_file(self, path: str, file: Path) -> None:
        """Upload a file, a large one in parts; a failed upload leaves nothing."""
        with self._uploading(path):
            self._client.put_file(str(file), self._key(path))

    @property
    def filesystem(self) -> s3fs.S3FileSystem:
        """The bucket's server."""
        return self._client

    def full_path(self, path: str) -> str:
        """Return bucket and key."""
        return self._key(path)

    def get(self, path: str) -> bytes:
        """Download an object."""
        try:
            with self._translated(path):
                data: Any = self._client.cat_file(self._key(path))
                return data
        except FileNotFoundError as error:
            raise self.missing(path) from error

    def size(self, path: str) -> int:
        """Ask for an object's size in bytes."""
        try:
            with self._translated(path):
                info: dict[str, Any] = self._client.info(self._key(path))
        except FileNotFoundError as error:
            raise self.missing(path) from error
        if info["type"] != "file":
            raise self.missing(path)
        return int(info["size"])

    def delete(self, path: str) -> None:
        """Delete an object, if it is there."""
        try:
            with self._translated(path):
                self._client.rm_file(self._key(path))
        except FileNotFoundError:
            return

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the paths of all objects in a folder and below."""
        with self._translated(prefix):
            found = self._client.find(self._key(prefix) if prefix else self._root)
        # Some servers list an object twice that several clients created at once.
        keys = dict.fromkeys(found)
        return (key.removeprefix(f"{self._root}/") for key in keys)

    def url(self, path: str = "") -> str:
        """Return the ``s3://`` address."""
        return f"s3://{self._root}/{path}"

    def _key(self, path: str) -> str:
        return f"{self._root}/{checked_path(path)}"

    @cached_property
    def _client(self) -> s3fs.S3FileSystem:
        config: dict[str, Any] = {
            "connect_timeout": 10,
            # Lost connections and the server's own errors (500 to 504) are worth another try.
            "retries": {"mode": "standard", "total_max_attempts": 4},
            # Several servers compute the newer checksums wrongly; our own hash covers the content.
            "response_checksum_validation": "when_required",
            "request_checksum_calculation": "when_required",
        }
        if self._s3.proxy_server:
            config["proxies"] = dict.fromkeys(("http", "https"), self._s3.proxy_server)
        key, secret = self._s3.access_key, self._s3.secret_key
        client = s3fs.S3FileSystem(
            key=key and key.get_secret_value(),
            secret=secret and secret.get_secret_value(),
            endpoint_url=self._s3.endpoint_url,
            config_kwargs=config,
            # Other processes write here too: neither listings nor clients are shared.
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        # s3fs has a loop of its own, which leaves most of these errors out; together they would
        # take minutes to give up.
        client.retries = 1
        return client

    @contextmanager
    def _uploading(self, path: str) -> Generator[None]:
        try:
            with self._translated(path):
                yield
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"Store '{self.name}': bucket '{self._s3.bucket}' does not exist at "
                f"{self._s3.endpoint_url}; create it first."
            ) from error

    @contextmanager
    def _translated(self, path: str) -> Generator[None]:
        """Turn errors of the client into ours, but leave FileNotFoundError to the callers."""
        try:
            yield
        except FileNotFoundError:
            raise
        except _REFUSED as error:
            raise ConfigurationError(
                f"Store '{self.name}': {self._s3.endpoint_url} refused access to {self.url(path)} "
                f"({error}); check access_key and secret_key."
            ) from error
        except (OSError, BotoCoreError) as error:
            raise TransientError(
                f"Store '{self.name}' at {self._s3.endpoint_url} failed for {self.url(path)}: "
                f"{error}."
            ) from error
