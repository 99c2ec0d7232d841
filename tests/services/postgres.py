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
FLAGS = ("fsync=off", "full_page_writes=off", "max_connections=200")


class PostgresServer:
    """A server that can be killed and started again on the same port.

    Parameters
    ----------
    place
        An empty folder; short, for a socket's path may have 107 characters.
    durable
        Whether what is committed survives the process, though not the machine.

    Raises
    ------
    ServiceMissingError
        If there is no `postgres` on the PATH or in /usr/lib/postgresql.
    """

    def __init__(self, place: Path, *, durable: bool = False) -> None:
        self._place = place
        self._programs = _programs()
        self._user = _unprivileged(place)
        self._commit = f"synchronous_commit={'on' if durable else 'off'}"
        self.port = free_port()
        self._running = contextlib.ExitStack()
        initdb = [self._programs / "initdb", "-D", place / "data", "-U", "dagster"]
        initdb += ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        command = [*self._user, *map(str, initdb)]
        subprocess.run(command, check=True, capture_output=True, cwd=place)

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of its database (user dagster, no password)."""
        return f"postgresql+psycopg2://dagster@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        command = [*self._user, self._programs / "postgres", "-D", self._place / "data"]
        command += ["-p", str(self.port), "-h", "127.0.0.1", "-k", self._place]
        for flag in (*FLAGS, self._commit):
            command += ["-c", flag]
        log = Path(tempfile.gettempdir()) / f"{self._place.name}.log"
        self._running.callback(log.unlink, missing_ok=True)
        self._process = self._running.enter_context(
            server(command, log=log, ready=lambda: accepts(self.port), cwd=self._place)
        )

    def kill(self) -> None:
        """End it without a word, as a power cut would."""
        self._process.kill()
        self._process.wait()
        self._running.close()

    def stop(self) -> None:
        """End it."""
        self._running.close()


@contextlib.contextmanager
def postgres_server(*, durable: bool = False) -> Generator[PostgresServer]:
    """Prepare a server, which is gone at the end of the block; it is to be started."""
    with tempfile.TemporaryDirectory(prefix="djpg") as folder:
        made = PostgresServer(Path(folder), durable=durable)
        try:
            yield made
        finally:
            made.stop()


@contextlib.contextmanager
def postgres() -> Generator[str]:
    """Run a server and give the SQLAlchemy URL of its database (user dagster, no password).

    Raises
    ------
    ServiceMissingError
        If there is no `postgres` on the PATH or in /usr/lib/postgresql.
    """
    with postgres_server() as running:
        running.start()
        yield running.url


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
