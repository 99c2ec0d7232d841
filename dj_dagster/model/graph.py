"""The graph of foreign keys between tables, over plain names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import networkx as nx

from dj_dagster.errors import DefinitionError
from dj_dagster.model.table_name import TableName


class DependencyGraph:
    """Which tables refer to which; an edge runs from the parent to the child.

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
        """Add a table; one that is there already stays as it is."""
        self._graph.add_node(table)

    def add_edge(self, parent: TableName, child: TableName) -> None:
        """Add a foreign key of `child`; the tables are added where they are missing.

        A table that refers to itself (a hierarchy) depends on no other, and gets no edge.

        Raises
        ------
        DefinitionError
            When the child is, by other foreign keys, already needed by the parent; the graph stays
            as it was.
        """
        if parent == child:
            self.add_table(child)
            return
        if parent in self and child in self and nx.has_path(self._graph, child, parent):
            path = [parent, *nx.shortest_path(self._graph, child, parent)]
            raise DefinitionError(
                f"foreign keys form a cycle: {' -> '.join(map(str, path))}\n"
                f"remove one of them, for instance that of {child} to {parent}"
            )
        self._graph.add_edge(parent, child)

    def topological_order(self) -> list[TableName]:
        """Return all tables, each after its parents, otherwise in the order they were added."""
        return list(nx.topological_sort(self._graph))

    def parents(self, table: TableName) -> list[TableName]:
        """Return the tables that `table` refers to directly, in the order they were added."""
        return list(self._graph.predecessors(self._known(table)))

    def children(self, table: TableName) -> list[TableName]:
        """Return the tables that refer to `table` directly, in the order they were added."""
        return list(self._graph.successors(self._known(table)))

    def ancestors(self, table: TableName) -> list[TableName]:
        """Return all that `table` refers to, through any number of tables, parents first."""
        return self._sorted(nx.ancestors(self._graph, self._known(table)))

    def descendants(self, table: TableName) -> list[TableName]:
        """Return all that refers to `table`, through any number of tables, parents first."""
        return self._sorted(nx.descendants(self._graph, self._known(table)))

    def _sorted(self, tables: Iterable[TableName]) -> list[TableName]:
        wanted = set(tables)
        return [table for table in self.topological_order() if table in wanted]

    def _known(self, table: TableName) -> TableName:
        if table not in self._graph:
            names = {str(node): node for node in self._graph}
            close = get_close_matches(str(table), names, n=1)
            advice = f"\nthe nearest name is {close[0]}" if close else ""
            raise DefinitionError(f"the graph has no table {table}{advice}")
        return table
