"""Objects in a container of Azure Blob Storage, through the package adlfs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dj_dagster.objects.bucket_store import BucketStore
from dj_dagster.objects.store_settings import AzureStoreSettings


class AzureStore(BucketStore):
    """A container of Azure Blob Storage; making one raises ImportError without adlfs."""

    scheme = "abfs"

    def __init__(self, name: str, settings: AzureStoreSettings) -> None:
        super().__init__(name, settings, settings.container)
        self._azure = settings
        self._package: Any = import_module("adlfs")
        errors: Any = import_module("azure.core.exceptions")
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

    def connect(self) -> Any:
        """Return a client of the account."""
        key, text = self._azure.account_key, self._azure.connection_string
        return self._package.AzureBlobFileSystem(
            account_name=self._azure.account_name,
            account_key=key and key.get_secret_value(),
            connection_string=text and text.get_secret_value(),
            use_listings_cache=False,
            skip_instance_cache=True,
        )
