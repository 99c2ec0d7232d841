"""The tables of some schemas with all that their assets, jobs and sensor are built from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

from dagster import (
    AssetChecksDefinition,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    PartitionsDefinition,
)

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.names import TableName, title
from dj_dagster.model.selection import by_table, matched
from dj_dagster.orchestration.arguments import check_kind, listed
from dj_dagster.orchestration.checks import TableChecks, blocking_checks, checks_of
from dj_dagster.orchestration.runs.work import Work
from dj_dagster.orchestration.sensor.sensor_settings import SensorSettings
from dj_dagster.orchestration.tables.collection import SchemaLike, apart, collect
from dj_dagster.orchestration.tables.table_graph import (
    PartitionBy,
    TableGraph,
    Tables,
    selected,
    table_graph,
)
from dj_dagster.orchestration.tables.table_node import TableSource
from dj_dagster.orchestration.translator import (
    TableProps,
    TableTranslator,
    place_of,
    table_props,
    table_spec,
)
from dj_dagster.relational.database.connection import Connection

PartitionsWanted = Mapping[Any, str | Sequence[str]]
"""The first attributes of each table's key; the table is given by name, class or asset key."""

Asset = AssetsDefinition | AssetSpec

_TAKEN: Mapping[str, tuple[type, str]] = {
    "connection": (Connection, "a Connection"),
    "translator": (TableTranslator, "a TableTranslator, such as LabTranslator()"),
    "partition_by": (Mapping, "a mapping such as {'lab.Spikes': 'subject_id'}"),
    "checks": (TableChecks, "a TableChecks, such as TableChecks(complete=False)"),
    "sensor_settings": (SensorSettings, "a SensorSettings, such as SensorSettings(batch_size=20)"),
    "state_path": (Path, "the Path of a file"),
}
"""The types that arguments take beside None, and an example of each."""

_RETURNED: Mapping[str, tuple[Any, str]] = {
    "get_op_tags": ((Mapping,), "a mapping of tags, {} without any"),
    "get_pool": ((str, NoneType), "the name of a pool, or None"),
    "get_work": ((Work,), "a Work, such as Work(processes=8)"),
    "get_key_metadata": ((Callable, NoneType), "a function of a key, or None"),
}
"""The types that methods of a translator return."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The tables of some schemas; `read_pipeline` makes it.

    Attributes
    ----------
    specs, props
        The asset spec of each table, and what the translator was told of it.
    works, op_tags, pools
        How a run makes the keys of each table that `make` fills, and the tags and the concurrency
        pool of its step.
    checks
        The checks that the tables have.
    asset_checks
        These checks as Dagster has them, and those of the user's own.
    assets
        The assets of the user's own.
    managed
        Those of the user's own assets that fill tables; they mark themselves.
    """

    graph: TableGraph
    translator: TableTranslator
    specs: Mapping[AssetKey, AssetSpec]
    props: Mapping[AssetKey, TableProps]
    works: Mapping[AssetKey, Work]
    op_tags: Mapping[AssetKey, Mapping[str, object]]
    pools: Mapping[AssetKey, str | None]
    settings: SensorSettings
    checks: TableChecks
    asset_checks: Sequence[AssetChecksDefinition] = ()
    assets: Sequence[Asset] = ()
    managed: frozenset[AssetKey] = frozenset()

    @property
    def schemas(self) -> tuple[str, ...]:
        """The names of its schemas."""
        return tuple(sorted({node.key.path[0] for node in self.graph.nodes}))

    def fills(self, names: Iterable[str]) -> bool:
        """Return whether `make` fills tables of all these names."""
        try:
            return bool(self.graph.filled(names, "tables"))
        except ConfigurationError:
            return False


