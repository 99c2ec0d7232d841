"""The job that looks for damage in schemas and their stores, by schedule or from the launchpad."""

# Dagster reads the annotation of `context` as an object: no postponed annotations here.
from collections.abc import Sequence
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
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.workflow.integrity import Finding, check_schema

JOB_NAME = "check_schemas"
OP_NAME = "check_rows_and_objects"  # a job and an op cannot share a name
LISTED = 100
"""Findings that the metadata lists, at most."""


def check_job(schemas: Schemas, *, read_data: bool = True) -> JobDefinition:
    """Return a job that does what the command ``dj-dagster check`` does.

    It fails if anything is missing, damaged, orphaned or unreferenced, and its metadata says what.
    For one table, among its other checks, see `TableChecks.intact`.

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

    @op(name=OP_NAME + end, config_schema=config)
    def check(context: OpExecutionContext) -> Output[None]:
        settings: dict[str, Any] = context.op_config
        found: list[Finding] = []
        for schema in schemas:
            for finding in check_schema(
                schema, read_data=settings["read_data"], say=context.log.info
            ):
                context.log.warning(str(finding))
                found.append(finding)
        figures: dict[str, Any] = {
            "findings": len(found),
            "listed": MetadataValue.json([str(finding) for finding in found[:LISTED]]),
        }
        if found:
            raise Failure(f"{len(found)} findings, the first: {found[0]}", figures)
        return Output(None, metadata=figures)

    @dagster_job(name=JOB_NAME + end, description="Looks for damage in tables and stores.")
    def check_schemas_job() -> None:
        check()

    return check_schemas_job


def check_schedule(schemas: Schemas, cron: str, *, read_data: bool = True) -> ScheduleDefinition:
    """Return a schedule, running from the start, of the job of `check_job`.

    Parameters
    ----------
    cron
        When, as ``"0 4 * * 0"`` for every Sunday at four.
    read_data
        As of `check_job`.
    """
    return schema_schedule(
        schemas, JOB_NAME, cron, lambda chosen, end: _check_job(chosen, end, read_data=read_data)
    )
