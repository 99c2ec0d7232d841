"""The job that populates tables from the launchpad."""

# Dagster reads the annotation of `context` as an object: no postponed annotations here.
from collections.abc import Iterable
from functools import partial
from typing import Any

from dagster import Any as AnyConfig
from dagster import Field, JobDefinition, OpExecutionContext, op
from dagster import job as dagster_job

from dj_dagster.orchestration.populating import (
    ON_EXISTING,
    Progress,
    Step,
    populate_table,
    raise_if_failed,
)
from dj_dagster.orchestration.provenance import CodeVersions, Provenance
from dj_dagster.orchestration.recompute import existing_keys
from dj_dagster.orchestration.reconcile import sync_partitions
from dj_dagster.orchestration.table_graph import TableGraph, TableNode

JOB_NAME = "populate"
OP_NAME = "populate_tables"  # a job and an op cannot share a name

CONFIG = {
    "tables": Field(
        [str],
        default_value=[],
        description="Tables as 'Processed' or 'lab.Processed'; all that make fills if empty.",
    ),
    "restriction": Field(
        AnyConfig,
        is_required=False,
        description='Which keys: {subject_id: 3}, "subject_id < 3", or a list of which any holds.',
    ),
    "limit": Field(int, default_value=0, description="Keys per table, at most; 0 for all."),
    "retry_errors": Field(
        bool, default_value=False, description="Whether to try keys again that failed before."
    ),
    "on_existing": ON_EXISTING,
}


def populate_job(graph: TableGraph, versions: CodeVersions) -> JobDefinition:
    """Return the job; with the config as it stands it makes everything that is pending.

    Tables are filled parents first, so that one launch fills a chain of them.

    Parameters
    ----------
    versions
        The code versions that rows are marked with.
    """

    @op(name=OP_NAME, config_schema=CONFIG)
    def populate(context: OpExecutionContext) -> None:
        config: dict[str, Any] = context.op_config
        nodes = chosen_tables(graph, config["tables"])
        progress = [_populate(context, graph, node, versions) for node in nodes]
        raise_if_failed(*progress)

    @dagster_job(
        name=JOB_NAME,
        description="Makes what is pending, in all tables or in those that the config names.",
    )
    def populate_tables() -> None:
        populate()

    return populate_tables


def chosen_tables(graph: TableGraph, names: Iterable[str]) -> list[TableNode]:
    """Return the tables of `names`, parents first; all that `make` fills when there are none.

    Raises
    ------
    ConfigurationError
        When a name is that of no table, or of one that `make` does not fill.
    """
    wanted = {graph.populated_named(name).key for name in names}
    return [node for node in graph.populated if not wanted or node.key in wanted]


def _populate(
    context: OpExecutionContext, graph: TableGraph, node: TableNode, versions: CodeVersions
) -> Progress:
    config: dict[str, Any] = context.op_config
    if node.grain is not None:
        # Marks of partitions that are not registered would not be shown.
        sync_partitions(context.instance, graph, node.grain)
    restrictions = [config["restriction"]] if config.get("restriction") is not None else []
    recompute = config["on_existing"] == "recompute"
    choose = partial(existing_keys, node) if recompute else node.pending
    keys = choose(*restrictions, limit=config["limit"] or None, retry_errors=config["retry_errors"])
    parts = [part.key for part in graph.parts(node)]
    step = Step.of(context)
    return populate_table(
        step,
        node,
        parts,
        keys,
        retry_errors=config["retry_errors"],
        recompute=recompute,
        provenance=Provenance(context.instance, graph, node, versions, context.run_id),
    )
