"""Recomputing what is stale: as a job, and as a call that needs no Dagster."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dagster import (
    AssetKey,
    DagsterInstance,
    JobDefinition,
    OpExecutionContext,
    op,
)
from dagster import job as dagster_job

from dj_dagster.orchestration.jobs.populate_job import TABLES_CONFIG, chosen_tables, end_run, fill
from dj_dagster.orchestration.runs.chosen_keys import ALL
from dj_dagster.orchestration.runs.populate_step import Progress, Step
from dj_dagster.orchestration.runs.recompute import (
    DELETE_ENTERED,
    RECOMPUTE,
    STALE,
    OnExisting,
    made_again,
)
from dj_dagster.orchestration.runs.stale_marks import Aging
from dj_dagster.orchestration.runs.work import HERE, Work
from dj_dagster.orchestration.tables.collection import collect
from dj_dagster.orchestration.tables.table_graph import TableGraph, table_graph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.orchestration.tables.table_sources import SchemaLike
from dj_dagster.relational.database.connection import Connection
from dj_dagster.workflow.populate import Key

# Dagster reads the annotation of `context` as an object: no postponed annotations here.


JOB_NAME = "recompute"
OP_NAME = "recompute_stale"

CONFIG = {"tables": TABLES_CONFIG, "delete_entered": DELETE_ENTERED}


def recompute_job(
    graph: TableGraph, works: Mapping[AssetKey, Work], end: str = ""
) -> JobDefinition:
    """Return the job that makes again what is stale, and all that depends on it, parents first.

    Parameters
    ----------
    works
        In which processes each table's keys are made.
    end
        Of the names of the job and its op.
    """

    @op(name=OP_NAME + end, config_schema=CONFIG)
    def recompute_op(context: OpExecutionContext) -> None:
        config: dict[str, Any] = context.op_config
        existing = OnExisting(STALE, config["delete_entered"], {})
        step, progress, nodes = Step.of(context), list[Progress](), list[TableNode]()
        for node, keys in _chosen(context.instance, graph, config["tables"], existing):
            work = works.get(node.key, HERE)
            nodes.append(node)
            progress.append(
                fill(step, graph, node, keys, retry_errors=True, work=work, existing=existing)
            )
        end_run(context, nodes, progress)

    @dagster_job(
        name=JOB_NAME + end,
        description="Makes again what is stale, for make or a row that it refers to has changed, "
        "with all that depends on it.",
    )
    def recompute_tables() -> None:
        recompute_op()

    return recompute_tables


def recompute(
    schemas: SchemaLike | Iterable[SchemaLike],
    tables: str | Iterable[str] = ALL,
    *,
    stale: bool = True,
    delete_entered: bool = False,
    connection: Connection | None = None,
    instance: DagsterInstance | None = None,
) -> list[Progress]:
    """Make again what is stale, with all that depends on it, in this process.

    A failing key does not end the others. Dagster need not run; its sensor shows what has become
    of the keys when it looks.

    Parameters
    ----------
    schemas, connection
        See `build_definitions`.
    tables
        Which, as ``"Processed"`` or ``"lab.Processed"``; ``"all"`` for those that `make` fills.
    stale
        Whether stale keys alone are made again; all that are there otherwise.
    delete_entered
        Whether rows that people entered, and that depend on those that are made again, are
        deleted. Otherwise such keys are left.
    instance
        Where the code versions of keys are looked up that have no note in the database.

    Returns
    -------
    list of Progress
        What became of the keys, by table.

    Raises
    ------
    ConfigurationError
        When a name is that of no table, or of one that `make` does not fill.
    """
    graph = table_graph(collect(schemas, connection=connection))
    where = instance or DagsterInstance.ephemeral()
    existing = OnExisting(STALE if stale else RECOMPUTE, delete_entered, {})
    found: list[Progress] = []
    for node, keys in _chosen(where, graph, tables, existing):
        progress = Progress(node.title, total=len(keys))
        aging = Aging(where, graph, node)
        made = made_again(graph, aging, node, keys, existing, retry_errors=True, work=HERE)
        for outcome in made:
            partition = node.grain.encode(outcome.key) if node.grain else node.title
            progress.add(partition, outcome)
        found.append(progress)
    return found


def _chosen(
    instance: DagsterInstance,
    graph: TableGraph,
    tables: str | Iterable[str],
    existing: OnExisting,
) -> Iterator[tuple[TableNode, list[Key]]]:
    """Yield tables, parents first, with the keys to make again and those gone with the parents'."""
    wanted = {node.key for node in chosen_tables(graph, tables)}
    for node in graph.populated:
        keys: list[Key] = []
        if node.key in wanted:
            pages = node.staleness.pages()
            keys = (
                Aging(instance, graph, node).stale()
                if existing.choice == STALE
                else [key for page in pages for key in page]
            )
        keys += (existing.gone or {}).get(node.name, [])
        if keys:
            yield node, keys
