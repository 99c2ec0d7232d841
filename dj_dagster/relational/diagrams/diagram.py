"""Diagrams: sets of tables and the foreign keys between them, for display and computation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial, reduce
from types import ModuleType
from typing import Self

from dj_dagster.errors import DataJointError
from dj_dagster.model.names import TableName, class_path
from dj_dagster.relational import relatives
from dj_dagster.relational.algebra.nodes import All, AnyOf, Base, Condition, Node
from dj_dagster.relational.algebra.operators import all_rows, restrict
from dj_dagster.relational.caller import calling_names
from dj_dagster.relational.database.catalog import dependency_graph
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.deleting import delete, hierarchy
from dj_dagster.relational.deleting.delete import (
    PartIntegrity,
    any_of,
    carried,
    check_parts,
    master_of,
    narrowed,
)
from dj_dagster.relational.diagrams.drawing import Drawn, Labels, Picture, make_picture, read_source
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.relatives import graph_above, parent_keys
from dj_dagster.relational.schemas.free_table import FreeTable, table_name
from dj_dagster.relational.stored import ForeignKey
from dj_dagster.relational.table import Table, TableMeta


class Diagram(Drawn):
    """A set of tables with the foreign keys between them, which notebooks draw.

    Diagrams are combined by operators, each of which returns a new one: ``diagram + 1`` adds the
    tables that refer to those shown, ``diagram - 1`` those that they refer to, and so on by more
    levels; ``a + b`` shows the tables of either, ``a * b`` those of both, ``a - b`` those of `a`
    alone. An operand may be anything that a diagram can be made of.

    Tables are searched in all schemas that the user may see. Hidden tables are left out.

    Parameters
    ----------
    source
        A schema, a module with one, a table or its class, a query (the tables it reads), a
        diagram, or a list of those.
    context
        The names in which classes are looked up for the tables' labels; by default the names where
        the diagram is made, and those of the displayed module. A table without a class there is
        labelled as its class would be.

    Examples
    --------
    ::

        dj.Diagram(schema).save("pipeline.svg")
        dj.Diagram(Session) - 1 + 2
    """

    def __init__(self, source: object, context: Mapping[str, object] | None = None) -> None:
        self._rows: NodesByTable | None = None
        self._kind = ""
        self._seeds: dict[TableName, list[Node]] = {}
        self._enforced = False
        if isinstance(source, Diagram):
            vars(self).update(vars(source))
            return
        if context is None:
            shown = vars(source) if isinstance(source, ModuleType) else {}
            context = {**calling_names(), **shown}
        self.context: dict[str, object] = dict(context)
        self._connection, tables = read_source(source)
        self._tables = frozenset(tables)
        self._expanded = self._tables

    @classmethod
    def from_sequence(cls, sequence: Iterable[object]) -> Self:
        """Return the diagram that shows the tables of several sources."""
        context = calling_names()
        diagrams = [cls(source, context) for source in sequence]
        if not diagrams:
            raise DataJointError("A diagram needs a table or a schema at least; there is none.")
        return reduce(lambda one, other: one + other, diagrams)

    @classmethod
    def cascade(cls, table_expr: object, part_integrity: PartIntegrity = "enforce") -> Self:
        """Return the diagram of a query's rows and of all rows that a delete of them would remove.

        `counts` returns the numbers of these rows, and ``diagram[Session]`` those of a table.

        Parameters
        ----------
        table_expr
            Rows of one table.
        part_integrity
            As for `Table.delete`.

        Raises
        ------
        DataJointError
            By `counts`, if the delete would be refused because of parts without their masters.

        Examples
        --------
        ::

            dj.Diagram.cascade(Session & "session_id = 1").counts()
            # {'`lab`.`session`': 1, '`lab`.`__spikes`': 12}
        """
        query = _table_of(table_expr)
        rows = rows_below(query.connection, query.node, query.name, part_integrity)
        diagram = cls._of_rows(query.connection, rows, "cascade")
        diagram._enforced = part_integrity == "enforce"
        return diagram

    @classmethod
    def trace(cls, table_expr: object) -> Self:
        """Return the diagram of a query's rows and of all rows that they refer to.

        ``diagram[Session]`` returns the rows of a table that they refer to, directly or not.
        """
        query = _table_of(table_expr)
        rows = rows_above(query.connection, query.node, query.name)
        return cls._of_rows(query.connection, rows, "trace")

    @classmethod
    def _of_rows(cls, connection: Connection, rows: NodesByTable, kind: str) -> Self:
        diagram = cls.__new__(cls)
        diagram.context = dict(calling_names())
        diagram._connection = connection
        diagram._tables = diagram._expanded = frozenset(rows)
        diagram._rows, diagram._kind, diagram._seeds, diagram._enforced = rows, kind, {}, False
        return diagram

    def restrict(self, table_expr: object) -> Self:
        """Return the diagram with a table restricted, and with it the tables that depend on it.

        It shows the same tables. A row that depends on restricted tables remains if its parent in
        each of them remains. If it is called again, even with another table, both restrictions
        hold. `counts` returns the numbers of remaining rows, and ``diagram[Session]`` those of a
        table.

        Parameters
        ----------
        table_expr
            Rows of one table that is shown, or that shown tables depend on.

        Raises
        ------
        DataJointError
            For another table, and for the diagram of a `cascade` or `trace`.

        Examples
        --------
        ::

            mice = dj.Diagram(schema).restrict(Subject & "species = 'mouse'").prune()
            mice.counts()
        """
        if self._kind:
            raise DataJointError(
                f"restrict() cannot be used on the diagram of a {self._kind}, which has its rows: "
                "begin with Diagram(schema)."
            )
        query = _table_of(table_expr)
        node = hierarchy.of_table(query.connection, query.node)
        here = query.connection is self._connection
        below = rows_within(self._connection, {query.name: [node]}) if here else {}
        if self._tables.isdisjoint(below):
            raise DataJointError(
                f"The diagram does not show {query.name}, nor what depends on it. It shows: "
                f"{self._listed()}."
            )
        restricted = self._with(self._tables)
        restricted._seeds = {**self._seeds, query.name: [*self._seeds.get(query.name, []), node]}
        restricted._rows = rows_within(self._connection, restricted._seeds)
        return restricted

    def prune(self) -> Self:
        """Return the diagram without empty tables; the database is not changed.

        After `restrict` these are the restricted tables without remaining rows.

        Raises
        ------
        DataJointError
            For the diagram of a `cascade`, since rows may be added before it is used.
        """
        if self._kind == "cascade":
            raise DataJointError(
                "prune() cannot be used on the diagram of a cascade, whose tables may get rows "
                "before they are deleted from."
            )
        counted = self.counts()
        empty = {name for name in self._tables if counted.get(self._full(name)) == 0}
        return self._with(self._tables - empty)

    def counts(self) -> dict[str, int]:
        """Return the number of rows by full table name, parents first.

        For a `cascade` or `trace` its own rows are counted; after `restrict` the remaining rows of
        the restricted tables; otherwise all rows.
        """
        if self._rows is None:
            return {table.full_table_name: len(table) for table in self}
        rows = {name: nodes for name, nodes in self._rows.items() if name in self._tables}
        counts = count_rows(self._connection, rows)
        if self._enforced:
            check_parts(counts)
        return {self._full(name): count for name, count in counts.items()}

    @property
    def connection(self) -> Connection:
        """The connection of the tables."""
        return self._connection

    @property
    def nodes_to_show(self) -> set[str]:
        """The full names of the tables."""
        return {self._full(name) for name in self._tables}

    def nodes(self) -> list[str]:
        """Return the full names of the tables; see `topo_sort` for their order."""
        return self.topo_sort()

    def edges(self) -> list[tuple[str, str]]:
        """Return parent and child of each foreign key between the tables, by their full names."""
        return [
            (self._full(key.parent), self._full(name))
            for name in self._order()
            for key in relatives.parent_keys(self._connection, name)
            if key.parent in self._tables
        ]

    def number_of_edges(self, parent: str | None = None, child: str | None = None) -> int:
        """Return the number of foreign keys, in total or between two tables."""
        edges = self.edges()
        return len(edges) if parent is None else edges.count((parent, str(child)))

    def topo_sort(self) -> list[str]:
        """Return the full names of the tables, parents first, parts right after their masters.

        A part that refers to a table which in turn refers to its master comes after that table.
        """
        return [self._full(name) for name in self._order()]

    def __iter__(self) -> Iterator[FreeTable]:
        return (self._table(name) for name in self._order())

    def __reversed__(self) -> Iterator[FreeTable]:
        return (self._table(name) for name in reversed(self._order()))

    def __len__(self) -> int:
        return len(self._tables)

    def __contains__(self, table: object) -> bool:
        return self._name(table) in self._tables

    def __getitem__(self, table: object) -> Table:
        """Return a table by its class or name; for a `cascade` or `trace` only its rows there.

        Raises
        ------
        DataJointError
            If the diagram does not show it.
        """
        name = self._name(table)
        if name is None or name not in self._tables:
            raise DataJointError(
                f"{name or table} is not in this {self._kind or 'diagram'}, which shows: "
                f"{self._listed()}."
            )
        if not isinstance(table, TableMeta):
            return self._table(name)
        found = table()
        found._node = self._node(name)
        return found

    def add_parts(self) -> Self:
        """Return the diagram with all parts of the masters that it shows."""
        parts = [relatives.part_names(self._connection, name) for name in self._tables]
        return self._with(self._tables.union(*parts))

    def collapse(self) -> Self:
        """Return the diagram with each schema drawn as one box.

        Tables that are shown by a diagram added to it are drawn as tables:
        ``dj.Diagram(lab).collapse() + dj.Diagram(ephys)``.
        """
        collapsed = self._with(self._tables)
        collapsed._expanded = frozenset()
        return collapsed

    def __add__(self, other: object) -> Self:
        if isinstance(other, int):
            into = cache(partial(relatives.keys_into, self._connection))
            return self._grown(other, lambda name: into(name.schema).get(name, []))
        other = self._diagram(other)
        sum_ = self._with(self._tables | other._tables)
        sum_._expanded = self._expanded | other._expanded
        sum_.context = {**other.context, **self.context}
        return sum_

    def __sub__(self, other: object) -> Self:
        if isinstance(other, int):
            return self._grown(other, lambda name: relatives.parent_keys(self._connection, name))
        return self._with(self._tables - self._diagram(other)._tables)

    def __mul__(self, other: object) -> Self:
        return self._with(self._tables & self._diagram(other)._tables)

    def __repr__(self) -> str:
        return f"Diagram({self._listed()})"

    def _listed(self) -> str:
        labels = Labels(self.context)
        return ", ".join(labels[name] for name in self._order()) or "no tables"

    def _picture(self) -> Picture:
        labels = Labels(self.context)
        return make_picture(self._connection, self._order(), self._expanded, labels)

    def _order(self) -> list[TableName]:
        # Tables between the shown ones count too.
        graph = relatives.graph_above(self._connection, sorted(self._tables))
        return [name for name in graph.order_with_parts(master_of) if name in self._tables]

    def _with(self, tables: frozenset[TableName]) -> Self:
        other = copy.copy(self)
        other._tables = tables
        other._expanded = self._expanded | (tables - self._tables)
        if not tables <= self._tables:
            # The rows of added tables are unknown.
            other._rows, other._kind, other._enforced = None, "", False
            if self._seeds:
                other._rows = rows_within(self._connection, self._seeds)
        return other

    def _grown(self, levels: int, keys_of: Callable[[TableName], Iterable[ForeignKey]]) -> Self:
        if levels < 0:
            raise DataJointError("Write diagram + 1 for children, diagram - 1 for parents.")
        tables, rim = self._tables, self._tables
        for _ in range(levels):
            keys = [key for name in sorted(rim) for key in keys_of(name)]
            rim = frozenset(end for key in keys for end in (key.parent, key.child)) - tables
            tables |= rim
        return self._with(tables)

    def _diagram(self, other: object) -> Diagram:
        diagram = other if isinstance(other, Diagram) else Diagram(other, {})
        if diagram._connection is not self._connection:
            raise DataJointError("Diagrams of different connections cannot be combined.")
        return diagram

    def _table(self, name: TableName) -> FreeTable:
        table = FreeTable(self._connection, name)
        table._node = self._node(name)
        return table

    def _full(self, name: TableName) -> str:
        return self._connection.full_name(name)

    def _node(self, name: TableName) -> Node | None:
        nodes = (self._rows or {}).get(name)
        return joined(nodes) if nodes else None

    def _name(self, table: object) -> TableName | None:
        """Return the name of a table given by class, table, full name or class name."""
        if isinstance(table, TableMeta):
            return table._binding.name if table._binding else None
        if isinstance(table, Table):
            return table.name
        if isinstance(table, TableName):
            return table
        labels = Labels(self.context)
        for name in self._tables:
            if table in (
                labels[name],
                class_path(name.table),
                f"{name.schema}.{class_path(name.table)}",
            ):
                return name
        return table_name(table) if isinstance(table, str) and "." in table else None


def _table_of(query: object) -> Table:
    """Return rows of one table."""
    if isinstance(query, TableMeta):
        return query()
    if isinstance(query, Table) and not query.is_projection:
        return query
    raise DataJointError(f"Rows of one table are meant, such as Session & key, not {query!r}.")


NodesByTable = dict[TableName, list[Node]]
"""The rows of each table, parents first, as one query or several disjoint ones."""


def rows_below(
    connection: Connection, node: Node, root: TableName, part_integrity: PartIntegrity
) -> NodesByTable:
    """Return a query's rows with all rows that a delete of them would remove."""
    node = hierarchy.of_table(connection, node)
    return delete.doomed_rows(connection, node, root, masters=part_integrity == "cascade")


