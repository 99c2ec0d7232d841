"""Definitions of tables in the database, written from headings and foreign keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from dj_dagster.errors import MissingTableError
from dj_dagster.model.heading import Attribute, Default, IndexDeclaration
from dj_dagster.model.names import TableName, class_path, parse_table_name
from dj_dagster.model.types import Family, quote, without_counter
from dj_dagster.relational.database.catalog import FindTable
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.plan import inherited_column
from dj_dagster.relational.old_layout import external_keys
from dj_dagster.relational.stored import ForeignKey, RawTable, StoredColumn, StoredTable

Spell = Callable[[TableName], str]
"""A function that returns the name of a foreign key's parent in a definition."""

_BARE = (Family.INTEGER, Family.FLOAT, Family.DECIMAL, Family.BOOL)


def describe(connection: Connection, name: TableName, spell: Spell) -> str:
    """Return the definition of a table; declaring it gives the same table.

    Hidden attributes are left out, since a declaration adds those that it needs.

    Raises
    ------
    MissingTableError
        If the table does not exist.
    """
    with connection.cursor() as session:
        indexes = connection.backend.indexes(session, name.schema, name.table)
    return definition_of(connection, name, indexes.get(name.table, {}), spell)


def definition_of(
    connection: Connection,
    name: TableName,
    indexes: Mapping[str, IndexDeclaration],
    spell: Spell,
) -> str:
    """Return the definition of a table, given its indexes by name."""
    raw, stored = connection.catalog.raw(name), connection.catalog.find(name)
    if raw is None or stored is None:
        raise MissingTableError(f"There is no table {name} in {connection.url} to describe.")
    keys = [*raw.foreign_keys, *external_keys(raw)]
    shown = own_indexes(indexes.values(), keys, connection.backend.indexes_in_table)
    description = _Description(connection, raw, stored, shown)
    lines = [*description.lines(spell), *map(index_line, description.indexes)]
    comment = " ".join(raw.comment.split())
    return "\n".join([f"# {comment}", *lines] if comment else lines) + "\n"


def own_indexes(
    indexes: Iterable[IndexDeclaration], foreign_keys: Sequence[ForeignKey], made_by_server: bool
) -> list[IndexDeclaration]:
    """Return indexes without those that the server makes for foreign keys."""
    columns = [tuple(key.attributes) for key in foreign_keys] if made_by_server else []
    return [index for index in indexes if index.unique or index.parts not in columns]


def index_line(index: IndexDeclaration) -> str:
    """Return the line that declares an index."""
    return f"{'unique ' if index.unique else ''}index({', '.join(index.parts)})"


def foreign_key_line(
    foreign_key: ForeignKey, spell: Spell, *, nullable: bool = False, unique: bool = False
) -> str:
    """Return the line that declares a foreign key."""
    names = {"nullable": nullable, "unique": unique}
    options = ", ".join(name for name, wanted in names.items() if wanted)
    renames = ", ".join(
        f"{new}={old!r}" for new, old in foreign_key.attributes.items() if new != old
    )
    projection = f".proj({renames})" if renames else ""
    return f"-> {f'[{options}] ' if options else ''}{spell(foreign_key.parent)}{projection}"


def attribute_line(attribute: Attribute) -> str:
    """Return the line that declares an attribute."""
    kind = attribute.type.text if attribute.type else ""
    head = f"{attribute.name}{_default(attribute)}"
    comment = " ".join(attribute.comment.split())
    return f"{head:<20} : {kind:<24} # {comment}" if comment else f"{head:<20} : {kind}"


def _default(attribute: Attribute) -> str:
    if attribute.nullable:
        return " = null"
    if attribute.default is None:
        return ""
    return f" = {_literal(attribute.default, attribute)}"


def _literal(default: Default, attribute: Attribute) -> str:
    bare = attribute.type is not None and attribute.type.family in _BARE
    return default.value if default.is_expression or bare else quote(default.value)


