"""A bar that shows how far a long insert is."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dj_dagster.lazy import LateModule

if TYPE_CHECKING:
    import rich.console as console
    import rich.progress as progress
    from rich.progress import Progress, TaskID
else:
    console, progress = LateModule("rich.console"), LateModule("rich.progress")

PATIENCE = 2.0
"""Seconds before a bar is shown on a terminal."""


class InsertProgress:
    """Counts rows; shows a bar on standard error once an insert takes long.

    Parameters
    ----------
    display
        Whether to show the bar from the beginning, or never; None shows it on a terminal only,
        after `PATIENCE`.
    """

    def __init__(self, table: str, display: bool | None = None) -> None:
        self._label = f"insert into {table}"
        self._wanted = display
        self._shown_from = time.monotonic() + (0 if display else PATIENCE)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._done = 0
        self.total: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, rows: int) -> None:
        """Count rows that have been sent."""
        self._done += rows
        if self._bar is None and self._wanted is not False:
            self._show()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, total=self.total)

    def _show(self) -> None:
        if time.monotonic() >= self._shown_from and (self._wanted or sys.stderr.isatty()):
            self._bar = progress.Progress(console=console.Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self.total)
