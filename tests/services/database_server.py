"""A MariaDB or MySQL server in a temporary folder, which can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Generator
from pathlib import Path

import sqlalchemy

from tests.services.process import accepts, free_port, server


class DatabaseServer(ABC):
    """A private server on a port that stays the same.

    Parameters
    ----------
    place
        An empty folder for its data; short, for a socket's path may have 107 characters.
    durable
        Whether what is committed survives the process, though not the machine. Else nothing of the
        data has to survive, so that nothing waits for the disk.

    Raises
    ------
    ServiceMissingError
        If the program is not installed.
    """

    name: str
    """What the server is called: ``"mariadb"``, ``"mysql"``."""

    def __init__(self, place: Path, *, durable: bool = False) -> None:
        self._place = place
        self._flush = f"--innodb-flush-log-at-trx-commit={2 if durable else 0}"
        self._port = free_port()
        self._running = contextlib.ExitStack()
        (place / "tmp").mkdir()
        self._initialise()

    @property
    def url(self) -> str:
        """The SQLAlchemy URL: user root, no password, no database."""
        return f"mysql+pymysql://root@127.0.0.1:{self._port}/"

    @abstractmethod
    def _command(self) -> list[str | Path]:
        """Return the program with the options that it always has."""

    @abstractmethod
    def _initialise(self) -> None:
        """Make the system tables in the data folder."""

    def _options(self) -> list[str | Path]:
        options = [f"--datadir={self._place / 'data'}", f"--tmpdir={self._place / 'tmp'}"]
        return [*options, self._flush, *(["--user=root"] if os.geteuid() == 0 else [])]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [*self._command(), f"--port={self._port}", "--bind-address=127.0.0.1"]
        command += [f"--socket={self._place / 'sock'}", f"--pid-file={self._place / 'pid'}"]
        command += ["--character-set-server=utf8mb4"]
        self._process = self._running.enter_context(
            server(command, log=self._place / "log", ready=lambda: accepts(self._port))
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
def database_server(
    kind: type[DatabaseServer], *, durable: bool = False
) -> Generator[DatabaseServer]:
    """Run a server, which is gone at the end of the block."""
    # Pytest's own folders can have too long names for a socket.
    with tempfile.TemporaryDirectory(prefix="djdb") as folder:
        made = kind(Path(folder), durable=durable)
        made.start()
        try:
            yield made
        finally:
            made.stop()


def drop_databases(url: str, prefix: str) -> None:
    """Drop every database of the server whose name begins with `prefix`."""
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("SET foreign_key_checks = 0")
            names = connection.exec_driver_sql("SHOW DATABASES").scalars().all()
            for name in names:
                if name.startswith(prefix):
                    connection.exec_driver_sql(f"DROP DATABASE `{name}`")
    finally:
        engine.dispose()