class _Description:
    """The lines of a definition in the making.

    Attributes
    ----------
    indexes
        The indexes that are not expressed by a foreign key's ``[unique]``.
    """

    def __init__(
        self,
        connection: Connection,
        raw: RawTable,
        stored: StoredTable,
        indexes: Iterable[IndexDeclaration],
    ) -> None:
        self._connection = connection
        self._find: FindTable = connection.catalog.find
        self._raw = raw
        self._heading = stored.heading.all_attributes
        self._columns = {column.name: column for column in raw.columns}
        self._pending = list(raw.foreign_keys)
        self._covered: set[str] = set()
        self.indexes = list(indexes)

    def lines(self, spell: Spell) -> list[str]:
        key = list(self._raw.primary_key)
        above = list(self._section(key, spell))
        rest = [name for name in self._columns if name not in key]
        return [*above, "---", *self._section(rest, spell)]

    def _section(self, names: list[str], spell: Spell) -> Iterator[str]:
        while remaining := [name for name in names if name not in self._covered]:
            fitting = next((fk for fk in self._pending if self._fits(fk, remaining)), None)
            if fitting is not None:
                yield self._take(fitting, spell)
            else:
                self._covered.add(remaining[0])
                if not self._heading[remaining[0]].hidden:
                    yield attribute_line(self._heading[remaining[0]])
            for foreign_key in [fk for fk in self._pending if not self._new(fk)]:
                yield self._take(foreign_key, spell)

    def _take(self, foreign_key: ForeignKey, spell: Spell) -> str:
        nullable = any(self._columns[name].nullable for name in self._new(foreign_key))
        index = IndexDeclaration(tuple(foreign_key.attributes), unique=True)
        unique = index in self.indexes
        if unique:
            self.indexes.remove(index)
        self._pending.remove(foreign_key)
        self._covered |= foreign_key.attributes.keys()
        return foreign_key_line(foreign_key, spell, nullable=nullable, unique=unique)

    def _new(self, foreign_key: ForeignKey) -> list[str]:
        return [name for name in foreign_key.attributes if name not in self._covered]

    def _fits(self, foreign_key: ForeignKey, remaining: list[str]) -> bool:
        """Whether the line of a foreign key would declare exactly the next columns."""
        new = self._new(foreign_key)
        return (
            bool(new)
            and new == remaining[: len(new)]
            and len({self._columns[name].nullable for name in new}) == 1
            and all(self._is_inherited(self._columns[name], foreign_key) for name in new)
        )

    def _is_inherited(self, column: StoredColumn, foreign_key: ForeignKey) -> bool:
        if foreign_key.parent == self._raw.name:
            parent = self._heading.get(foreign_key.attributes[column.name])
        else:
            stored = self._find(foreign_key.parent)
            parents = stored.heading.all_attributes if stored else {}
            parent = parents.get(foreign_key.attributes[column.name])
        if parent is None or parent.type is None:
            # The parent is not visible, so the line is assumed to fit.
            return True
        expected = inherited_column(
            column.name, parent, self._connection.codecs, nullable=column.nullable
        )
        same_type = self._heading[column.name].type == without_counter(parent.type)
        return same_type and (column.comment, column.default) == (
            expected.comment,
            expected.default,
        )


class Spelling:
    """Finds the names of tables for a definition.

    Parameters
    ----------
    table
        The table that refers to others; a part's master is called ``master``.
    names
        The names that the definition can use: classes, modules and the like.
    """

    def __init__(self, table: TableName, names: Mapping[str, object]) -> None:
        self._table = table
        self._names = names

    def __call__(self, parent: TableName) -> str:
        """Return the name of a parent: ``self``, ``master``, ``Session``, ``lab.Subject.Part``.

        A table of another schema that is not among the names is written as ``schema.Class``.
        """
        own = parse_table_name(self._table.table)
        if parent == self._table:
            return "self"
        if own is not None and parent == (self._table.schema, own.master):
            return "master"
        path = class_path(parent.table)
        if parent.schema == self._table.schema:
            return self._bare(parent) or path
        return self._bare(parent) or self._inside(parent, path) or f"{parent.schema}.{path}"

    def _bare(self, parent: TableName) -> str | None:
        return next((name for name, value in self._names.items() if _is(value, parent)), None)

    def _inside(self, parent: TableName, path: str) -> str | None:
        """Return the path to a table inside a module or a similar object."""
        for name, value in self._names.items():
            found = value
            for step in path.split("."):
                found = getattr(found, "__dict__", {}).get(step)
            if _is(found, parent):
                return f"{name}.{path}"
        return None


def _is(value: object, table: TableName) -> bool:
    # The classes of tables are above this module; each has its name in its binding.
    binding = getattr(value, "_binding", None) if isinstance(value, type) else None
    return getattr(binding, "name", None) == table
