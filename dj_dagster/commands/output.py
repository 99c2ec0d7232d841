"""Output of commands: tables of a terminal or of plain text, JSON, durations, and progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from datetime import time as time_of_day
from typing import TYPE_CHECKING, Any

import click

from dj_dagster.lazy import LateModule
from dj_dagster.objects.previews import printable
from dj_dagster.relational.backends.common import time_text

if TYPE_CHECKING:
    import rich.box as box
    import rich.console as console
    import rich.table as table
else:
    box, console, table = map(LateModule, ("rich.box", "rich.console", "rich.table"))

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
"""The option of commands that list something."""

Cell = str | int | None


def tell(text: str) -> None:
    """Print a message about the progress of a command to stderr."""
    click.echo(printable(text), err=True)


def show_json(found: Iterable[Any]) -> None:
    """Print dataclasses as a JSON list; values that JSON lacks are texts, and times ISO 8601."""
    click.echo(json.dumps([asdict(each) for each in found], indent=2, default=_text))


def _text(value: object) -> str:
    if isinstance(value, timedelta):
        return time_text(value, 6 if value.microseconds else 0)
    return value.isoformat() if isinstance(value, date | time_of_day) else str(value)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table: with lines and colours on a terminal, else as aligned plain text.

    Numbers are aligned to the right; an empty cell stands for None.
    """
    texts = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    right = [any(isinstance(row[n], int) for row in rows) for n in range(len(columns))]
    if sys.stdout.isatty():
        drawn = table.Table(box=box.SIMPLE_HEAD)
        for name, is_number in zip(columns, right, strict=True):
            drawn.add_column(name, justify="right" if is_number else "left", overflow="fold")
        for row in texts:
            drawn.add_row(*(_coloured(n, text) for n, text in zip(columns, row, strict=True)))
        console.Console().print(drawn)
        return
    lines = [list(columns), *texts]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    for line in lines:
        cells = [
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(line, widths, right, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


_COLOURS: Mapping[str, str] = {"failed": "red", "stale": "yellow", "lost": "red", "left": "yellow"}
"""The colours of numbers above zero, by column, as in Dagster's UI."""


def _coloured(column: str, text: str) -> str:
    colour = _COLOURS.get(column) if text not in ("", "0") else None
    # Brackets in texts are not markup.
    plain = text.replace("[", r"\[")
    return f"[{colour}]{plain}[/]" if colour else plain


def duration(seconds: float) -> str:
    """Return a duration for people.

    Examples
    --------
    >>> duration(0.25), duration(50), duration(400), duration(9000)
    ('0.2 s', '50 s', '7 min', '2.5 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Counting:
    """Shows on stderr how far something is: one line of a terminal, else a line every 5 s.

    Parameters
    ----------
    unit
        The name of the things counted.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._shown = 0.0
        self._place = ""
        self._began = (0.0, 0)

    def __call__(self, place: str, done: int, total: int) -> None:
        """Show that so many are done at a place."""
        ended, now = done >= total, time.monotonic()
        if place != self._place:
            self._place, self._began = place, (now, done)
        here = sys.stderr.isatty()
        if not ended and now - self._shown < (0.2 if here else 5):
            return
        self._shown = now
        text = f"{place}: {done} of {total} {self._unit}{self._left(now, done, total)}"
        click.echo(f"\r{text}\033[K" if here else text, err=True, nl=ended or not here)

    def _left(self, now: float, done: int, total: int) -> str:
        since, before = self._began
        if done >= total or done <= before or now - since < 1:
            return ""
        return f", about {duration((now - since) / (done - before) * (total - done))} left"


def counting(wanted: bool | None, unit: str) -> Callable[[str, int, int], None] | None:
    """Return what shows progress if that is wanted, by default on a terminal; else None."""
    return Counting(unit) if (sys.stderr.isatty() if wanted is None else wanted) else None
