"""The recomputation of stale keys, as a job and as a call that works without Dagster's daemon."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
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
from dj_dagster.orchestration.merge import renamable
from dj_dagster.orchestration.pipeline import Pipeline
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
from dj_dagster.orchestration.tables.table_graph import TableGraph, Tables, table_graph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.orchestration.tables.table_sources import SchemaLike
from dj_dagster.relational.database.connection import Connection
from dj_dagster.workflow.populate import Key

# Dagster reads the annotation of `context` as an object: no postponed annotations here.


JOB_NAME = "recompute"
OP_NAME = "recompute_stale"

CONFIG = {"tables": TABLES_CONFIG, "delete_entered": DELETE_ENTERED}


def recompute_job(pipeline: Pipeline) -> JobDefinition:
    """Return the job that makes stale keys again, with all that depends on them, parents first."""
    return renamable(partial(_recompute_job, pipeline.graph, pipeline.works), pipeline)


def _recompute_job(graph: TableGraph, works: Mapping[AssetKey, Work], end: str) -> JobDefinition:

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
    tables: Tables = ALL,
    *,
    stale: bool = True,
    delete_entered: bool = False,
    connection: Connection | None = None,
    instance: DagsterInstance | None = None,
) -> list[Progress]:
    """Make stale keys again, with all that depends on them, in this process.

    The other keys are made although one fails. Dagster need not run; its sensor shows the outcome
    when it evaluates the tables.

    Parameters
    ----------
    schemas, connection
        See `build_definitions`.
    tables
        Tables by name, class or asset key; ``"all"`` for those that `make` fills. See
        `dj_dagster.model.selection` for the names.
    stale
        Whether only stale keys are made again; otherwise all keys of the tables are.
    delete_entered
        Whether rows that people entered are deleted where they depend on keys to make again.
        Otherwise such keys are left.
    instance
        The Dagster instance that knows the code versions of keys without a note in the database.

    Returns
    -------
    list of Progress
        The outcomes of the keys, by table.

    Raises
    ------
    ConfigurationError
        When `tables` is empty, or has a name that is not the name of a table that `make` fills; and
        for the schemas as in `build_definitions`.
    DataJointError
        When the database cannot be used.
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
    tables: Tables,
    existing: OnExisting,
) -> Iterator[tuple[TableNode, list[Key]]]:
    """Yield tables, parents first, with their keys to make again.

    These are the chosen keys, and those that were deleted with the keys of parents.
    """
    wanted = {node.key for node in chosen_tables(graph, tables)}
    for node in graph.populated:
        keys: list[Key] = []
        if node.key in wanted:
            pages = node.staleness.pages()
            keys = (
                Aging(instance, graph, node).stale()
                if existing.choice == STALE
                else [key for page in pages for key in node.respelled(page)]
            )
        keys += node.respelled((existing.gone or {}).get(node.name, []))
        if keys:
            yield node, keys
