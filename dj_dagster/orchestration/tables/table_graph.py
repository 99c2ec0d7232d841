"""The tables to orchestrate, in topological order, and their selection by name, schema and tier."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

from dagster import AssetCheckKey, AssetKey

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.heading import Attribute, Key
from dj_dagster.model.names import TableName, Tier, title
from dj_dagster.model.selection import Candidate, matched, single, texts
from dj_dagster.orchestration.tables.grains import Grain, GrainBook
from dj_dagster.orchestration.tables.table_node import TableNode, TableSource, asset_key
from dj_dagster.relational.table import Table

Edge = tuple[TableName, TableName]

Named = str | type[Table] | Table | AssetKey
Tables = Named | Iterable[Named]
"""Tables by name, class or asset key; see `dj_dagster.model.selection` for the names."""

PartitionBy = Mapping[TableName, Sequence[str]]
"""The first attributes of the key that tell a table's partitions apart, by table."""

KeyMetadata = Callable[[Key], Mapping[str, Any]]
"""A function that returns Dagster's metadata of a key whose rows are there."""

CodeVersions = Mapping[AssetKey, str | None]
"""The version of the code that fills an asset, by asset."""

Blocking = Mapping[AssetKey, frozenset[AssetCheckKey]]
"""The checks that runs in a table evaluate, by table."""

