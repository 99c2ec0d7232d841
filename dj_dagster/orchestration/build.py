"""`build_definitions`, which makes the Dagster definitions of a code location from schemas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from dagster import (
    AssetChecksDefinition,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    Definitions,
    ExecutorDefinition,
    PartitionsDefinition,
    SensorDefinition,
    in_process_executor,
)

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.names import TableName
from dj_dagster.model.selection import by_table
from dj_dagster.orchestration.checks import (
    TableChecks,
    blocking_keys,
    check_watch,
    code_watch,
    table_checks,
)
from dj_dagster.orchestration.io_manager import TableIOManager
from dj_dagster.orchestration.jobs.entry_jobs import entry_jobs
from dj_dagster.orchestration.jobs.populate_job import populate_job
from dj_dagster.orchestration.jobs.recompute_job import recompute_job
from dj_dagster.orchestration.jobs.schedules import check_tables
from dj_dagster.orchestration.jobs.trace_job import trace_job
from dj_dagster.orchestration.merge import Pipeline, belonging, renamable
from dj_dagster.orchestration.runs.assets import (
    IO_MANAGER_KEY,
    populated_assets,
    table_props,
    table_spec,
)
from dj_dagster.orchestration.sensor.sensor import populate_sensor
from dj_dagster.orchestration.sensor.sensor_settings import SensorSettings
from dj_dagster.orchestration.tables.collection import apart, collect
from dj_dagster.orchestration.tables.naming import class_name
from dj_dagster.orchestration.tables.table_graph import (
    PartitionBy,
    TableGraph,
    Tables,
    selected,
    table_graph,
)
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.orchestration.tables.table_sources import SchemaLike, TableSource
from dj_dagster.orchestration.translator import TableTranslator
from dj_dagster.relational.database.connection import Connection

Specs = Mapping[AssetKey, AssetSpec]

PartitionsWanted = Mapping[Any, str | Sequence[str]]
"""The first attributes of each table's key; the table is given as a name or a class."""


@cache
def chain_executor() -> ExecutorDefinition:
    """Return the default executor: one process, and a table starts when its parents have output.

    It is the same each time, so that Dagster merges definitions that have it.

    A step has an output although some of its keys failed, so that the tables below it go on with
    the other keys. Dagster's own executor would skip them, because the step failed.
    """
    return in_process_executor.configured(
        {"step_dependency_config": {"require_upstream_step_success": False}}
    )


