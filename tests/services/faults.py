"""A proxy before an HTTP server that delays, refuses, cuts and truncates, request by request."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

METHODS = (b"PUT ", b"GET ", b"HEAD ", b"POST ", b"DELETE ")
FAULTS = ("delay", "500", "503", "cut request", "cut response", "truncate", "refuse")


@dataclass
class FaultyProxy:
    """Listens on `port` and passes requests on, unless `choose` says what is to happen to one.

    Attributes
    ----------
    happened
        How often each fault was made.
    """

    port: int
    choose: Callable[[bytes], str | None] = lambda request: None
    delay: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)

    def randomly(self, share: float, seed: int) -> None:
        """From now on make any fault for a share of the requests."""
        dice = random.Random(seed)
        self.choose = lambda _: dice.choice(FAULTS) if dice.random() < share else None

    def soundly(self) -> None:
        """From now on pass all on."""
        self.choose = lambda _: None


@contextlib.contextmanager
def faulty_proxy(endpoint: str) -> Generator[FaultyProxy]:
    """Run a proxy before a server, given as ``host:port``."""
    host, _, port = endpoint.partition(":")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        proxy = FaultyProxy(listening.getsockname()[1])

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    target = (proxy, client, (host, int(port)))
                    threading.Thread(target=_connection, args=target, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield proxy
        listening.shutdown(socket.SHUT_RDWR)


def _connection(proxy: FaultyProxy, client: socket.socket, target: tuple[str, int]) -> None:
    with client, contextlib.suppress(OSError), socket.create_connection(target) as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        allowed = [-1]
        threading.Thread(target=_answers, args=(server, client, allowed), daemon=True).start()
        while data := client.recv(65536):
            if not data.startswith(METHODS):
                server.sendall(data)
                continue
            time.sleep(proxy.delay)
            fault = proxy.choose(data)
            if fault:
                proxy.happened[fault] += 1
            if fault == "refuse":
                return
            if fault in ("500", "503"):
                body = b"<Error><Code>InternalError</Code></Error>"
                client.sendall(
                    b"HTTP/1.1 %s Fault\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
                    % (fault.encode(), len(body), body)
                )
                return
            if fault == "cut request":
                server.sendall(data[: len(data) // 2])
                return
            if fault == "delay":
                time.sleep(0.1)
            allowed[0] = {"cut response": 0, "truncate": 400}.get(fault or "", -1)
            server.sendall(data)


def _answers(server: socket.socket, client: socket.socket, allowed: list[int]) -> None:
    with contextlib.suppress(OSError):
        while data := server.recv(65536):
            if allowed[0] >= 0:
                client.sendall(data[: allowed[0]])
                client.shutdown(socket.SHUT_RDWR)
                return
            client.sendall(data)
