"""Microsoft's own server of Azure Blob Storage for tests: Azurite, a program for Node."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tests.services.process import accepts, free_port, server

ACCOUNT = "devstoreaccount1"
# Azurite's only account and its key, the same everywhere: see its README.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
PROGRAM = "azurite-blob"


def is_installed() -> bool:
    """Tell whether the server (``npm install -g azurite``) and its client are here."""
    return shutil.which(PROGRAM) is not None and importlib.util.find_spec("adlfs") is not None


@contextlib.contextmanager
def azurite() -> Generator[str]:
    """Run a server over an empty temporary folder, and give its connection string."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="djazure") as folder:
        command = [PROGRAM, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        # It refuses the newest clients otherwise, which it serves well enough.
        command += ["--location", folder, "--skipApiVersionCheck", "--disableTelemetry"]
        with server(command, log=Path(folder) / "log", ready=lambda: accepts(port)):
            yield (
                f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
                f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
            )


def container_settings(connection_string: str, container: str) -> dict[str, Any]:
    """Make a container and return the settings of a store in it."""
    from azure.storage.blob import BlobServiceClient

    with BlobServiceClient.from_connection_string(connection_string) as client:
        client.create_container(container)
    return {
        "protocol": "azure", "container": container, "location": "dj",
        "connection_string": connection_string,
    }  # fmt: skip
