"""In which order the rows of a query come, and which of them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Heading
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra.top import Order, order_terms

NOT_COMPARABLE = (Family.ENUM, Family.FLOAT)
"""What servers order otherwise than they compare it, or do not find again as they have given it."""


class Window(NamedTuple):
    """Order, and how many rows after leaving out how many.

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


EVERYTHING = Window()
FIRST_TWO = Window(limit=2)


def make_window(order_by: Order, limit: int | None, offset: int | None, over: Heading) -> Window:
    """Return the window that a caller of a fetch asked for.

    Raises
    ------
    UnknownAttributeError
        If the order names an attribute that the heading does not have.
    QueryError
        If the order is no text or texts, or a number is negative or not whole.
    """
    if order_by is None and limit is None and offset is None:
        return EVERYTHING
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


def beyond(backend: str, columns: Sequence[Any], last: Sequence[Any]) -> Any:
    """Return the condition to come after a row, spelled so that the database uses the index."""
    if len(columns) == 1:
        return columns[0] > last[0]
    if backend == "sqlite":
        return sa.tuple_(*columns) > sa.tuple_(*last)
    ways = [
        sa.and_(*[c == v for c, v in zip(columns[:n], last, strict=False)], columns[n] > last[n])
        for n in range(len(columns))
    ]
    return sa.or_(*ways)
