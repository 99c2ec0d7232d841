"""Top: the first rows of a query in some order, as a restriction."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

from dj_dagster.errors import QueryError, UnknownAttributeError
from dj_dagster.model.heading import Heading
from dj_dagster.relational.algebra.nodes import Node, Topped
from dj_dagster.relational.user_sql.parsing import SIMPLE, parse, split

_DIRECTION = re.compile(r"\s(asc|desc)\s*$", re.IGNORECASE)
_TWO_WORDS = re.compile(r"`?\w+`?\s+\w+")
_WORD = re.compile(r"\w*")

Order = str | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Top:
    """The first rows of a query, as an operand of ``&``.

    Later restrictions apply to the rows that it selects. A second `Top` with the same order, or
    None, is merged with the first: the lesser limit counts and the offsets are added.

    Parameters
    ----------
    limit
        Number of rows; None for all.
    order_by
        An attribute or SQL, or several, each optionally with `` DESC``; ``"KEY"`` is the primary
        key. None keeps the order of an earlier `Top`, or else means the key.
    offset
        Number of rows to leave out first.

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
        terms: Sequence[object] | None = (
            [self.order_by] if isinstance(self.order_by, str) else self.order_by
        )
        if terms is not None and not all(isinstance(term, str) for term in list[object](terms)):
            raise TypeError(f"Top(order_by={self.order_by!r}): write names of attributes or SQL.")
        object.__setattr__(self, "order_by", terms if terms is None else list(terms))
        object.__setattr__(self, "offset", self.offset or 0)

    def merge(self, other: Top) -> Top:
        """Return two consecutive `Top` as one; the second has the same order, or None."""
        limits = [limit for limit in (self.limit, other.limit) if limit is not None]
        return Top(min(limits, default=None), self.order_by, self.offset + other.offset)


def _whole(name: str, value: SupportsIndex | None) -> int | None:
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
        If the order names an attribute that the query lacks.
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
    """Return an order as terms, each optionally followed by `` DESC``, with ``KEY`` expanded.

    Raises
    ------
    UnknownAttributeError
        If a term is a name that the heading lacks.
    QueryError
        If a term is empty, or has a SELECT in it.
    """
    if order_by is None:
        return ()
    given = [order_by] if isinstance(order_by, str) else list(order_by)
    return tuple(term for text in given for part in split(text) for term in _terms(part, heading))


def _terms(text: str, heading: Heading) -> list[str]:
    text = text.strip()
    match = _DIRECTION.search(text)
    end = " DESC" if match is not None and match[1].upper() == "DESC" else ""
    what = (text if match is None else text[: match.start()]).strip()
    name = what.strip("`")
    is_sql = name not in heading and not _WORD.fullmatch(name)
    parsed = parse(f"({what})") if is_sql and what else None
    if parsed is not None and parsed.nested:
        # An order may come from a program's user, and must not read other tables.
        raise QueryError(f"order_by has {text!r}, which holds a SELECT: join or aggregate first.")
    two_words = _TWO_WORDS.fullmatch(what)
    one = parsed is None or len(parsed.trees) == 1
    if parsed is not None and not SIMPLE.fullmatch(what):
        # Checked without the enclosing brackets, which the term must not close.
        one = one and len(parse(what).trees) == 1
    if not what or two_words or not one:
        raise QueryError(f"order_by has {text!r}: write an attribute or SQL, ASC or DESC after it.")
    if is_sql:
        return [f"{what}{end}"]
    names = heading.primary_key if name.upper() == "KEY" and name not in heading else [name]
    for attribute in names:
        if attribute not in heading:
            raise UnknownAttributeError(
                f"order_by names {attribute!r}. The heading has: {', '.join(heading.names)}."
            )
    return [f"{attribute}{end}" for attribute in names]
