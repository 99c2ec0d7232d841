"""The job that collects the stores' garbage, by schedule or from the launchpad."""

# Dagster reads the annotation of `context` as an object: no postponed annotations here.
from collections.abc import Iterable, Sequence
from typing import Any

from dagster import (
    Failure,
    Field,
    JobDefinition,
    MetadataValue,
    OpExecutionContext,
    Output,
    ScheduleDefinition,
    op,
)
from dagster import job as dagster_job

from dj_dagster.orchestration.schema_jobs import Schemas, schema_job, schema_schedule
from dj_dagster.relational.garbage.collector import (
    ALL_STORES,
    GRACE,
    KEEP,
    GarbageReport,
    garbage_collectors,
)
from dj_dagster.relational.schemas.schema import Schema

JOB_NAME = "collect_garbage"
OP_NAME = "collect_garbage_of_stores"  # a job and an op cannot share a name
LISTED = 100
"""Paths that the metadata lists, at most."""


def garbage_job(
    schemas: Schemas,
    *,
    delete: bool = True,
    grace: float = GRACE,
    keep: float = KEEP,
) -> JobDefinition:
    """Return a job that collects the garbage of some schemas in all stores of their connection.

    What it found and removed is in the metadata of the step's output, and in the log what the
    command ``dj-dagster gc`` prints. It fails if rows refer to objects that are not there, and
    where the collector refuses, see `dj_dagster.GarbageCollector`.

    Parameters
    ----------
    delete
        Whether garbage is moved to the trash, or only listed; a run's config may say otherwise.
    grace
        Seconds for which objects without a row stay; as `delete`.
    keep
        Seconds for which removed objects stay in the trash; as `delete`.

    Examples
    --------
    ::

        build_definitions(schema, schedules=[garbage_schedule(schema, "0 3 * * *")])
    """
    return schema_job(
        schemas,
        lambda chosen, end: _garbage_job(chosen, end, delete=delete, grace=grace, keep=keep),
    )


def _garbage_job(
    schemas: Sequence[Schema], end: str, *, delete: bool, grace: float, keep: float
) -> JobDefinition:
    config = {
        "delete": Field(bool, default_value=delete, description="Whether to remove garbage."),
        "grace": Field(float, default_value=grace, description="Seconds that objects stay."),
        "keep": Field(float, default_value=keep, description="Seconds that they stay in trash."),
        "stores": Field(
            [str], default_value=[ALL_STORES], description=f"Which stores; '{ALL_STORES}' for all."
        ),
    }

    @op(name=OP_NAME + end, config_schema=config)
    def collect(context: OpExecutionContext) -> Output[None]:
        settings: dict[str, Any] = context.op_config
        reports: list[GarbageReport] = []
        for collector in garbage_collectors(*schemas, stores=settings["stores"]):
            report = collector.collect(
                not settings["delete"], grace=settings["grace"], keep=settings["keep"]
            )
            context.log.info(str(report))
            reports.append(report)
        figures = metadata(reports)
        lost = [path for report in reports for path in report.missing]
        if lost:
            listed = ", ".join(lost[:LISTED])
            raise Failure(f"{len(lost)} objects that rows refer to are gone: {listed}", figures)
        return Output(None, metadata=figures)

    @dagster_job(name=JOB_NAME + end, description="Removes objects that no row refers to any more.")
    def collect_garbage_job() -> None:
        collect()

    return collect_garbage_job


def garbage_schedule(
    schemas: Schemas, cron: str, *, grace: float = GRACE, keep: float = KEEP
) -> ScheduleDefinition:
    """Return a schedule, running from the start, with the job of `garbage_job` that it runs.

    Parameters
    ----------
    cron
        When, as ``"0 3 * * *"`` for every night at three.
    grace, keep
        As of `garbage_job`.
    """
    return schema_schedule(
        schemas,
        JOB_NAME,
        cron,
        lambda chosen, end: _garbage_job(chosen, end, delete=True, grace=grace, keep=keep),
    )


def metadata(reports: Iterable[GarbageReport]) -> dict[str, Any]:
    """Return the figures of reports as Dagster shows and plots them."""
    found = list(reports)
    return {
        "objects_in_use": sum(report.kept for report in found),
        "bytes_in_use": sum(report.kept_bytes for report in found),
        "objects_young": sum(report.young for report in found),
        "objects_garbage": sum(len(report.garbage) for report in found),
        "bytes_garbage": sum(report.garbage_bytes for report in found),
        "objects_deleted": sum(report.deleted for report in found),
        "bytes_deleted": sum(report.deleted_bytes for report in found),
        "files_restored": sum(report.restored for report in found),
        "files_in_trash": sum(report.trash for report in found),
        "bytes_in_trash": sum(report.trash_bytes for report in found),
        "bytes_freed": sum(report.freed_bytes for report in found),
        "objects_missing": sum(len(report.missing) for report in found),
        "garbage": MetadataValue.json(
            [one.path for report in found for one in report.garbage][:LISTED]
        ),
        "reports": MetadataValue.md("\n\n".join(map(str, found))),
    }
