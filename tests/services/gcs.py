"""A server that speaks Google Cloud Storage's protocol (gcp-storage-emulator, from PyPI)."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import tempfile
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tests.services.process import ServiceMissingError, accepts, free_port, server

VARIABLE = "STORAGE_EMULATOR_HOST"
"""Where Google's clients, gcsfs among them, look for another server than Google's."""


@contextlib.contextmanager
def gcs() -> Generator[str]:
    """Run a server that keeps objects in memory, and give its URL.

    Raises
    ------
    ServiceMissingError
        If the emulator or the client is not in this environment.
    """
    if not all(map(importlib.util.find_spec, ("gcp_storage_emulator", "gcsfs"))):
        raise ServiceMissingError(
            "no Google Cloud Storage here; install it with: pip install gcp-storage-emulator gcsfs"
        )
    port = free_port()
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--in-memory", "--quiet"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (
        tempfile.TemporaryDirectory(prefix="djgcs") as folder,
        server(command, log=Path(folder) / "log", ready=lambda: accepts(port)),
    ):
        yield f"http://127.0.0.1:{port}"


def bucket_settings(url: str, bucket: str) -> dict[str, Any]:
    """Make a bucket and return the settings of a store in it."""
    request = urllib.request.Request(
        f"{url}/storage/v1/b?project=lab",
        json.dumps({"name": bucket}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request):
        return {
            "protocol": "gcs", "bucket": bucket, "location": "dj", "token": "anon",
            "project": "lab",
        }  # fmt: skip
