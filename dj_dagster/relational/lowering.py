"""From query trees to SQL, with subqueries only where a name would otherwise be ambiguous."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import sqlalchemy as sa

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.relational.algebra import (
    All,
    AnyOf,
    Base,
    Condition,
    Equals,
    In,
    Joined,
    Matches,
    Negated,
    Node,
    Projected,
    Restricted,
    SQLText,
)
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.values import comparable

Element = sa.ColumnElement[Any]


@dataclass(frozen=True, slots=True)
class Lowered:
    """A query on its way to SQL.

    Attributes
    ----------
    columns
        How each attribute is spelled over `source`, hidden ones of a table too.
    named
        Whether SQL written by the user finds each attribute under its own name.
    written
        Whether such SQL is part of it already. Beside other tables its names would be ambiguous,
        and in a subquery those that it lacks would be found in the query around it.
    """

    source: sa.FromClause
    columns: dict[str, Element]
    where: tuple[Element, ...] = ()
    named: bool = True
    written: bool = False

    def select(self, *names: str) -> sa.Select[Any]:
        """Return SELECT of the named attributes."""
        columns = [self.columns[name].label(name) for name in names]
        return sa.select(*columns or [sa.literal(1)]).select_from(self.source).where(*self.where)

    def count(self) -> sa.Select[Any]:
        """Return SELECT of the number of rows."""
        return sa.select(sa.func.count()).select_from(self.source).where(*self.where)


class Lowering:
    """Lowers query trees for one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._numbers = count(1)

    def lower(self, node: Node) -> Lowered:
        """Return a query's SQL parts; each call makes aliases of its own."""
        match node:
            case Base():
                return self._base(node)
            case Restricted():
                return self._restricted(node)
            case Projected():
                return self._projected(node)
            case Joined():
                return self._joined(node)
            case _:
                raise QueryError(f"There is no SQL for {type(node).__name__}.")

    def target(self, base: Base) -> tuple[sa.TableClause, Lowered]:
        """Return a table itself, not an alias, for statements that change it."""
        columns = [sa.column(name) for name in base.heading.all_attributes]
        table = self._backend.sql_table(base.name, *columns)
        return table, Lowered(table, dict(table.c))

    def where(self, condition: Condition, over: Lowered, heading: Heading) -> Element:
        """Return a condition as SQL over the columns of `over`."""
        match condition:
            case SQLText(text):
                return sa.literal_column(f"({text})")
            case Equals(name, value):
                return self._equals(over.columns[name], value, heading[name])
            case In():
                return self._in(condition, over, heading)
            case Matches():
                return self._matches(condition, over)
            case All(conditions):
                return sa.and_(sa.true(), *[self.where(c, over, heading) for c in conditions])
            case AnyOf(conditions):
                return sa.or_(sa.false(), *[self.where(c, over, heading) for c in conditions])
            case Negated(Matches() as inner):
                return self._has_no_match(inner, over)
            case Negated(inner):
                # A comparison with null is unknown, which for the user means that it fails.
                return sa.func.coalesce(self.where(inner, over, heading), sa.false()).is_(
                    sa.false()
                )

    def _base(self, node: Base) -> Lowered:
        columns = [sa.column(name) for name in node.heading.all_attributes]
        # SQLAlchemy's own choice would hold a dot on SQLite, which misreads such names in joins.
        alias = f"t{next(self._numbers)}"
        source = self._backend.sql_table(node.name, *columns).alias(alias)
        return Lowered(source, dict(source.c))

    def _restricted(self, node: Restricted) -> Lowered:
        over = self.lower(node.source)
        if _has_text(node.condition):
            over = replace(_with_names(over, node.source.heading), written=True)
        element = self.where(node.condition, over, node.source.heading)
        return replace(over, where=(*over.where, element))

    def _projected(self, node: Projected) -> Lowered:
        over = self.lower(node.source)
        if any(isinstance(old, SQLText) for old in node.columns.values()):
            over = replace(_with_names(over, node.source.heading), written=True)
        columns = {
            new: sa.literal_column(f"({old.text})")
            if isinstance(old, SQLText)
            else over.columns[old]
            for new, old in node.columns.items()
        }
        renamed = any(new != old for new, old in node.columns.items())
        return replace(over, columns=columns, named=over.named and not renamed)

    def _joined(self, node: Joined) -> Lowered:
        left, right = self._side(node.left), self._side(node.right)
        on = [left.columns[name] == right.columns[name] for name in node.shared]
        return Lowered(
            sa.join(left.source, right.source, sa.and_(sa.true(), *on)),
            {**right.columns, **left.columns},
            (*left.where, *right.where),
            named=False,
        )

    def _side(self, node: Node) -> Lowered:
        side = self.lower(node)
        return _wrapped(side, node.heading) if side.written else side

    def _equals(self, column: Element, value: Any, attribute: Attribute) -> Element:
        if value is None:
            return column.is_(None)
        return column == self._bound(value, attribute)

    def _bound(self, value: Any, attribute: Attribute) -> Any:
        value = comparable(value, attribute)
        encode = self._backend.encoder(attribute.type) if attribute.type else None
        return encode(value) if encode else value

    def _in(self, condition: In, over: Lowered, heading: Heading) -> Element:
        attributes = [heading[name] for name in condition.names]
        rows = [
            tuple(self._bound(value, attr) for value, attr in zip(row, attributes, strict=True))
            for row in condition.values
        ]
        return self._backend.is_among([over.columns[name] for name in condition.names], rows)

    def _matches(self, condition: Matches, over: Lowered) -> Element:
        inner = self._side(condition.query)
        select = inner.select(*condition.names).correlate(None)
        if not condition.names:
            return sa.exists(select)
        if len(condition.names) == 1:
            return over.columns[condition.names[0]].in_(select)
        return sa.tuple_(*[over.columns[name] for name in condition.names]).in_(select)

    def _has_no_match(self, condition: Matches, over: Lowered) -> Element:
        # NOT IN would find no row at all once the query holds a null.
        inner = self._side(condition.query)
        same = [over.columns[name] == inner.columns[name] for name in condition.names]
        select = inner.select().where(*same)
        return ~sa.exists(select.correlate_except(*_sources(inner.source)))


def _sources(source: sa.FromClause) -> list[sa.FromClause]:
    if isinstance(source, sa.Join):
        return [source, *_sources(source.left), *_sources(source.right)]
    return [source]


def _has_text(condition: Condition) -> bool:
    match condition:
        case SQLText():
            return True
        case All(conditions) | AnyOf(conditions):
            return any(map(_has_text, conditions))
        case Negated(inner):
            return _has_text(inner)
        case _:
            return False


def _with_names(over: Lowered, heading: Heading) -> Lowered:
    """Wrap a query in a subquery unless its names are plain already."""
    return over if over.named else _wrapped(over, heading)


def _wrapped(over: Lowered, heading: Heading) -> Lowered:
    source = over.select(*heading.names).subquery()
    return Lowered(source, dict(source.c))