def read_pipeline(
    schemas: SchemaLike | Iterable[SchemaLike],
    *,
    connection: Connection | None = None,
    select: Tables | None = None,
    exclude: Tables = (),
    translator: TableTranslator | None = None,
    partition_by: PartitionsWanted | None = None,
    checks: TableChecks | None = None,
    assets: Sequence[Asset] = (),
    asset_checks: Sequence[AssetChecksDefinition] = (),
    sensor_settings: SensorSettings | None = None,
    state_path: Path | None = None,
) -> Pipeline:
    """Return the tables of some schemas, for the functions that build their definitions.

    `build_definitions` makes all that there is of them. A team that wants some of it, or something
    of its own in between, calls the functions one by one.

    Parameters
    ----------
    schemas, connection, select, exclude, translator, partition_by, checks, assets, \
asset_checks, sensor_settings, state_path
        See `build_definitions`.

    Raises
    ------
    ConfigurationError, DataJointError
        See `build_definitions`.

    Examples
    --------
    >>> import dagster as dg
    >>> from dj_dagster.orchestration import populate_sensor, table_assets, table_checks
    >>> from dj_dagster.orchestration import table_resources
    >>> from dj_dagster.relational.schemas.schema import Schema
    >>> from dj_dagster.relational.table import Manual
    >>> schema = Schema("lab", connection=Connection("sqlite:///:memory:"))
    >>> @schema
    ... class Subject(Manual):
    ...     definition = "subject_id : int32"
    >>> pipeline = read_pipeline(schema)
    >>> defs = dg.Definitions(
    ...     assets=table_assets(pipeline),
    ...     asset_checks=table_checks(pipeline),
    ...     sensors=[populate_sensor(pipeline)],
    ...     resources=table_resources(pipeline),
    ... )
    >>> [sensor.name for sensor in defs.sensors]
    ['populate_sensor']
    """
    given = {
        "connection": connection,
        "translator": translator,
        "partition_by": partition_by,
        "checks": checks,
        "sensor_settings": sensor_settings,
        "state_path": state_path,
    }
    for name, (kind, words) in _TAKEN.items():
        check_kind(f"The argument {name}", given[name], (kind, NoneType), words)
    assets = _own_assets(assets)
    asset_checks = listed("The argument asset_checks", asset_checks, "asset checks")
    for each in asset_checks:
        words = "asset checks; other things go beside them, to Definitions.merge"
        check_kind("One of the argument asset_checks", each, AssetChecksDefinition, words)
    chosen, wanted = translator or TableTranslator(), checks or TableChecks()
    found = collect(schemas, connection=connection, state_path=state_path)
    sources = apart(selected(found, select, exclude))
    graph = table_graph(sources, _coarser(sources, chosen, partition_by or {}))
    settings = (sensor_settings or SensorSettings()).resolved(
        graph, [source.candidate for source in found]
    )
    own = _own_specs(graph, assets)
    partitions: dict[AssetKey, PartitionsDefinition[str] | None] = {
        node.key: node.grain.partitions_def if node.grain else None for node in graph.nodes
    }
    filled_by_own = _filled(assets)
    for key, spec in own.items():
        if key in filled_by_own:
            partitions[key] = spec.partitions_def
        elif spec.partitions_def not in (None, partitions[key]):
            raise ConfigurationError(
                f"the AssetSpec {key.to_user_string()} of {graph.by_key[key].title} has partitions "
                "of its own, which nothing would mark; leave partitions_def out"
            )
    props = {node.key: table_props(node, graph, partitions) for node in graph.nodes}
    specs = {key: table_spec(each, chosen) for key, each in props.items()}
    filled = {node.key: props[node.key] for node in graph.populated}
    said = {
        name: {key: _returned(chosen, name, each) for key, each in filled.items()}
        for name in _RETURNED
    }
    graph = replace(
        graph,
        versions={key: spec.code_version for key, spec in specs.items()},
        described={k: each for k, each in said["get_key_metadata"].items() if each is not None},
        places={key: place_of(tags) for key, tags in said["get_op_tags"].items()},
    )
    asset_checks = [*checks_of(graph, wanted), *asset_checks]
    return Pipeline(
        replace(graph, blocking=blocking_checks(asset_checks)),
        chosen,
        specs,
        props,
        said["get_work"],
        said["get_op_tags"],
        said["get_pool"],
        settings,
        wanted,
        asset_checks,
        assets,
        filled_by_own.intersection(own),
    )


