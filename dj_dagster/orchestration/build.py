"""From schemas to Dagster definitions: the one call of a code location."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dagster import (
    AssetChecksDefinition,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    Definitions,
    ExecutorDefinition,
    PartitionsDefinition,
    in_process_executor,
)

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration.assets import (
    IO_MANAGER_KEY,
    populated_assets,
    table_spec,
)
from dj_dagster.orchestration.io_manager import TableIOManager
from dj_dagster.orchestration.jobs import populate_job
from dj_dagster.orchestration.sensor import SensorSettings, populate_sensor
from dj_dagster.orchestration.table_graph import TableGraph, TableNode, table_graph
from dj_dagster.orchestration.translator import TableTranslator
from dj_dagster.relational.schema import Schema

Specs = Mapping[AssetKey, AssetSpec]


def chain_executor() -> ExecutorDefinition:
    """Return the default executor: one process, and a table starts when its parents have output.

    A table of which some keys failed has output for the others: the tables that need it then go on
    with those. By Dagster's own rule they would be skipped, because the step failed.
    """
    return in_process_executor.configured(
        {"step_dependency_config": {"require_upstream_step_success": False}}
    )


def build_definitions(
    schemas: Schema | Iterable[Schema],
    *,
    translator: TableTranslator | None = None,
    assets: Sequence[AssetsDefinition | AssetSpec] = (),
    asset_checks: Sequence[AssetChecksDefinition] = (),
    jobs: Sequence[Any] = (),
    schedules: Sequence[Any] = (),
    sensors: Sequence[Any] = (),
    resources: Mapping[str, Any] | None = None,
    executor: ExecutorDefinition | None = None,
    sensor_settings: SensorSettings | None = None,
) -> Definitions:
    """Return assets, sensor, populate job and IO manager for all tables of some schemas.

    Parameters
    ----------
    schemas
        The schemas, with the classes of their tables declared.
    translator
        Says how tables look as assets.
    assets
        Ordinary assets of yours. One that has the key of a Manual or Lookup table stands for that
        table: what it returns is written there when its `io_manager_key` is
        ``"table_io_manager"``.
    asset_checks, jobs, schedules, sensors, resources
        More of yours to join, as in `dagster.Definitions`.
    executor
        How runs execute their steps; see `chain_executor` for the default.
    sensor_settings
        Batch size, interval and bounds of the sensor.

    Raises
    ------
    ConfigurationError
        When an asset of yours has the key of a table that `make` fills, or a schema comes twice.
    DataJointError
        When the database cannot be reached.

    Examples
    --------
    >>> from dj_dagster.relational.connection import Connection
    >>> from dj_dagster.relational.table import Manual
    >>> schema = Schema("lab", connection=Connection("sqlite:///:memory:"))
    >>> @schema
    ... class Subject(Manual):
    ...     definition = "subject_id : int32"
    >>> defs = build_definitions(schema)
    >>> [spec.key.path for spec in defs.resolve_all_asset_specs()]
    [['lab', 'subject']]
    """
    graph = table_graph([schemas] if isinstance(schemas, Schema) else schemas)
    settings = sensor_settings or SensorSettings()
    own = _own_specs(graph, assets)
    partitions = {node.key: _partitions(node) for node in graph.nodes}
    partitions |= {key: spec.partitions_def for key, spec in own.items()}
    chosen = translator or TableTranslator()
    specs = {node.key: table_spec(node, chosen, partitions) for node in graph.nodes}
    return Definitions(
        assets=[
            *_table_assets(graph, specs, own, settings.batch_size),
            *(_merged(asset, specs) for asset in assets),
        ],
        asset_checks=asset_checks,
        jobs=[populate_job(graph), *jobs],
        schedules=schedules,
        sensors=[populate_sensor(graph, managed=own, settings=settings), *sensors],
        resources={IO_MANAGER_KEY: TableIOManager(graph), **(resources or {})},
        executor=executor or chain_executor(),
    )


def _partitions(node: TableNode) -> PartitionsDefinition[Any] | None:
    return node.grain.partitions_def if node.grain else None


def _own_specs(
    graph: TableGraph, assets: Sequence[AssetsDefinition | AssetSpec]
) -> dict[AssetKey, AssetSpec]:
    """Return the user's assets that stand for tables."""
    specs = [spec for asset in assets for spec in _specs(asset)]
    own = {spec.key: spec for spec in specs if spec.key in graph.by_key}
    for key in own:
        node = graph.by_key[key]
        if node.populated or node.master is not None:
            raise ConfigurationError(
                f"the asset {key.to_user_string()} has the key of {node.title}, whose rows come "
                "from make; give it another key"
            )
    return own


def _specs(asset: AssetsDefinition | AssetSpec) -> Iterable[AssetSpec]:
    return [asset] if isinstance(asset, AssetSpec) else asset.specs


def _table_assets(
    graph: TableGraph, specs: Specs, own: Mapping[AssetKey, AssetSpec], backfill_batch: int
) -> list[AssetsDefinition | AssetSpec]:
    filled = {node.key for node in graph.populated}
    external = [
        specs[node.key]
        for node in graph.nodes
        if not filled & {node.key, node.master} and node.key not in own
    ]
    populated = [
        populated_assets(node, graph, specs, backfill_batch=backfill_batch)
        for node in graph.populated
    ]
    return [*external, *populated]


def _merged(asset: AssetsDefinition | AssetSpec, specs: Specs) -> AssetsDefinition | AssetSpec:
    """Give a user's asset that stands for a table what the table's own asset would show."""
    if isinstance(asset, AssetSpec):
        return _merged_spec(asset, specs)
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