def rows_above(connection: Connection, node: Node, root: TableName) -> NodesByTable:
    """Return a query's rows with all rows that they refer to, directly or not."""
    graph = graph_above(connection, [root])
    found: NodesByTable = {}
    conditions: dict[TableName, list[Condition]] = {}
    for name in [root, *reversed(graph.ancestors(root))]:
        stored = connection.catalog.find(name)
        if stored is None:
            continue
        if name == root:
            rows = hierarchy.of_table(connection, node)
        else:
            rows = restrict(all_rows(name, stored.heading), AnyOf(tuple(conditions[name])))
        keys = parent_keys(connection, name)
        own = [key for key in keys if key.parent == name]
        rows = hierarchy.with_referred(connection, rows, own)
        found[name] = [rows]
        for key in keys:
            if key.parent != name:
                conditions.setdefault(key.parent, []).append(hierarchy.reference(rows, key))
    return dict(reversed(found.items()))


def rows_within(connection: Connection, seeds: Mapping[TableName, Sequence[Node]]) -> NodesByTable:
    """Return the rows of some tables, and the rows below them that depend only on these.

    A row is included if each of its restricted parents is included; of several foreign keys to one
    parent, one suffices. A table's foreign keys to itself are not followed.

    Parameters
    ----------
    seeds
        By table the queries of its rows, all of which a row must satisfy.
    """
    incoming = {
        table.name: table
        for name in seeds
        for table in connection.catalog.related(name.schema, fresh=True)
    }
    graph = dependency_graph(incoming.values())
    found: NodesByTable = {}
    for name in graph.topological_order():
        table, stored = incoming.get(name), connection.catalog.find(name)
        if table is None or stored is None:
            continue
        conditions = [c for node in seeds.get(name, ()) for c in hierarchy.base_of(node)[1]]
        parents = dict.fromkeys(key.parent for key in table.foreign_keys if key.parent != name)
        for parent in parents:
            if parent in found:
                keys = [key for key in table.foreign_keys if key.parent == parent]
                rows = found[parent][0]
                # Conditions that can be carried do not grow with the number of tables.
                conditions.append(any_of([carried(rows, k) or [narrowed(rows, k)] for k in keys]))
        if conditions or name in seeds:
            found[name] = [restrict(all_rows(name, stored.heading), All(tuple(conditions)))]
    graph.check_acyclic(found)
    return found


def count_rows(connection: Connection, rows: NodesByTable) -> dict[TableName, int]:
    """Return the number of rows of each table, parents first."""
    return {
        name: sum(fetch.count(connection, node) for node in nodes) for name, nodes in rows.items()
    }


def joined(nodes: list[Node]) -> Node | None:
    """Return the rows of a table as one query, None for the whole table."""
    node = nodes[0] if len(nodes) == 1 else hierarchy.together(nodes)
    return None if isinstance(node, Base) else node
