"""Assets of tables: external ones where people enter the rows, ops where `make` fills the table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dagster import (
    AssetDep,
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    Field,
    MaterializeResult,
    PartitionMapping,
    PartitionsDefinition,
    ScalarUnion,
    SpecificPartitionsPartitionMapping,
    multi_asset,
)

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration._dagster import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dj_dagster.orchestration.runs.chosen_keys import RunChoice
from dj_dagster.orchestration.runs.event_log import Mark, write_marks
from dj_dagster.orchestration.runs.populate_step import Step, populate_table, raise_if_failed
from dj_dagster.orchestration.runs.recompute import (
    DELETE_ENTERED,
    SKIP,
    STALE,
    OnExisting,
    on_existing,
)
from dj_dagster.orchestration.runs.work import HERE, Work
from dj_dagster.orchestration.tables.naming import column_schema, group_name, op_name
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.orchestration.translator import TableProps, TableTranslator
from dj_dagster.relational.backends.common import sortable
from dj_dagster.workflow.code_version import code_place, code_version

# Dagster reads the annotation of `context` as an object: no postponed annotations here.


IO_MANAGER_KEY = "table_io_manager"
"""Name of the resource that hands rows to and from ordinary assets."""

Partitions = Mapping[AssetKey, PartitionsDefinition[Any] | None]

CONFIG = {
    "keys": Field(
        ScalarUnion(str, [str]),
        is_required=False,
        description="Partition keys to make, instead of the run's own partitions, or: all.",
    ),
    "retry_errors": Field(
        bool, default_value=True, description="Whether to try keys again that failed before."
    ),
    "on_existing": on_existing(STALE),
    "delete_entered": DELETE_ENTERED,
    "isolate": Field(
        bool,
        default_value=False,
        description="Whether make runs in a process of its own, which may die alone.",
    ),
}


def table_props(node: TableNode, graph: TableGraph, partitions: Partitions) -> TableProps:
    """Return the properties of a table that a translator may need.

    Parameters
    ----------
    partitions
        The partitions of all assets that tables may refer to; assets without partitions are left
        out.
    """
    own = node.grain.partitions_def if node.grain else None
    maker = graph.by_key[node.master or node.key].filler
    return TableProps(
        table=node.table,
        key=node.key,
        title=node.title,
        tier=node.tier,
        group=group_name(node.name.schema),
        backend=node.table.connection.backend.name,
        columns=column_schema(node.table),
        deps=tuple(
            AssetDep(parent, partition_mapping=_mapping(own, partitions.get(parent)))
            for parent in node.parents
        ),
        partitions_def=own,
        definition=node.definition,
        populated=node.populated,
        code_version=code_version(maker.source) if maker else None,
        code_place=code_place(maker.source if maker else type(node.table)),
    )


def table_spec(props: TableProps, translator: TableTranslator) -> AssetSpec:
    """Return the asset spec of a table, as the translator wants it.

    Raises
    ------
    ConfigurationError
        When the translator returns something else.
    """
    spec: Any = translator.get_asset_spec(props)
    if not isinstance(spec, AssetSpec):
        raise ConfigurationError(
            f"{type(translator).__name__}.get_asset_spec gave {spec!r} for {props.title}: "
            "return an AssetSpec, such as super().get_asset_spec(props)"
        )
    return spec.with_io_manager_key(IO_MANAGER_KEY)


def populated_assets(
    node: TableNode,
    graph: TableGraph,
    specs: Mapping[AssetKey, AssetSpec],
    *,
    backfill_batch: int,
    op_tags: Mapping[str, Any] | None = None,
    pool: str | None = None,
    work: Work = HERE,
) -> AssetsDefinition:
    """Return the op that fills a table and its parts.

    Parameters
    ----------
    backfill_batch
        The greatest number of keys of one run in backfills from the UI.
    op_tags, pool
        Tags and concurrency pool of the op.
    work
        The processes that make its keys.
    """
    parts = [part.key for part in graph.parts(node)]
    own_specs = [specs[key].replace_attributes(skippable=True) for key in (node.key, *parts)]

    @multi_asset(
        name=op_name(node.key),
        specs=own_specs,
        config_schema=CONFIG,
        op_tags=op_tags,
        pool=pool,
        backfill_policy=BackfillPolicy.multi_run(backfill_batch) if node.grain else None,
        # For jobs that select the table without its parts, or only parts: all of them are filled.
        can_subset=True,
    )
    def populate(context: AssetExecutionContext) -> Iterator[MaterializeResult[Any]]:
        config = context.op_execution_context.op_config
        choice = RunChoice(context.instance, context.run)
        partitions = choice.partitions(node, config.get("keys"))
        step = Step.of(context)
        choice.tell(graph, node, partitions)
        planned = _planned(context, choice.covered(node))
        chosen = context.selected_asset_keys
        others = {node.key, *parts} - set(chosen)
        marks = (Mark(key, each, planned=True) for key in others for each in sorted(planned))
        write_marks(context.instance, marks, step.origin)
        progress = populate_table(
            step,
            graph,
            node,
            _keys(node, partitions),
            planned=planned,
            retry_errors=config["retry_errors"] or step.again,
            work=replace(work, isolate=work.isolate or config["isolate"]),
            existing=_existing(step, config),
        )
        yield from (_unlogged(key) for key in (node.key, *parts) if key in chosen)
        raise_if_failed(progress)

    return populate


def _existing(step: Step, config: Mapping[str, Any]) -> OnExisting:
    choice: str = config["on_existing"]
    # By default, runs that a sensor starts make pending keys only.
    by_default = choice == STALE and not step.by_person
    return OnExisting(SKIP if by_default else choice, config["delete_entered"])


def _mapping(
    own: PartitionsDefinition[Any] | None, parents: PartitionsDefinition[Any] | None
) -> PartitionMapping | None:
    """Return the identity (None) within a grain, a mapping to an empty list between grains.

    The database decides which rows belong together. Dagster would drop a mapping class of ours, and
    then refuse backfills for partitions that do not exist; an empty list lets it launch them all.
    """
    if own is None or parents is None or own == parents:
        return None
    return SpecificPartitionsPartitionMapping([])


def _keys(node: TableNode, partitions: Sequence[str] | None) -> list[dict[str, Any]] | None:
    """Return the keys of partitions, in their order; None, which stands for all keys, for None."""
    if node.grain is None or partitions is None:
        return None
    return sorted(
        map(node.grain.decode, partitions), key=lambda key: [*map(sortable, key.values())]
    )


def _planned(context: AssetExecutionContext, covered: Sequence[str]) -> set[str]:
    """Return the partitions that Dagster announced one by one when the run was created."""
    storage = context.instance.event_log_storage
    if storage.supports_partition_subset_in_asset_materialization_planned_events:
        return set()
    return set(covered)


def _unlogged(key: AssetKey) -> MaterializeResult[Any]:
    """Return a result that lets tables downstream start, without a mark beside those written."""
    return MaterializeResult(key, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})