Place = tuple[tuple[str, str], ...]
"""Tags, with their values, by which launchers choose the place of a step."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableGraph:
    """The tables of some schemas; parts follow their masters.

    Attributes
    ----------
    blocking
        Checks that the tables below wait for, by table, with those that can only be evaluated with
        them; runs of the sensor evaluate only these checks.
    versions
        The code versions of tables, as their assets have them.
    described
        The functions that give more metadata of a made key, by table.
    places
        The tags on which the steps of one run must agree, by table: queue, partition and so on.
    """

    nodes: tuple[TableNode, ...]
    blocking: Blocking = field(default_factory=dict[AssetKey, frozenset[AssetCheckKey]])
    versions: CodeVersions = field(default_factory=dict[AssetKey, str | None])
    described: Mapping[AssetKey, KeyMetadata] = field(default_factory=dict[AssetKey, KeyMetadata])
    places: Mapping[AssetKey, Place] = field(default_factory=dict[AssetKey, Place])

    @cached_property
    def by_key(self) -> dict[AssetKey, TableNode]:
        """The tables by asset key."""
        return {node.key: node for node in self.nodes}

    @cached_property
    def by_name(self) -> dict[TableName, TableNode]:
        """The tables by their names in the database."""
        return {node.name: node for node in self.nodes}

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

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The tables for selections by name."""
        names = {node.key: node.name for node in self.nodes}
        return tuple(
            Candidate(
                node.name, node.tier, tuple(names[key] for key in node.parents if key in names)
            )
            for node in self.nodes
        )

    def chosen(self, given: Tables, place: str) -> list[TableNode]:
        """Return the tables that users mean; see `dj_dagster.model.selection`.

        Parameters
        ----------
        place
            The setting that `given` stands in, for errors.

        Raises
        ------
        ConfigurationError
            When one of the names does not stand for a table.
        """
        names = matched(given, self.candidates, place)
        return [node for node in self.nodes if node.name in names]

    def filled(self, given: Tables, place: str) -> list[TableNode]:
        """Return those of the tables that users mean that `make` fills, parents first.

        Raises
        ------
        ConfigurationError
            When one of the names does not stand for such a table.
        """
        found: set[TableName] = set()
        for text in texts(given, place):
            names = {node.name for node in self.chosen(text, place) if node.populated}
            if not names:
                titles = ", ".join(node.title for node in self.populated)
                raise ConfigurationError(
                    f"{place} has {text!r}, which names no table that make fills; write one of "
                    f"{titles or 'none, for make fills none'}."
                )
            found |= names
        return [node for node in self.populated if node.name in found]

    def single(self, given: Named, place: str) -> TableNode:
        """Return the one table that a name stands for.

        Raises
        ------
        ConfigurationError
            When it does not stand for a table, or stands for several.
        """
        return self.by_name[single(given, self.candidates, place)]

    def entered_above(self, node: TableNode) -> list[TableNode]:
        """Return the tables with partitions, filled by people, that a table depends on."""
        above, found = set(node.parents), list[TableNode]()
        for each in reversed(self.nodes):
            if each.key in above:
                above.update(each.parents)
                if each.grain is not None and each.master is None and not each.populated:
                    found.append(each)
        return found

    def chain(self, start: Iterable[TableNode]) -> list[TableNode]:
        """Return the tables that `make` fills among `start` and, within its grain, below it.

        They can be filled for the same keys in one run, parents first.
        """
        reached = {node.key: node.grain for node in start}
        for node in self.nodes:
            grains = [reached[parent] for parent in node.parents if parent in reached]
            if node.grain in grains and (node.populated or node.master in reached):
                reached[node.key] = node.grain
        return [node for node in self.populated if node.key in reached]

    def chains(self, start: Collection[TableNode]) -> list[list[TableNode]]:
        """Return the tables of `chain` by place, for a run each.

        Tables below one that is made elsewhere are left out: they wait for its rows.
        """
        found = defaultdict[Place, list[TableNode]](list)
        first = {node.key for node in start}
        # The place of each table that is in a run, None of those that are not.
        placed: dict[AssetKey, Place | None] = {}
        for node in self.chain(start):
            place = self.places.get(node.key, ())
            above = {self.by_key[key].master or key for key in node.parents if key in self.by_key}
            if node.key in first or all(placed[key] == place for key in above & placed.keys()):
                placed[node.key] = place
                found[place].append(node)
            else:
                placed[node.key] = None
        return [*found.values()]


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
        When the attributes in `partition_by` are not the first ones of a table's key.
    """
    found = {source.name: source for source in sources}
    order, ignored = _topological_order({name: source.table for name, source in found.items()})
    coarser, book = partition_by or {}, GrainBook()
    grains = {name: book.grain(title(name), _key(found, name, coarser)) for name in order}
    shared = _shared_grains(found, grains)
    nodes = [
        _node(found[name], grain if grain in shared else None, ignored)
        for name, grain in grains.items()
    ]
    return TableGraph(tuple(nodes))


def joined(graphs: Sequence[TableGraph]) -> TableGraph:
    """Return the tables of several graphs together, parents first.

    Of the graphs that have the same table, that one counts whose `make` fills it: the others only
    show it. Of several such graphs the first counts.
    """
    owners, filled = dict[AssetKey, TableGraph](), dict[AssetKey, TableGraph]()
    for graph in reversed(graphs):
        for node in graph.nodes:
            owners[node.key] = graph
            if graph.by_key[node.master or node.key].populated:
                filled[node.key] = graph
    owners |= filled
    nodes = {
        node.name: node for graph in graphs for node in graph.nodes if owners[node.key] is graph
    }
    order, ignored = _topological_order({name: node.table for name, node in nodes.items()})
    closing = {(asset_key(parent), asset_key(child)) for parent, child in ignored}
    return TableGraph(
        tuple(_without_parents(nodes[name], closing) for name in order),
        {key: graph.blocking[key] for key, graph in owners.items() if key in graph.blocking},
        {key: graph.versions[key] for key, graph in owners.items() if key in graph.versions},
        {key: graph.described[key] for key, graph in owners.items() if key in graph.described},
        {key: graph.places[key] for key, graph in owners.items() if key in graph.places},
    )


def _without_parents(node: TableNode, left_out: Collection[tuple[AssetKey, AssetKey]]) -> TableNode:
    """Return a node without the parents of some edges, each a (parent, child)."""
    parents = tuple(key for key in node.parents if (key, node.key) not in left_out)
    return node if parents == node.parents else replace(node, parents=parents)


def _topological_order(
    tables: Mapping[TableName, Table],
) -> tuple[list[TableName], set[Edge]]:
    """Return the tables, parents first, and the ignored foreign keys, each a (parent, child).

    The ignored foreign keys close cycles, which other programs can make.
    """
    edges = {
        (foreign_key.parent, name): foreign_key.primary
        for name, table in tables.items()
        for foreign_key in table.foreign_keys
        if foreign_key.parent != name
    }
    ignored: set[Edge] = set()
    while True:
        # `DependencyGraph` would import networkx each time that a code location loads.
        order = TopologicalSorter[TableName](dict.fromkeys(tables, ()))
        for parent, child in (edge for edge in edges if edge not in ignored):
            order.add(child, parent)
        try:
            found = [name for name in order.static_order() if name in tables]
        except CycleError as error:
            # A list of tables, each the parent of the next; the first is also the last.
            cycle: list[TableName] = error.args[1]
            links = list(pairwise(cycle))
            left = next((link for link in links if not edges[link]), links[-1])
            ignored.add(left)
            logger.warning(
                "Foreign keys form a cycle, %s: Dagster is not shown that %s refers to %s.",
                " -> ".join(map(str, cycle)),
                left[1],
                left[0],
            )
        else:
            return found, ignored


def _key(
    sources: Mapping[TableName, TableSource], name: TableName, coarser: PartitionBy
) -> list[Attribute]:
    """Return the attributes that identify a partition: by default those of a key of `make`."""
    root = _root(sources, name)
    names, wanted = root.given_names, list(coarser.get(root.name, ()))
    if names[: len(wanted)] != wanted:
        raise ConfigurationError(
            f"{title(root.name)} cannot be partitioned by {', '.join(wanted)}: write the "
            f"first of {', '.join(names) or 'no attributes'}, in this order."
        )
    return [root.table.heading[attribute] for attribute in wanted or names]


def _shared_grains(
    sources: Mapping[TableName, TableSource], found: Mapping[TableName, Grain | None]
) -> set[Grain | None]:
    """Leave out the grains of lookup tables alone, because their rows are settings, not work."""
    return {
        grain
        for name, grain in found.items()
        if grain is not None and _root(sources, name).table.tier is not Tier.LOOKUP
    }


def _root(sources: Mapping[TableName, TableSource], name: TableName) -> TableSource:
    return sources[sources[name].master or name]


def _node(source: TableSource, grain: Grain | None, ignored: set[Edge]) -> TableNode:
    master = asset_key(source.master) if source.master else None
    parents = [
        asset_key(foreign_key.parent)
        for foreign_key in source.table.foreign_keys
        if (foreign_key.parent, source.name) not in ignored
    ]
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
        filled_by=source.populator,
        definition=source.definition,
    )


def selected(
    sources: Sequence[TableSource], select: Tables | None, exclude: Tables
) -> list[TableSource]:
    """Return the tables that are selected and not excluded; parts go with their masters.

    Parameters
    ----------
    select, exclude
        Tables by the names of `dj_dagster.model.selection`. None selects all tables.

    Raises
    ------
    ConfigurationError
        When a name does not stand for a table, `select` is empty, or a part is selected without its
        master.
    """
    tables = [source.candidate for source in sources]
    chosen = {source.name for source in sources}
    if select is not None:
        chosen = _with_parts(sources, matched(select, tables, "select"))
        if not chosen:
            raise ConfigurationError(
                "select is empty: name tables, or leave it out for all of the schemas."
            )
        masters = {source.name: source.master or source.name for source in sources}
        for text in texts(select, "select"):
            of = {masters[name] for name in matched(text, tables, "select")}
            if chosen.isdisjoint(of):
                titles = ", ".join(map(title, sorted(of)))
                raise ConfigurationError(
                    f"select has {text!r}, which names parts alone; they go with their masters: "
                    f"write one of {titles}."
                )
    chosen -= _with_parts(sources, matched(exclude, tables, "exclude"))
    return [
        source
        for source in sources
        if source.name in chosen and (source.master is None or source.master in chosen)
    ]


def _with_parts(sources: Iterable[TableSource], chosen: Collection[TableName]) -> set[TableName]:
    return {*chosen, *(source.name for source in sources if source.master in chosen)}
