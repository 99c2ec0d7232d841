"""Objects in a container of Azure Blob Storage, through the package adlfs."""

from __future__ import annotations

from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

from dj_dagster.objects.bucket_store import BucketStore
from dj_dagster.objects.store_settings import AzureStoreSettings

_NOT_FOUND = 404
_REFUSED = (401, 403)
_SECRET_PARTS = ("AccountKey=", "SharedAccessSignature=")


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

    @property
    def secrets(self) -> list[str]:
        """The key, and of a connection string its parts."""
        parts = [part for text in super().secrets for part in [text, *text.split(";")]]
        values = (part.partition("=")[2] for part in parts if part.startswith(_SECRET_PARTS))
        return [*super().secrets, *filter(None, values)]

    def understood(self, error: Exception) -> Exception:
        """Go by the status of the answer, which the client tells apart by far fewer classes."""
        status = getattr(error, "status_code", None)
        if status == _NOT_FOUND:
            return FileNotFoundError(str(error))
        return PermissionError(str(error)) if status in _REFUSED else error

    def duplicate(self, key: str, other: str) -> None:
        """Copy by way of this machine: the service copies when it likes, after it has answered."""
        with TemporaryDirectory() as folder:
            file = f"{folder}/object"
            self.filesystem.get_file(key, file)
            self.filesystem.put_file(file, other, overwrite=True)

    def connect(self) -> Any:
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
