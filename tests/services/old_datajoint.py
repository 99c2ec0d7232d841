"""A client of DataJoint 0.14, which cannot be installed beside 2.x: a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import sqlalchemy as sa

from tests.services.process import ServiceMissingError

PACKAGES = (
    "datajoint==0.14.10", "deepdiff", "otumat", "orderly-set", "cachebox", "minio", "argon2-cffi",
    "argon2-cffi-bindings", "pycryptodome",
)  # fmt: skip
"""DataJoint and those of its dependencies that are not installed here."""

_CLIENT = """
import json, sys, traceback
import datajoint as dj
import numpy as np

options = json.loads(sys.stdin.readline())
dj.config.update(options)
dj.config["safemode"] = False
dj.config["enable_python_native_blobs"] = True
dj.config["loglevel"] = "ERROR"
dj.logger.setLevel("ERROR")
names = {"dj": dj, "np": np, "__name__": "__main__"}
real = sys.stdout
sys.stdout = sys.stderr
print("ready", file=real, flush=True)
for line in sys.stdin:
    names["result"] = None
    try:
        exec(json.loads(line), names)
        answer = {"result": names["result"]}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer, default=str), file=real, flush=True)
"""


def install(folder: Path, packages: Sequence[str] = PACKAGES) -> None:
    """Put packages into a folder, from PyPI, without what they depend on.

    Raises
    ------
    ServiceMissingError
        If that fails.
    """
    uv = os.environ.get("UV") or shutil.which("uv")
    installer = [uv, "pip", "install", "--python", sys.executable] if uv else []
    installer = installer or [sys.executable, "-m", "pip", "install"]
    command = [*installer, "--quiet", "--no-deps", "--target", str(folder), *packages]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ServiceMissingError(f"{packages[0]} cannot be installed: {done.stderr[-500:]}")


class OldClient:
    """A running client; its names live as long as it does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def send(self, code: str) -> None:
        """Have code run without waiting for it; `receive` returns what comes of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dedent(code)) + "\n")
        self._process.stdin.flush()

    def receive(self) -> Any:
        """Return what the code that was sent before has put into the name ``result``."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "The client has ended."}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def run(self, code: str) -> Any:
        """Run code, and return what it has put into the name ``result``, by way of JSON."""
        self.send(code)
        return self.receive()


@contextlib.contextmanager
def old_client(
    folder: Path, url: str, stores: Mapping[str, Any], cwd: Path
) -> Generator[OldClient]:
    """Start a client that is connected to a server, and end it with the block."""
    at = sa.make_url(url)
    options = {
        "database.host": at.host,
        "database.port": at.port or 3306,
        "database.user": at.username,
        "database.password": at.password or "",
        "database.use_tls": False,
        "stores": stores,
        "download_path": str(cwd),
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DJ_")}
    # It counts as experimental there.
    clean["DJ_SUPPORT_FILEPATH_MANAGEMENT"] = "TRUE"
    process = subprocess.Popen(
        [sys.executable, "-c", _CLIENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(folder), "HOME": str(cwd)},
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(options) + "\n")
        process.stdin.flush()
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"The client of DataJoint 0.14 ended with {process.wait()}.")
        yield OldClient(process)
    finally:
        process.kill()
        process.communicate()
