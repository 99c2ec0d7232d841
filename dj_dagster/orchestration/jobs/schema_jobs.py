"""Jobs for whole schemas, with their schedules: the check for damage, and garbage collection."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dagster import (
    DefaultScheduleStatus,
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

from dj_dagster.errors import counted
from dj_dagster.orchestration.arguments import check_kind, listed
from dj_dagster.orchestration.merge import renamable
from dj_dagster.relational.garbage.collector import (
    ALL_STORES,
    GRACE,
    KEEP,
    GarbageReport,
    garbage_collectors,
)
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.workflow.integrity import Finding, check_schema

# Dagster reads the annotation of `context` as an object: no postponed annotations here.


Schemas = Schema | Iterable[Schema]
"""One schema or several, as users give them."""

MakeJob = Callable[[Sequence[Schema], str], JobDefinition]
"""Makes the job of some schemas; the second argument ends the names of the job and its op."""


def schema_job(schemas: Schemas, make_job: MakeJob) -> JobDefinition:
    """Return a job of schemas, which can be merged with the jobs of other schemas."""
    chosen = _listed(schemas)
    return renamable(lambda end: make_job(chosen, end))


def schema_schedule(
    schemas: Schemas, name: str, cron: str, make_job: MakeJob
) -> ScheduleDefinition:
    """Return a schedule, running from the start, of a job of schemas.

    Parameters
    ----------
    name
        The name of the job, after which the schedule is named.
    cron
        The times, such as ``"0 3 * * *"`` for every night at three.

    Raises
    ------
    dagster.DagsterInvalidDefinitionError
        When `cron` is invalid.
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
    place, words = "The argument schemas", "schemas, as dj.Schema returns them"
    chosen = [schemas] if isinstance(schemas, Schema) else listed(place, schemas, words)
    for each in chosen:
        check_kind(place, each, Schema, words)
    return chosen


CHECK_JOB = "check_schemas"
CHECK_OP = "check_rows_and_objects"  # a job and an op cannot share a name
LISTED = 100
"""Findings, or paths, that the metadata lists, at most."""


def check_job(schemas: Schemas, *, read_data: bool = True) -> JobDefinition:
    """Return a job that does what the command ``dj-dagster check`` does.

    The job fails if anything is missing, damaged, orphaned or unreferenced; its metadata has the
    findings. For a check of single tables see `TableChecks.intact`.

    Parameters
    ----------
    read_data
        Whether all values are decoded and all objects read; a run's config may say otherwise.

    Examples
    --------
    ::

        build_definitions(
            schema, jobs=[check_job(schema)], schedules=[check_schedule(schema, "0 4 * * 0")]
        )
    """
    return schema_job(schemas, lambda chosen, end: _check_job(chosen, end, read_data=read_data))


def _check_job(schemas: Sequence[Schema], end: str, *, read_data: bool) -> JobDefinition:
    config = {
        "read_data": Field(
            bool, default_value=read_data, description="Whether to decode and read all."
        )
    }

    @op(name=CHECK_OP + end, config_schema=config)
    def check(context: OpExecutionContext) -> Output[None]:
        settings: dict[str, Any] = context.op_config
        found: list[Finding] = []
        for schema in schemas:
            for finding in check_schema(
                schema, read_data=settings["read_data"], say=context.log.info
            ):
                context.log.warning(str(finding))
                found.append(finding)
        figures: dict[str, int | MetadataValue] = {
            "findings": len(found),
            "listed": MetadataValue.json([str(finding) for finding in found[:LISTED]]),
        }
        if found:
            raise Failure(f"{len(found)} findings, the first: {found[0]}", figures)
        return Output(None, metadata=figures)

    @dagster_job(name=CHECK_JOB + end, description="Looks for damage in tables and stores.")
    def check_schemas_job() -> None:
        check()

    return check_schemas_job


def check_schedule(schemas: Schemas, cron: str, *, read_data: bool = True) -> ScheduleDefinition:
    """Return a schedule, running from the start, of the job of `check_job`.

    Parameters
    ----------
    cron
        The times, such as ``"0 4 * * 0"`` for every Sunday at four.
    read_data
        See `check_job`.

    Raises
    ------
    dagster.DagsterInvalidDefinitionError
        When `cron` is invalid.
    """
    return schema_schedule(
        schemas, CHECK_JOB, cron, lambda chosen, end: _check_job(chosen, end, read_data=read_data)
    )


GARBAGE_JOB = "collect_garbage"
GARBAGE_OP = "collect_garbage_of_stores"  # a job and an op cannot share a name


def garbage_job(
    schemas: Schemas,
    *,
    delete: bool = True,
    grace: float = GRACE,
    keep: float = KEEP,
) -> JobDefinition:
    """Return a job that collects the garbage of some schemas in all stores of their connection.

    The metadata of the step's output has the garbage that was found and removed; the log has the
    output of the command ``dj-dagster gc``. The job fails if rows refer to missing objects, and
    where the collector refuses, see `dj_dagster.GarbageCollector`.

    Parameters
    ----------
    delete
        Whether garbage is moved to the trash instead of only being listed; a run's config may
        override this and the other parameters.
    grace
        Seconds for which objects without a row stay.
    keep
        Seconds for which removed objects stay in the trash.

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

    @op(name=GARBAGE_OP + end, config_schema=config)
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
            gone = counted(len(lost), "object")
            raise Failure(f"{gone} that rows refer to cannot be found: {listed}", figures)
        return Output(None, metadata=figures)

    @dagster_job(
        name=GARBAGE_JOB + end, description="Removes objects that no row refers to any more."
    )
    def collect_garbage_job() -> None:
        collect()

    return collect_garbage_job


def garbage_schedule(
    schemas: Schemas, cron: str, *, grace: float = GRACE, keep: float = KEEP
) -> ScheduleDefinition:
    """Return a schedule, running from the start, of the job of `garbage_job`.

    Parameters
    ----------
    cron
        The times, such as ``"0 3 * * *"`` for every night at three.
    grace, keep
        See `garbage_job`.

    Raises
    ------
    dagster.DagsterInvalidDefinitionError
        When `cron` is invalid.
    """
    return schema_schedule(
        schemas,
        GARBAGE_JOB,
        cron,
        lambda chosen, end: _garbage_job(chosen, end, delete=True, grace=grace, keep=keep),
    )


def metadata(reports: Iterable[GarbageReport]) -> dict[str, int | MetadataValue]:
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
