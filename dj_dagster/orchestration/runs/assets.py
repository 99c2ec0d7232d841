"""Assets of tables: external ones where people enter the rows, ops where `make` fills the table."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    DagsterInstance,
    Field,
    MaterializeResult,
    ScalarUnion,
    multi_asset,
)

from dj_dagster.errors import ConfigurationError
from dj_dagster.launcher_tags import HERE_ONLY_TAG
from dj_dagster.model.heading import Key
from dj_dagster.orchestration._dagster import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dj_dagster.orchestration.pipeline import Asset, Pipeline
from dj_dagster.orchestration.runs.event_log import write_marks
from dj_dagster.orchestration.runs.marks import Mark
from dj_dagster.orchestration.runs.node_code import planned_tags
from dj_dagster.orchestration.runs.populate_step import Step, populate_table, raise_if_failed
from dj_dagster.orchestration.runs.run_records import RunChoice
from dj_dagster.orchestration.runs.work import (
    DELETE_ENTERED,
    HERE,
    SKIP,
    STALE,
    OnExisting,
    Work,
    on_existing,
)
from dj_dagster.orchestration.sharing import refuse_unshared, unshared
from dj_dagster.orchestration.tables.partitions import possible_among
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode, op_name
from dj_dagster.relational.backends.common import sortable

# Dagster reads the annotation of `context` as an object: no postponed annotations here.


Specs = Mapping[AssetKey, AssetSpec]

CONFIG = {
    "keys": Field(
        ScalarUnion(str, [str]),
        is_required=False,
        description="Partition keys to make, instead of the run's own partitions, or: all. The run "
        "needs a partition nevertheless; to do without one launch the job populate.",
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


UNKNOWN_NAMED = 20
"""Keys that the error on unknown ones names, at most."""


def table_assets(pipeline: Pipeline) -> list[Asset]:
    """Return the assets of a pipeline's tables, and those of the user's own.

    Where people enter the rows, the assets are external ones; where `make` fills a table, an op
    fills it and its parts. An asset of the user's that stands for a table shows what the table's
    own asset would show.
    """
    graph, specs = pipeline.graph, pipeline.specs
    own = {key for each in pipeline.assets for key in _keys_of(each)}
    return [
        *_external(graph, specs, own),
        *(
            _populated(
                node,
                graph,
                specs,
                backfill_batch=pipeline.settings.batch_size,
                op_tags=pipeline.op_tags[node.key],
                pool=pipeline.pools[node.key],
                work=pipeline.works[node.key],
            )
            for node in graph.populated
        ),
        *(_merged(asset, specs) for asset in pipeline.assets),
    ]


def _external(graph: TableGraph, specs: Specs, own: Collection[AssetKey]) -> list[AssetSpec]:
    """Return external assets of the tables that `make` does not fill and the user has not given."""
    filled = {node.key for node in graph.populated}
    return [
        specs[node.key]
        for node in graph.nodes
        if not filled & {node.key, node.master} and node.key not in own
    ]


def _keys_of(asset: Asset) -> Collection[AssetKey]:
    return [asset.key] if isinstance(asset, AssetSpec) else asset.keys


def _merged(asset: Asset, specs: Specs) -> Asset:
    """Give a user's asset that stands for a table what the table's own asset would show."""
    if isinstance(asset, AssetSpec):
        table = specs.get(asset.key)
        # The sensor marks the rows, as those of the table's own asset.
        partitions = asset.partitions_def if table is None else table.partitions_def
        return _merged_spec(asset, specs).replace_attributes(partitions_def=partitions)
    if not any(spec.key in specs for spec in asset.specs):
        return asset
    return asset.map_asset_specs(lambda spec: _merged_spec(spec, specs))


def _merged_spec(spec: AssetSpec, specs: Specs) -> AssetSpec:
    table = specs.get(spec.key)
    if table is None:
        return spec
    ungrouped = spec.group_name in (None, "default")
    return spec.replace_attributes(
        description=spec.description or table.description,
        metadata={**table.metadata, **spec.metadata},
        tags={**table.tags, **spec.tags},
        group_name=table.group_name if ungrouped else spec.group_name,
        owners=spec.owners or table.owners,
        deps=list({dep.asset_key: dep for dep in (*table.deps, *spec.deps)}.values()),
    )


def _populated(
    node: TableNode,
    graph: TableGraph,
    specs: Specs,
    *,
    backfill_batch: int,
    op_tags: Mapping[str, object] | None = None,
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
    why = " ".join(map(str, unshared([node, *graph.parts(node)])))
    own_tags = {**planned_tags(graph, [node]), **({HERE_ONLY_TAG: why} if why else {})}

    @multi_asset(
        name=op_name(node.key),
        specs=own_specs,
        config_schema=CONFIG,
        op_tags={**(op_tags or {}), **own_tags},
        pool=pool,
        backfill_policy=BackfillPolicy.multi_run(backfill_batch) if node.grain else None,
        # For jobs that select the table without its parts, or only parts: all of them are filled.
        can_subset=True,
    )
    def populate(context: AssetExecutionContext) -> Iterator[MaterializeResult[Any]]:
        refuse_unshared(context.instance, graph)
        config = context.op_execution_context.op_config
        choice = RunChoice(context.instance, context.run)
        partitions = choice.partitions(node, config.get("keys"))
        step = Step.of(context, graph, [node])
        # The keys in the config of a sensor, or of a run before, may be gone since.
        if step.by_person and not step.again and config.get("keys") is not None:
            _refuse_unknown(context.instance, node, partitions)
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


def _keys(node: TableNode, partitions: Sequence[str] | None) -> list[Key] | None:
    """Return the keys of partitions, in their order; None, which stands for all keys, for None."""
    if node.grain is None or partitions is None:
        return None
    return sorted(
        map(node.grain.decode, partitions), key=lambda key: [*map(sortable, key.values())]
    )


def _refuse_unknown(
    instance: DagsterInstance, node: TableNode, partitions: Sequence[str] | None
) -> None:
    """Refuse keys in a run's config that are not there, such as one with a slip of the pen.

    Raises
    ------
    ConfigurationError
        Before anything is made.
    """
    keys = _keys(node, partitions)
    if node.grain is None or not keys:
        return
    named = [node.grain.encode(key) for key in node.respelled(keys)]
    known = possible_among(node, named)
    if not known.issuperset(named):
        # Keys whose parents have failed in this run have their partition.
        known |= set(instance.get_dynamic_partitions(node.grain.name))
    if unknown := [partition for partition in named if partition not in known]:
        more = f" and {len(unknown) - UNKNOWN_NAMED} more" if unknown[UNKNOWN_NAMED:] else ""
        raise ConfigurationError(
            f"The config of {op_name(node.key)} has the keys {', '.join(unknown[:UNKNOWN_NAMED])}"
            f"{more}, which are neither in {node.title} nor in its key source: correct them, or "
            "leave them out."
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
