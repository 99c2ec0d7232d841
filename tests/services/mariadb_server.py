"""A MariaDB server that is killed and started again over the same data."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator
from pathlib import Path

from tests.services.mariadb import FLAGS, _bootstrap, _daemon, _options
from tests.services.process import accepts, free_port, server

# What is committed has to survive the process, though not the machine.
DURABLE = "--innodb-flush-log-at-trx-commit=2"


class MariaDBServer:
    """A private server on a port that stays the same."""

    def __init__(self, place: Path) -> None:
        self._daemon = _daemon()
        self._place = place
        self._port = free_port()
        self._running = contextlib.ExitStack()
        _bootstrap(self._daemon, place)

    @property
    def url(self) -> str:
        """The SQLAlchemy URL: user root, no password, no database."""
        return f"mysql+pymysql://root@127.0.0.1:{self._port}/"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [option for option in _options(self._place) if option != FLAGS[2]]
        command = [self._daemon, *options, DURABLE, f"--port={self._port}"]
        command += ["--bind-address=127.0.0.1", f"--socket={self._place / 'sock'}"]
        command += [f"--pid-file={self._place / 'pid'}", "--character-set-server=utf8mb4"]
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
def mariadb_server() -> Generator[MariaDBServer]:
    """Run a server that can be killed; it is gone at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="djdb") as folder:
        made = MariaDBServer(Path(folder))
        made.start()
        try:
            yield made
        finally:
            made.stop()
