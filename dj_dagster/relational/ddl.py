"""From a definition to a planned table, and from the plan to SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler, TypeCompiler

from dj_dagster.errors import DefinitionError
from dj_dagster.model.declaration import (
    AttributeDeclaration,
    Default,
    ForeignKeyDeclaration,
    IndexDeclaration,
    TableDefinition,
)
from dj_dagster.model.heading import Attribute
from dj_dagster.model.table_name import TableName
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.objects.codecs import CodecRegistry
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.headings import marker
from dj_dagster.relational.stored import ForeignKey, StoredTable

FindParent = Callable[[ForeignKeyDeclaration], StoredTable]
Place = Callable[[int], AbstractContextManager[None]]
"""Given the number of a line, puts its place before errors raised inside."""

SINGLETON = AttributeDeclaration(
    "_singleton", parse_type("bool"), Default("1"), comment="singleton primary key"
)


@dataclass(frozen=True, slots=True)
class PlannedColumn:
    """A column to create.

    Attributes
    ----------
    stored_as
        Its type once codecs are resolved.
    comment
        As DataJoint writes it, a core type in front.
    declared
        The attribute's type, None for an inherited column.
    """

    name: str
    stored_as: AttributeType
    nullable: bool
    default: Default | None
    comment: str
    declared: AttributeType | None = None

    @property
    def full_comment(self) -> str:
        """The comment with any type in front, for a database that has fewer types than MySQL."""
        if self.declared is None or self.declared.core:
            return self.comment
        return f":{self.declared.text}:{self.comment}"


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A table to create, all names resolved."""

    name: TableName
    comment: str
    columns: tuple[PlannedColumn, ...]
    key: tuple[str, ...]
    foreign_keys: tuple[ForeignKey, ...]
    indexes: tuple[IndexDeclaration, ...]
    lineage: dict[str, str]


def nowhere(line: int) -> AbstractContextManager[None]:
    """Leave errors as they are: the definition stands in no file."""
    del line
    return nullcontext()


def plan_table(
    name: TableName,
    definition: TableDefinition,
    find: FindParent,
    codecs: CodecRegistry,
    place: Place = nowhere,
) -> PlannedTable:
    """Resolve a definition's foreign keys and codecs.

    Raises
    ------
    DefinitionError
        If a rename names what the parent does not have, or a codec is unknown.
    """
    plan = _Plan(name, codecs)
    for in_key, items in ((True, definition.key), (False, definition.secondary)):
        for item in items:
            with place(item.line):
                plan.add(item, find, in_key=in_key)
    for index in definition.indexes:
        with place(index.line):
            plan.check_index(index)
    if not plan.key:
        plan.add(SINGLETON, find, in_key=True)
    return PlannedTable(
        name,
        definition.comment,
        tuple(plan.columns.values()),
        tuple(plan.key),
        tuple(plan.foreign_keys),
        (*definition.indexes, *plan.unique),
        plan.lineage,
    )


def create_statements(plan: PlannedTable, backend: Backend) -> Iterator[ExecutableDDLElement]:
    """Return CREATE TABLE and the CREATE INDEX statements that follow it."""
    metadata = sa.MetaData()
    table_name, schema = backend.ddl_name(plan.name)
    columns = [_column(column, backend) for column in plan.columns]
    constraints = [
        _constraint(foreign_key, columns, metadata, backend) for foreign_key in plan.foreign_keys
    ]
    names = {column.name for column in plan.columns}
    table = sa.Table(
        table_name,
        metadata,
        *columns,
        sa.PrimaryKeyConstraint(*plan.key),
        *constraints,
        *[_TableIndex(index, names) for index in plan.indexes if backend.indexes_in_table],
        schema=schema,
        **backend.table_options(plan.comment),
    )
    yield CreateTable(table, if_not_exists=True)
    if not backend.indexes_in_table:
        for number, index in enumerate(plan.indexes):
            yield CreateIndex(_index(index, number, plan, table, backend), if_not_exists=True)


class _Plan:
    """A planned table in the making."""

    def __init__(self, name: TableName, codecs: CodecRegistry) -> None:
        self.name = name
        self.codecs = codecs
        self.columns: dict[str, PlannedColumn] = {}
        self.key: list[str] = []
        self.foreign_keys: list[ForeignKey] = []
        self.unique: list[IndexDeclaration] = []
        self.lineage: dict[str, str] = {}

    def add(
        self,
        item: AttributeDeclaration | ForeignKeyDeclaration,
        find: FindParent,
        *,
        in_key: bool,
    ) -> None:
        if isinstance(item, AttributeDeclaration):
            self._add_attribute(item, in_key=in_key)
        else:
            self._add_foreign_key(item, find(item), in_key=in_key)

    def check_index(self, index: IndexDeclaration) -> None:
        for part in index.parts:
            name = part.partition("(")[0].strip()
            if name.isidentifier() and name not in self.columns:
                raise DefinitionError(
                    f"The index names {name!r}, which the table has not. "
                    f"It has: {', '.join(self.columns)}."
                )

    def _add_attribute(self, item: AttributeDeclaration, *, in_key: bool) -> None:
        stored_as = _stored_as(item.type, self.codecs)
        comment = marker(item.type, item.comment)
        self._add_column(
            PlannedColumn(item.name, stored_as, item.nullable, item.default, comment, item.type),
            in_key,
        )
        if in_key:
            self.lineage[item.name] = f"{self.name}.{item.name}"

    def _add_foreign_key(
        self, item: ForeignKeyDeclaration, parent: StoredTable, *, in_key: bool
    ) -> None:
        attributes = _inherited(item, parent)
        for child, name in attributes.items():
            attribute = parent.heading[name]
            if child not in self.columns:
                self._add_column(
                    _inherited_column(child, attribute, self.codecs, nullable=item.nullable), in_key
                )
            self.lineage.setdefault(child, attribute.lineage or f"{parent.name}.{name}")
        self.foreign_keys.append(
            ForeignKey(
                self.name,
                parent.name,
                attributes,
                primary=in_key,
                nullable=item.nullable,
                unique=item.unique,
            )
        )
        if item.unique:
            self.unique.append(IndexDeclaration(tuple(attributes), unique=True, line=item.line))

    def _add_column(self, column: PlannedColumn, in_key: bool) -> None:
        self.columns[column.name] = column
        if in_key:
            self.key.append(column.name)


