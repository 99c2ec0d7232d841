"""What runs in a worker process: the shares that it is given, and what it reports."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from collections.abc import Generator
from dataclasses import replace
from multiprocessing.connection import Connection as Pipe
from typing import Any

from dj_dagster.errors import PopulateError, text_of
from dj_dagster.workflow.attempt import KeyOutcome
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.pending import Key
from dj_dagster.workflow.populate import Making
from dj_dagster.workflow.sigterm import ends_process, exit_on_sigterm

NONE = -1
"""Stands for the number of the key at work where there is none."""

REPORT = 0.02
"""Seconds that an outcome waits for others to be reported with."""


class At:
    """What a worker process is doing, in memory that its parent sees too."""

    def __init__(self, context: Any) -> None:
        self._position = context.RawValue("q", NONE)
        self._since = context.RawValue("d", 0.0)

    @property
    def position(self) -> int:
        """The number of the key at work in its share, `NONE` between keys."""
        return int(self._position.value)

    @property
    def since(self) -> float:
        """When it began with that key, by `time.monotonic`."""
        return float(self._since.value)

    def begin(self, position: int) -> None:
        """Note that a key is begun."""
        # The time first: a parent that looks in between takes it for an earlier key's, not this.
        self._since.value = time.monotonic()
        self._position.value = position

    def end(self) -> None:
        """Note that there is no key at work."""
        self._position.value = NONE


def serve(
    table_class: type[Makes], making: Making, pipe: Pipe, at: At, inherited: list[Pipe]
) -> None:
    """Make the shares that come through a pipe, until it is closed."""
    for other in inherited:
        other.close()
    positions: dict[tuple[Any, ...], int] = {}

    def before(key: Key) -> None:
        at.begin(positions[tuple(key.values())])

    try:
        with exit_on_sigterm():
            batches = making.batches(table_class(), before)
            while True:
                share: list[Key] = pipe.recv()
                positions.clear()
                positions.update((tuple(key.values()), number) for number, key in enumerate(share))
                _report(pipe, batches.run(share), at)
    except EOFError:
        # All is done, or the parent is gone.
        return
    except (KeyboardInterrupt, SystemExit, BrokenPipeError):
        at.end()
        os._exit(1)


def _report(pipe: Pipe, outcomes: Generator[KeyOutcome], at: At) -> None:
    found: list[Any] = []
    sent = time.monotonic()
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            at.end()
            found.append(_portable(outcome))
            if time.monotonic() - sent > REPORT:
                pipe.send(found)
                found, sent = [], time.monotonic()
    if found:
        pipe.send(found)


def _portable(outcome: KeyOutcome) -> tuple[KeyOutcome, tuple[str, str] | None]:
    """Return an outcome that can be sent: not every exception can."""
    error = outcome.error
    if error is None:
        return outcome, None
    try:
        pickle.loads(pickle.dumps(error))
    except BaseException as own:
        if ends_process(own):
            raise
        return replace(outcome, error=None), (type(error).__name__, text_of(error))
    return outcome, None


def restored(item: tuple[KeyOutcome, tuple[str, str] | None]) -> KeyOutcome:
    """Return an outcome as it was sent, its error with the traceback that it had there."""
    outcome, told = item
    if told is not None:
        name, text = told
        outcome = replace(outcome, error=type(name, (PopulateError,), {})(text))
    if outcome.error is not None and outcome.traceback:
        # Notes of its own may be anything.
        with contextlib.suppress(Exception):
            outcome.error.add_note(f"In a worker process:\n{outcome.traceback}")
    return outcome
