"""Objects in a bucket of Google Cloud Storage, through the package gcsfs."""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Any

from dj_dagster.objects.bucket_store import BucketStore
from dj_dagster.objects.store_settings import GcsStoreSettings


class GcsStore(BucketStore):
    """A bucket of Google Cloud Storage; making one raises ImportError without gcsfs."""

    scheme = "gs"

    def __init__(self, name: str, settings: GcsStoreSettings) -> None:
        super().__init__(name, settings, settings.bucket)
        self._gcs = settings
        # Not what gcsfs itself names first: that asks over gRPC what kind each bucket is, which
        # costs a minute where a server has no such thing, and means nothing to flat names.
        self._package: Any = import_module("gcsfs").core
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

    @property
    def secrets(self) -> list[str]:
        """The token, unless it is a file's path or one of gcsfs's words, which people must see."""
        return [text for text in super().secrets if not (text.isalpha() or Path(text).suffix)]

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
