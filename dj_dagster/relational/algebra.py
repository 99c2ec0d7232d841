"""Queries as plain data: a tree of nodes, each with the heading of its result.

The tree says what is asked; `dj_dagster.relational.lowering` says it in SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dj_dagster.errors import QueryError, UnknownAttributeError
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.table_name import TableName


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A query; `tables` are all that it reads."""

    heading: Heading
    tables: frozenset[TableName]


@dataclass(frozen=True, slots=True, eq=False)
class Base(Node):
    """All rows of a table."""

    name: TableName


@dataclass(frozen=True, slots=True, eq=False)
class Restricted(Node):
    """The rows of `source` for which `condition` holds."""

    source: Node
    condition: Condition


@dataclass(frozen=True, slots=True, eq=False)
class Projected(Node):
    """Other attributes of the same rows: `columns` maps each new name to an old one or to SQL."""

    source: Node
    columns: Mapping[str, str | SQLText]


@dataclass(frozen=True, slots=True, eq=False)
class Joined(Node):
    """The pairs of rows that agree on all shared names."""

    left: Node
    right: Node
    shared: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SQLText:
    """SQL as the user wrote it; names in it are attributes."""

    text: str


@dataclass(frozen=True, slots=True)
class Equals:
    """An attribute has a value; None is "is null"."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class In:
    """The attributes together have one of many values."""

    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """A row of the query agrees on these names; with no names: the query has any row."""

    names: tuple[str, ...]
    query: Node


@dataclass(frozen=True, slots=True, eq=False)
class All:
    """Every condition holds."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, eq=False)
class AnyOf:
    """One of the conditions holds."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Negated:
    """The condition does not hold (a comparison with null does not hold)."""

    condition: Condition


Condition = SQLText | Equals | In | Matches | All | AnyOf | Negated
ALWAYS = All(())
NEVER = AnyOf(())


def all_rows(name: TableName, heading: Heading) -> Base:
    """Return the query for all rows of a table."""
    return Base(heading, frozenset({name}), name)


def restrict(source: Node, condition: Condition) -> Node:
    """Return the rows for which a condition holds."""
    if isinstance(condition, All) and not condition.conditions:
        return source
    return Restricted(source.heading, source.tables | tables_of(condition), source, condition)


def tables_of(condition: Condition) -> frozenset[TableName]:
    """Return the tables that a condition reads."""
    match condition:
        case Matches():
            return condition.query.tables
        case All() | AnyOf():
            return frozenset[TableName]().union(*map(tables_of, condition.conditions))
        case Negated():
            return tables_of(condition.condition)
        case _:
            return frozenset()


def shared_names(left: Heading, right: Heading) -> tuple[str, ...]:
    """Return the names that two headings share, refusing those that mean different things.

    Raises
    ------
    QueryError
        If a shared name has different lineages, or none: two attributes of one name that no
        foreign key ties together.
    """
    shared = tuple(name for name in left.names if name in right.attributes)
    for name in shared:
        ours, theirs = left[name].lineage, right[name].lineage
        if ours is None or ours != theirs:
            raise QueryError(
                f"The attribute {name!r} is not the same thing on both sides: "
                f"{_origin(left[name])} and {_origin(right[name])}. Rename or leave out one of "
                f"them, for example with .proj(other_{name}='{name}')."
            )
    return shared


def join(left: Node, right: Node) -> Node:
    """Return the pairs of rows that agree on all shared names."""
    shared = shared_names(left.heading, right.heading)
    key = _joined_key(left.heading, right.heading)
    merged = {**right.heading.attributes, **left.heading.attributes}
    attributes = [replace(merged[name], in_key=True) for name in key]
    attributes += [
        replace(attribute, in_key=False)
        for name, attribute in {**left.heading.attributes, **right.heading.attributes}.items()
        if name not in key
    ]
    return Joined(Heading(attributes), left.tables | right.tables, left, right, shared)


def project(source: Node, *names: Any, **computed: str) -> Node:
    """Return the key and the named attributes; see `QueryExpression.proj` for the spellings."""
    heading = source.heading
    kept = _kept(heading, names)
    renamed = {text.strip() for text in computed.values()}
    columns: dict[str, str | SQLText] = {
        name: name for name in heading.names if name in kept - renamed
    }
    for new, text in computed.items():
        if new in columns:
            raise QueryError(
                f"proj({new}=...) would give a second attribute of that name; "
                f"rename the first, leave it out with '-{new}', or choose another name."
            )
        old = text.strip()
        copied = old[1:-1].strip() if old.startswith("(") else old
        columns[new] = copied if copied in heading.attributes else SQLText(text)
    attributes = [_projected(heading, new, old) for new, old in columns.items()]
    attributes.sort(key=lambda attribute: not attribute.in_key)
    return Projected(Heading(attributes, heading.comment), source.tables, source, columns)


def _kept(heading: Heading, names: Iterable[Any]) -> set[str]:
    kept = set(heading.primary_key)
    excluded: set[str] = set()
    for name in names:
        if name is Ellipsis:
            kept |= set(heading.names)
        elif not isinstance(name, str):
            raise QueryError(f"proj takes names of attributes, not {name!r}.")
        elif name.startswith("-"):
            excluded.add(name.removeprefix("-"))
        else:
            kept.add(name)
    for name in kept | excluded:
        if name not in heading:
            raise UnknownAttributeError(
                f"There is no attribute {name!r}. The heading has: {', '.join(heading.names)}."
            )
    in_key = excluded & set(heading.primary_key)
    if in_key:
        raise QueryError(f"proj cannot leave out {min(in_key)!r}: it is in the primary key.")
    return kept - excluded


def _projected(heading: Heading, new: str, old: str | SQLText) -> Attribute:
    if isinstance(old, SQLText):
        return Attribute(new, None, nullable=True)
    return replace(heading[old], name=new)


def _joined_key(left: Heading, right: Heading) -> list[str]:
    if set(right.primary_key) <= set(left.names):
        return left.primary_key
    if set(left.primary_key) <= set(right.names):
        return right.primary_key
    return list(dict.fromkeys([*left.primary_key, *right.primary_key]))


def _origin(attribute: Attribute) -> str:
    return attribute.lineage or f"{attribute.table or 'a computed'}.{attribute.name}"
