"""The graph of foreign keys between tables, over plain names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from dj_dagster.errors import DefinitionError
from dj_dagster.lazy import LateModule
from dj_dagster.model.names import TableName

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = LateModule("networkx")


class DependencyGraph:
    """A directed graph of foreign keys; an edge runs from the parent to the child.

    Examples
    --------
    >>> graph = DependencyGraph()
    >>> subject, session = TableName("lab", "subject"), TableName("lab", "session")
    >>> graph.add_edge(subject, session)
    >>> graph.add_edge(session, TableName("lab", "__spikes"))
    >>> [str(table) for table in graph.descendants(subject)]
    ['lab.session', 'lab.__spikes']
    """

    def __init__(self) -> None:
        self._graph: nx.DiGraph[TableName] = nx.DiGraph()

    def __contains__(self, table: object) -> bool:
        return table in self._graph

    def __len__(self) -> int:
        return len(self._graph)

    def add_table(self, table: TableName) -> None:
        """Add a table, unless the graph has it."""
        self._graph.add_node(table)

    def add_edge(self, parent: TableName, child: TableName) -> None:
        """Add a foreign key of `child`, and either table if the graph lacks it.

        A foreign key of a table to itself (a hierarchy) does not become an edge.
        """
        if parent == child:
            self.add_table(child)
        else:
            self._graph.add_edge(parent, child)

    def topological_order(self) -> list[TableName]:
        """Return all tables, each after its parents, otherwise in the order they were added.

        Tables whose foreign keys form a cycle, which other programs can make, come together.
        """
        return _order(self._graph)

    def check_acyclic(self, tables: Iterable[TableName]) -> None:
        """Raise an error if any of some tables is part of a cycle of foreign keys.

        Raises
        ------
        DefinitionError
            Naming the cycle.
        """
        wanted = set(tables)
        for members in nx.strongly_connected_components(self._graph):
            if len(members) > 1 and wanted & members:
                links = nx.find_cycle(self._graph.subgraph(members))
                parent, child = links[-1]
                path = [*(start for start, _ in links), child]
                raise DefinitionError(
                    f"foreign keys form a cycle: {' -> '.join(map(str, path))}\n"
                    f"remove one of them, for instance that of {child} to {parent}"
                )

    def order_with_parts(
        self, master_of: Callable[[TableName], TableName | None]
    ) -> list[TableName]:
        """Return all tables, each after its parents, and parts right behind their masters.

        A part that refers to a table below its master comes after that table instead.

        Parameters
        ----------
        master_of
            Returns the master of a part, None for other tables.
        """
        order = self.topological_order()
        groups, leaders = self._graph.copy(), {table: table for table in order}
        for part in order:
            master = master_of(part)
            leader = leaders.get(master) if master is not None else None
            if leader is not None and not _is_apart(groups, leader, part):
                leaders[part] = leader
                _merge(groups, part, leader)
        members: dict[TableName, list[TableName]] = {}
        for table in order:
            members.setdefault(leaders[table], []).append(table)
        return [table for leader in _order(groups) for table in members[leader]]

    def parents(self, table: TableName) -> list[TableName]:
        """Return the tables that `table` refers to directly, in the order they were added."""
        return list(self._graph.predecessors(self._known(table)))

    def children(self, table: TableName) -> list[TableName]:
        """Return the tables that refer to `table` directly, in the order they were added."""
        return list(self._graph.successors(self._known(table)))

    def ancestors(self, table: TableName) -> list[TableName]:
        """Return all tables that `table` refers to, directly or not, parents first.

        Raises
        ------
        DefinitionError
            When these tables contain a cycle; see `check_acyclic`.
        """
        return self._sorted(table, nx.ancestors(self._graph, self._known(table)))

    def descendants(self, table: TableName) -> list[TableName]:
        """Return all tables that refer to `table`, directly or not, parents first.

        Raises
        ------
        DefinitionError
            When these tables contain a cycle; see `check_acyclic`.
        """
        return self._sorted(table, nx.descendants(self._graph, self._known(table)))

    def _sorted(self, start: TableName, tables: Iterable[TableName]) -> list[TableName]:
        wanted = set(tables)
        self.check_acyclic({start, *wanted})
        return [table for table in self.topological_order() if table in wanted]

    def _known(self, table: TableName) -> TableName:
        if table not in self._graph:
            names = {str(node): node for node in self._graph}
            close = get_close_matches(str(table), names, n=1)
            advice = f"\nthe nearest name is {close[0]}" if close else ""
            raise DefinitionError(f"the graph has no table {table}{advice}")
        return table


def _order(graph: nx.DiGraph[TableName]) -> list[TableName]:
    """Return tables, each after its parents; the tables of a cycle are next to each other."""
    try:
        return list(nx.topological_sort(graph))
    except nx.NetworkXUnfeasible:
        cycles = nx.condensation(graph)
        added = {table: number for number, table in enumerate(graph)}
        groups = (cycles.nodes[number]["members"] for number in nx.topological_sort(cycles))
        return [table for members in groups for table in sorted(members, key=added.__getitem__)]


def _is_apart(graph: nx.DiGraph[TableName], leader: TableName, part: TableName) -> bool:
    """Return whether `part` cannot follow `leader` directly.

    It cannot if another table has to come between them, or if `leader` depends on `part`.
    """
    between = [table for table in graph.predecessors(part) if table != leader]
    return nx.has_path(graph, part, leader) or any(
        nx.has_path(graph, leader, table) for table in between
    )


def _merge(graph: nx.DiGraph[TableName], part: TableName, leader: TableName) -> None:
    """Let `leader` stand for `part` too."""
    above = [(parent, leader) for parent in graph.predecessors(part) if parent != leader]
    below = [(leader, child) for child in graph.successors(part)]
    graph.remove_node(part)
    graph.add_edges_from([*above, *below])
