"""A private Redis server, and workers of Celery that take runs from it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path

import psutil

from tests.services.hosts import on_host
from tests.services.process import ServiceMissingError, accepts, free_port, server

INSTALL = "apt-get install -y --no-install-recommends redis-server"

CONFIGURATION = Path(__file__).parents[2] / "deploy/celery/redis.conf"


class RedisServer:
    """A Redis on 127.0.0.1 that can be ended and started again, and knows what it knew.

    Attributes
    ----------
    url
        Its address, without the number of a database.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._port = free_port()
        self._running = contextlib.ExitStack()
        self.url = f"redis://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command = [_find() or "redis-server", str(CONFIGURATION), "--port", str(self._port)]
        command += ["--dir", str(self._place)]
        log = self._place / "redis.log"
        self._process = self._running.enter_context(
            server(command, log=log, ready=lambda: accepts(self._port))
        )

    def kill(self) -> None:
        """End the server without a word."""
        self._process.kill()
        self._process.wait()
        self._running.close()

    def end(self) -> None:
        """End the server in order."""
        self._running.close()


class CeleryWorker:
    """A worker with one process, which can be killed and started again.

    Parameters
    ----------
    host
        The name of the machine that it has for itself; see `tests.services.hosts`.

    Attributes
    ----------
    name
        Its name, which its runs find in the variable CELERY_TEST_WORKER.
    """

    def __init__(
        self, name: str, queues: str, home: Path, env: Mapping[str, str], host: str | None = None
    ) -> None:
        self.name = name
        self._queues = queues
        self._home = home
        self._host = host
        own = {"DAGSTER_HOME": str(home), "CELERY_TEST_WORKER": name}
        self._env = {**env, **own}
        self._running = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the worker, and wait until it takes runs."""
        log = self._home / f"{self.name}.log"
        before = log.stat().st_size if log.exists() else 0
        command = [sys.executable, "-m", "celery", "-A", "dj_dagster.celery", "worker"]
        command += ["--hostname", f"{self.name}@here", "--queues", self._queues]
        command += ["--concurrency", "1", "--loglevel", "INFO"]
        self._process = self._running.enter_context(
            server(
                on_host(self._host, command),
                log=log,
                ready=lambda: b"ready." in log.read_bytes()[before:],
                cwd=self._home,
                env=self._env,
            )
        )

    def processes(self) -> list[psutil.Process]:
        """Return the worker's processes, the main one first."""
        assert self._process is not None
        main = psutil.Process(self._process.pid)
        return [main, *main.children(recursive=True)]

    def kill(self) -> None:
        """End the worker's main process without a word; the kernel ends its others."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._running.close()

    def end(self) -> None:
        """End the worker in order."""
        self._running.close()


@contextlib.contextmanager
def redis() -> Generator[RedisServer]:
    """Run a server in a temporary folder until the block ends.

    Raises
    ------
    ServiceMissingError
        If there is no `redis-server` on the PATH or in /usr/bin.
    """
    if _find() is None:
        raise ServiceMissingError(f"no redis-server here; install it with: {INSTALL}")
    with tempfile.TemporaryDirectory(prefix="djredis") as folder:
        running = RedisServer(Path(folder))
        try:
            running.start()
            yield running
        finally:
            running.end()


def _find() -> str | None:
    return shutil.which("redis-server", path=f"{os.environ.get('PATH', '')}:/usr/bin")
