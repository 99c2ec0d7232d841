"""The rows above a key that is being made, in all ancestors of its table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from dj_dagster.errors import DataJointError
from dj_dagster.model.heading import Heading, Key
from dj_dagster.model.names import TableName
from dj_dagster.relational.algebra.nodes import Projected
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.schemas.free_table import FreeTable, class_path
from dj_dagster.relational.stored import ForeignKey, StoredTable
from dj_dagster.relational.table import Table


@dataclass
class _Reached:
    """An ancestor, with the ways to its rows; a row needs only one of them."""

    stored: StoredTable
    ways: list[object] = field(default_factory=list[object])
    fixed: Key | None = None

    def fix(self, values: Key) -> None:
        """Keep the values that all ways fix for the rows."""
        known = values if self.fixed is None else self.fixed
        self.fixed = {n: v for n, v in known.items() if n in values and values[n] == v}


class Upstream:
    """The ancestors of a table, each restricted to the rows that a key of it refers to.

    Parameters
    ----------
    table
        The computed table.
    key
        The key that is being made; its row need not be there yet.

    Examples
    --------
    ::

        self.upstream[Session].fetch1("session_date")
    """

    def __init__(self, table: Table, key: Mapping[str, object]) -> None:
        self._table = table
        self._key = dict(key)

    def __getitem__(self, table: type[Table] | Table | str) -> Table:
        """Return the rows of an ancestor that are reached by any path of foreign keys.

        Parameters
        ----------
        table
            A table, or its name: ``"lab.session"``, ``"Session"``.

        Raises
        ------
        DataJointError
            If `table` is not an ancestor.
        """
        found = self._named(table) if isinstance(table, str) else table
        query = found() if isinstance(found, type) else found
        if query.name == self._table.name:
            return query & self._key
        reached = self._reached.get(query.name)
        if reached is None:
            raise self._no_ancestor(query.name)
        return query & (reached.ways[0] if len(reached.ways) == 1 else reached.ways)

    def __contains__(self, table: type[Table] | Table) -> bool:
        query = table() if isinstance(table, type) else table
        return query.name in self._reached or query.name == self._table.name

    def __iter__(self) -> Iterator[str]:
        return map(self._table.connection.backend.full_name, self._reached)

    @property
    def tables(self) -> frozenset[TableName]:
        """The ancestors."""
        return frozenset(self._reached)

    def __repr__(self) -> str:
        return f"Upstream of {self._table.name} {self._key}: {', '.join(self)}"

    @cached_property
    def _reached(self) -> dict[TableName, _Reached]:
        """All ancestors, children first."""
        reached: dict[TableName, _Reached] = {}
        for foreign_key in self._table.foreign_keys:
            self._follow(foreign_key, self._key, None, reached)
        for name in self._order():
            if name in reached:
                self._climb(reached[name], reached)
        return reached

    def _climb(self, child: _Reached, reached: dict[TableName, _Reached]) -> None:
        ways = child.ways[0] if len(child.ways) == 1 else child.ways
        rows = FreeTable(self._table.connection, child.stored.name).restrict(ways)
        for foreign_key in child.stored.foreign_keys:
            if foreign_key.parent != child.stored.name:
                self._follow(foreign_key, child.fixed or {}, rows, reached)

    def _follow(
        self,
        foreign_key: ForeignKey,
        fixed: Key,
        rows: QueryExpression | None,
        reached: dict[TableName, _Reached],
    ) -> None:
        """Note the parent's rows that a child's rows refer to; None are those being made."""
        names = foreign_key.attributes
        stored = self._table.connection.catalog.find(foreign_key.parent)
        if stored is None or foreign_key.parent == self._table.name:
            return
        known = {parent: fixed[child] for child, parent in names.items() if child in fixed}
        way: object = known
        if len(known) < len(names) and (rows is not None or not foreign_key.primary):
            way = _seen_as_parent(self._table & self._key if rows is None else rows, foreign_key)
        parent = reached.setdefault(foreign_key.parent, _Reached(stored))
        parent.ways.append(way)
        parent.fix(known)

    def _order(self) -> list[TableName]:
        """Return all ancestors, children before their parents."""
        catalog, order = self._table.connection.catalog, dict[TableName, None]()

        def visit(name: TableName) -> None:
            stored = catalog.find(name)
            for foreign_key in stored.foreign_keys if stored else ():
                if foreign_key.parent != name and foreign_key.parent not in order:
                    visit(foreign_key.parent)
            order[name] = None

        visit(self._table.name)
        return [name for name in reversed(order) if name != self._table.name]

    def _named(self, text: str) -> FreeTable:
        plain = text.replace("`", "").replace('"', "")
        spelled = {
            name: {str(name), name.table, class_path(name.table)}
            | {f"{name.schema}.{class_path(name.table)}"}
            for name in (self._table.name, *self._reached)
        }
        found = [name for name, spellings in spelled.items() if plain in spellings]
        if len(found) != 1:
            raise (
                self._no_ancestor(text)
                if not found
                else DataJointError(
                    f"{text!r} names several ancestors: {', '.join(map(str, found))}. Write one of "
                    "these."
                )
            )
        return FreeTable(self._table.connection, found[0])

    def _no_ancestor(self, name: object) -> DataJointError:
        return DataJointError(
            f"{name} is not in this trace: it is no ancestor of {self._table.name}, by foreign "
            f"keys: {', '.join(self) or 'there is none'}. Add a foreign key to it, or query it "
            "itself."
        )


def _seen_as_parent(rows: QueryExpression, foreign_key: ForeignKey) -> QueryExpression:
    """Return a child's foreign keys under the names that the parent has for them."""
    names = {parent: child for child, parent in foreign_key.attributes.items()}
    heading = Heading(
        replace(rows.heading[child], name=parent, in_key=True) for parent, child in names.items()
    )
    return QueryExpression(
        rows.connection, Projected(heading, rows.node.tables, rows.node, dict(names))
    )
