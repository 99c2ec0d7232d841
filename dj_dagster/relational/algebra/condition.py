"""Restrictions: conditions in every form that users give, and Top, the first rows in some order."""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, runtime_checkable

import numpy as np

from dj_dagster.errors import QueryError, UnknownAttributeError
from dj_dagster.model.heading import Heading, Row, Value
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra.nodes import (
    ALWAYS,
    NEVER,
    Aggregated,
    All,
    AnyOf,
    Condition,
    Equals,
    Grouped,
    In,
    Joined,
    JSONEquals,
    JSONPath,
    Matches,
    Negated,
    Node,
    PassedOver,
    Projected,
    Restricted,
    SQLText,
    Topped,
    United,
    parse_json_path,
)
from dj_dagster.relational.algebra.operators import BY_LINEAGE, Matching, shared_names
from dj_dagster.relational.user_sql.parsing import SIMPLE, parse, split
from dj_dagster.relational.values import is_data_frame, is_null, is_series

if TYPE_CHECKING:
    import pandas as pd

_BEGUN = re.compile(r"\s*([A-Za-z_]\w*)\s*[.\[:]")


@runtime_checkable
class HasNode(Protocol):
    """A query expression, or a table."""

    @property
    def node(self) -> Node:
        """The query as plain data."""
        ...


class AndList(list[object]):
    """Conditions that must all hold; of those in a plain list, one must hold.

    Examples
    --------
    >>> AndList([{"subject_id": 1}, "score > 3"])
    [{'subject_id': 1}, 'score > 3']
    """


class Not:
    """The negation of a condition, for use inside lists.

    Parameters
    ----------
    restriction
        Any operand of ``&``.
    """

    def __init__(self, restriction: object) -> None:
        self.restriction = restriction

    def __repr__(self) -> str:
        return f"Not({self.restriction!r})"


class Universal:
    """The set of all values, which restricts nothing; see `dj_dagster.relational.universal.U`."""

    @property
    def primary_key(self) -> list[str]:
        """The names of the attributes."""
        return []


_NEVER_NULL = {int, str, bool, bytes, np.int64, np.int32, np.str_}
"""Types of most keys, which need not be checked one by one."""


def make_condition(operand: object, heading: Heading, matching: Matching = BY_LINEAGE) -> Condition:
    """Return the condition that a restriction expresses for a heading.

    Parameters
    ----------
    operand
        A mapping or record (equality on the names that the heading has, paths into JSON too), a
        string of SQL, a query or table (agreement on all shared names), a list, tuple, set,
        generator or data frame (any of them), an `AndList` (all of them), a `Not`, a boolean, or
        `U` (no restriction).
    matching
        The rules for names that are shared with another query.

    Raises
    ------
    QueryError
        If the operand is of another kind, or a query's shared names mean different things.
    """

    def condition(item: object) -> Condition:
        return make_condition(item, heading, matching)

    match operand:
        case bool() | np.bool_():
            return ALWAYS if bool(operand) else NEVER
        case str():
            return SQLText(operand)
        case Not():
            return Negated(condition(operand.restriction))
        case AndList():
            return All(tuple(map(condition, operand))) if operand else _passed_over((), heading)
        case Mapping():
            return _equalities(operand, heading)
        case np.void():
            return _equalities(as_mapping(operand), heading)
        case _ if is_series(operand):
            return _equalities(operand.to_dict(), heading)
        case _ if is_data_frame(operand):
            return _any_of(_records(operand), heading, condition)
        case Universal():
            return PassedOver((repr(operand),), tuple(heading.names))
        case HasNode():
            other = query_node(operand)
            return Matches(shared_names(heading, other.heading, matching), other)
        case Top():
            raise QueryError(
                f"{operand!r} chooses among the rows that are left, and cannot be negated or be "
                "one of a list: let it stand alone, query & dj.Top(...)."
            )
        case _ if (items := _items(operand)) is not None:
            return _any_of(items, heading, condition)
        case _:
            raise QueryError(
                f"A query cannot be restricted by {operand!r} ({type(operand).__name__}). "
                "Use a dict, a string of SQL, a query, or a list of these."
            )


