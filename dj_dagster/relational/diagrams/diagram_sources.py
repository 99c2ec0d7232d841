"""What a diagram can be made of, and what its tables are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from dj_dagster.errors import DataJointError
from dj_dagster.model.names import TableName, class_path
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.relatives import is_hidden
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Part, Table
from dj_dagster.relational.table_meta import TableMeta


class Source(NamedTuple):
    """The tables that something stands for, in their database."""

    connection: Connection
    tables: frozenset[TableName]


def read_source(source: Any) -> Source:
    """Return the tables of a schema, a module, a table, a query, or of a sequence of those.

    Raises
    ------
    DataJointError
        For anything else, for a table that has not been declared, and for several databases.
    """
    if isinstance(source, Schema):
        return _of_schema(source)
    if isinstance(source, ModuleType):
        return _together([_of_schema(schema) for schema in _schemas(source)], source)
    if isinstance(source, QueryExpression | TableMeta):
        return _of_query(source() if isinstance(source, TableMeta) else source)
    if isinstance(source, Iterable) and not isinstance(source, str | bytes | Mapping):
        return _together([read_source(each) for each in source], source)
    raise DataJointError(
        f"A diagram shows a schema, a module, a table, a query or a list of those, not {source!r}."
    )


def _of_schema(schema: Schema) -> Source:
    # Others may have declared tables since.
    schema.connection.catalog.forget(schema.name)
    names = schema.connection.catalog.names(schema.name)
    return Source(schema.connection, frozenset(name for name in names if not is_hidden(name)))


def _of_query(query: QueryExpression) -> Source:
    if isinstance(query, Table):
        return Source(query.connection, frozenset([query.name]))
    return Source(query.connection, frozenset(query.node.tables))


def _schemas(module: ModuleType) -> list[Schema]:
    """Return the schemas of a module: the one called `schema`, or else all."""
    found = vars(module).get("schema")
    if isinstance(found, Schema):
        return [found]
    return [value for value in vars(module).values() if isinstance(value, Schema)]


def _together(sources: list[Source], given: Any) -> Source:
    connections = list(dict.fromkeys(source.connection for source in sources))
    if not connections:
        raise DataJointError(f"There is no schema and no table in {given!r}.")
    if len(connections) > 1:
        raise DataJointError("A diagram shows the tables of one connection, these are of several.")
    return Source(connections[0], frozenset().union(*(source.tables for source in sources)))


class Labels:
    """What the tables of a diagram are called, as their classes are.

    Parameters
    ----------
    names
        Where the classes are looked for: directly, or inside modules (``lab.Subject``).
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._labels: dict[TableName, str] = {}
        for label, table in (*_classes(names, ""), *_inside_modules(names)):
            self._labels.setdefault(table, label)

    def __getitem__(self, table: TableName) -> str:
        return self._labels.get(table) or class_path(table.table)


def _inside_modules(names: Mapping[str, Any]) -> Iterator[tuple[str, TableName]]:
    for name, value in list(names.items()):
        if isinstance(value, ModuleType) and not name.startswith("_"):
            yield from _classes(vars(value), f"{name}.")


def _classes(names: Mapping[str, Any], before: str) -> Iterator[tuple[str, TableName]]:
    for name, value in list(names.items()):
        if isinstance(value, TableMeta) and issubclass(value, Table) and not name.startswith("_"):
            for label, table in ((name, value), *_parts(name, value)):
                if table._binding is not None:
                    yield before + label, table._binding.name


def _parts(name: str, cls: type[Table]) -> Iterator[tuple[str, type[Table]]]:
    for inner, value in vars(cls).items():
        if isinstance(value, TableMeta) and issubclass(value, Part):
            yield f"{name}.{inner}", value
