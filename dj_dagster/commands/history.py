"""The command that makes Dagster's history shorter."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from dj_dagster.commands.keys import (
    chosen_names,
    graph_named,
    modules_option,
    progress_option,
    usage,
)
from dj_dagster.commands.output import as_json, counting, show_json, show_table
from dj_dagster.errors import counted
from dj_dagster.lazy import LateModule

if TYPE_CHECKING:
    import dj_dagster.orchestration as dagster_side
    from dj_dagster.orchestration.inspection import project

    _Type = click.ParamType[datetime | timedelta]
else:
    # Before click 8.4 it does not take the type of its values.
    _Type = click.ParamType
    # Dagster takes seconds to import, which other commands do not need.
    dagster_side = LateModule("dj_dagster.orchestration")
    project = LateModule("dj_dagster.orchestration.inspection.project")

UNITS = {"h": "hours", "d": "days", "w": "weeks"}
"""The units of ages on the command line."""


class Moment(_Type):
    """A time, as a date or a date with a time, or an age such as ``90d``."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | timedelta:
        """Return the time or the age that a text stands for."""
        if isinstance(value, datetime | timedelta):
            return value
        try:
            if age := re.fullmatch(r"(\d+)([hdw])", value):
                return timedelta(**{UNITS[age[2]]: int(age[1])})
            return datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time. Write 90d, 12h, 4w or 2026-01-31.", param, ctx)


@click.command("compact-events")
@click.argument("tables", nargs=-1, required=True)
@modules_option
@click.option("--before", type=Moment(), help="Events older than 90d (h, d, w), or a date.")
@click.option(
    "--keep", type=click.IntRange(min=1), help="Events of a kind that stay for each key; 1."
)
@click.option("--dry-run", is_flag=True, help="Count the events, and delete none.")
@progress_option
@as_json
def compact_command(
    tables: tuple[str, ...],
    modules: tuple[str, ...],
    before: datetime | timedelta | None,
    keep: int | None,
    dry_run: bool,
    progress: bool | None,
    as_json: bool,
) -> None:
    """Delete old events of TABLES from Dagster's event log where younger ones are there.

    The word all stands for all tables. What Dagster shows of keys does not change: the last
    materialisation, plan and note of each key stay, however old they are. Say which others go: with
    --before those of that age, with --keep all but so many, with both those for which both hold.

    Events of unfinished runs and backfills stay. A run that has no event of a table left loses the
    lines that were logged in it.
    """
    if before is None and keep is None:
        raise click.UsageError("Say which events may go: --before 90d, --keep 5, or both.")
    graph, chosen = graph_named(modules, tables), chosen_names(tables)
    with project.dagster_instance() as instance, usage():
        done = dagster_side.compact_events(
            graph,
            chosen,
            before=timedelta() if before is None else before,
            keep=keep or 1,
            dry_run=dry_run,
            progress=counting(progress, "events"),
            instance=instance,
        )
    if as_json:
        show_json(done)
        return
    columns = ["table", "marks", "plans", "notes", "log lines"]
    rows = [[each.table, each.marks, each.plans, each.notes, each.log_lines] for each in done]
    show_table(columns, rows)
    total = sum(each.total for each in done)
    verb = "would be" if dry_run else "was" if total == 1 else "were"
    click.echo(f"{counted(total, 'event')} {verb} deleted.")
