"""SIGTERM as an exception, so that a worker which is told to stop gives its keys back."""

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
