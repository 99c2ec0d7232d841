"""Trying again after failures that pass: deadlocks, lock waits, lost connections."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds after which a failure is no longer met by another try."""

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0


def retried(work: Callable[[], T], passing: tuple[type[Exception], ...]) -> T:
    """Return what a function returns, calling it again while it fails in a way that passes.

    Parameters
    ----------
    work
        Must have no effect when it fails.
    passing
        The errors that may pass.

    Raises
    ------
    Exception
        The last failure, once `PATIENCE` is over, or any other at once.
    """
    started = time.monotonic()
    pause = FIRST_PAUSE
    while True:
        try:
            return work()
        except passing as error:
            # Never again where the outcome is unknown.
            if not getattr(error, "transient", False) or time.monotonic() - started > PATIENCE:
                raise
        # Of two that block each other one has to come later.
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, LONGEST_PAUSE)
