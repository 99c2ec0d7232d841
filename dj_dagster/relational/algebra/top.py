"""Top: the first rows of a query in some order, as a restriction."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dj_dagster.errors import QueryError, UnknownAttributeError
from dj_dagster.model.heading import Heading
from dj_dagster.relational.algebra.algebra import Node, Topped

Order = str | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Top:
    """The first rows of a query, to stand after ``&``.

    It binds where it stands: what comes after restricts the rows that it left. A second one with
    the same order, or None, becomes one with the first: the lesser limit, the offsets added.

    Parameters
    ----------
    limit
        How many rows; None for all.
    order_by
        An attribute, or several, each with `` DESC`` where wanted; ``"KEY"`` is the primary key.
        None leaves the order of an earlier `Top`, and is the key if there is none.
    offset
        How many rows to leave out first.

    Examples
    --------
    >>> best = Top(3, order_by="score DESC")  # Session & best
    """

    limit: int | None = 1
    order_by: Order = "KEY"
    offset: int = 0

    def __post_init__(self) -> None:
        for name in ("limit", "offset"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        terms: Any = self.order_by
        if terms is not None and not all(isinstance(term, str) for term in terms):
            raise TypeError(f"Top(order_by={self.order_by!r}): write names of attributes.")
        object.__setattr__(self, "offset", self.offset or 0)


def _whole(name: str, value: Any) -> int | None:
    try:
        number = None if value is None else operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or (number is not None and number < 0):
        raise TypeError(f"Top({name}={value!r}): it is a number of rows, 0 or more.")
    return number


def topped(source: Node, top: Top) -> Topped:
    """Return the first rows of a query; see `Top`.

    Raises
    ------
    UnknownAttributeError
        If the order names something that the query does not have.
    """
    order = None if top.order_by is None else order_terms(top.order_by, source.heading)
    if isinstance(source, Topped) and order in (None, source.order):
        limits = [limit for limit in (source.limit, top.limit) if limit is not None]
        offset = source.offset + top.offset
        inner, limit = source.source, min(limits, default=None)
        return Topped(source.heading, source.tables, inner, source.order, limit, offset)
    if order is None:
        order = order_terms("KEY", source.heading)
    return Topped(source.heading, source.tables, source, order, top.limit, top.offset)


def order_terms(order_by: Order, heading: Heading) -> tuple[str, ...]:
    """Return an order as terms ``name`` and ``name DESC``, ``KEY`` spelled out.

    Raises
    ------
    UnknownAttributeError
        If a term names something that the heading does not have.
    QueryError
        If a term is no attribute with ASC, DESC or nothing after it.
    """
    if order_by is None:
        return ()
    given = [order_by] if isinstance(order_by, str) else list(order_by)
    texts = (text for several in given for text in several.split(","))
    return tuple(term for text in texts for term in _terms(text, heading))


def _terms(text: str, heading: Heading) -> list[str]:
    name, _, direction = text.strip().partition(" ")
    direction = direction.strip().upper()
    if direction not in ("", "ASC", "DESC"):
        raise QueryError(f"order_by has {text!r}: write an attribute, ASC or DESC after it.")
    name = name.strip("`")
    names = heading.primary_key if name.upper() == "KEY" and name not in heading else [name]
    for attribute in names:
        if attribute not in heading:
            raise UnknownAttributeError(
                f"order_by names {attribute!r}. The heading has: {', '.join(heading.names)}."
            )
    return [f"{attribute} DESC" if direction == "DESC" else attribute for attribute in names]
