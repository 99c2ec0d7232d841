"""Start a server, wait until it answers, end it and everything it started."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

T = TypeVar("T")

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dj-dagster-tests"
"""What runs of the tests leave for the next, and share."""

PATIENCE: float = 300
"""Seconds that a condition may take; beside other work all may be ten times as slow."""


class ServiceMissingError(Exception):
    """A service is not installed; the message is the line that installs it."""


# Below those that systems give to connections, which a server that starts again would find taken.
_PORTS = list(range(20_000, 32_000))
random.SystemRandom().shuffle(_PORTS)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 for a server, which is this process's own until it ends.

    Nobody listens on it, and a server that has left it finds it free when it starts again. Other
    processes of these tests are given others: a byte of a file is locked for each.
    """
    while True:
        port = _PORTS.pop()
        with contextlib.suppress(OSError), socket.socket() as probe:
            fcntl.lockf(_lock_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


@functools.cache
def _lock_file() -> BinaryIO:
    # It stays open: locks of a file end with the first descriptor of it that a process closes.
    CACHE.mkdir(parents=True, exist_ok=True)
    return (CACHE / "ports").open("ab")


def accepts(port: int) -> bool:
    """Tell whether something listens on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def server(
    command: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    timeout: float = PATIENCE,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Generator[subprocess.Popen[bytes]]:
    """Run `command` in a session of its own until the block ends.

    Parameters
    ----------
    command
        Program and arguments.
    log
        File that receives the output; its end is quoted when the server does not come up.
    ready
        Asked until it says yes; only then is the block entered.
    timeout
        Seconds to wait for that.
    cwd, env
        Working directory and whole environment of the server; ours when left out.

    Raises
    ------
    RuntimeError
        If the server ends, or is not ready in time.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    try:
        _await(process, ready, timeout, log)
        yield process
    finally:
        end_tree(process)


def _await(
    process: subprocess.Popen[bytes], ready: Callable[[], bool], timeout: float, log: Path
) -> None:
    def ready_or_ended() -> bool:
        return process.poll() is not None or ready()

    try:
        eventually(ready_or_ended, timeout=timeout, every=0.05)
    except TimeoutError as late:
        raise RuntimeError(f"the server is not ready: {late}\n{tail(log)}") from None
    if process.poll() is not None:
        raise RuntimeError(f"the server ended with code {process.returncode}\n{tail(log)}")


def eventually(ask: Callable[[], T], *, timeout: float = PATIENCE, every: float = 0.25) -> T:
    """Ask every so many seconds until the answer is true, and return it.

    Raises
    ------
    TimeoutError
        If that takes longer than `timeout` seconds; it quotes the last answer.
    """
    deadline = time.monotonic() + timeout
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout:g} s the answer is still {answer!r}")
        time.sleep(every)
    return answer


def tail(log: Path, characters: int = 3000) -> str:
    """Return the end of a log file, for an error message."""
    return log.read_text(errors="replace")[-characters:]


def end_tree(process: subprocess.Popen[bytes], grace: float = 10) -> None:
    """Ask the process to end, then kill what is left of its session after `grace` seconds."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    # What it started is still in its process group, whose number is its own also after its end;
    # an empty group is no such process, and on macOS one of zombies is not ours to kill.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