def query_node(operand: object) -> Node:
    """Return the tree of a query.

    Raises
    ------
    QueryError
        If the query is a table class that is not yet declared by a schema.
    """
    node = getattr(operand, "node", None)
    if isinstance(node, Node):
        return node
    name = getattr(operand, "__name__", repr(operand))
    raise QueryError(f"{name} belongs to no schema yet. Decorate it: @schema above the class.")


def as_mapping(record: np.void) -> Row:
    """Return a numpy record as a dict."""
    return {name: record[name] for name in record.dtype.names or ()}


def _items(operand: object) -> list[object] | None:
    """Return the members of a collection, which for a polars or arrow table are its rows."""
    if inspect.isclass(operand) or isinstance(operand, bytes):
        return None
    for method in ("to_dicts", "to_pylist"):
        if callable(getattr(operand, method, None)):
            return getattr(operand, method)()
    return list(operand) if isinstance(operand, Iterable) else None


def _records(frame: pd.DataFrame) -> list[Row]:
    named = [name for name in frame.index.names if name is not None]
    whole = frame.reset_index() if named else frame
    values = whole.astype(object).where(whole.notna(), None)
    return values.to_dict("records")  # pyright: ignore[reportReturnType]


def _equalities(values: Mapping[str, Value], heading: Heading) -> Condition:
    found = [_equality(name, value, heading) for name, value in values.items()]
    conditions = tuple(condition for condition in found if condition is not None)
    return All(conditions) if conditions else _passed_over(values, heading)


def _passed_over(names: Iterable[object], heading: Heading) -> Condition:
    """Return a condition that restricts nothing and records this; an empty key lacks names."""
    named = tuple(map(str, names))
    return PassedOver(named, tuple(heading.names)) if named or heading.primary_key else ALWAYS


def _equality(name: str, value: Value, heading: Heading) -> Condition | None:
    if name in heading:
        # A missing value of pandas or numpy stands for null, as in a data frame.
        may_be_null = type(value) not in _NEVER_NULL
        return Equals(name, None if may_be_null and is_null(value) else value)
    path = _json_path(name, heading)
    return JSONEquals(path, value) if path is not None else None


def _json_path(name: Any, heading: Heading) -> JSONPath | None:
    """Return the path that a name expresses, None if it does not begin with an attribute.

    Raises
    ------
    QueryError
        If the attribute is not JSON, or the rest of the path cannot be read.
    """
    begun = _BEGUN.match(name) if isinstance(name, str) else None
    if begun is None or begun[1] not in heading:
        return None
    kind = heading[begun[1]].type
    if kind is not None and kind.family is not Family.JSON:
        raise QueryError(
            f"{name!r} is a path into JSON, but {begun[1]} is {kind.text}: restrict by the whole "
            "value, or declare the attribute as json."
        )
    path = parse_json_path(name, alone=True)
    if path is None:
        raise QueryError(
            f"{name!r} is not a path into {begun[1]}: write keys after dots and positions in "
            f"brackets, as in '{begun[1]}.channels[0]', a key with dots, colons, brackets or "
            f"quotes in double quotes, as in '{begun[1]}.\"a.b\"', and a type last, as in ':int32'."
        )
    return path


def _any_of(
    items: Sequence[Any], heading: Heading, condition: Callable[[object], Condition]
) -> Condition:
    """Return one IN for keys with the same names, and an OR of all other conditions."""
    alike = _alike(items, heading)
    if alike is not None:
        return alike
    groups: dict[tuple[str, ...], list[Mapping[str, Value]]] = {}
    others: list[Condition] = []
    for item in items:
        item = as_mapping(item) if isinstance(item, np.void) else item
        names = _key_names(item, heading)
        if names:
            groups.setdefault(names, []).append(item)
        else:
            others.append(condition(item))
    keys = [_among(names, items) for names, items in groups.items()]
    return AnyOf((*keys, *others))


def _alike(items: Sequence[Any], heading: Heading) -> Condition | None:
    """Return the condition for many dicts with the same names and no nulls, None for others.

    It is used for ten thousands of keys, so it avoids a step of Python for each value.
    """
    if not items or set(map(type, items)) != {dict}:
        return None
    given = items[0].keys()
    names = tuple(name for name in heading.all_attributes if name in given)
    if not names or any(_json_path(name, heading) for name in given if name not in names):
        return None
    if not all(item.keys() == given for item in items):
        return None
    for name in names:
        # Only values of these types are known not to be null.
        unsure = set(map(type, map(itemgetter(name), items))) - _NEVER_NULL
        if unsure and any(is_null(item[name]) for item in items):
            return None
    return AnyOf((_among(names, items),))


