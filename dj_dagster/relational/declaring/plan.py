"""Planned tables, made from definitions by resolving foreign keys and codecs, and their SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler, TypeCompiler

from dj_dagster.errors import DefinitionError, InvalidValueError
from dj_dagster.model.heading import (
    Attribute,
    AttributeDeclaration,
    Default,
    ForeignKeyDeclaration,
    IndexDeclaration,
    TableDefinition,
    Value,
)
from dj_dagster.model.names import MAX_NAME, TableName
from dj_dagster.model.types import AttributeType, Family, parse_type, without_counter
from dj_dagster.objects.codecs.chain import CodecRegistry
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.database.catalog import marker
from dj_dagster.relational.stored import ForeignKey, StoredTable
from dj_dagster.relational.user_sql import temporal
from dj_dagster.relational.values import checked, cuts_blanks, is_timestamp, shortest_single

FindParent = Callable[[ForeignKeyDeclaration], StoredTable]
Place = Callable[[int], AbstractContextManager[None]]
"""A function of a line's number whose context prefixes errors with the line's place."""

_MOMENTS = (Family.DATE, Family.DATETIME, Family.TIME)
_CHECKED_DEFAULTS = (Family.INTEGER, Family.FLOAT, Family.DECIMAL, Family.STRING, *_MOMENTS)

SINGLETON = AttributeDeclaration(
    "_singleton", parse_type("bool"), Default("1"), comment="singleton primary key"
)


@dataclass(frozen=True, slots=True)
class PlannedColumn:
    """A column to create.

    Attributes
    ----------
    stored_as
        The type after codecs are resolved.
    comment
        The comment as DataJoint writes it, with a core type in front.
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
        """The comment with any type in front, for a database with fewer types than MySQL."""
        if self.declared is None or self.declared.core:
            return self.comment
        return f":{self.declared.text}:{self.comment}"


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A table to create, with all names resolved.

    Attributes
    ----------
    old
        Whether the table is in the layout of DataJoint 0.14.
    external
        The foreign keys by which columns then point into the tables of external objects.
    """

    name: TableName
    comment: str
    columns: tuple[PlannedColumn, ...]
    key: tuple[str, ...]
    foreign_keys: tuple[ForeignKey, ...]
    indexes: tuple[IndexDeclaration, ...]
    lineage: dict[str, str]
    old: bool = False
    external: tuple[ForeignKey, ...] = ()


def nowhere(line: int) -> AbstractContextManager[None]:
    """Leave errors as they are, for a definition outside a file."""
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
        If a rename names an attribute that the parent lacks, or a codec is unknown.
    """
    plan = _Plan(name, codecs)
    for in_key, items in ((True, definition.key), (False, definition.secondary)):
        for item in items:
            with place(item.line):
                plan.add(item, find, in_key=in_key)
    for index in definition.indexes:
        with place(index.line):
            plan.check_index(index)
    for item in definition.attributes:
        with place(item.line):
            plan.check_counter(item, definition.indexes)
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
            name = re.match(r"\w*", part)
            name = name[0] if name else ""
            if name and name not in self.columns:
                raise DefinitionError(
                    f"The index names {name!r}, which the table has not. "
                    f"It has: {', '.join(self.columns)}."
                )

    def check_counter(
        self, item: AttributeDeclaration, indexes: Iterable[IndexDeclaration]
    ) -> None:
        first = [*self.key[:1], *(index.parts[0] for index in indexes)]
        if item.type.auto_increment and item.type.text != "serial" and item.name not in first:
            raise DefinitionError(
                f"The attribute {item.name!r} counts by itself (auto_increment), so it has to come "
                "first in the primary key or in an index."
            )

    def _add_attribute(self, item: AttributeDeclaration, *, in_key: bool) -> None:
        if item.type.family is Family.UUID and item.default is not None:
            raise DefinitionError(
                f"The attribute {item.name!r} is a uuid, which can have no default but null."
            )
        stored_as = _stored_as(item.type, self.codecs)
        default = _checked_default(self.name, item)
        comment = marker(item.type, item.comment)
        if item.name in self.columns:
            self._check_type(item.name, stored_as, "it is declared", "by its foreign key")
            return
        self._add_column(
            PlannedColumn(item.name, stored_as, item.nullable, default, comment, item.type),
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
                    inherited_column(child, attribute, self.codecs, nullable=item.nullable), in_key
                )
            elif attribute.type is not None:
                kind = _stored_as(without_counter(attribute.type), self.codecs)
                self._check_type(child, kind, f"-> {item.target} has it", "here")
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

    def _check_type(self, name: str, kind: AttributeType, who: str, other: str) -> None:
        """Refuse another type for an existing attribute, since the values would never agree."""
        before = self.columns[name].stored_as
        if not _agree(kind, before):
            raise DefinitionError(
                f"The attribute {name!r} has two types: {who} as {kind.text}, {other} it is "
                f"{before.text}. Give both the same type, or one of them another name with "
                "-> Table.proj(new='old')."
            )

    def _add_column(self, column: PlannedColumn, in_key: bool) -> None:
        if len(column.name) > MAX_NAME:
            raise DefinitionError(
                f"The attribute name {column.name!r} has {len(column.name)} characters, databases "
                f"allow {MAX_NAME}."
            )
        self.columns[column.name] = column
        if in_key:
            self.key.append(column.name)


def _agree(one: AttributeType, other: AttributeType) -> bool:
    """Return whether a foreign key can relate two types; texts may differ in length."""
    return _relatable(one) == _relatable(other)


