"""Tables that fill themselves: `make`, the source of its keys, and the rows above a key."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Protocol, runtime_checkable

from dj_dagster.errors import (
    ConnectionFailedError,
    DataJointError,
    MissingMakeError,
    PopulateError,
    TransientError,
    named_text,
)
from dj_dagster.model.heading import Attribute, Heading, Key
from dj_dagster.model.names import TableName
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra.condition import make_condition, refuse_oversights
from dj_dagster.relational.algebra.nodes import (
    Base,
    Equals,
    Joined,
    Matches,
    Negated,
    Node,
    Projected,
)
from dj_dagster.relational.algebra.operators import all_rows, join, project, restrict
from dj_dagster.relational.database.connection import Connection
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
            f"{name} is not in this trace: it is not an ancestor of {self._table.name}, by foreign "
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


def default_key_source(table: Table) -> QueryExpression:
    """Return the join of the keys of all parents in the table's primary key.

    Raises
    ------
    PopulateError
        If no foreign key is part of the primary key.
    """
    parents = [referred(table.connection, key) for key in _primary(table)]
    return QueryExpression(table.connection, _joined(table, parents))


def _with_attributes(table: Table) -> Node:
    """Return the default key source with the attributes that only one of the parents has."""
    connection, foreign_keys = table.connection, _primary(table)
    parents = [
        referred(connection, key, _own_names(connection, key, foreign_keys)) for key in foreign_keys
    ]
    return _joined(table, parents)


def _joined(table: Table, parents: Iterable[Node]) -> Node:
    matching = table.connection.matching
    return reduce(lambda one, other: join(one, other, matching), parents)


@contextmanager
def blaming(table: Table) -> Generator[None]:
    """Name the table in the errors of a key source that a user has written.

    Raises
    ------
    PopulateError
        Instead of the error, unless the database cannot be reached or the error is transient.
    """
    try:
        yield
    except (PopulateError, ConnectionFailedError, TransientError):
        raise
    except Exception as error:
        raise PopulateError(f"The key_source of {table.name} fails: {named_text(error)}") from error


def checked_key_source(table: Table, source: object) -> QueryExpression:
    """Return a key source as a query.

    Raises
    ------
    PopulateError
        If it is not a query, or has attributes in its key that the table lacks.
    """
    query = source() if inspect.isclass(source) and issubclass(source, Table) else source
    if not isinstance(query, QueryExpression):
        raise PopulateError(
            f"The key_source of {table.name} is {query!r}: it must be a table or a query."
        )
    extra = [name for name in query.primary_key if name not in table.heading]
    if extra:
        raise PopulateError(
            f"The key_source of {table.name} has {', '.join(extra)} in its key, which the table "
            f"({', '.join(table.heading.names)}) has not: leave it out of the key_source, or add "
            "it to the table."
        )
    return query


def referred(connection: Connection, foreign_key: ForeignKey, more: Iterable[str] = ()) -> Node:
    """Return the rows that a foreign key can refer to, under the names that it has for them.

    Parameters
    ----------
    more
        Other attributes of the parent to keep.

    Raises
    ------
    PopulateError
        If the parent is gone.
    """
    parent = _parent(connection, foreign_key)
    columns = dict(foreign_key.attributes)
    attributes = [replace(parent.heading[old], name=new) for new, old in columns.items()]
    attributes += [parent.heading[name] for name in more]
    names = columns | {name: name for name in more}
    return Projected(Heading(attributes), parent.tables, parent, names)


def own_key_source(table: PopulatedTable) -> QueryExpression:
    """Return the key source that a table's class has written.

    Raises
    ------
    PopulateError
        If the key source raises, and see `checked_key_source`; the error names the table.
    """
    with blaming(table):
        return checked_key_source(table, table.key_source)


def without(source: Node, other: Node) -> Node:
    """Return the rows of a key source whose key is not in another query."""
    return restrict(source, Negated(Matches(tuple(source.heading.primary_key), other)))


def lacking(source: Node, other: Node) -> Node:
    """Return the keys of a key source that are not in a table.

    This outer join takes MariaDB a third of the time of `without`, for which the server copies the
    other table's keys.
    """
    names = source.heading.primary_key
    if not names:
        return without(source, other)
    mark = replace(other.heading[names[0]], name="_made", in_key=False, nullable=True)
    columns = {**dict(zip(names, names, strict=True)), "_made": names[0]}
    marked = Heading([*(other.heading[name] for name in names), mark])
    made = Projected(marked, other.tables, other, columns)
    both = Heading([*source.heading.all_attributes.values(), mark])
    tables = source.tables | other.tables
    joined = Joined(both, tables, source, made, tuple(names), outer=True)
    return project(restrict(joined, Equals("_made", None)))


def among(source: Node, other: Node) -> Node:
    """Return the rows of a query whose keys are also keys of another query."""
    return restrict(source, Matches(tuple(source.heading.primary_key), other))


def base(connection: Connection, name: TableName) -> Base | None:
    """Return the query over all rows of a table, None if it does not exist."""
    stored = connection.catalog.find(name)
    return all_rows(name, stored.heading) if stored else None


def _primary(table: Table) -> list[ForeignKey]:
    foreign_keys = [key for key in table.foreign_keys if key.primary]
    if not foreign_keys:
        raise PopulateError(
            f"{table.name} has no foreign key in its primary key, so nothing tells which keys to "
            "make. Add one above ---, or define key_source as a property."
        )
    return foreign_keys


def _parent(connection: Connection, foreign_key: ForeignKey) -> Base:
    parent = base(connection, foreign_key.parent)
    if parent is None:
        raise PopulateError(f"{foreign_key.child}: its parent {foreign_key.parent} is gone.")
    return parent


def _own_names(
    connection: Connection, foreign_key: ForeignKey, foreign_keys: Iterable[ForeignKey]
) -> list[str]:
    """Return the plain attributes of a parent whose names neither other parents nor keys have."""
    taken: set[str] = set()
    for other in foreign_keys:
        taken |= set(other.attributes)
        if other is not foreign_key:
            taken |= set(_parent(connection, other).heading.names)
    secondary = _parent(connection, foreign_key).heading
    return [
        name
        for name in secondary.names
        if name not in taken and not secondary[name].in_key and _is_restrictable(secondary[name])
    ]


def _is_restrictable(attribute: Attribute) -> bool:
    kind = attribute.type
    return kind is not None and kind.family not in (Family.CODEC, Family.BYTES)


def _is_plain(restriction: object) -> bool:
    if isinstance(restriction, list | tuple | set):
        return all(map(_is_plain, restriction))
    return isinstance(restriction, str | Mapping)


STEPS = ("make_fetch", "make_compute", "make_insert")
"""The methods of a make in three parts."""


class PopulatedTable(Table):
    """A table that can fill itself.

    Write either `make`, or three methods between which long computations hold no transaction:

    - ``make_fetch(self, key, **make_kwargs)`` returns a tuple of all that is needed;
    - ``make_compute(self, key, *fetched)`` returns a tuple of results;
    - ``make_insert(self, key, *computed)`` inserts them.

    The inputs are fetched again in the transaction that inserts; if they have changed since, the
    key fails. A `make` that is a generator does the same: it yields the inputs, then, when the
    ``yield`` gave it None, the results, and inserts those that it is sent.
    """

    _made_key: Key | None = None
    _upstream: Upstream | None = None

    @property
    def key_source(self) -> QueryExpression:
        """The keys to make: the join of the parents in the primary key.

        Override it, as a property or as a query in the class's body, to narrow them or to make
        several rows at a time; its key may have fewer attributes than the table's.
        """
        return default_key_source(self)

    @property
    def upstream(self) -> Upstream:
        """The ancestors' rows that the key being made refers to: ``self.upstream[Session]``.

        Raises
        ------
        DataJointError
            Outside a `make`.
        """
        if self._made_key is None:
            raise DataJointError(
                f"{self.class_name}.upstream is only available inside make(self, key). Outside, "
                "restrict the ancestor itself: Session & key."
            )
        if self._upstream is None:
            self._upstream = Upstream(self, self._made_key)
        return self._upstream

    def make(self, key: Key) -> object:
        """Compute the rows of one key and insert them with `self.insert1`; yours to write.

        Raises
        ------
        MissingMakeError
            Here, because the class does not define it.
        """
        raise MissingMakeError(
            f"{self.class_name} has no make: write def make(self, key) in its class, "
            f"which inserts the rows of {key}, or {', '.join(STEPS)}."
        )

    @contextmanager
    def upstream_from(self, key: Mapping[str, object]) -> Generator[None]:
        """Let `upstream` look from a key."""
        self._made_key = dict(key)
        try:
            yield
        finally:
            self._made_key = self._upstream = None


def can_make(cls: type[PopulatedTable]) -> bool:
    """Whether a class says how its rows are made: it has a `make`, its steps or a key source."""
    written = cls.__mro__[: cls.__mro__.index(PopulatedTable)]
    names = {name for each in written for name in vars(each)}
    return bool(names & {"make", "key_source"}) or names.issuperset(STEPS)


def has_own_key_source(table: PopulatedTable) -> bool:
    """Whether a class defines its own key source."""
    return _defined(table, "key_source") is not vars(PopulatedTable)["key_source"]


class KeySource:
    """The keys that a table is to make, as a query that is built once for one `populate`.

    Parameters
    ----------
    table
        The table; a `key_source` that its class defines is asked for here.

    Attributes
    ----------
    is_own
        Whether the class defines the key source.
    keys
        The query for all keys, with the attributes of the key alone.

    Raises
    ------
    PopulateError
        If there are no keys to make: see `default_key_source` and `own_key_source`.
    """

    def __init__(self, table: PopulatedTable) -> None:
        self.table = table
        self.is_own = has_own_key_source(table)
        self._query = own_key_source(table) if self.is_own else default_key_source(table)
        self.keys: Node = project(self._query.node)

    @property
    def names(self) -> list[str]:
        """The attributes of a key."""
        return self.keys.heading.primary_key

    def restricted(self, *restrictions: object) -> Node:
        """Return the query for the keys for which all restrictions hold.

        Parameters
        ----------
        *restrictions
            Anything that may stand after ``&``. Without a `key_source` of its own the table's keys
            can be restricted by other attributes of its parents too: strings and mappings may name
            attributes that only one parent has. In DataJoint they may name only those of the key.
        """
        return project(self._restricted(restrictions)) if restrictions else self.keys

    def check(self, *restrictions: object) -> None:
        """Refuse restrictions that would choose every key by accident.

        Raises
        ------
        QueryError
            See `refuse_oversights`.
        """
        if restrictions:
            above = self._query.node if self.is_own else None
            doing = f"populate {self.table.name}"
            refuse_oversights(self._restricted(restrictions), doing, above=above)

    def _restricted(self, restrictions: Iterable[object]) -> Node:
        query = self._query
        if self.is_own:
            for restriction in restrictions:
                query = query.restrict(restriction)
            return query.node
        node, matching = self._wide, self.table.connection.matching
        for restriction in restrictions:
            # Queries match by the key alone, not by the parents' other attributes.
            heading = self._wide.heading if _is_plain(restriction) else query.heading
            node = restrict(node, make_condition(restriction, heading, matching))
        return node

    @cached_property
    def _wide(self) -> Node:
        return _with_attributes(self.table)


@runtime_checkable
class MakeInThreeParts(Protocol):
    """The methods of a make in three parts; see `PopulatedTable`."""

    def make_fetch(self, key: Key, /, **make_kwargs: object) -> object: ...  # noqa: D102
    def make_compute(self, key: Key, /, *fetched: object) -> object: ...  # noqa: D102
    def make_insert(self, key: Key, /, *computed: object) -> object: ...  # noqa: D102


def in_three_parts(table: PopulatedTable) -> MakeInThreeParts | None:
    """Return a table whose class has the three methods and no `make`, None otherwise."""
    if _defined(table, "make") is not vars(PopulatedTable)["make"]:
        return None
    return table if isinstance(table, MakeInThreeParts) else None


def _defined(table: PopulatedTable, name: str) -> object:
    return inspect.getattr_static(table, name, None)
