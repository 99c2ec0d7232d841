"""The SQL that creates planned tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler, TypeCompiler

from dj_dagster.errors import DefinitionError
from dj_dagster.model.declaration import IndexDeclaration
from dj_dagster.model.names import MAX_NAME, TableName
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.declaring.plan import PlannedColumn, PlannedTable
from dj_dagster.relational.stored import ForeignKey

_PREFIX = re.compile(r"(\w+)\s*\(([0-9]+)\)")


def create_statements(
    plan: PlannedTable, backend: Backend, name: TableName | None = None
) -> Iterator[ExecutableDDLElement]:
    """Return CREATE TABLE and the CREATE INDEX statements that follow it.

    Parameters
    ----------
    name
        The table's name while it is made; the indexes are named for the planned table.
    """
    yield CreateTable(_table(plan, backend, name or plan.name), if_not_exists=True)
    if not backend.indexes_in_table:
        table = _table(plan, backend, plan.name)
        for number, index in enumerate(plan.indexes):
            yield CreateIndex(_index(index, number, plan, table, backend), if_not_exists=True)


def in_server_words(plan: PlannedTable, backend: Backend) -> PlannedTable:
    """Return a planned table as its server can keep it.

    Raises
    ------
    DefinitionError
        If the server would lose characters of a default, or of a value of an enum.
    """
    kept = backend.definition_text
    for column in plan.columns:
        default = (column.default.value,) if column.default is not None else ()
        for value in (*column.stored_as.values, *default):
            if kept(value) != value:
                raise DefinitionError(
                    f"{plan.name}.{column.name} cannot have the value {value!r} in its definition: "
                    "the server keeps definitions in three bytes a character, and makes '?' of "
                    "emoji and the like. Declare the attribute as varchar without such a default."
                )
    columns = tuple(replace(column, comment=kept(column.comment)) for column in plan.columns)
    return replace(plan, comment=kept(plan.comment), columns=columns)


class TableSQL:
    """The pieces of SQL for statements that alter a planned table."""

    def __init__(self, plan: PlannedTable, backend: Backend, dialect: sa.Dialect) -> None:
        self._backend = backend
        self._table = _table(plan, backend, plan.name)
        # A compiler without a statement compiles pieces.
        self._compiler: Any = dialect.ddl_compiler(dialect, None)  # pyright: ignore[reportArgumentType]
        self._names = {column.name for column in plan.columns}

    def column(self, name: str) -> str:
        """Return a column as CREATE TABLE has it."""
        return self._compiler.get_column_specification(self._table.c[name])

    def foreign_key(self, foreign_key: ForeignKey) -> str:
        """Return a foreign key as CREATE TABLE has it."""
        own = [
            constraint
            for constraint in self._table.foreign_key_constraints
            if constraint.info["foreign_key"] is foreign_key
        ]
        return self._compiler.process(own[0])

    def index(self, index: IndexDeclaration) -> str:
        """Return an index as CREATE TABLE has it."""
        return self._compiler.process(_TableIndex(index, self._names, self._backend))

    def text(self, value: str) -> str:
        """Return a text in quotes."""
        return self._compiler.sql_compiler.render_literal_value(value, sa.String())


def _table(plan: PlannedTable, backend: Backend, name: TableName) -> sa.Table:
    metadata = sa.MetaData()
    table_name, schema = backend.ddl_name(name)
    columns = [_column(column, backend) for column in plan.columns]
    constraints = [
        _constraint(foreign_key, number, {name: columns}, metadata, backend)
        for number, foreign_key in enumerate([*plan.foreign_keys, *plan.external], 1)
    ]
    names = {column.name for column in plan.columns}
    return sa.Table(
        table_name,
        metadata,
        *columns,
        sa.PrimaryKeyConstraint(*plan.key),
        *constraints,
        *[_TableIndex(index, names, backend) for index in plan.indexes if backend.indexes_in_table],
        schema=schema,
        **backend.table_options(plan.comment),
    )


class _TableIndex(sa.schema.Constraint):
    """An index without a name inside CREATE TABLE, as DataJoint writes them."""

    def __init__(self, index: IndexDeclaration, columns: set[str], backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        self.unique = index.unique
        self.parts = tuple(map(backend.index_part, index.parts))
        self.columns_of_table = columns


def _escaped(sql: str, dialect: sa.Dialect) -> str:
    """Double percent signs where the driver would take them for parameters."""
    return sql.replace("%", "%%") if dialect.paramstyle in ("format", "pyformat") else sql


@compiles(_TableIndex)
def _table_index_sql(element: _TableIndex, compiler: DDLCompiler, **kw: Any) -> str:
    del kw
    parts = [_part_sql(part, element, compiler) for part in element.parts]
    unique = "UNIQUE " if element.unique else ""
    return f"{unique}INDEX ({', '.join(parts)})"


def _part_sql(part: str, index: _TableIndex, compiler: DDLCompiler) -> str:
    columns = index.columns_of_table
    prefix = _PREFIX.fullmatch(part)
    if part in columns:
        return compiler.preparer.quote(part)
    if prefix and prefix[1] in columns:
        return f"{compiler.preparer.quote(prefix[1])}({prefix[2]})"
    expression = index.backend.index_expression(part, compiler.dialect)
    return _escaped(expression, compiler.dialect)


class _SQLType(sa.types.UserDefinedType[Any]):
    """A column type written as it is."""

    cache_ok = True

    def __init__(self, text: str) -> None:
        self.text = text


@compiles(_SQLType)
def _type_sql(element: _SQLType, compiler: TypeCompiler, **kw: Any) -> str:
    del kw
    return _escaped(element.text, compiler.dialect)


def _column(column: PlannedColumn, backend: Backend) -> sa.Column[Any]:
    default = None
    if column.default is not None:
        default = sa.literal_column(backend.default_sql(column.default, column.stored_as))
    elif column.nullable:
        default = sa.literal_column("NULL")
    return sa.Column(
        column.name,
        _SQLType(backend.column_type(column.stored_as, column.default)),
        nullable=column.nullable,
        server_default=default,
        comment=column.comment or None,
        autoincrement=False,
    )


def _constraint(
    foreign_key: ForeignKey,
    number: int,
    own: dict[TableName, list[sa.Column[Any]]],
    metadata: sa.MetaData,
    backend: Backend,
) -> sa.ForeignKeyConstraint:
    name, schema = backend.ddl_name(foreign_key.parent)
    if foreign_key.parent in own:
        targets = {column.name: column for column in own[foreign_key.parent]}
    else:
        # A stand-in for the parent, shared by further foreign keys to it.
        parent = metadata.tables.get(f"{schema}.{name}" if schema else name)
        if parent is None:
            stubs = [sa.Column(old, sa.types.NULLTYPE) for old in foreign_key.attributes.values()]
            parent = sa.Table(name, metadata, *stubs, schema=schema)
        targets = dict(parent.c)
    return sa.ForeignKeyConstraint(
        list(foreign_key.attributes),
        [targets[parent_name] for parent_name in foreign_key.attributes.values()],
        name=_constraint_name(foreign_key.child, number),
        # Hashes of external objects never change.
        onupdate="RESTRICT" if foreign_key.parent.table.startswith("~") else "CASCADE",
        ondelete="RESTRICT",
        info={"foreign_key": foreign_key},
    )


def _constraint_name(table: TableName, number: int) -> str | None:
    """Return a name if the one that MySQL would choose exceeds its own limit."""
    if len(f"{table.table}_ibfk_{number}") <= MAX_NAME:
        return None
    return f"{table.table[:40]}_{crc32(table.table.encode()):08x}_ibfk_{number}"


def _index(
    index: IndexDeclaration, number: int, plan: PlannedTable, table: sa.Table, backend: Backend
) -> sa.Index:
    parts = [
        table.c[part] if part in table.c else sa.literal_column(part)
        for part in map(backend.index_part, index.parts)
    ]
    # Names of indexes are unique in an SQLite file, so they contain the table's name.
    return sa.Index(f"{plan.name}.{number}", *parts, unique=index.unique, _table=table)
