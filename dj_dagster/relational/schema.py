"""Schemas: decorating a class with one declares its table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

from dj_dagster.errors import DataJointError
from dj_dagster.model.declaration import ForeignKeyDeclaration, TableDefinition
from dj_dagster.model.names import MAX_NAME, sql_table_name
from dj_dagster.model.table_name import TableName
from dj_dagster.relational import declare
from dj_dagster.relational.binding import Binding
from dj_dagster.relational.catalog import dependency_graph
from dj_dagster.relational.class_source import located, read_definition
from dj_dagster.relational.connection import Connection
from dj_dagster.relational.delete import ask_on_terminal
from dj_dagster.relational.references import find_class, is_table
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.table import Lookup, Part, Table

T = TypeVar("T", bound=type[Table])


class Schema:
    """A named group of tables in one database.

    Parameters
    ----------
    name
        On MySQL and MariaDB the database; on SQLite the first part of the table names.
    connection
        Where the schema lives.
    context
        Names that definitions may refer to besides those of the schema and of the class's module.
    create_schema, create_tables
        Whether what does not exist is created; otherwise it is an error.

    Examples
    --------
    >>> connection = Connection("sqlite:///:memory:")
    >>> schema = Schema("lab", connection=connection)
    >>> schema.list_tables()
    []
    """

    def __init__(
        self,
        name: str,
        *,
        connection: Connection,
        context: Mapping[str, Any] | None = None,
        create_schema: bool = True,
        create_tables: bool = True,
    ) -> None:
        self.name = _checked_name(name)
        self.connection = connection
        self.context = dict(context or {})
        self.create_tables = create_tables
        self.tables: dict[str, type[Table]] = {}
        declare.ensure_schema(connection, name, create=create_schema)

    def __call__(self, cls: T) -> T:
        """Declare a table class and its parts; returns the class itself.

        Raises
        ------
        DefinitionError
            If a definition does not parse or refers to an unknown table; nothing is declared then.
        """
        if not is_table(cls) or not hasattr(cls, "tier"):
            raise DataJointError(
                f"{cls!r} is no table: derive it from Manual, Lookup, Imported or Computed."
            )
        if issubclass(cls, Part):
            raise DataJointError(
                f"The part {cls.__name__} is declared with its master: "
                "write it inside the master's class and decorate that."
            )
        parts = cls.parts()
        for part in parts:
            part.master = cls
        # All of it is read before any of it is declared.
        plans = [self._read(table) for table in (cls, *parts)]
        for table, definition in zip((cls, *parts), plans, strict=True):
            self._declare(table, definition)
        self.tables[cls.__name__] = cls
        if issubclass(cls, Lookup):
            self._fill(cls)
        return cls

    def list_tables(self) -> list[str]:
        """Return the names of the schema's tables in SQL, parents first, hidden ones left out."""
        present = self.connection.catalog.tables(self.name)
        order = dependency_graph(self.connection.catalog.related(self.name)).topological_order()
        return [n.table for n in order if n in present and not n.table.startswith("~")]

    def drop(self, *, prompt: bool | None = None) -> None:
        """Drop the schema with all its tables."""
        ask = self.connection.safemode if prompt is None else prompt
        if ask and not ask_on_terminal(f"Dropping the schema {self.name} with all its tables."):
            return
        declare.drop_schema(self.connection, self.name)

    def __repr__(self) -> str:
        return f"Schema({self.name!r}, {self.connection.url})"

    def _read(self, cls: type[Table]) -> TableDefinition:
        """Return a class's definition, after a look at the tables that it refers to."""
        definition = read_definition(cls, _class_name(cls))
        names = self._names(cls)
        for item in definition.foreign_keys:
            if item.target != "self" and names.get(item.target) not in _family(cls):
                with located(cls, _class_name(cls), item.line):
                    find_class(item.target, cls, names)
        return definition

    def _declare(self, cls: type[Table], definition: TableDefinition) -> None:
        master = cls.master().table_name if issubclass(cls, Part) else None
        name = TableName(self.name, sql_table_name(cls.__name__, cls.tier, master))
        names = self._names(cls)

        def find(item: ForeignKeyDeclaration) -> StoredTable:
            if item.target == "self":
                return declare.own_key(name, definition, find, self.connection)
            return find_class(item.target, cls, names)().stored

        declare.ensure_table(
            self.connection,
            name,
            definition,
            find,
            create=self.create_tables,
            place=partial(located, cls, _class_name(cls)),
        )
        cls._binding = Binding(self.connection, name, _class_name(cls))

    def _names(self, cls: type[Table]) -> dict[str, Any]:
        names: dict[str, Any] = {**self.tables, **self.context}
        if issubclass(cls, Part):
            master, *parts = _family(cls)
            names |= {part.__name__: part for part in parts}
            names |= {"master": master, master.__name__: master}
        return names

    def _fill(self, cls: type[Lookup]) -> None:
        rows = list(cls.contents)
        if len(cls()) < len(rows):
            cls().insert(rows, skip_duplicates=True)


def _checked_name(name: str) -> str:
    if not name or "." in name or "`" in name or '"' in name or len(name) > MAX_NAME:
        raise DataJointError(
            f"{name!r} cannot be the name of a schema: write up to {MAX_NAME} characters, "
            "without dots and quotes."
        )
    return name


def _class_name(cls: type[Table]) -> str:
    return f"{cls.master.__name__}.{cls.__name__}" if issubclass(cls, Part) else cls.__name__


def _family(cls: type[Table]) -> tuple[type[Table], ...]:
    """Return a class's master and the parts of that: they are declared together."""
    master = cls.master if issubclass(cls, Part) else cls
    return (master, *master.parts())
