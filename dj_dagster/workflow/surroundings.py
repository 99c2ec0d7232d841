"""What a `make` may leave changed in its process, put right for the keys that come after it."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

STREAMS = ((1, "stdout"), (2, "stderr"))


@contextmanager
def surroundings_kept() -> Generator[None]:
    """Undo a change of directory and a closed output; end a copy of the process.

    A child that a `make` forks and forgets to end would come out of the `make` too, and go on with
    the keys of its parent: it ends here.
    """
    process, folder = os.getpid(), _folder()
    try:
        yield
    finally:
        if os.getpid() != process:
            os._exit(0)
        if folder is not None and _folder() != folder:
            with suppress(OSError):
                os.chdir(folder)
        for number, name in STREAMS:
            _reopen(number, name)


def _folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:
        return None


def _reopen(number: int, name: str) -> None:
    """Have output go nowhere that would fail, or into a file that gets the free number."""
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
    stream = getattr(sys, name)
    if stream is not None and stream.closed:
        setattr(sys, name, os.fdopen(number, "w", errors="backslashreplace", closefd=False))
