"""A schema in the database as the text of a Python module."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from textwrap import indent

from dj_dagster.model.declaration import IndexDeclaration
from dj_dagster.model.names import TableName, Tier, class_path, parse_table_name
from dj_dagster.relational.database.catalog import dependency_graph
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.describe import definition_of
from dj_dagster.relational.deleting.cascade import master_of

_TAKEN = {"dj", "schema", "self", "master"}


def module_source(connection: Connection, schema: str) -> str:
    """Return a module that, imported, has the tables of a schema as classes.

    Tables of other schemas that it refers to are reached through virtual modules. Hidden tables,
    and those whose names follow no tier, are left out.
    """
    connection.catalog.forget(schema)
    source = _Source(connection, schema)
    tables = "".join(f"\n\n{source.table(name)}" for name in source.masters())
    return f"{source.head()}{tables}"


class _Source:
    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        present = connection.catalog.tables(schema)
        graph = dependency_graph(connection.catalog.related(schema))
        order = graph.order_with_parts(master_of)
        self._tables = [name for name in order if name in present and parse_table_name(name.table)]
        graph.check_acyclic(self._tables)
        with connection.cursor() as session:
            self._indexes: Mapping[str, Mapping[str, IndexDeclaration]] = (
                connection.backend.indexes(session, schema)
            )
        self._modules = _module_names(
            key.parent.schema
            for table in present.values()
            for key in table.foreign_keys
            if key.parent.schema != schema
        )

    def masters(self) -> list[TableName]:
        """Return the tables that are no parts, each after those that it or its parts refer to."""
        return [name for name in self._tables if self._owner(name) == name]

    def head(self) -> str:
        """Return what comes before the classes."""
        lines = [
            f'"""The tables of the schema {self._schema}, as they were found in the database."""',
            "",
            "import dj_dagster as dj",
            "",
            *(f"{name} = dj.VirtualModule({name!r}, {schema!r})"
              for schema, name in self._modules.items()),
            f"schema = dj.Schema({self._schema!r})",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def table(self, name: TableName) -> str:
        """Return the class of a table, its parts in it."""
        parts = [indent(f"\n{self._class(part)}", "    ") for part in self._parts(name)]
        return f"@schema\n{self._class(name)}{''.join(parts)}"

    def _class(self, name: TableName) -> str:
        parsed = parse_table_name(name.table)
        tier = parsed.tier if parsed else Tier.MANUAL
        indexes = self._indexes.get(name.table, {})
        text = definition_of(self._connection, name, indexes, lambda p: self._spelled(name, p))
        quoted = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
        class_name = _class_name(class_path(name.table).split(".")[-1])
        return (
            f"class {class_name}(dj.{tier.value.title()}):\n"
            f'    definition = """\n{indent(quoted, "    ")}    """\n'
        )

    def _parts(self, name: TableName) -> list[TableName]:
        return [part for part in self._tables if master_of(part) == name]

    def _owner(self, name: TableName) -> TableName:
        master = master_of(name)
        return master if master is not None and master in self._tables else name

    def _spelled(self, child: TableName, parent: TableName) -> str:
        if parent == child:
            return "self"
        if parent == master_of(child):
            return "master"
        path = class_path(parent.table)
        if parent.schema == self._schema:
            return ".".join(map(_class_name, path.split(".")))
        return f"{self._modules[parent.schema]}.{path}"


def _class_name(name: str) -> str:
    """Return a class name that Python takes; underscores do not count in table names."""
    return f"{name}_" if keyword.iskeyword(name) else name


def _module_names(schemas: Iterable[str]) -> dict[str, str]:
    """Return a name in Python for each schema."""
    names: dict[str, str] = {}
    for schema in dict.fromkeys(schemas):
        name = re.sub(r"\W|^(?=\d)", "_", schema, flags=re.ASCII)
        while keyword.iskeyword(name) or name in {*_TAKEN, *names.values()}:
            name += "_"
        names[schema] = name
    return names