def _among(names: tuple[str, ...], items: Sequence[Mapping[str, Value]]) -> In:
    if len(names) == 1:
        return In(names, tuple(zip(map(itemgetter(*names), items))))
    return In(names, tuple(map(itemgetter(*names), items)))


def _key_names(item: object, heading: Heading) -> tuple[str, ...]:
    """Return the names by which a mapping can join an IN, empty if a value is null."""
    if not isinstance(item, Mapping):
        return ()
    names = tuple(name for name in heading.all_attributes if name in item)
    if any(_json_path(name, heading) for name in item if name not in names):
        return ()
    return () if any(is_null(item[name]) for name in names) else names


def repeatable(restrictions: Iterable[object]) -> tuple[object, ...]:
    """Return restrictions that can be read more than once: iterators as lists."""
    return tuple([*one] if isinstance(one, Iterator) else one for one in restrictions)


def refuse_oversights(node: Node, doing: str, above: Node | None = None) -> None:
    """Refuse a query with a restriction that does not name an attribute and holds for every row.

    Examples are a mapping whose only name is mistyped, an empty mapping, or a query without a
    common attribute; alone, in a list, negated, or in a query that restricts this one.

    Parameters
    ----------
    doing
        The purpose of the query: ``"delete from lab.session"``.
    above
        A part of the query that is not checked, such as a key source.

    Raises
    ------
    UnknownAttributeError
        For a name that is not an attribute; the message gives the nearest attributes.
    QueryError
        If the restriction is empty, or a query.
    """
    for found in _oversights(node, above):
        raise _refusal(found, doing)


def _oversights(node: Node, above: Node | None = None) -> Iterator[PassedOver | Matches]:
    if node is above:
        return
    match node:
        case Restricted(source=source, condition=condition):
            yield from _in_condition(condition)
            yield from _oversights(source, above)
        case Projected(source=source) | Topped(source=source) | Grouped(source=source):
            yield from _oversights(source, above)
        case Joined(left=one, right=other) | United(left=one, right=other):
            yield from _oversights(one, above)
            yield from _oversights(other, above)
        case Aggregated(source=one, group=other):
            yield from _oversights(one, above)
            yield from _oversights(other, above)
        case _:
            return


def _in_condition(condition: Condition) -> Iterator[PassedOver | Matches]:
    match condition:
        case PassedOver() | Matches(names=()):
            yield condition
        case Matches(query=query):
            yield from _oversights(query)
        case All(conditions) | AnyOf(conditions):
            for each in conditions:
                yield from _in_condition(each)
        case Negated(inner):
            yield from _in_condition(inner)
        case _:
            return


def _refusal(found: PassedOver | Matches, doing: str) -> QueryError:
    whole = "so that it would hold for every row; for all rows leave it out"
    if isinstance(found, Matches):
        tables = ", ".join(sorted(map(str, found.query.tables)))
        return QueryError(
            f"Cannot {doing}: the restriction by a query of {tables} has no attribute in common "
            f"with what it restricts, {whole}."
        )
    if not found.names:
        return QueryError(
            f"Cannot {doing}: a restriction is empty, {whole}; for none restrict by False or []."
        )
    near = dict.fromkeys(n for name in found.names for n in get_close_matches(name, found.known))
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    named = ", ".join(map(repr, found.names))
    return UnknownAttributeError(
        f"Cannot {doing}: a restriction names {named} alone, not an attribute, {whole}.{meant} "
        f"The attributes are {', '.join(found.known)}."
    )


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
        given = self.order_by
        terms: list[object] | None = None
        if given is not None:
            is_many = not isinstance(given, str) and hasattr(given, "__iter__")
            terms = list[object](given) if is_many else [given]
            if not all(isinstance(term, str) for term in terms):
                raise TypeError(f"Top(order_by={given!r}): write names of attributes or SQL.")
        object.__setattr__(self, "order_by", terms)
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
    parts = [part for text in given for part in (split(text) if "," in text else [text])]
    return tuple(term for part in parts for term in _terms(part, heading))


def _terms(text: str, heading: Heading) -> list[str]:
    text = text.strip().replace("%%", "%")  # as in `proj`
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
