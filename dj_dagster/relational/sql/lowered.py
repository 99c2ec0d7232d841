"""A query on its way to SQL: the parts of one SELECT."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from dj_dagster.relational.sql_elements import Element

EVERYTHING = 2**63 - 1
"""A limit that is none, for OFFSET, which MySQL does not take alone."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """The parts of a SELECT.

    Attributes
    ----------
    columns
        How each attribute is spelled over `source`, hidden ones of a table too.
    opaque
        Names whose SQL gives another value each time, or cannot stand in WHERE.
    group
        What the rows are grouped by; None for rows as they are, nothing for one group of all rows.
    constant
        Names that have one value in each row of a group.
    order
        The order of the rows, unless another is asked for.
    plain
        Whether SQL left as it is written finds each attribute under its own name.
    nested
        Whether such SQL is part of it already. Beside other tables its names would be ambiguous,
        and in a subquery those that it lacks would be found in the query around it.
    """

    source: sa.FromClause
    columns: dict[str, Element]
    where: tuple[Element, ...] = ()
    opaque: frozenset[str] = frozenset()
    group: tuple[Element, ...] | None = None
    constant: frozenset[str] = frozenset()
    having: tuple[Element, ...] = ()
    order: tuple[Element, ...] = ()
    limit: int | None = None
    offset: int = 0
    plain: bool = True
    nested: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether only some of the rows count, so that conditions cannot be added."""
        return self.limit is not None or self.offset > 0

    @property
    def is_simple(self) -> bool:
        """Whether its source and conditions can become part of another SELECT."""
        return not (self.is_cut or self.group is not None or self.opaque or self.nested)

    def select(self, *names: str) -> sa.Select[Any]:
        """Return SELECT of the named attributes."""
        columns = [self.columns[name].label(name) for name in names] or [self._anything()]
        select = sa.select(*columns).select_from(self.source).where(*self.where)
        if self.group:
            select = select.group_by(*self.group)
        if self.having:
            select = select.having(sa.and_(*self.having))
        if self.order:
            select = select.order_by(*self.order)
        if self.is_cut:
            limit = EVERYTHING if self.limit is None else self.limit
            select = select.limit(limit).offset(self.offset or None)
        return select

    def count(self) -> sa.Select[Any]:
        """Return SELECT of the number of rows."""
        if self.group is None and not self.is_cut:
            return sa.select(sa.func.count()).select_from(self.source).where(*self.where)
        # No order: which rows are cut off does not change how many remain.
        rows = replace(self, order=()).select().subquery()
        return sa.select(sa.func.count()).select_from(rows)

    def exists(self) -> sa.Select[Any]:
        """Return SELECT of one row if there is any."""
        limit = 1 if self.limit is None else min(1, self.limit)
        return replace(self, order=(), limit=limit).select()

    def cut(self, limit: int | None, offset: int | None) -> Lowered:
        """Return so many of its rows, after leaving out so many."""
        left = None if self.limit is None else max(0, self.limit - (offset or 0))
        limits = [number for number in (left, limit) if number is not None]
        return replace(self, limit=min(limits, default=None), offset=self.offset + (offset or 0))

    def wrapped(self, names: Iterable[str]) -> Lowered:
        """Return a SELECT from this one as a subquery."""
        inner = self if self.is_cut else replace(self, order=())
        source = inner.select(*[name for name in names if name in self.columns]).subquery()
        return Lowered(source, {name: source.c[name] for name in names if name in self.columns})

    def _anything(self) -> Element:
        # Of one group of all rows, a literal would give as many rows as there are.
        literal = sa.literal_column("1")
        return (sa.func.count() if self.group == () else literal).label("n")
