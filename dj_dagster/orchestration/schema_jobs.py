"""Jobs that are for schemas as a whole, such as looking for damage, and their schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dagster import DefaultScheduleStatus, JobDefinition, ScheduleDefinition

from dj_dagster.orchestration.merging import renamable
from dj_dagster.relational.schemas.schema import Schema

Schemas = Schema | Iterable[Schema]
"""What users give: one schema or several."""

MakeJob = Callable[[Sequence[Schema], str], JobDefinition]
"""What makes the job of some schemas; the end of its name, and of its op's, is given."""


def schema_job(schemas: Schemas, make_job: MakeJob) -> JobDefinition:
    """Return a job of schemas, which can be merged with those of others."""
    chosen = _listed(schemas)
    return renamable(lambda end: make_job(chosen, end))


def schema_schedule(
    schemas: Schemas, name: str, cron: str, make_job: MakeJob
) -> ScheduleDefinition:
    """Return a schedule, running from the start, of a job of schemas.

    Parameters
    ----------
    name
        The job's, after which the schedule is named.
    cron
        When, as ``"0 3 * * *"`` for every night at three.
    """
    chosen = _listed(schemas)
    return renamable(
        lambda end: ScheduleDefinition(
            name=f"{name}_schedule{end}",
            job=make_job(chosen, end),
            cron_schedule=cron,
            default_status=DefaultScheduleStatus.RUNNING,
        )
    )


def _listed(schemas: Schemas) -> list[Schema]:
    return [schemas] if isinstance(schemas, Schema) else list(schemas)
