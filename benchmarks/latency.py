"""A process that stands before a server and makes it answer later, at little cost of its own.

It runs as ``python -m benchmarks.latency host:port seconds``. Bytes pass through the kernel's
pipes, and never through Python.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator

PIPE = 2**20
"""Bytes that are on their way at once in a connection."""


@contextlib.contextmanager
def later(endpoint: str, seconds: float) -> Generator[str]:
    """Give an address, ``host:port``, where a server answers that many seconds later."""
    command = [sys.executable, "-m", "benchmarks.latency", endpoint, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def main() -> None:
    """Listen on a free port, which is printed, until the process is ended."""
    host, _, port = sys.argv[1].partition(":")
    seconds = float(sys.argv[2])
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            client, _ = listening.accept()
            server = socket.create_connection((host, int(port)))
            _join(client, server, seconds)


def _join(client: socket.socket, server: socket.socket, seconds: float) -> None:
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answered = threading.Event()
    answered.set()

    def wait() -> None:
        # What follows an answer is a request; what follows that belongs to it.
        if answered.is_set():
            answered.clear()
            time.sleep(seconds)

    for work in ((client, server, wait), (server, client, answered.set)):
        threading.Thread(target=_pass_on, args=work, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, before: Callable[[], object]) -> None:
    inlet, outlet = os.pipe()
    fcntl.fcntl(outlet, fcntl.F_SETPIPE_SZ, PIPE)
    with contextlib.suppress(OSError):
        while source.recv(1, socket.MSG_PEEK):
            before()
            count = os.splice(source.fileno(), outlet, PIPE)
            while count:
                count -= os.splice(inlet, target.fileno(), count)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    os.close(inlet)
    os.close(outlet)


if __name__ == "__main__":
    main()
