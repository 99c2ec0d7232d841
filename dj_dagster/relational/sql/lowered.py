"""A query on its way to SQL: the parts of one SELECT, and the order of its rows."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import sqlalchemy as sa

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Heading
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra.top import Order, order_terms
from dj_dagster.relational.backends.common import Element

EVERYTHING = 2**63 - 1
"""The limit that stands for "all rows": MySQL does not take OFFSET without LIMIT."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """The parts of a SELECT.

    Attributes
    ----------
    columns
        The SQL of each attribute over `source`, hidden ones of a table too.
    opaque
        Names whose SQL gives another value at each evaluation, or is not allowed in WHERE.
    group
        The expressions that rows are grouped by; None without grouping, empty for one group of all
        rows.
    constant
        Names that have one value in each row of a group.
    order
        The order of the rows, unless another is asked for.
    plain
        Whether SQL that is left as written finds each attribute under its own name.
    nested
        Whether such SQL is already part of the query. Beside other tables its names would be
        ambiguous, and in a subquery its missing names would be found in the query around it.
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
        """Whether a limit or an offset applies, so that conditions cannot be added."""
        return self.limit is not None or self.offset > 0

    @property
    def is_simple(self) -> bool:
        """Whether the source and conditions can become part of another SELECT."""
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
        # Without an order: the number of rows does not depend on it.
        rows = replace(self, order=()).select().subquery()
        return sa.select(sa.func.count()).select_from(rows)

    def exists(self) -> sa.Select[Any]:
        """Return SELECT of one row if there is any."""
        limit = 1 if self.limit is None else min(1, self.limit)
        return replace(self, order=(), limit=limit).select()

    def cut(self, limit: int | None, offset: int | None) -> Lowered:
        """Return the query limited to `limit` of its rows, after the first `offset`."""
        left = None if self.limit is None else max(0, self.limit - (offset or 0))
        limits = [number for number in (left, limit) if number is not None]
        return replace(self, limit=min(limits, default=None), offset=self.offset + (offset or 0))

    def wrapped(self, names: Iterable[str]) -> Lowered:
        """Return a SELECT from this one as a subquery."""
        inner = self if self.is_cut else replace(self, order=())
        source = inner.select(*[name for name in names if name in self.columns]).subquery()
        return Lowered(source, {name: source.c[name] for name in names if name in self.columns})

    def _anything(self) -> Element:
        # For one group of all rows, a literal would give one row for each row of the source.
        literal = sa.literal_column("1")
        return (sa.func.count() if self.group == () else literal).label("n")


NOT_COMPARABLE = (Family.ENUM, Family.FLOAT)
"""Types that servers order and compare differently, or do not find by a value they returned."""


class Window(NamedTuple):
    """The order of rows, the number of rows to return and the number to skip before them.

    Attributes
    ----------
    order
        Terms ``name`` and ``name DESC``; None leaves the order of the query itself.
    limit
        None for all rows.
    """

    order: tuple[str, ...] | None = None
    limit: int | None = None
    offset: int = 0


ALL_ROWS = Window()
FIRST_TWO = Window(limit=2)


def make_window(order_by: Order, limit: int | None, offset: int | None, over: Heading) -> Window:
    """Return the window for the arguments of a fetch.

    Raises
    ------
    UnknownAttributeError
        If the order names an attribute that the heading lacks.
    QueryError
        If the order is not a text or a list of texts, or a number is negative or not whole.
    """
    if order_by is None and limit is None and offset is None:
        return ALL_ROWS
    return Window(
        None if order_by is None else order_terms(_checked(order_by), over),
        None if limit is None else _whole("limit", limit),
        0 if offset is None else _whole("offset", offset),
    )


def _checked(order_by: Any) -> Order:
    terms = [order_by] if isinstance(order_by, str) else order_by
    if isinstance(terms, Sequence) and all(isinstance(term, str) for term in terms):
        return terms
    raise QueryError(f"order_by is an attribute's name or a list of them, not {order_by!r}.")


def _whole(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0 or isinstance(value, bool):
        raise QueryError(f"{name} is a whole number from 0 on, not {value!r}.")
    return number
