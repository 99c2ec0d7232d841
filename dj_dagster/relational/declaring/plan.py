"""Planned tables, made from definitions by resolving foreign keys and codecs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from decimal import Decimal

from dj_dagster.errors import DefinitionError, InvalidValueError
from dj_dagster.model.declaration import (
    AttributeDeclaration,
    Default,
    ForeignKeyDeclaration,
    IndexDeclaration,
    TableDefinition,
)
from dj_dagster.model.heading import Attribute
from dj_dagster.model.names import MAX_NAME, TableName
from dj_dagster.model.types import AttributeType, Family, parse_type, without_counter
from dj_dagster.objects.codecs.chain import CodecRegistry
from dj_dagster.relational.database.catalog import marker
from dj_dagster.relational.declaring.conversion import moment_text
from dj_dagster.relational.stored import ForeignKey, StoredTable
from dj_dagster.relational.values import checked

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
    if one.family is not other.family or one.family is Family.STRING:
        return one.family is other.family
    return (one.size, one.scale, one.unsigned, one.values) == (
        other.size,
        other.scale,
        other.unsigned,
        other.values,
    )


def _checked_default(table: TableName, item: AttributeDeclaration) -> Default | None:
    """Return the default, with dates and times in the form that all databases take.

    A default that is not a value of its type is refused, although SQLite would accept it.
    """
    family, default = item.type.family, item.default
    if default is None or default.is_expression or family not in _CHECKED_DEFAULTS:
        return default
    number = family in (Family.INTEGER, Family.FLOAT, Family.DECIMAL)
    value = Decimal(default.value.strip()) if number else default.value
    try:
        found = checked(value, Attribute(item.name, item.type, table=str(table)))
    except InvalidValueError as error:
        raise DefinitionError(f"The default {default.value} does not fit: {error}") from None
    return replace(default, value=moment_text(found, item.type)) if family in _MOMENTS else default


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
