"""Tables without a class, by their names in the database, and classes made from such tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from dj_dagster.class_access import on_class, property_on_class
from dj_dagster.errors import DefinitionError, MissingTableError, QueryError
from dj_dagster.model.names import (
    ParsedName,
    TableName,
    Tier,
    class_path,
    parse_table_name,
    snake_case,
)
from dj_dagster.relational.caller import refuse_arguments
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.table import Binding, Lookup, Manual, Part, Table, TableMeta

_QUOTED_WHOLE = re.compile(r"""([`"])([^`".]+\.[^`".]+)\1""")
_FULL_NAME = re.compile(
    r"""(?:`(?P<a>[^`.]+)`|"(?P<b>[^".]+)"|(?P<c>[^`".]+))\."""
    r"""(?:`(?P<x>[^`.]+)`|"(?P<y>[^".]+)"|(?P<z>[^`".]+))"""
)


class FreeTable(Table):
    """A table of the database without a class, which may be hidden or of another program.

    Rows may be inserted into it regardless of its tier.

    Parameters
    ----------
    connection
        The connection of the table's database.
    full_table_name
        Schema and table in SQL: ``"lab.__processed"``; each or both together may be quoted, as in
        `Table.full_table_name`.

    Raises
    ------
    QueryError
        For a name without a schema. The existence of the table is checked when it is used.

    Examples
    --------
    ::

        FreeTable(connection, "`lab`.`session`").to_dicts()
    """

    def __init__(self, connection: Connection, full_table_name: str | TableName) -> None:
        name = table_name(full_table_name)
        parsed = parse_table_name(name.table)
        # An attribute of the instance here, not of the class.
        self.tier = parsed.tier if parsed else Tier.MANUAL  # pyright: ignore[reportAttributeAccessIssue]
        self._bound = Binding(connection, name, class_path(name.table))
        self._node = None

    @property_on_class
    def stored(self) -> StoredTable:
        """The table as the database holds it.

        Raises
        ------
        MissingTableError
            If the table does not exist.
        """
        found = self.connection.catalog.find_anew(self.name)
        if found is None:
            raise MissingTableError(f"There is no table {self.name} in {self.connection.url}.")
        return found

    def __repr__(self) -> str:
        return f"FreeTable {self.full_table_name}\n{super().__repr__()}"

    def _check_direct_insert(self) -> None:
        """Allow inserts in any tier: a `make` is not known for these rows."""


class HiddenTable(FreeTable):
    """A table of the package's own records, which goes without asking."""

    def delete(self, *args: object, **options: object) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Forget these records, without asking."""
        del options
        refuse_arguments("delete", *args)
        return self.delete_quick()

    @on_class
    def drop(self, *args: Any, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Drop the table, without asking; it is created again when it is used."""
        del options
        refuse_arguments("drop", *args)
        self.drop_quick()


def table_name(full: str | TableName) -> TableName:
    """Return the table that ``schema.table`` names.

    Raises
    ------
    QueryError
        If it does not name a table with its schema.

    Examples
    --------
    >>> table_name("`lab`.`__processed`")
    TableName(schema='lab', table='__processed')
    """
    if isinstance(full, TableName):
        return full
    match = _FULL_NAME.fullmatch(_QUOTED_WHOLE.sub(r"\2", full))
    if match is None:
        raise QueryError(f"{full!r} does not name a table: write 'schema.table'.")
    schema, table = (part for part in match.groups() if part)
    return TableName(schema, table)


def find_table_name(
    connection: Connection, schema: str, name: str, *, missing_ok: bool = False
) -> str:
    """Return the name in SQL of a table that is given by any of its names.

    Parameters
    ----------
    name
        In SQL with or without the tier's prefix, or as a class: ``"__spike_sort__unit"``,
        ``"spike_sort"``, ``"SpikeSort.Unit"``.
    missing_ok
        Whether ``""`` is returned for a table that does not exist.

    Raises
    ------
    MissingTableError
        If the table does not exist, unless `missing_ok`.
    """
    spelled = _snake(name)
    for fresh in (False, True):
        if fresh:
            # Another process may have made it since.
            connection.catalog.forget(schema)
        catalog = connection.catalog
        found = [*catalog.names(schema), *catalog.view_names(schema)]
        tables = [name.table for name in found]
        for prefix in ("", "#", "_", "__"):
            if prefix + spelled in tables:
                return prefix + spelled
    if missing_ok:
        return ""
    shown = ", ".join(class_path(table) for table in tables if not table.startswith("~"))
    raise MissingTableError(
        f"The table does not exist: the schema {schema} has no table {name!r}. It has: "
        f"{shown or 'none'}."
    )


