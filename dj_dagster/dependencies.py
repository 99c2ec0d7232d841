"""The graph of foreign keys in DataJoint's form: a networkx graph of full table names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import networkx as nx

from dj_dagster.model.graph import DependencyGraph
from dj_dagster.relational import relatives
from dj_dagster.relational.deleting.delete import master_of
from dj_dagster.relational.schemas.free_table import table_name
from dj_dagster.relational.stored import StoredTable

_Info = dict[str, Any]


class Dependencies(nx.MultiDiGraph):  # pyright: ignore[reportMissingTypeArgument]
    """The tables of a connection's schemas, with an edge from parent to child per foreign key.

    Nodes have the attribute ``primary_key``. Edges have the properties that `Table.parents` gives:
    ``primary``, ``attr_map``, ``aliased`` and ``multi``.

    Parameters
    ----------
    connection
        The connection whose `schemas` are read. Copies of the graph lack one, and are not read
        again.
    """

    def __init__(self, incoming: Any = None, **attributes: Any) -> None:
        connected = hasattr(incoming, "catalog")
        super().__init__(None if connected else incoming, **attributes)
        self._connection: Any = incoming if connected else None
        self._loaded = False
        self._loaded_schemas: set[str] = set()

    def clear(self) -> None:
        """Forget all tables."""
        super().clear()
        self._loaded, self._loaded_schemas = False, set()

    def load(self, force: bool = True, schema_names: Iterable[str] | None = None) -> None:
        """Read the tables of the schemas from the database.

        Parameters
        ----------
        force
            Whether tables are read again, as other programs may have changed them.
        schema_names
            The schemas to read; by default those activated on the connection.
        """
        if self._connection is None:
            return
        wanted = set(self._connection.schemas if schema_names is None else schema_names)
        if self._loaded and not force and wanted <= self._loaded_schemas:
            return
        self.clear()
        for schema in sorted(wanted):
            self._connection.catalog.forget(schema)
        for schema in sorted(wanted):
            for table in self._connection.catalog.tables(schema).values():
                self._add(table)
        self._loaded, self._loaded_schemas = True, wanted

    def load_all_downstream(self) -> None:
        """Read the schemas and those whose tables depend on them."""
        catalog = self._connection.catalog
        self._load_found(
            {table.name.schema for schema in self._known() for table in catalog.related(schema)}
        )

    def load_all_upstream(self) -> None:
        """Read the schemas and those whose tables they depend on."""
        catalog = self._connection.catalog
        names = [name for schema in self._known() for name in catalog.names(schema)]
        graph = relatives.graph_above(self._connection, names)
        self._load_found({name.schema for name in graph.topological_order()})

    def topo_sort(self) -> list[str]:
        """Return all tables, each after its parents, parts behind their masters."""
        return topo_sort(self)

    def parents(self, table_name: str, primary: bool | None = None) -> list[tuple[str, _Info]]:
        """Return the tables that a table refers to, with the properties of each foreign key.

        Parameters
        ----------
        primary
            True for only the foreign keys within the primary key, False for only the others.
        """
        self.load(force=False)
        edges = self.in_edges(table_name, data=True)
        return [(parent, props) for parent, _, props in edges if _is(props, primary)]

    def children(self, table_name: str, primary: bool | None = None) -> list[tuple[str, _Info]]:
        """Return the tables that refer to a table; see `parents`."""
        self.load(force=False)
        edges = self.out_edges(table_name, data=True)
        return [(child, props) for _, child, props in edges if _is(props, primary)]

    def descendants(self, full_table_name: str) -> list[str]:
        """Return a table and all tables that refer to it, directly or not, parents first."""
        self.load(force=False)
        return self._sorted({full_table_name, *nx.descendants(self, full_table_name)})

    def ancestors(self, full_table_name: str) -> list[str]:
        """Return a table and all tables that it refers to, directly or not, parents last."""
        self.load(force=False)
        return self._sorted({full_table_name, *nx.ancestors(self, full_table_name)})[::-1]

    def _known(self) -> list[str]:
        return sorted(self._connection.schemas)

    def _load_found(self, schemas: set[str]) -> None:
        schemas |= set(self._known())
        if not (self._loaded and schemas <= self._loaded_schemas):
            self.load(schema_names=schemas)

    def _sorted(self, names: set[str]) -> list[str]:
        return topo_sort(self.subgraph(names))

    def _add(self, table: StoredTable) -> None:
        if relatives.is_hidden(table.name):
            return
        spelled = self._connection.full_name
        name = spelled(table.name)
        self.add_node(name, primary_key=set(table.heading.primary_key))
        for key in table.foreign_keys:
            props = relatives.info(key, table)
            self.add_edge(spelled(key.parent), name, key=tuple(props["attr_map"]), **props)


def topo_sort(graph: nx.DiGraph[str]) -> list[str]:
    """Return the tables of a graph, each after its parents, parts behind their masters."""
    ordered: Any = DependencyGraph()
    for node in graph:
        ordered.add_table(node)
    for parent, child in graph.edges():
        ordered.add_edge(parent, child)
    return ordered.order_with_parts(extract_master)


def extract_master(part_table: str) -> str | None:
    """Return the full name of a part's master, None for other tables.

    Examples
    --------
    >>> extract_master("`lab`.`session__trial`")
    '`lab`.`session`'
    """
    if part_table.isdigit():
        return None
    name = table_name(part_table)
    master = master_of(name)
    if master is None:
        return None
    # The quotes of the part's name are kept.
    return part_table.replace(name.table, master.table)


def unite_master_parts(lst: Iterable[str]) -> list[str]:
    """Return sorted tables with parts moved behind their masters."""
    behind: dict[str, list[str]] = {}
    names = list(lst)
    for name in names:
        master = extract_master(name)
        behind.setdefault(master if master in names else name, []).append(name)
    return [
        each
        for name in names
        if name in behind
        for each in sorted(behind[name], key=lambda each: each != name)
    ]


def _is(props: _Info, primary: bool | None) -> bool:
    return primary is None or props["primary"] == primary
