"""Objects in a bucket of Google Cloud Storage, through the package gcsfs."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from dj_dagster.objects.bucket_store import BucketStore
from dj_dagster.objects.store_settings import GcsStoreSettings


class GcsStore(BucketStore):
    """A bucket of Google Cloud Storage; making one raises ImportError without gcsfs."""

    scheme = "gs"

    def __init__(self, name: str, settings: GcsStoreSettings) -> None:
        super().__init__(name, settings, settings.bucket)
        self._gcs = settings
        self._package: Any = import_module("gcsfs")
        client_error: Any = import_module("aiohttp").ClientError
        self.refusals = (PermissionError, import_module("google.auth.exceptions").GoogleAuthError)
        http_error: Any = import_module("gcsfs.retry").HttpError
        self.failures = (OSError, http_error, client_error, asyncio.TimeoutError)

    @property
    def server(self) -> str:
        """The service's name."""
        return "Google Cloud Storage"

    @property
    def credentials(self) -> str:
        """The settings that hold the credentials."""
        return "token and project"

    def connect(self) -> Any:
        """Return a client of the service."""
        token = self._gcs.token
        return self._package.GCSFileSystem(
            project=self._gcs.project,
            token=token and token.get_secret_value(),
            cache_timeout=0,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