def _snake(name: object) -> str:
    if not isinstance(name, str):
        raise QueryError(f"A table is looked up by its name, not by {name!r}.")
    if not name[:1].isupper():
        return name
    try:
        return "__".join(snake_case(part) for part in name.split("."))
    except DefinitionError:
        return name


TierClasses = Mapping[Tier, type[Table]]


class PlainImported(Table):
    """An imported table without its original class: it can be read, not populated."""

    tier = Tier.IMPORTED
    tier_regexp = tier.pattern


class PlainComputed(Table):
    """A computed table without its original class: it can be read, not populated."""

    tier = Tier.COMPUTED
    tier_regexp = tier.pattern


PLAIN_TIERS: TierClasses = MappingProxyType(
    {
        Tier.MANUAL: Manual,
        Tier.LOOKUP: Lookup,
        Tier.IMPORTED: PlainImported,
        Tier.COMPUTED: PlainComputed,
        Tier.PART: Part,
    }
)
"""The base classes of reflected classes by tier, without support for populating."""


class ClassMaker:
    """Makes classes for the tables of one schema.

    Parameters
    ----------
    tier_classes
        The base classes by tier.

    Attributes
    ----------
    left_out
        Pairs of a table with a class, and a table left without one because its class would have the
        same name.
    """

    def __init__(self, connection: Connection, schema: str, tier_classes: TierClasses) -> None:
        self._connection = connection
        self._schema = schema
        self._place = (connection, schema)
        self._tiers = tier_classes
        self.left_out: list[tuple[TableName, TableName]] = []

    def make(self, names: Mapping[str, object]) -> dict[str, type[Table]]:
        """Return a class for each table without one among `names`; parts are set on their masters.

        If the classes of two tables would have one name, the older table gets it, and both are
        noted in `left_out`. A part without a master, and a table whose name does not follow a tier,
        are left without a class.
        """
        module = str(names.get("__name__", __name__))
        masters = {table._binding.name: table for table in self._present(names.values())}
        parsed = self._parsed()
        made: dict[str, type[Table]] = {}
        for name, said in parsed.items():
            if said.master is not None or name in masters:
                continue
            taken = made.get(said.class_name, names.get(said.class_name))
            if said.class_name not in made and said.class_name not in names:
                masters[name] = made[said.class_name] = self._class(name, said, module, None)
            self.left_out += [(other._binding.name, name) for other in self._present([taken])]
        for name, said in parsed.items():
            master = masters.get(TableName(name.schema, said.master or ""))
            if master is not None and said.class_name not in vars(master):
                part = self._class(name, said, module, master)
                setattr(master, said.class_name, part)
        return made

    def _parsed(self) -> dict[TableName, ParsedName]:
        catalog = self._connection.catalog
        # Views come last, so that a table takes precedence over a view of the same class name.
        names = [*catalog.names(self._schema), *catalog.view_names(self._schema)]
        return {name: said for name in names if (said := parse_table_name(name.table))}

    def _present(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the classes of this schema's tables among some values."""
        for value in values:
            binding = value._binding if isinstance(value, TableMeta) else None
            if binding and (binding.connection, binding.name.schema) == self._place:
                yield value

    def _class(
        self, name: TableName, said: ParsedName, module: str, master: type[Table] | None
    ) -> type[Table]:
        path = f"{master.__name__}.{said.class_name}" if master is not None else said.class_name
        body: dict[str, object] = {
            "__module__": module,
            "__qualname__": path,
            "__doc__": f"The table {name}, as the database has it.",
            "_binding": Binding(self._connection, name, path),
        }
        if master is not None:
            body["master"] = master
        return TableMeta(said.class_name, (self._tiers[said.tier],), body)


class StoredClasses(Mapping[str, type[Table]]):
    """The tables of a schema as the database has them, by class name."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._maker = ClassMaker(connection, schema, PLAIN_TIERS)

    @cached_property
    def _made(self) -> dict[str, type[Table]]:
        return self._maker.make({})

    def __getitem__(self, name: str) -> type[Table]:
        # Names of other things are looked up too, such as those of codecs.
        if not name[:1].isupper():
            raise KeyError(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)
