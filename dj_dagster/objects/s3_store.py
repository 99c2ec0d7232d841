"""Objects in a bucket of an S3 server; to be imported only where s3fs is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import s3fs
from aiohttp import ClientError
from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError

from dj_dagster.errors import MissingExternalFile
from dj_dagster.objects.bucket_store import BucketStore
from dj_dagster.objects.flight import IN_FLIGHT
from dj_dagster.objects.s3_objects import AT_MOST, S3Objects, are_at_hand
from dj_dagster.objects.store import without_account
from dj_dagster.objects.store_settings import S3StoreSettings


class S3Store(BucketStore):
    """A bucket of Amazon S3 or of any server that speaks its protocol.

    Whole objects pass through `S3Objects` where that works, all else through s3fs.
    """

    scheme = "s3"
    refusals = (PermissionError, NoCredentialsError, PartialCredentialsError)
    # The last two come bare when a connection is cut while an object is being read.
    failures = (OSError, BotoCoreError, ClientError, asyncio.TimeoutError)

    def __init__(self, name: str, settings: S3StoreSettings) -> None:
        super().__init__(name, settings, settings.bucket)
        self._s3 = settings

    @property
    def server(self) -> str:
        """The server's URL, an account in it masked."""
        return without_account(self._s3.endpoint_url)

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

    def put_file(self, path: str, file: Path) -> None:
        """Upload a file, a large one in parts; a failed upload leaves nothing."""
        if file.stat().st_size <= AT_MOST:
            self.put(path, file.read_bytes())
        else:
            super().put_file(path, file)

    def upload(self, key: str, data: bytes) -> None:
        """Write an object, a large one in parts."""
        if self._quick and len(data) <= AT_MOST:
            self._quick.put(self._in_bucket(key), data)
        else:
            super().upload(key, data)

    def download(self, key: str) -> bytes:
        """Read an object, in one request."""
        if self._quick:
            return self._quick.get(self._in_bucket(key))
        # With more at once, s3fs asks for the size first, and costs the latency twice.
        return self.filesystem.cat_file(key, max_concurrency=1)

    def describe(self, key: str) -> Mapping[str, Any]:
        """Return size and time of an object."""
        if self._quick:
            return self._quick.describe(self._in_bucket(key))
        # Unlike `info`, this does not list what there is when nothing is found.
        found = self.filesystem.call_s3(
            "head_object", Bucket=self._bucket, Key=self._in_bucket(key)
        )
        return {
            "type": "file",
            "name": key,
            "size": found["ContentLength"],
            "LastModified": found["LastModified"],
        }

    @property
    def _quick(self) -> S3Objects | None:
        return self._objects if are_at_hand(self._s3) else None

    @cached_property
    def _objects(self) -> S3Objects:
        return S3Objects(self._s3)

    def _in_bucket(self, key: str) -> str:
        return key.removeprefix(f"{self._bucket}/")

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
