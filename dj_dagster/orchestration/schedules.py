"""Schedules of the populate job, in one line each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dagster import DefaultScheduleStatus, ScheduleDefinition

from dj_dagster.orchestration.chosen import ALL, TABLES_TAG
from dj_dagster.orchestration.jobs import (
    JOB_NAME,
    OP_NAME,
    check_limit,
    check_said,
    chosen_tables,
    table_names,
)
from dj_dagster.orchestration.merging import renamable
from dj_dagster.orchestration.table_graph import TableGraph

TABLES = "dj/tables"
"""Metadata of a schedule: the tables that it names."""


def populate_schedule(
    cron: str,
    tables: str | Iterable[str] = ALL,
    *,
    restriction: Any = None,
    limit: int | None = None,
    retry_errors: bool = False,
    name: str | None = None,
    timezone: str | None = None,
    running: bool = True,
) -> ScheduleDefinition:
    """Return a schedule that makes what is pending.

    Parameters
    ----------
    cron
        When: minute, hour, day of the month, month, day of the week.
    tables
        Which, as ``"Processed"`` or ``"lab.Processed"``; ``"all"`` for those that `make` fills.
    restriction, limit, retry_errors
        See the config of the populate job.
    name
        Of the schedule; by default made of the tables' names.
    timezone
        That the hours are of, such as ``"Europe/Berlin"``; UTC by default.
    running
        Whether it is on from the start.

    Raises
    ------
    ConfigurationError
        When the list of tables, or the restriction, is empty, or the limit is below 1.

    Examples
    --------
    >>> populate_schedule("0 3 * * *", tables=["lab.Processed"]).name
    'populate_lab_processed'
    """
    names = ALL if tables == ALL else table_names(tables)
    config: dict[str, Any] = {"tables": names, "retry_errors": retry_errors}
    check_limit(limit)
    if limit is not None:
        config["limit"] = limit
    if restriction is not None:
        check_said(restriction)
        config["restriction"] = restriction
    return job_schedule(
        JOB_NAME,
        names,
        name=name,
        cron_schedule=cron,
        execution_timezone=timezone,
        op=OP_NAME,
        config=config,
        tags={TABLES_TAG: names if isinstance(names, str) else ", ".join(names)},
        default_status=DefaultScheduleStatus.RUNNING if running else DefaultScheduleStatus.STOPPED,
    )


def check_tables(graph: TableGraph, schedules: Iterable[Any]) -> None:
    """Refuse tables of populate schedules that are not there, before a night run finds out.

    Raises
    ------
    ConfigurationError
        When a name is that of no table, or of one that `make` does not fill.
    """
    for schedule in schedules:
        if isinstance(schedule, ScheduleDefinition) and TABLES in schedule.metadata:
            names: Any = schedule.metadata[TABLES].value
            chosen_tables(graph, names)


def job_schedule(
    job: str,
    tables: str | list[str],
    *,
    name: str | None,
    op: str,
    config: Mapping[str, Any],
    **options: Any,
) -> ScheduleDefinition:
    """Return a schedule of one of our jobs, whose name can get an end.

    Parameters
    ----------
    name
        Of the schedule, which stays; by default made of those of job and tables.
    op, config
        Of the job.
    options
        See `dagster.ScheduleDefinition`.
    """
    return renamable(
        lambda end: ScheduleDefinition(
            name=name or schedule_name(job, tables) + end,
            job_name=job + end,
            run_config={"ops": {op + end: {"config": config}}},
            metadata={TABLES: tables},
            **options,
        )
    )


def schedule_name(job: str, tables: str | list[str]) -> str:
    """Return a name made of those of a job and of tables."""
    names = [tables] if isinstance(tables, str) else tables
    words = [re.sub(r"\W+", "_", table).lower() for table in names]
    return "_".join([job, *words])