def build_definitions(
    schemas: SchemaLike | Iterable[SchemaLike],
    *,
    connection: Connection | None = None,
    select: Tables | None = None,
    exclude: Tables = (),
    translator: TableTranslator | None = None,
    partition_by: PartitionsWanted | None = None,
    checks: TableChecks | None = None,
    assets: Sequence[AssetsDefinition | AssetSpec] = (),
    asset_checks: Sequence[AssetChecksDefinition] = (),
    jobs: Sequence[Any] = (),
    schedules: Sequence[Any] = (),
    sensors: Sequence[Any] = (),
    resources: Mapping[str, Any] | None = None,
    executor: ExecutorDefinition | None = None,
    sensor_settings: SensorSettings | None = None,
    state_path: Path | None = None,
    entry_folders: Sequence[str | Path] = (),
) -> Definitions:
    """Return assets, sensor, populate job and IO manager for all tables of some schemas.

    Parameters
    ----------
    schemas
        Any of these, or several:

        - a `Schema` or a module that has one called ``schema``: the tables that have classes;
        - a pattern of schema names, ``"lab_*"``: all tables of the schemas in the database that
          have such names. Tables without a class are shown, but cannot be filled;
        - a schema of DataJoint itself: its tables, filled by their own `make`.
    connection
        The connection for patterns; the default connection if None.
    select, exclude
        Tables to have and to leave out, by name, class or asset key; all by default. Parts go with
        their masters. Names are those of `dj_dagster.model.selection`: ``"lab.Session"``, a schema
        ``"lab"``, ``"tier:computed"``, with ``*`` for anything, ``"Session+"`` with all below.
    translator
        The translator of tables into assets; a `TableTranslator` by default.
    partition_by
        The first attributes of the key that tell a table's partitions apart, by name, class or
        asset key: ``{"lab.Spikes": "subject_id"}``. One partition then stands for many keys. Of
        several that fit a table, the one that fits fewest tables counts.
    checks
        The checks of the tables; see `TableChecks` for the default.
    assets
        Ordinary assets of yours. One that has the key of a Manual or Lookup table stands for that
        table: what it returns is written there when its `io_manager_key` is
        ``"table_io_manager"``.
    asset_checks, jobs, schedules, sensors, resources
        Further definitions of yours, as in `dagster.Definitions`.
    executor
        The executor of the runs; see `chain_executor` for the default.
    sensor_settings
        Batch size, interval and bounds of the sensor.
    state_path
        The file that keeps the tables found by patterns, so that the code location loads while the
        database is down; by default one file a database, under DAGSTER_HOME or in ``.dagster``.
    entry_folders
        Folders of the machine that runs the entry jobs, from which the launchpad may take CSV files
        and files to store. Without folders it takes rows only.

    Notes
    -----
    `Definitions.merge` joins several results with different tables; Dagster joins components with
    it, too. The names of the sensors, of the jobs ``populate``, ``recompute`` and ``trace``, and of
    the schedules given here then end with those of their schemas, ``populate__lab``, and one IO
    manager serves all tables.

    Raises
    ------
    ConfigurationError
        When an asset of yours has the key of a table that `make` fills, a schema comes twice, a
        name does not fit any table, `partition_by` does not name the first attributes of a key, or
        the translator does not return a spec.
    DataJointError
        When the database cannot be reached.

    Examples
    --------
    >>> from dj_dagster.relational.schemas.schema import Schema
    >>> from dj_dagster.relational.table import Manual
    >>> schema = Schema("lab", connection=Connection("sqlite:///:memory:"))
    >>> @schema
    ... class Subject(Manual):
    ...     definition = "subject_id : int32"
    >>> defs = build_definitions(schema)
    >>> [spec.key.path for spec in defs.resolve_all_asset_specs()]
    [['lab', 'subject']]
    """
    chosen = translator or TableTranslator()
    settings = sensor_settings or SensorSettings()
    found = collect(schemas, connection=connection, state_path=state_path)
    sources = apart(selected(found, select, exclude))
    graph = table_graph(sources, _coarser(sources, chosen, partition_by or {}))
    settings = settings.resolved(graph, [source.candidate for source in found])
    check_tables(graph, schedules)
    own = _own_specs(graph, assets)
    partitions = {node.key: _partitions(node) for node in graph.nodes}
    partitions |= {key: spec.partitions_def for key, spec in own.items()}
    props = {node.key: table_props(node, graph, partitions) for node in graph.nodes}
    specs = {key: table_spec(each, chosen) for key, each in props.items()}
    versions = {key: spec.code_version for key, spec in specs.items()}
    works = {node.key: chosen.get_work(props[node.key]) for node in graph.populated}
    wanted = checks or TableChecks()
    found_of = {node.key: chosen.get_key_metadata(props[node.key]) for node in graph.populated}
    described = {key: found for key, found in found_of.items() if found is not None}
    graph = replace(graph, versions=versions, described=described)
    of_tables = table_checks(graph, wanted)
    graph = replace(graph, blocking=blocking_keys(of_tables))
    pipeline = Pipeline(graph, frozenset(own))

    def sensor(end: str) -> SensorDefinition:
        return populate_sensor(
            graph,
            managed=own,
            settings=settings,
            code=lambda: code_watch(graph, wanted),
            checks=lambda: check_watch(graph, wanted),
            end=end,
        )

    return Definitions(
        assets=[
            *_external(graph, specs, own),
            *(
                populated_assets(
                    node,
                    graph,
                    specs,
                    backfill_batch=settings.batch_size,
                    op_tags=chosen.get_op_tags(props[node.key]),
                    pool=chosen.get_pool(props[node.key]),
                    work=works[node.key],
                )
                for node in graph.populated
            ),
            *(_merged(asset, specs) for asset in assets),
        ],
        asset_checks=[*of_tables, *asset_checks],
        jobs=[
            *entry_jobs(graph, entry_folders),
            *belonging(
                pipeline,
                [
                    renamable(partial(populate_job, graph, works)),
                    renamable(partial(recompute_job, graph, works)),
                    renamable(partial(trace_job, graph)),
                ],
            ),
            *belonging(pipeline, jobs),
        ],
        schedules=belonging(pipeline, schedules),
        sensors=[*belonging(pipeline, [renamable(sensor)]), *sensors],
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


def _external(
    graph: TableGraph, specs: Specs, own: Mapping[AssetKey, AssetSpec]
) -> list[AssetSpec]:
    """Return external assets of the tables that neither `make` nor an asset of the user's fills."""
    filled = {node.key for node in graph.populated}
    return [
        specs[node.key]
        for node in graph.nodes
        if not filled & {node.key, node.master} and node.key not in own
    ]


def _coarser(
    sources: Sequence[TableSource],
    translator: TableTranslator,
    given: PartitionsWanted,
) -> PartitionBy:
    """Return the attributes of coarser partitions, by table; `given` overrides the translator."""
    found: dict[TableName, Sequence[str]] = {}
    for source in sources:
        if source.master is None and (names := translator.get_partition_by(source.table)):
            found[source.name] = names
    tables = [source.candidate for source in sources]
    masters = {source.name for source in sources if source.master is None}
    for table, wanted in by_table(given, tables, "partition_by").items():
        names: Any = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            raise ConfigurationError(
                f"partition_by has {wanted!r} for {class_name(table)}: write the names of the "
                "first attributes of its key."
            )
        if table in masters:
            found[table] = names
    return found


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