def table_checks(pipeline: Pipeline) -> list[AssetChecksDefinition]:
    """Return the asset checks of a pipeline's tables, one definition a table, and the user's own.

    The sensor evaluates them too: definitions without them should have no checks in the pipeline.
    """
    return list(pipeline.asset_checks)


def _returned(translator: TableTranslator, method: str, props: TableProps) -> Any:
    """Return what a translator says of a table: a wrong thing is refused before a run meets it."""
    kinds, words = _RETURNED[method]
    found = getattr(translator, method)(props)
    check_kind(f"{type(translator).__name__}.{method} of {props.title}", found, kinds, words)
    return found


def _own_assets(given: Any) -> list[Asset]:
    assets = listed("The argument assets", given, "assets")
    for each in assets:
        kinds = (AssetsDefinition, AssetSpec)
        words = "assets and specs of assets; other things go beside them, to Definitions.merge"
        check_kind("One of the argument assets", each, kinds, words)
    return assets


def _own_specs(graph: TableGraph, assets: Sequence[Asset]) -> dict[AssetKey, AssetSpec]:
    """Return the user's assets that stand for tables."""
    specs = [spec for asset in assets for spec in _specs(asset)]
    own = {spec.key: spec for spec in specs if spec.key in graph.by_key}
    for key in own:
        node = graph.by_key[key]
        if node.master is not None and not graph.by_key[node.master].populated:
            raise ConfigurationError(
                f"the asset {key.to_user_string()} has the key of {node.title}, a part, whose rows "
                "are entered with its master's; give it another key"
            )
        if node.populated or node.master is not None:
            raise ConfigurationError(
                f"The asset {key.to_user_string()} has the key of {node.title}, whose rows come "
                "from make: give it another key."
            )
    return own


def _filled(assets: Sequence[Asset]) -> frozenset[AssetKey]:
    """Return the assets that runs materialise; an AssetSpec only says what there is."""
    made = (a for a in assets if isinstance(a, AssetsDefinition) and a.is_executable)
    return frozenset(key for asset in made for key in asset.keys)


def _specs(asset: Asset) -> Iterable[AssetSpec]:
    return [asset] if isinstance(asset, AssetSpec) else asset.specs


def _coarser(
    sources: Sequence[TableSource],
    translator: TableTranslator,
    given: PartitionsWanted,
) -> PartitionBy:
    """Return the attributes of coarser partitions, by table; `given` overrides the translator."""
    found: dict[TableName, Sequence[str]] = {}
    for source in sources:
        if source.master is None:
            names: Any = translator.get_partition_by(source.table)
            if names is not None:
                place = f"{type(translator).__name__}.get_partition_by"
                found[source.name] = _attribute_names(place, source.name, names)
    tables = [source.candidate for source in sources]
    masters = {source.name: source.master or source.name for source in sources}
    for each in given:
        named = matched(each, tables, "partition_by")
        if all(masters[name] != name for name in named):
            titles = ", ".join(sorted({title(masters[name]) for name in named}))
            raise ConfigurationError(
                f"partition_by has {each!r}, which names parts alone; they have the partitions of "
                f"their masters: write one of {titles}."
            )
    for table, wanted in by_table(given, tables, "partition_by").items():
        names = _attribute_names("partition_by", table, wanted)
        if masters[table] == table:
            found[table] = names
    return found


def _attribute_names(place: str, table: TableName, wanted: Any) -> list[str]:
    names = [wanted] if isinstance(wanted, str) else wanted
    known = isinstance(names, list | tuple) and all(isinstance(n, str) for n in names)
    if not known or not names:
        raise ConfigurationError(
            f"{place} has {wanted!r} for {title(table)}: write the names of the first attributes "
            "of its key."
        )
    return list(names)
