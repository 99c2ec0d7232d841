"""Diagrams as plain data for drawing, and the sources that they are made from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any, NamedTuple

from dj_dagster.errors import DataJointError
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.names import TableName, Tier, class_path, parse_table_name
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.relatives import is_hidden, is_renaming, is_whole_key
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.stored import ForeignKey, StoredTable
from dj_dagster.relational.table import Part, Table, TableMeta


class Line(Enum):
    """The strength of a dependency, which determines its line."""

    WHOLE = "whole"
    """The child's whole key: at most one row of the child for each of the parent."""
    PART = "part"
    """Part of the child's key: many rows of the child for one of the parent."""
    SECONDARY = "secondary"
    """Outside the child's key."""


@dataclass(frozen=True, slots=True)
class Box:
    """A table, or a collapsed schema.

    Attributes
    ----------
    key
        Unique within the picture.
    tier
        None for a schema, and for a table whose name does not follow a tier.
    own_key
        Whether the table adds attributes of its own to the keys that it inherits.
    tooltip
        The attributes, or the tables of a schema, one per line.
    """

    key: str
    label: str
    schema: str
    tier: Tier | None = None
    own_key: bool = False
    collapsed: bool = False
    tooltip: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A foreign key, or all between two boxes if one is collapsed; renames map new to old names."""

    parent: str
    child: str
    line: Line
    renames: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Picture:
    """The boxes and links of a drawing, independent of its format."""

    boxes: dict[str, Box] = field(default_factory=dict[str, Box])
    links: list[Link] = field(default_factory=list[Link])

    @property
    def schemas(self) -> dict[str, list[Box]]:
        """The boxes of each schema, without collapsed ones, which are drawn without a frame."""
        found: dict[str, list[Box]] = {}
        for box in self.boxes.values():
            if not box.collapsed:
                found.setdefault(box.schema, []).append(box)
        return found

    @property
    def framed(self) -> bool:
        """Whether schemas are distinguished by frames."""
        return len({box.schema for box in self.boxes.values()}) > 1


def make_picture(
    connection: Connection,
    tables: Iterable[TableName],
    expanded: Collection[TableName],
    labels: Labels,
) -> Picture:
    """Return the picture of some tables and of the foreign keys between them.

    Parameters
    ----------
    tables
        The tables in the order of drawing.
    expanded
        The tables that are drawn as boxes; each schema of the others is drawn as one box.
    """
    picture, keys = Picture(), dict[TableName, str]()
    collapsed: dict[str, list[TableName]] = {}
    for name in tables:
        if name in expanded:
            keys[name] = str(name)
            picture.boxes[str(name)] = _table_box(connection, name, labels[name])
        else:
            keys[name] = name.schema
            collapsed.setdefault(name.schema, []).append(name)
    for schema, names in collapsed.items():
        picture.boxes[schema] = _schema_box(schema, [labels[name] for name in names])
    links = dict.fromkeys(
        link for name in keys for link in _links(connection.catalog.find(name), keys)
    )
    picture.links.extend(links)
    return picture


def _table_box(connection: Connection, name: TableName, label: str) -> Box:
    stored, parsed = connection.catalog.find(name), parse_table_name(name.table)
    return Box(
        str(name),
        label,
        name.schema,
        tier=parsed.tier if parsed else None,
        own_key=stored is not None and _has_own_key(stored),
        tooltip=_attributes(stored.heading) if stored else "",
    )


def _schema_box(schema: str, labels: list[str]) -> Box:
    count = f"{len(labels)} table{'s' * (len(labels) != 1)}"
    return Box(schema, f"{schema}\n({count})", schema, collapsed=True, tooltip="\n".join(labels))


def _has_own_key(stored: StoredTable) -> bool:
    inherited = {name for key in stored.foreign_keys for name in key.attributes}
    return any(attr.in_key and attr.name not in inherited for attr in _visible(stored.heading))


def _attributes(heading: Heading) -> str:
    """Return a heading in the form of a definition, without foreign keys."""
    lines = [f"# {heading.comment}"] if heading.comment else []
    in_key = True
    for attribute in _visible(heading):
        if in_key and not attribute.in_key:
            in_key = False
            lines.append("---")
        kind = f" : {attribute.type.text}" if attribute.type else ""
        null = " = null" if attribute.nullable else ""
        remark = f"  # {attribute.comment}" if attribute.comment else ""
        lines.append(f"{attribute.name}{null}{kind}{remark}")
    return "\n".join(lines)


def _visible(heading: Heading) -> Iterable[Attribute]:
    return heading.attributes.values()


def _links(stored: StoredTable | None, keys: Mapping[TableName, str]) -> Iterable[Link]:
    for key in stored.foreign_keys if stored else ():
        parent, child = keys.get(key.parent), keys[key.child]
        if stored is None or parent is None:
            continue
        if str(key.parent) == parent and str(key.child) == child:
            yield Link(parent, child, _line(key, stored), _renames(key))
        elif parent != child:
            yield Link(parent, child, Line.PART)


def _line(key: ForeignKey, child: StoredTable) -> Line:
    if not key.primary:
        return Line.SECONDARY
    return Line.WHOLE if is_whole_key(key, child) else Line.PART


def _renames(key: ForeignKey) -> tuple[tuple[str, str], ...]:
    if not is_renaming(key):
        return ()
    return tuple((own, old) for own, old in key.attributes.items() if own != old)


class Source(NamedTuple):
    """The tables of a diagram's source, with their connection."""

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
    # Other processes may have declared tables since.
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
    """The labels of the tables of a diagram, which are the names of their classes.

    Parameters
    ----------
    names
        The names in which classes are searched: directly, or inside modules (``lab.Subject``).
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
