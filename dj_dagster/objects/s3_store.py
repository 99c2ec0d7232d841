"""Objects in a bucket of an S3 server; to be imported only where s3fs is installed."""

from __future__ import annotations

import asyncio
from typing import Any

import s3fs
from aiohttp import ClientError
from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError

from dj_dagster.errors import MissingExternalFile
from dj_dagster.objects.bucket_store import BucketStore
from dj_dagster.objects.flight import IN_FLIGHT
from dj_dagster.objects.store_settings import S3StoreSettings


class S3Store(BucketStore):
    """A bucket of Amazon S3 or of any server that speaks its protocol."""

    scheme = "s3"
    refusals = (PermissionError, NoCredentialsError, PartialCredentialsError)
    # The last two come bare when a connection is cut while an object is being read.
    failures = (OSError, BotoCoreError, ClientError, asyncio.TimeoutError)

    def __init__(self, name: str, settings: S3StoreSettings) -> None:
        super().__init__(name, settings, settings.bucket)
        self._s3 = settings

    @property
    def server(self) -> str:
        """The server's URL."""
        return self._s3.endpoint_url

    @property
    def credentials(self) -> str:
        """The settings that hold the credentials."""
        return "access_key and secret_key"

    def renew(self, path: str, data: bytes | None = None) -> None:
        """Write the object again, from its bytes, or inside the server."""
        if data is not None:
            self.put(path, data)
            return
        key = self.full_path(path)
        with self._reading(path):
            # Copied onto itself, which servers allow only when something changes.
            self.filesystem.cp_file(key, key, MetadataDirective="REPLACE")
        if not self.exists(path):
            raise MissingExternalFile(f"{self.url(path)} is gone.")

    def connect(self) -> s3fs.S3FileSystem:
        """Return a client of the server."""
        config: dict[str, Any] = {
            "connect_timeout": 10,
            "max_pool_connections": 2 * IN_FLIGHT,
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