def _inherited(item: ForeignKeyDeclaration, parent: StoredTable) -> dict[str, str]:
    """Return ``{child attribute: parent attribute}`` in the parent's key order."""
    key = [name for name, attr in parent.heading.all_attributes.items() if attr.in_key]
    new_names = {_renamed(old, item, key): new for new, old in item.renames.items()}
    return {new_names.get(name, name): name for name in key}


def _renamed(old: str, item: ForeignKeyDeclaration, key: list[str]) -> str:
    """Return the parent's attribute that a rename means; old spellings do not always say it."""
    if old in key:
        return old
    free = [name for name in key if name not in item.renames.values()]
    if not old and len(free) == 1:
        return free[0]
    problem = f"renames {old!r}, which is not in its key" if old else "does not say what it renames"
    raise DefinitionError(
        f"-> {item.target} {problem}. Its primary key is {', '.join(key)}: "
        f"write -> {item.target}.proj(new='{key[0] if key else 'old'}')."
    )


def _inherited_column(
    name: str, attribute: Attribute, codecs: CodecRegistry, *, nullable: bool
) -> PlannedColumn:
    kind = attribute.type
    if kind is None:  # a key attribute of a table always has one
        raise DefinitionError(f"The attribute {attribute.name!r} has no type to inherit.")
    # DataJoint finds a type by following the parent, except for uuid, which it must see to decode.
    comment = marker(kind, attribute.comment) if kind.family is Family.UUID else attribute.comment
    # Nobody gives hidden attributes a value: that of a table with one row is always the same.
    default = attribute.default if attribute.hidden and not nullable else None
    return PlannedColumn(name, _stored_as(kind, codecs), nullable, default, comment)


def _stored_as(attribute_type: AttributeType, codecs: CodecRegistry) -> AttributeType:
    if attribute_type.family is Family.CODEC:
        return codecs.resolve(attribute_type).column_type
    return attribute_type


class _TableIndex(sa.schema.Constraint):
    """An index without a name inside CREATE TABLE, as DataJoint writes them."""

    def __init__(self, index: IndexDeclaration, columns: set[str]) -> None:
        super().__init__()
        self.index = index
        self.columns_of_table = columns


def _escaped(sql: str, dialect: sa.Dialect) -> str:
    """Double percent signs where the driver would take them for parameters."""
    return sql.replace("%", "%%") if dialect.paramstyle in ("format", "pyformat") else sql


@compiles(_TableIndex)
def _table_index_sql(element: _TableIndex, compiler: DDLCompiler, **kw: Any) -> str:
    del kw
    parts = [
        compiler.preparer.quote(part)
        if part in element.columns_of_table
        else _escaped(part, compiler.dialect)
        for part in element.index.parts
    ]
    unique = "UNIQUE " if element.index.unique else ""
    return f"{unique}INDEX ({', '.join(parts)})"


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
    columns: list[sa.Column[Any]],
    metadata: sa.MetaData,
    backend: Backend,
) -> sa.ForeignKeyConstraint:
    name, schema = backend.ddl_name(foreign_key.parent)
    if foreign_key.parent == foreign_key.child:
        targets = {column.name: column for column in columns}
    else:
        # A stand-in for the parent, which a second foreign key to it shares.
        parent = metadata.tables.get(f"{schema}.{name}" if schema else name)
        if parent is None:
            stubs = [sa.Column(old, sa.types.NULLTYPE) for old in foreign_key.attributes.values()]
            parent = sa.Table(name, metadata, *stubs, schema=schema)
        targets = dict(parent.c)
    return sa.ForeignKeyConstraint(
        list(foreign_key.attributes),
        [targets[parent_name] for parent_name in foreign_key.attributes.values()],
        onupdate="CASCADE",
        ondelete="RESTRICT",
    )


def _index(
    index: IndexDeclaration, number: int, plan: PlannedTable, table: sa.Table, backend: Backend
) -> sa.Index:
    parts = [
        table.c[part] if part in table.c else sa.literal_column(part)
        for part in map(backend.index_part, index.parts)
    ]
    # Names of indexes are unique in an SQLite file, hence the table's name in it.
    return sa.Index(f"{plan.name}.{number}", *parts, unique=index.unique, _table=table)
