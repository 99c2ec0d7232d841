"""Functions that return schedules of the populate job and of the recompute job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dagster import DefaultScheduleStatus, ScheduleDefinition

from dj_dagster.orchestration.jobs import populate_job
from dj_dagster.orchestration.jobs.populate_job import (
    check_limit,
    check_said,
    chosen_tables,
    table_names,
)
from dj_dagster.orchestration.merge import TABLES, belonging, renamable
from dj_dagster.orchestration.pipeline import Pipeline
from dj_dagster.orchestration.runs.run_records import ALL, TABLES_TAG
from dj_dagster.orchestration.tables.table_graph import Tables


def populate_schedule(
    cron: str,
    tables: Tables = ALL,
    *,
    restriction: Any = None,
    limit: int | None = None,
    retry_errors: bool = False,
    name: str | None = None,
    timezone: str | None = None,
    running: bool = True,
) -> ScheduleDefinition:
    """Return a schedule that makes pending keys.

    Parameters
    ----------
    cron
        The times: minute, hour, day of the month, month, day of the week.
    tables
        Tables by name, class or asset key; ``"all"`` for those that `make` fills. See
        `dj_dagster.model.selection` for the names.
    restriction, limit, retry_errors
        See the config of the populate job.
    name
        The name of the schedule; by default made of the tables' names.
    timezone
        The time zone of `cron`, such as ``"Europe/Berlin"``; UTC by default.
    running
        Whether the schedule is on from the start.

    Raises
    ------
    ConfigurationError
        When the list of tables, or the restriction, is empty, or the limit is below 1.
    dagster.DagsterInvalidDefinitionError
        When `cron` or `timezone` is invalid.

    Examples
    --------
    >>> populate_schedule("0 3 * * *", tables=["lab.Processed"]).name
    'populate_lab_processed'
    """
    config: dict[str, Any] = {"retry_errors": retry_errors}
    check_limit(limit)
    if limit is not None:
        config["limit"] = limit
    if restriction is not None:
        check_said(restriction)
        config["restriction"] = restriction
    job = populate_job.JOB_NAME, populate_job.OP_NAME
    return _schedule(job, cron, tables, config, name, timezone, running=running)


def recompute_schedule(
    cron: str,
    tables: Tables = ALL,
    *,
    delete_entered: bool = False,
    name: str | None = None,
    timezone: str | None = None,
    running: bool = True,
) -> ScheduleDefinition:
    """Return a schedule that makes stale keys again.

    Parameters
    ----------
    delete_entered
        Whether rows that people entered are deleted where they depend on stale keys. Otherwise such
        keys are left.
    cron, tables, name, timezone, running
        See `populate_schedule`.

    Raises
    ------
    ConfigurationError
        When the list of tables is empty.
    dagster.DagsterInvalidDefinitionError
        When `cron` or `timezone` is invalid.

    Examples
    --------
    >>> recompute_schedule("0 3 * * 6").name
    'recompute_all'
    """
    job = populate_job.RECOMPUTE_JOB, populate_job.RECOMPUTE_OP
    config = {"delete_entered": delete_entered}
    return _schedule(job, cron, tables, config, name, timezone, running=running)


def table_schedules(pipeline: Pipeline, schedules: Iterable[Any]) -> list[Any]:
    """Return schedules as those of a pipeline: definitions with several pipelines rename them.

    Raises
    ------
    ConfigurationError
        When a schedule has a name that does not stand for a table that `make` fills: it is refused
        when definitions are built, not when it runs.
    """
    found = list(schedules)
    for schedule in found:
        if isinstance(schedule, ScheduleDefinition) and TABLES in schedule.metadata:
            names: Any = schedule.metadata[TABLES].value
            chosen_tables(pipeline.graph, names, f"The schedule {schedule.name}")
    return belonging(pipeline, found)


def _schedule(
    of: tuple[str, str],
    cron: str,
    tables: Tables,
    config: Mapping[str, Any],
    name: str | None,
    timezone: str | None,
    *,
    running: bool,
) -> ScheduleDefinition:
    """Return a schedule of one of our jobs, given with its op; the job's name can get an end."""
    job, op = of
    names = table_names(tables)
    text = names if isinstance(names, str) else ", ".join(names)
    return renamable(
        lambda end: ScheduleDefinition(
            name=name or _schedule_name(job, names) + end,
            job_name=job + end,
            cron_schedule=cron,
            execution_timezone=timezone,
            run_config={"ops": {op + end: {"config": {"tables": names, **config}}}},
            metadata={TABLES: names},
            tags={TABLES_TAG: text},
            default_status=(
                DefaultScheduleStatus.RUNNING if running else DefaultScheduleStatus.STOPPED
            ),
        )
    )


def _schedule_name(job: str, tables: str | list[str]) -> str:
    names = [tables] if isinstance(tables, str) else tables
    # A name of signs only, such as ``*``, stands for every table.
    words = [re.sub(r"\W+_*", "_", table).strip("_").lower() or ALL for table in names]
    return "_".join([job, *words])
