"""A private PostgreSQL server in a temporary folder, for Dagster's own storage."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

from tests.services.process import ServiceMissingError, accepts, free_port, server

INSTALL = "apt-get install -y --no-install-recommends postgresql"

# The data is thrown away: nothing waits for the disk.
FLAGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


@contextlib.contextmanager
def postgres() -> Generator[str]:
    """Run a server and give the SQLAlchemy URL of its database (user dagster, no password).

    Raises
    ------
    ServiceMissingError
        If there is no `postgres` on the PATH or in /usr/lib/postgresql.
    """
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="djpg") as folder:
        place = Path(folder)
        user = _unprivileged(place)
        initdb = [programs / "initdb", "-D", place / "data", "-U", "dagster", "--auth=trust"]
        initdb += ["--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run([*user, *map(str, initdb)], check=True, capture_output=True, cwd=place)
        port = free_port()
        command = [*user, programs / "postgres", "-D", place / "data", "-p", str(port)]
        command += ["-h", "127.0.0.1", "-k", place]
        for flag in FLAGS:
            command += ["-c", flag]
        log = Path(tempfile.gettempdir()) / f"{place.name}.log"
        try:
            with server(command, log=log, ready=lambda: accepts(port), cwd=place):
                yield f"postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres"
        finally:
            log.unlink(missing_ok=True)


def _programs() -> Path:
    found = shutil.which("postgres")
    if found is None:
        # Debian keeps each version's programs in a folder of its own.
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        found = str(versions[-1]) if versions else None
    if found is None:
        raise ServiceMissingError(f"no postgres here; install it with: {INSTALL}")
    return Path(found).resolve().parent


def _unprivileged(place: Path) -> list[str]:
    """Return what runs a command as somebody else: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ServiceMissingError("PostgreSQL does not run as root, and there is no setpriv here")
    place.chmod(0o711)
    (place / "data").mkdir(mode=0o700)
    for path in (place, place / "data"):
        shutil.chown(path, "nobody")
    return [setpriv, "--reuid=nobody", "--clear-groups"]
