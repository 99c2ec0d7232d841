"""The tables to orchestrate, in topological order, each with its asset key and its grain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dagster import AssetCheckKey, AssetKey

from dj_dagster.errors import ConfigurationError, PopulateError
from dj_dagster.model.graph import DependencyGraph
from dj_dagster.model.heading import Attribute
from dj_dagster.model.names import Tier
from dj_dagster.model.table_name import TableName
from dj_dagster.orchestration.coarse import by_partition
from dj_dagster.orchestration.grains import Grain, GrainBook
from dj_dagster.orchestration.maker import Maker
from dj_dagster.orchestration.naming import asset_key, class_name
from dj_dagster.orchestration.table_sources import TableSource
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.table import Table
from dj_dagster.workflow.populate import Key, KeyOutcome

PartitionBy = Mapping[TableName, Sequence[str]]
"""By table, the attributes at the beginning of its key that its partitions are told apart by."""


@dataclass(frozen=True)
class TableNode:
    """One table as Dagster sees it.

    Attributes
    ----------
    grain
        What a partition of the table is; a part has its master's. None for a table that has one
        row at most, and for a lookup table whose key no other table shares: these have none.
    master
        Asset key of a part's master.
    parents
        Asset keys of the tables that the foreign keys refer to, each once; a part's master first.
    filler
        What fills the table, None for tables that `make` does not fill, or not here.
    definition
        The text that declares the table.
    """

    table: Table
    name: TableName
    key: AssetKey
    tier: Tier
    grain: Grain | None = None
    master: AssetKey | None = None
    parents: tuple[AssetKey, ...] = ()
    filler: Maker | None = None
    definition: str = ""

    @property
    def populated(self) -> bool:
        """Whether `make` fills the table here, in contrast to people and other programs."""
        return self.filler is not None

    @property
    def maker(self) -> Maker:
        """What fills the table.

        Raises
        ------
        PopulateError
            When people or other programs enter its rows.
        """
        if self.filler is not None:
            return self.filler
        raise PopulateError(f"{self.title} is {self.tier.value}: there is nothing to make in it")

    @property
    def reservable(self) -> bool:
        """Whether the table has a job queue: its keys are those of other tables."""
        return self.maker.reservable

    @cached_property
    def coarse(self) -> bool:
        """Whether a partition stands for many keys of `make`: it is a prefix of them."""
        if self.grain is None or self.filler is None:
            return False
        return set(self.grain.names) < set(self.filler.key_names)

    def pending(
        self, *restrictions: Any, limit: int | None = None, retry_errors: bool = False
    ) -> list[Key]:
        """Return the keys that `make` has still to be given."""
        return self.maker.pending(*restrictions, limit=limit, retry_errors=retry_errors)

    def outcomes(
        self, keys: Iterable[Mapping[str, Any]] | None, *, retry_errors: bool
    ) -> Iterator[KeyOutcome]:
        """Make the keys that `keys` stand for, all that are pending for None.

        With partitions that are coarser than keys there is one outcome a partition, and `keys` may
        be keys of either.
        """
        grain = self.grain
        if not self.coarse or grain is None:
            yield from self.maker.make(keys, retry_errors=retry_errors)
            return
        wanted = None if keys is None else [{n: key[n] for n in grain.names} for key in keys]
        chosen = () if wanted is None else (wanted,)
        pending = self.pending(*chosen, retry_errors=retry_errors) if wanted != [] else []
        pending.sort(key=grain.encode)
        busy = Counter(map(grain.encode, pending))
        made = self.maker.make(pending, retry_errors=retry_errors)
        yield from by_partition(made, grain, busy)
        for key in wanted or ():
            if grain.encode(key) not in busy:
                yield KeyOutcome(key, "present" if self.table & key else "missing")

    @property
    def title(self) -> str:
        """The table as a user names it: ``"lab.Session.Trial"``."""
        return class_name(self.name)

    def rows_in(self, partitions: Iterable[str]) -> int:
        """Return how many rows the table has in some partitions."""
        return len(self.table & self._decoded(partitions))

    def finished(self, partitions: list[str]) -> list[str]:
        """Return those partitions, of some that have rows, of which no key is left to be made."""
        if not self.coarse or self.grain is None or not partitions:
            return partitions
        left = self.pending(self._decoded(partitions), retry_errors=True)
        unfinished = set(self.grain.encode_all(left))
        return [partition for partition in partitions if partition not in unfinished]

    def partitions(self) -> list[str]:
        """Return the partitions that have rows in the table, in the order of their keys."""
        return self._encoded(self.table)

    def possible_partitions(self) -> list[str]:
        """Return, beside those, the partitions of the keys that `make` could be given."""
        if self.grain is None or self.filler is None:
            return self.partitions()
        possible = self.grain.encode_all(self.filler.keys())
        return list(dict.fromkeys(possible + self.partitions()))

    def _decoded(self, partitions: Iterable[str]) -> list[Key]:
        grain = self.grain
        return [] if grain is None else [grain.decode(partition) for partition in partitions]

    def _encoded(self, query: QueryExpression) -> list[str]:
        if self.grain is None:
            return []
        return self.grain.encode_all(query.proj().to_dicts(order_by=self.grain.names))


@dataclass(frozen=True)
class TableGraph:
    """The tables of some schemas; parts follow their masters.

    Attributes
    ----------
    blocking
        Checks that those below wait for: runs that the sensor starts evaluate these alone.
    """

    nodes: tuple[TableNode, ...]
    blocking: frozenset[AssetCheckKey] = frozenset()

    @cached_property
    def by_key(self) -> dict[AssetKey, TableNode]:
        """The tables by asset key."""
        return {node.key: node for node in self.nodes}

    @property
    def populated(self) -> list[TableNode]:
        """The tables that `make` fills, parents first."""
        return [node for node in self.nodes if node.populated]

    @property
    def grains(self) -> list[Grain]:
        """The grains, in the order in which they begin."""
        return list(dict.fromkeys(node.grain for node in self.nodes if node.grain is not None))

    def parts(self, node: TableNode) -> list[TableNode]:
        """Return the parts of a table."""
        return [part for part in self.nodes if part.master == node.key]

    def of_grain(self, grain: Grain) -> list[TableNode]:
        """Return the tables of a grain, parents first."""
        return [node for node in self.nodes if node.grain == grain]

    def chain(self, start: Iterable[TableNode]) -> list[TableNode]:
        """Return the tables that `make` fills once `start` is filled, within its grain, and itself.

        They can be filled for the same keys in one run, parents first.
        """
        reached = {node.key: node.grain for node in start}
        for node in self.nodes:
            grains = [reached[parent] for parent in node.parents if parent in reached]
            if node.grain in grains and (node.populated or node.master in reached):
                reached[node.key] = node.grain
        return [node for node in self.populated if node.key in reached]

    def populated_named(self, text: str) -> TableNode:
        """Return the table, filled by `make`, that a person means by `text`.

        Raises
        ------
        ConfigurationError
            When no such table, or more than one, has that name.
        """
        return _named(text, self.populated, "names no table that make fills")

    def named(self, text: str) -> TableNode:
        """Return the table that a person means by `text`.

        Raises
        ------
        ConfigurationError
            When no table, or more than one, has that name.
        """
        return _named(text, self.nodes, "names no table")


def table_graph(
    sources: Sequence[TableSource], partition_by: PartitionBy | None = None
) -> TableGraph:
    """Put tables in order and find their grains.

    Parameters
    ----------
    partition_by
        Tables whose partitions are to be coarser than their keys.

    Raises
    ------
    ConfigurationError
        When those attributes do not begin a table's key.
    """
    found = {source.name: source for source in sources}
    order = _topological_order(found)
    coarser, book = partition_by or {}, GrainBook()
    grains = {name: book.grain(class_name(name), _key(found, name, coarser)) for name in order}
    shared = _shared_grains(found, grains)
    nodes = [
        _node(found[name], grain if grain in shared else None) for name, grain in grains.items()
    ]
    return TableGraph(tuple(nodes))


def _named(text: str, nodes: Sequence[TableNode], none: str) -> TableNode:
    found = [node for node in nodes if text in _spellings(node)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(node.title for node in found or nodes)
    fault = "names more than one table" if found else none
    raise ConfigurationError(f"{text!r} {fault}; write one of {names}")


def _spellings(node: TableNode) -> set[str]:
    return {
        node.title,
        node.title.removeprefix(f"{node.name.schema}."),
        node.key.to_user_string(),
        str(node.name),
    }


def _topological_order(sources: Mapping[TableName, TableSource]) -> list[TableName]:
    graph = DependencyGraph()
    for name in sources:
        graph.add_table(name)
    for name, source in sources.items():
        for foreign_key in source.table.foreign_keys:
            if foreign_key.parent != name:
                graph.add_edge(foreign_key.parent, name)
    return [name for name in graph.topological_order() if name in sources]


def _key(
    sources: Mapping[TableName, TableSource], name: TableName, coarser: PartitionBy
) -> list[Attribute]:
    """Return the attributes that identify a partition: for `make`, what one call is given."""
    root = _root(sources, name)
    names, wanted = root.given_names, list(coarser.get(root.name, ()))
    if names[: len(wanted)] != wanted:
        raise ConfigurationError(
            f"{class_name(root.name)} cannot be partitioned by {', '.join(wanted)}: write the "
            f"first of {', '.join(names) or 'no attributes'}, in this order"
        )
    return [root.table.heading[attribute] for attribute in wanted or names]


def _shared_grains(
    sources: Mapping[TableName, TableSource], found: Mapping[TableName, Grain | None]
) -> set[Grain | None]:
    """Leave out the grains that only lookup tables have: their rows are settings, not work."""
    return {
        grain
        for name, grain in found.items()
        if grain is not None and _root(sources, name).table.tier is not Tier.LOOKUP
    }


def _root(sources: Mapping[TableName, TableSource], name: TableName) -> TableSource:
    return sources[sources[name].master or name]


def _node(source: TableSource, grain: Grain | None) -> TableNode:
    master = asset_key(source.master) if source.master else None
    parents = [asset_key(foreign_key.parent) for foreign_key in source.table.foreign_keys]
    ordered = dict.fromkeys(([master] if master else []) + parents)
    ordered.pop(asset_key(source.name), None)
    return TableNode(
        table=source.table,
        name=source.name,
        key=asset_key(source.name),
        tier=source.table.tier,
        grain=grain,
        master=master,
        parents=tuple(ordered),
        filler=source.maker,
        definition=source.definition,
    )
