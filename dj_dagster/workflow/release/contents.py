"""The contents of a release: chosen rows, those that they were made from, and their objects.

They are read in one snapshot, each value as its column holds it: a blob is the packed bytes, an
object in a store is the reference to it. So equal rows give equal files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import MissingTableError
from dj_dagster.model.heading import Attribute, Heading, Row, Values
from dj_dagster.model.names import TableName, Tier, class_path, parse_table_name
from dj_dagster.model.types import Family
from dj_dagster.objects.expected import Expected
from dj_dagster.objects.external_pointer import (
    ExternalPointerType,
    external_expected,
    external_path,
)
from dj_dagster.relational.algebra.nodes import In, Node
from dj_dagster.relational.algebra.operators import all_rows, restrict
from dj_dagster.relational.backup.backup import Referenced
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.sessions import fetch_select
from dj_dagster.relational.deleting import hierarchy
from dj_dagster.relational.deleting.delete import master_of
from dj_dagster.relational.fetching.decode import column_decoder
from dj_dagster.relational.garbage.references import ReferenceColumn, reference_columns, snapshot
from dj_dagster.relational.old_layout import external_objects
from dj_dagster.relational.relatives import graph_above, parent_keys, part_names
from dj_dagster.relational.schemas.free_table import FreeTable
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.stored import ForeignKey, StoredTable
from dj_dagster.relational.table import Table
from dj_dagster.relational.values import is_null

RESULT, PART, INPUT = "result", "part", "input"
COMPUTED_TIERS = (Tier.COMPUTED, Tier.IMPORTED)

AT_ONCE = 1000
"""Rows that are looked up together, at most."""

Read = dict[Values, tuple[Row, Row]]
"""Rows by key, each decoded and as the database gave it."""
Located = tuple[str, str, str]
"""Store, path and schema of an object."""


@dataclass
class ReleasedTable:
    """The rows of one table that a release holds, in the order of their keys.

    Attributes
    ----------
    role
        ``"result"`` for what was chosen, ``"part"`` for its parts, ``"input"`` for all others.
    traced
        Whether its rows are what the results were made from, by foreign keys; the parts of such
        rows are not.
    heading
        The attributes with the types of their columns.
    rows
        With hidden attributes.
    objects
        The references of each row to objects in stores, by the row's place in `rows`.
    expected
        Sizes and checksums of these objects, as the rows have them.
    made
        The number of all rows, released or not, that the calls of `make` which made these rows
        have made; 0 for what was entered.
    """

    name: TableName
    role: str
    traced: bool
    stored: StoredTable
    heading: Heading
    rows: list[Row] = field(default_factory=list[Row])
    objects: dict[int, list[Located]] = field(default_factory=dict[int, list[Located]])
    expected: dict[Located, set[Expected]] = field(default_factory=dict[Located, set[Expected]])
    made: int = 0

    @property
    def title(self) -> str:
        """Schema and class: ``lab.SpikeSorting.Unit``."""
        return title(self.name)

    @property
    def tier(self) -> Tier:
        """The tier, of a part that of its master."""
        return tier_of(self.name)

    @property
    def key(self) -> list[str]:
        """The attributes of the primary key."""
        return self.stored.heading.primary_key

    def references(self) -> Iterator[ForeignKey]:
        """Yield the foreign keys in an order that stays the same."""
        keys = self.stored.foreign_keys
        yield from sorted(keys, key=lambda key: (key.parent, sorted(key.attributes.items())))


@dataclass
class ReleasedRows:
    """All rows of a release: inputs first.

    Attributes
    ----------
    problems
        References to objects that cannot be followed.
    """

    tables: list[ReleasedTable]
    problems: list[str]


def title(name: TableName) -> str:
    """Return schema and class of a table.

    Examples
    --------
    >>> title(TableName("lab", "__spike_sorting__unit"))
    'lab.SpikeSorting.Unit'
    """
    return f"{name.schema}.{class_path(name.table)}"


def maker_of(name: TableName) -> TableName:
    """Return the table whose `make` makes the rows of a table: for a part its master."""
    while (master := master_of(name)) is not None:
        name = master
    return name


def tier_of(name: TableName) -> Tier:
    """Return the tier of a table, of a part that of its master."""
    parsed = parse_table_name(maker_of(name).table)
    return parsed.tier if parsed is not None else Tier.MANUAL


def gather(chosen: Table) -> ReleasedRows:
    """Return the chosen rows with their parts and all that they were made from."""
    connection = chosen.connection
    start = hierarchy.of_table(connection, chosen.node)
    with snapshot(connection) as session:
        gathering = _Gathering(connection, session, chosen.name)
        gathering.add(start)
        made = {name: gathering.made(name) for name in gathering.found}
    tables: list[ReleasedTable] = []
    problems: dict[str, None] = {}
    columns = {(c.table, c.name): c for c in reference_columns(connection)}
    for name in sorted(gathering.found):
        role, traced = _role(name, chosen.name), name in gathering.traced
        table = _empty(connection, _stored(connection, name), role, traced=traced)
        table.made = made[name]
        problems |= _fill(table, connection, gathering.found[name], columns)
        tables.append(table)
    return ReleasedRows(_inputs_first(tables), list(problems))


def all_of(connection: Connection, name: TableName) -> ReleasedTable:
    """Return all rows of one table, without what they refer to."""
    stored = FreeTable(connection, name).stored
    table = _empty(connection, stored, RESULT, traced=True)
    with snapshot(connection) as session:
        found = _read(connection, session, all_rows(name, stored.heading), stored)
    _fill(table, connection, found, {})
    return table


def _empty(
    connection: Connection, stored: StoredTable, role: str, *, traced: bool
) -> ReleasedTable:
    attributes = map(_as_stored(connection), stored.heading.all_attributes.values())
    return ReleasedTable(stored.name, role, traced, stored, Heading(attributes))


class _Gathering:
    """Rows by table and key, each as it is and as the database gave it.

    They are followed by the values of their foreign keys: queries in queries of a long pipeline are
    more than a database's parser takes.
    """

    def __init__(self, connection: Connection, session: SAConnection, chosen: TableName) -> None:
        self.found: dict[TableName, Read] = {}
        graph = graph_above(connection, [chosen])
        self.traced = frozenset({chosen, *graph.ancestors(chosen)})
        self._connection = connection
        self._session = session
        self._chosen = chosen

    def add(self, start: Node) -> None:
        """Add the chosen rows, all that they refer to, and the parts of all these."""
        waiting = [(self._chosen, start)]
        # The list grows while it is walked.
        for name, node in waiting:
            stored = _stored(self._connection, name)
            known = self.found.setdefault(name, {})
            read = _read(self._connection, self._session, node, stored)
            new = {key: rows for key, rows in read.items() if key not in known}
            known |= new
            for foreign_key in stored.foreign_keys:
                waiting += self._nodes(foreign_key.parent, foreign_key.attributes, new)
            for part in self._further_parts(name):
                for foreign_key in parent_keys(self._connection, part):
                    if foreign_key.parent == name:
                        there = {theirs: own for own, theirs in foreign_key.attributes.items()}
                        waiting += self._nodes(part, there, new)
                        break

    def made(self, name: TableName) -> int:
        """Return how many rows the calls of `make` have made that made the rows found."""
        master = maker_of(name)
        if tier_of(master) not in COMPUTED_TIERS:
            return 0
        names = make_names(self._connection, master)
        rows = [row for row, _ in self.found.get(master, {}).values()]
        calls = tuple({tuple(row[each] for each in names): None for row in rows})
        own = tuple(make_names(self._connection, name))
        base = all_rows(name, _stored(self._connection, name).heading)
        count = 0
        for start in range(0, len(calls), AT_ONCE):
            node = restrict(base, In(own, calls[start : start + AT_ONCE])) if own else base
            lowered = Lowering(self._connection.backend).lower(node)
            query = sa.select(sa.func.count()).select_from(lowered.source).where(*lowered.where)
            count += sum(number for (number,) in fetch_select(self._session, query))
        return count

    def _further_parts(self, name: TableName) -> list[TableName]:
        """Return the parts of a table whose rows belong to it, not to what was chosen alone."""
        own = parse_table_name(self._chosen.table)
        if own and own.master and TableName(self._chosen.schema, own.master) == name:
            return []
        return [part for part in part_names(self._connection, name) if part not in self.traced]

    def _nodes(
        self, name: TableName, attributes: Mapping[str, str], rows: Read
    ) -> Iterator[tuple[TableName, Node]]:
        """Yield queries of the rows of a table by some attributes, ``{here: there}``."""
        self.found.setdefault(name, {})
        base = all_rows(name, _stored(self._connection, name).heading)
        wanted = {tuple(row[here] for here in attributes): None for row, _ in rows.values()}
        values = [each for each in wanted if not any(map(is_null, each))]
        for start in range(0, len(values), AT_ONCE):
            chunk = tuple(values[start : start + AT_ONCE])
            yield name, restrict(base, In(tuple(attributes.values()), chunk))


def _stored(connection: Connection, name: TableName) -> StoredTable:
    stored = connection.catalog.find(name)
    if stored is None:
        raise MissingTableError(f"There is no table {name} any more: try again.")
    return stored


def _role(name: TableName, chosen: TableName) -> str:
    if name == chosen:
        return RESULT
    parsed = parse_table_name(name.table)
    is_part = parsed is not None and (name.schema, parsed.master) == chosen
    return PART if is_part else INPUT


def _as_stored(connection: Connection) -> Callable[[Attribute], Attribute]:
    """Return what gives an attribute the type of its column."""

    def stored(attribute: Attribute) -> Attribute:
        kind = attribute.type
        if kind is None or kind.family is not Family.CODEC:
            return attribute
        return replace(attribute, type=connection.codecs.resolve(kind).column_type)

    return stored


def _read(connection: Connection, session: SAConnection, node: Node, stored: StoredTable) -> Read:
    """Return rows of a table by their keys."""
    attributes, found = stored.heading.all_attributes, Read()
    decoders = {name: column_decoder(each, connection) for name, each in attributes.items()}
    for values in fetch_select(session, _select(connection, node, attributes)):
        raw = dict(zip(attributes, values, strict=True))
        row = {
            name: value if value is None or decode is None else decode(value)
            for (name, value), decode in zip(raw.items(), decoders.values(), strict=True)
        }
        found[tuple(row[name] for name in stored.heading.primary_key)] = row, raw
    return found


def _fill(
    table: ReleasedTable,
    connection: Connection,
    found: Read,
    columns: Mapping[tuple[TableName, str], ReferenceColumn],
) -> dict[str, None]:
    """Put rows into a table in their order, and note what they refer to.

    Returns
    -------
    dict
        The references that cannot be followed.
    """
    problems: dict[str, None] = {}
    for place, key in enumerate(sorted(found)):
        row, raw = found[key]
        table.rows.append(row)
        referenced = _referenced(table, connection, row, raw, columns)
        problems |= referenced.problems
        if referenced.objects:
            table.objects[place] = sorted(referenced.objects)
        for located, expected in referenced.objects.items():
            table.expected.setdefault(located, set()).update(expected)
    return problems


def _select(
    connection: Connection, node: Node, attributes: Mapping[str, Attribute]
) -> sa.Select[object]:
    lowered = Lowering(connection.backend).lower(node)
    columns = [
        lowered.columns[name]
        if (kind := each.type) is None
        else connection.backend.fetched(lowered.columns[name], kind)
        for name, each in attributes.items()
    ]
    return sa.select(*columns).select_from(lowered.source).where(*lowered.where)


def _referenced(
    table: ReleasedTable,
    connection: Connection,
    row: Row,
    raw: Row,
    columns: Mapping[tuple[TableName, str], ReferenceColumn],
) -> Referenced:
    found = Referenced()
    for name, attribute in table.stored.heading.all_attributes.items():
        if raw[name] is None:
            continue
        place = f"{table.name}.{name}"
        if isinstance(attribute.type, ExternalPointerType):
            _add_pointer(found, connection, table, attribute.type, row[name])
        elif column := columns.get((table.name, name)):
            try:
                for reference in column.read(raw[name]):
                    expected = column.describe(reference[0], raw[name])
                    found.add(connection, table.name.schema, place, reference, expected)
            except Exception as error:
                # A codec of somebody else's may fail in any way.
                found.problems[f"{place} holds what cannot be followed: {error}"] = None
    return found


def _add_pointer(
    found: Referenced,
    connection: Connection,
    table: ReleasedTable,
    kind: ExternalPointerType,
    value: UUID,
) -> None:
    """Note an object of DataJoint 0.14."""
    schema, store = table.name.schema, str(kind.store)
    one = external_objects(connection, schema, store, [value]).get(value)
    if one is None:
        found.problems[f"{table.name} refers to {value}, of which {store} has no record."] = None
        return
    path = one.filepath or external_path(connection.stores.get(store), schema, one)
    place = str(table.name)
    found.add(connection, schema, place, (path, store), external_expected(place, one))


def _inputs_first(tables: Sequence[ReleasedTable]) -> list[ReleasedTable]:
    order = (INPUT, RESULT, PART)
    return sorted(tables, key=lambda table: (order.index(table.role), table.name))


def make_names(connection: Connection, name: TableName) -> list[str]:
    """Return the attributes that have the key which `make` was given, for a part its master's."""
    stored, master = _stored(connection, name), master_of(name)
    if master is None:
        given = {own for key in stored.foreign_keys if key.primary for own in key.attributes}
        return [each for each in stored.heading.primary_key if each in given]
    # A part may refer to its master by way of another part.
    for key in sorted(stored.foreign_keys, key=lambda key: key.parent != master):
        if key.parent != name and master in (key.parent, master_of(key.parent)):
            own = {theirs: mine for mine, theirs in key.attributes.items()}
            return [own[each] for each in make_names(connection, key.parent)]
    return []
