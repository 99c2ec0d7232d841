"""What ends a worker; SIGTERM is an exception, so that one gives its keys back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache


@contextmanager
def exit_on_sigterm() -> Generator[None]:
    """Let SIGTERM raise `SystemExit` inside; threads other than the main one cannot change that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _spare_children()
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class ToldToEnd(SystemExit):
    """SIGTERM came, in contrast to a `make` that calls `sys.exit`."""


def ends_process(error: BaseException) -> bool:
    """Whether an exception asks the process to end: whatever else a `make` raises fails its key.

    Such as what asyncio raises for a task that is cancelled, or other libraries for a timeout.
    """
    if isinstance(error, Exception):
        return False
    if isinstance(error, BaseExceptionGroup):
        return any(map(ends_process, error.exceptions))
    # Dagster raises an interrupt of its own in a run that is cancelled; this floor imports none.
    hosts = (kind.__module__.partition(".")[0] for kind in type(error).__mro__)
    return isinstance(error, KeyboardInterrupt | ToldToEnd) or "dagster" in hosts


def _leave(number: int, frame: object) -> None:
    del number, frame
    raise ToldToEnd("ended by SIGTERM")


@cache
def _spare_children() -> None:
    """Have processes that are forked meanwhile, such as by a pool in a make, end at once.

    An exception can come too late for one that is about to wait for a lock: it would wait for ever,
    and its pool for it.
    """
    os.register_at_fork(after_in_child=_end_at_once)


def _end_at_once() -> None:
    if signal.getsignal(signal.SIGTERM) is _leave:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
