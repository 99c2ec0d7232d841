"""The tables to orchestrate, in topological order, each with its asset key and its grain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dagster import AssetKey

from dj_dagster.errors import ConfigurationError, PopulateError
from dj_dagster.model.graph import DependencyGraph
from dj_dagster.model.heading import Attribute
from dj_dagster.model.names import Tier
from dj_dagster.model.table_name import TableName
from dj_dagster.orchestration.grains import Grain, GrainBook
from dj_dagster.orchestration.naming import asset_key, class_name
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.schema import Schema
from dj_dagster.relational.table import Part, Table
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.populate import pending_keys

POPULATED = (Tier.IMPORTED, Tier.COMPUTED)


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
    """

    table: Table
    name: TableName
    key: AssetKey
    tier: Tier
    grain: Grain | None = None
    master: AssetKey | None = None
    parents: tuple[AssetKey, ...] = ()

    @property
    def populated(self) -> bool:
        """Whether `make` fills the table, in contrast to people and other programs."""
        return self.tier in POPULATED

    @property
    def maker(self) -> Makes:
        """The table, of which `populated` is known.

        Raises
        ------
        PopulateError
            When people enter its rows.
        """
        if isinstance(self.table, Makes):
            return self.table
        raise PopulateError(f"{self.title} is {self.tier.value}: there is nothing to make in it")

    @property
    def reservable(self) -> bool:
        """Whether the table has a job queue: its keys are those of other tables."""
        return any(key.primary and key.attributes for key in self.table.foreign_keys)

    def pending(
        self, *restrictions: Any, limit: int | None = None, retry_errors: bool = False
    ) -> list[dict[str, Any]]:
        """Return the keys that `make` has still to be given; see `pending_keys`."""
        return pending_keys(
            self.maker,
            *restrictions,
            limit=limit,
            retry_errors=retry_errors,
            ignore_jobs=not self.reservable,
        )

    @property
    def title(self) -> str:
        """The table as a user names it: ``"lab.Session.Trial"``."""
        return class_name(self.name)

    def partitions(self) -> list[str]:
        """Return the partitions that have rows in the table, in the order of their keys."""
        return self._encoded(self.table)

    def possible_partitions(self) -> list[str]:
        """Return, beside those, the partitions of the keys that `make` could be given."""
        if not isinstance(self.table, Makes):
            return self.partitions()
        return list(dict.fromkeys(self._encoded(self.table.key_source) + self.partitions()))

    def _encoded(self, query: QueryExpression) -> list[str]:
        if self.grain is None:
            return []
        return self.grain.encode_all(query.proj().to_dicts(order_by=self.grain.names))


@dataclass(frozen=True)
class TableGraph:
    """The tables of some schemas; parts follow their masters."""

    nodes: tuple[TableNode, ...]

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
        found = [node for node in self.populated if text in _spellings(node)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(node.title for node in found or self.populated)
        fault = "names more than one table" if found else "names no table that make fills"
        raise ConfigurationError(f"{text!r} {fault}; write one of {names}")


def table_graph(schemas: Iterable[Schema]) -> TableGraph:
    """Collect the tables of `schemas` and find their grains.

    Raises
    ------
    ConfigurationError
        When a schema is given twice.
    """
    tables = _tables(schemas)
    order = _topological_order(tables)
    grains = GrainBook()
    found = {name: grains.grain(class_name(name), _key(tables[name])) for name in order}
    shared = _shared_grains(tables, found)
    nodes = [
        _node(tables, name, grain if grain in shared else None) for name, grain in found.items()
    ]
    return TableGraph(tuple(nodes))


def _spellings(node: TableNode) -> set[str]:
    return {
        node.title,
        node.title.removeprefix(f"{node.name.schema}."),
        node.key.to_user_string(),
        str(node.name),
    }


def _tables(schemas: Iterable[Schema]) -> dict[TableName, Table]:
    tables: dict[TableName, Table] = {}
    for schema in schemas:
        for table in schema.tables.values():
            for each in (table(), *(part() for part in table.parts())):
                if each.name in tables:
                    raise ConfigurationError(f"schema {schema.name} is given more than once")
                tables[each.name] = each
    return tables


def _topological_order(tables: dict[TableName, Table]) -> list[TableName]:
    graph = DependencyGraph()
    for name in tables:
        graph.add_table(name)
    for name, table in tables.items():
        for foreign_key in table.foreign_keys:
            graph.add_edge(foreign_key.parent, name)
    return [name for name in graph.topological_order() if name in tables]


def _key(table: Table) -> list[Attribute]:
    """Return the attributes that identify a partition: for `make`, what one call is given."""
    table = _root(table)
    names = table.primary_key
    if isinstance(table, Makes):
        given = table.key_source.primary_key
        names = [name for name in names if name in given]
    return [table.heading[name] for name in names]


def _shared_grains(
    tables: dict[TableName, Table], found: dict[TableName, Grain | None]
) -> set[Grain | None]:
    """Leave out the grains that only lookup tables have: their rows are settings, not work."""
    return {
        grain
        for name, grain in found.items()
        if grain is not None and _root(tables[name]).tier is not Tier.LOOKUP
    }


def _root(table: Table) -> Table:
    return table.master() if isinstance(table, Part) else table


def _node(tables: dict[TableName, Table], name: TableName, grain: Grain | None) -> TableNode:
    table = tables[name]
    master = asset_key(table.master().name) if isinstance(table, Part) else None
    parents = [asset_key(foreign_key.parent) for foreign_key in table.foreign_keys]
    ordered = dict.fromkeys(([master] if master else []) + parents)
    ordered.pop(asset_key(name), None)
    return TableNode(
        table=table,
        name=name,
        key=asset_key(name),
        tier=table.tier,
        grain=grain,
        master=master,
        parents=tuple(ordered),
    )