def _relatable(kind: AttributeType) -> tuple[object, ...]:
    # Servers find no parent for a timestamp in a datetime, nor, mostly, for a char in a varchar.
    kept_as = is_timestamp(kind), cuts_blanks(kind), kind.text == "year"
    if kind.family is Family.STRING:
        return kind.family, kept_as
    return kind.family, kept_as, kind.size, kind.scale, kind.unsigned, kind.values


def _checked_default(table: TableName, item: AttributeDeclaration) -> Default | None:
    """Return the default as its type holds it, in the form that all databases take.

    It is rounded and cut as a value would be. A default that is not a value of its type is refused,
    although SQLite would accept it.
    """
    family, default = item.type.family, item.default
    if default is not None and default.is_expression and family is not Family.DATETIME:
        raise DefinitionError(
            f"{table}.{item.name} : {item.type.text} cannot have the current time as its default: "
            "declare it as datetime or timestamp, or leave the default out."
        )
    if default is None or default.is_expression or family not in _CHECKED_DEFAULTS:
        return default
    number = family in (Family.INTEGER, Family.FLOAT, Family.DECIMAL)
    value = Decimal(default.value.strip()) if number else default.value
    try:
        found = checked(value, Attribute(item.name, item.type, table=str(table)))
    except InvalidValueError as error:
        raise DefinitionError(f"The default {default.value} does not fit: {error}") from None
    return replace(default, value=_default_text(found, default.value, item.type))


def _default_text(found: Value, given: str, kind: AttributeType) -> str:
    """Return the text of a default from its value; a float stays as it was written, if it can."""
    if kind.family in _MOMENTS:
        return moment_text(found, kind)
    if kind.family is Family.DECIMAL:
        return format(found if found else abs(found), "f")
    if kind.family is Family.FLOAT:
        kept = repr(shortest_single(found) if kind.size == 32 else found)
        same = Decimal(given.strip()) == Decimal(kept)
        return (given.strip() if same else kept) if found else "0"
    return str(found)


def _inherited(item: ForeignKeyDeclaration, parent: StoredTable) -> dict[str, str]:
    """Return ``{child attribute: parent attribute}`` in the parent's key order."""
    attributes = parent.heading.all_attributes
    key = [name for name, attribute in attributes.items() if attribute.in_key]
    # As in DataJoint, other renames of the projection do not affect the reference.
    renames = {new: old for new, old in item.renames.items() if old in key or old not in attributes}
    new_names = {_renamed(old, item, key): new for new, old in renames.items()}
    return {new_names.get(name, name): name for name in key}


def _renamed(old: str, item: ForeignKeyDeclaration, key: list[str]) -> str:
    """Return the parent's attribute that a rename refers to, which old syntax may leave open."""
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


def inherited_column(
    name: str, attribute: Attribute, codecs: CodecRegistry, *, nullable: bool
) -> PlannedColumn:
    """Return the column by which a child refers to an attribute of its parent's key."""
    if attribute.type is None:  # a key attribute of a table always has one
        raise DefinitionError(f"The attribute {attribute.name!r} has no type to inherit.")
    kind = without_counter(attribute.type)
    # DataJoint finds a type through the parent, except for uuid, which it decodes by the marker.
    comment = marker(kind, attribute.comment) if kind.family is Family.UUID else attribute.comment
    # Hidden attributes get a default: that of a singleton table is always the same.
    default = attribute.default if attribute.hidden and not nullable else None
    return PlannedColumn(name, _stored_as(kind, codecs), nullable, default, comment)


def _stored_as(attribute_type: AttributeType, codecs: CodecRegistry) -> AttributeType:
    if attribute_type.family is Family.CODEC:
        return codecs.resolve(attribute_type).column_type
    return attribute_type


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
        If the server would lose characters of a default, or of a value of an enum, or cannot hold
        an integer.
    """
    kept = backend.definition_text
    for column in plan.columns:
        _check_kept_default(plan, column, backend)
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


def _check_kept_default(plan: PlannedTable, column: PlannedColumn, backend: Backend) -> None:
    default, encode = column.default, backend.encoder(column.stored_as)
    if default is None or encode is None or column.stored_as.family is not Family.INTEGER:
        return
    try:
        encode(int(default.value))
    except InvalidValueError as error:
        raise DefinitionError(
            f"{plan.name}.{column.name} cannot have the default {default.value}: {error}"
        ) from None


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
def _table_index_sql(element: _TableIndex, compiler: DDLCompiler, **kw: object) -> str:
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
def _type_sql(element: _SQLType, compiler: TypeCompiler, **kw: object) -> str:
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
    parts = [_indexed(backend.index_part(part), table, index.unique) for part in index.parts]
    # Names of indexes are unique in an SQLite file, so they contain the table's name.
    return sa.Index(f"{plan.name}.{number}", *parts, unique=index.unique, _table=table)


def _indexed(part: str, table: sa.Table, unique: bool) -> sa.ColumnElement[Any]:
    """Return what an index outside of its table holds, where a database lacks prefixes."""
    if part in table.c:
        return table.c[part]
    prefix = _PREFIX.fullmatch(part)
    if prefix is None or prefix[1] not in table.c:
        return sa.literal_column(part)
    # An index of whole values finds them as well; the comment keeps the length.
    name, length = f'"{prefix[1]}"', prefix[2]
    return sa.literal_column(f"substr({name}, 1, {length})" if unique else f"{name} /*({length})*/")


def moment_text(value: Value, kind: AttributeType) -> str:
    """Return a moment as a server writes it."""
    if kind.family is Family.DATE:
        return value.isoformat()
    if isinstance(value, time):
        value = datetime.combine(date.min, value) - datetime.min
    return temporal.text(value, kind.size or 0)
