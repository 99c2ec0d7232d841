"""Where a long check is: a small file, so that one that is interrupted goes on there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from dj_dagster.local_files import make_folder

SECONDS = 5.0
"""How often the file is written."""

_SPELLED: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    int: (int, int),
    str: (str, str),
    bytes: (bytes.hex, bytes.fromhex),
    Decimal: (str, Decimal),
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    timedelta: (
        lambda value: value // timedelta(microseconds=1),
        lambda value: timedelta(microseconds=value),
    ),
}


class Bookmark:
    """What is done of a check, and what it has found.

    Parameters
    ----------
    file
        Where that is kept between processes; nowhere without one.
    of
        What is checked and how: a file of something else is not heeded.

    Attributes
    ----------
    begun
        When the check began, UTC.
    step, rows
        What it is at, and how many rows of it are done.
    after
        The key of the last of these as the driver gives it, None before the first.
    findings
        Place and text of each.
    """

    def __init__(self, file: Path | None = None, of: Mapping[str, Any] | None = None) -> None:
        self._file, self._of = file, dict(of or {})
        self._saved = time.monotonic()
        kept = self._kept()
        self.is_resumed = bool(kept)
        self.begun: str = kept.get("begun", datetime.now(UTC).isoformat(timespec="seconds"))
        self.done: list[str] = kept.get("done", [])
        self.step: str = kept.get("step", "")
        self.rows: int = kept.get("rows", 0)
        self.after: tuple[Any, ...] | None = _unspelled(kept.get("after"))
        self.findings: list[tuple[str, str]] = [(p, t) for p, t in kept.get("findings", [])]

    def begins(self, step: str) -> bool:
        """Return whether a step is still to do, and begin it, or go on with it."""
        if step in self.done:
            return False
        if step != self.step:
            self.step, self.rows, self.after = step, 0, None
        return True

    def passed(self, key: tuple[Any, ...] | None) -> None:
        """Note that a row is done."""
        self.rows += 1
        self.after = key
        if time.monotonic() - self._saved > SECONDS:
            self.save()

    def ended(self) -> None:
        """Note that the step is done."""
        self.done.append(self.step)
        self.step, self.rows, self.after = "", 0, None
        if time.monotonic() - self._saved > SECONDS:
            self.save()

    def save(self) -> None:
        """Write the file, if there is to be one."""
        self._saved = time.monotonic()
        if self._file is None:
            return
        after = _spelled(self.after)
        fields = {
            **self._of,
            "begun": self.begun,
            "done": self.done,
            "step": self.step,
            "rows": self.rows if after is not None else 0,
            "after": after,
            "findings": self.findings,
        }
        make_folder(self._file.parent)
        temporary = self._file.with_suffix(".writing")
        temporary.write_text(json.dumps(fields))
        temporary.replace(self._file)

    def remove(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _kept(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        with suppress(OSError, ValueError):
            found: Any = json.loads(self._file.read_text())
            if isinstance(found, dict) and self._of.items() <= found.items():
                return found
        return {}


def _spelled(key: Sequence[Any] | None) -> list[Any] | None:
    """Return a key as JSON, None where that could not be read back."""
    if key is None or any(type(value) not in _SPELLED for value in key):
        return None
    return [[type(value).__name__, _SPELLED[type(value)][0](value)] for value in key]


def _unspelled(key: Any) -> tuple[Any, ...] | None:
    if not key:
        return None
    kinds = {kind.__name__: read for kind, (_, read) in _SPELLED.items()}
    return tuple(kinds[name](value) for name, value in key)
