"""A SELECT in parts: its columns, conditions and window, and users' SQL over its columns.

In users' texts, attribute names are replaced by their columns. A text thus keeps its meaning after
joins, renames and beside other tables, and a name that the heading lacks is found before the server
is asked. A text with a SELECT of its own, or one that the parser cannot read, is left as it is.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import date, time, timedelta
from decimal import Decimal
from typing import NamedTuple, SupportsIndex
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from dj_dagster.errors import InvalidValueError, QueryError, UnknownAttributeError
from dj_dagster.model.heading import Attribute, Heading, Value
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.relational.algebra.condition import Order, order_terms
from dj_dagster.relational.algebra.nodes import (
    All,
    AnyOf,
    Between,
    Condition,
    Equals,
    In,
    JSONEquals,
    JSONPath,
    Matches,
    Negated,
    Node,
    Now,
    PassedOver,
    SQLText,
)
from dj_dagster.relational.algebra.operators import unknown
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.backends.base import Purpose
from dj_dagster.relational.backends.common import (
    MYSQL_CASTS,
    Element,
    Pieces,
    Select,
    cast_type,
)
from dj_dagster.relational.sql.computed_values import compared
from dj_dagster.relational.user_sql.attributes import Known, Made
from dj_dagster.relational.user_sql.conversion import common
from dj_dagster.relational.user_sql.kinds import ANY, BYTES, NULL, Kind, as_year
from dj_dagster.relational.user_sql.parsing import Name, Parsed, parse
from dj_dagster.relational.values import comparable, cuts_blanks, declared_spelling

EVERYTHING = 2**63 - 1
"""The limit that stands for "all rows": MySQL does not take OFFSET without LIMIT."""


@dataclass(frozen=True, slots=True)
class AttributeOrigin:
    """The source of a computed attribute, for SQL over it.

    Attributes
    ----------
    known
        The SQL that computes it, or the kind of its values where it comes out of a subquery.
    columns
        The columns that the SQL names, those of a computed attribute ``c`` in it as ``c.a``.
    """

    known: Made | Kind
    columns: Mapping[str, Element] = field(default_factory=dict[str, Element])

    @property
    def kind(self) -> Kind:
        """The kind of its values."""
        return self.known.kind if isinstance(self.known, Made) else self.known


Origins = Mapping[str, AttributeOrigin]


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
    origins
        The sources of computed attributes, where the backend asks for them.
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
    origins: Origins = field(default_factory=dict[str, AttributeOrigin])

    @property
    def is_cut(self) -> bool:
        """Whether a limit or an offset applies, so that conditions cannot be added."""
        return self.limit is not None or self.offset > 0

    @property
    def is_simple(self) -> bool:
        """Whether the source and conditions can become part of another SELECT."""
        return not (self.is_cut or self.group is not None or self.opaque or self.nested)

    def select(self, *names: str) -> Select:
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

    def count(self) -> Select:
        """Return SELECT of the number of rows."""
        if self.group is None and not self.is_cut:
            return sa.select(sa.func.count()).select_from(self.source).where(*self.where)
        # Without an order: the number of rows does not depend on it.
        rows = replace(self, order=()).select().subquery()
        return sa.select(sa.func.count()).select_from(rows)

    def exists(self) -> Select:
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
        columns: dict[str, Element] = {n: source.c[n] for n in names if n in self.columns}
        return Lowered(source, columns, origins=in_all([self]))

    def _anything(self) -> Element:
        # For one group of all rows, a literal would give one row for each row of the source.
        literal = sa.literal_column("1")
        return (sa.func.count() if self.group == () else literal).label("n")


def in_all(sides: Sequence[Lowered]) -> Origins:
    """Return the sources of attributes of rows that come from several SELECTs."""
    found: dict[str, AttributeOrigin] = {}
    for name in frozenset[str]().union(*(side.origins for side in sides)):
        origins = [side.origins.get(name) for side in sides if name in side.columns]
        kinds = [origin.kind for origin in origins if origin is not None]
        kind = common(kinds) if len(kinds) == len(origins) else None
        if kind is not None:
            # Servers have a column of bytes for nulls alone.
            found[name] = AttributeOrigin(BYTES if kind == NULL else kind)
    return found


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


def _checked(order_by: object) -> Order:
    terms = [order_by] if isinstance(order_by, str) else order_by
    if isinstance(terms, Sequence) and all(isinstance(term, str) for term in terms):
        return terms
    raise QueryError(f"order_by is an attribute's name or a list of them, not {order_by!r}.")


def _whole(name: str, value: SupportsIndex) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0 or isinstance(value, bool):
        raise QueryError(f"{name} is a whole number from 0 on, not {value!r}.")
    return number


_TEXTS = (Family.STRING, Family.ENUM)
_MOMENT = parse_type("datetime(6)")


class Conditions:
    """Translates conditions to the SQL of one backend.

    Parameters
    ----------
    side
        Returns a query in a form that can be joined with others, given the names that are needed of
        it.
    """

    def __init__(self, backend: Backend, side: Callable[[Node, Sequence[str]], Lowered]) -> None:
        self._backend = backend
        self._side = side
        self._depth = 0

    def where(self, condition: Condition, over: Lowered, heading: Heading) -> Element:
        """Return a condition as SQL over the columns of `over`."""
        match condition:
            case SQLText(text):
                return self.text(text, over, heading, "condition")
            case Equals(name, value):
                return self._equals(name, value, over, heading)
            case Between(name, low, high):
                return self._between(over.columns[name], low, high, heading[name])
            case JSONEquals(path, value):
                return self._json_equals(path, value, over)
            case In():
                return self._in(condition, over, heading)
            case Matches():
                return self._matches(condition, over)
            case PassedOver():
                return sa.true()
            case All(conditions):
                return sa.and_(sa.true(), *[self.where(c, over, heading) for c in conditions])
            case AnyOf(conditions):
                return sa.or_(sa.false(), *[self.where(c, over, heading) for c in conditions])
            case Negated(Matches() as inner):
                return self._has_no_match(inner, over)
            case Negated(inner):
                # A comparison with null is unknown, which counts as false for the user.
                return sa.not_(Pieces(["(", self.where(inner, over, heading), ") IS TRUE"]))

    def order(self, name: str, over: Lowered, heading: Heading) -> Element:
        """Return the expression to order rows by: an attribute, or SQL of the user."""
        if name not in heading:
            return self.text(name, over, heading, "order")
        kind = heading[name].type
        if kind is None or self._backend.sorts(kind):
            return over.columns[name]
        return self.text(f"`{name}`", over, heading, "order")

    def text(
        self, text: str, over: Lowered, heading: Heading, purpose: Purpose = "value"
    ) -> Element:
        """Return SQL of the user over the columns of `over`."""
        known, found = self._named(text, over, heading)
        pieces = self._backend.translated(text, known.types, purpose)
        if pieces is None:
            return Pieces(_spelled(parse(text), over.columns, found))
        return Pieces([p if isinstance(p, str) else known.columns[p.name] for p in pieces])

    def origin(self, text: str, over: Lowered, heading: Heading) -> AttributeOrigin | None:
        """Return the source of an attribute that SQL of the user computes, if it is asked for."""
        known, _ = self._named(text, over, heading)
        kind = self._backend.kind(text, known.types)
        if kind is None or kind == ANY:
            return None
        made = Made(text, known.types, kind)
        return (
            AttributeOrigin(made, known.columns)
            if made.is_short and parse(text).repeatable
            else AttributeOrigin(kind)
        )

    def _named(self, text: str, over: Lowered, heading: Heading) -> tuple[_Named, dict[Name, str]]:
        """Return what is known of the attributes that a text names."""

        def missing(name: str) -> UnknownAttributeError:
            return UnknownAttributeError(f"{unknown(name, heading)} It was asked for in {text!r}.")

        parsed = parse(text)
        within = {name: over.columns[name] for name in over.columns if name in heading}
        found = {} if parsed.nested else _found(parsed, within, missing)
        types: dict[str, Known] = {}
        columns: dict[str, Element] = {}
        for name in found.values():
            origin = over.origins.get(name)
            types[name] = known = _known(heading[name].type, origin)
            columns[name] = within[name]
            if origin is not None and isinstance(known, Made):
                columns |= {f"{name}.{inner}": c for inner, c in origin.columns.items()}
        return _Named(types, columns), found

    def json_value(self, path: JSONPath, over: Lowered) -> Element:
        """Return a value inside JSON, as text unless the path names a type."""
        return self._backend.json_value(over.columns[path.name], path.path, path.returning)

    def names(self, condition: Condition) -> frozenset[str]:
        """Return the names that a condition reads, and perhaps more words of its SQL."""
        match condition:
            case SQLText(text):
                return parse(text).words
            case Equals(name) | Between(name):
                return frozenset((name,))
            case JSONEquals(path, _):
                return frozenset((path.name,))
            case In(names) | Matches(names):
                return frozenset(names)
            case PassedOver():
                return frozenset()
            case All(conditions) | AnyOf(conditions):
                return frozenset[str]().union(*map(self.names, conditions))
            case Negated(inner):
                return self.names(inner)

    def has_select(self, condition: Condition) -> bool:
        """Whether SQL of the user has a SELECT in it."""
        match condition:
            case SQLText(text):
                return parse(text).nested
            case All(conditions) | AnyOf(conditions):
                return any(map(self.has_select, conditions))
            case Negated(inner):
                return self.has_select(inner)
            case _:
                return False

    def _equals(self, name: str, value: Value, over: Lowered, heading: Heading) -> Element:
        if value is None:
            return over.columns[name].is_(None)
        column, values = self._compared(name, [value], over, heading)
        return column == values[0]

    def _compared(
        self, name: str, values: Sequence[Value], over: Lowered, heading: Heading
    ) -> tuple[Element, Sequence[Value]]:
        """Return an attribute and values in the forms in which the database compares them."""
        given = bound(values, heading[name], self._backend)
        origin = over.origins.get(name)
        if origin is None or heading[name].type is not None:
            return over.columns[name], given
        text, given = compared(name, given, origin.kind)
        return self.text(text, over, heading) if text else over.columns[name], given

    def _between(
        self, column: Element, low: Value | Now, high: Value | Now, attribute: Attribute
    ) -> Element:
        bounds: list[Element] = []
        if low is not None:
            bounds.append(column >= self._end(low, attribute))
        if high is not None:
            bounds.append(column <= self._end(high, attribute))
        return sa.and_(sa.true(), *bounds)

    def _end(self, value: Value | Now, attribute: Attribute) -> Value:
        if isinstance(value, Now):
            return self._backend.now(attribute.type or _MOMENT)
        return self._bound([value], attribute)[0]

    def _json_equals(self, path: JSONPath, value: Value, over: Lowered) -> Element:
        if path.returning is None:
            return self._backend.json_is(
                over.columns[path.name], path.path, _json_text(path, value)
            )
        found = self.json_value(path, over)
        return found.is_(None) if value is None else found == _plain(value)

    def _in(self, condition: In, over: Lowered, heading: Heading) -> Element:
        pairs = [
            self._compared(name, [row[place] for row in condition.values], over, heading)
            for place, name in enumerate(condition.names)
        ]
        rows = list(zip(*(values for _, values in pairs), strict=True))
        return self._backend.is_among([column for column, _ in pairs], rows)

    def _bound(self, values: Sequence[Value], attribute: Attribute) -> Sequence[Value]:
        return bound(values, attribute, self._backend)

    def _matches(self, condition: Matches, over: Lowered) -> Element:
        self._depth += 1
        inner = self._side(condition.query, condition.names)
        self._depth -= 1
        select = inner.select(*condition.names).correlate(None)
        most = self._backend.most_nested
        if most is not None and self._depth % most == most - 1:
            # A statement's common table expressions stand side by side, however deep they are used.
            select = sa.select(select.cte())
        if not condition.names:
            return sa.exists(select)
        if len(condition.names) == 1:
            return over.columns[condition.names[0]].in_(select)
        return sa.tuple_(*[over.columns[name] for name in condition.names]).in_(select)

    def _has_no_match(self, condition: Matches, over: Lowered) -> Element:
        # NOT IN would find no row at all once the query holds a null.
        inner = self._side(condition.query, condition.names)
        same = [over.columns[name] == inner.columns[name] for name in condition.names]
        select = inner.select().where(*same)
        return ~sa.exists(select.correlate_except(*_sources(inner.source)))


def bound(values: Sequence[Value], attribute: Attribute, backend: Backend) -> Sequence[Value]:
    """Return values as the driver takes them, checked all at once where the types allow it.

    Raises
    ------
    InvalidValueError
        For a value of another kind than the attribute.
    """
    kinds = set(map(type, values))
    family = attribute.type.family if attribute.type else None
    if kinds == {str} and family in _TEXTS:
        _check_text(values, attribute)
        if attribute.type and cuts_blanks(attribute.type):
            values = [value.rstrip(" ") for value in values]
        if attribute.type and family is Family.ENUM:
            values = [declared_spelling(value, attribute.type) for value in values]
    elif not (kinds == {int} and family is Family.INTEGER):
        values = [comparable(value, attribute) for value in values]
    if family is Family.FLOAT and not backend.has_infinity:
        _check_finite(values, attribute)
    if attribute.type and attribute.type.text == "year":
        # Servers take two digits for those of a year, but not always in lists.
        values = [value if value is None else as_year(value) for value in values]
    encode = backend.encoder(attribute.type) if attribute.type else backend.untyped
    if encode is None:
        return values
    try:
        return [encode(value) for value in values]
    except InvalidValueError:
        # A number beyond the database's range finds no row.
        far = {True: math.inf, False: -math.inf}
        return [encode(value) if abs(value) < 2**63 else far[value > 0] for value in values]


def json_sql(path: JSONPath) -> str:
    """Return a value inside JSON as a user's SQL."""
    quoted = path.path.replace("\\", "\\\\").replace("'", "''")
    value = f"json_value(`{path.name}`, '{quoted}')"
    if path.returning is None:
        return value
    return f"cast({value} as {cast_type(path.returning, MYSQL_CASTS)})"


def _json_text(path: JSONPath, value: Value) -> str:
    """Return a value as JSON.

    Raises
    ------
    InvalidValueError
        If it cannot be expressed in JSON.
    """
    try:
        return json.dumps(_plain(value), default=_plain, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(
            f"What is at {path.name}{path.path.removeprefix('$')} cannot be compared with "
            f"{value!r}: JSON has no such value ({error})."
        ) from error


def _plain(value: Value) -> Value:
    """Return a value as a type of JSON where a conversion is known, otherwise as it is."""
    match value:
        case np.generic() | np.ndarray():
            return value.tolist()
        case Decimal():
            whole = value.is_finite() and value == value.to_integral_value()
            return int(value) if whole else float(value)
        case date() | time() | timedelta() | UUID():
            return str(value)
        case _:
            return value


def _sources(source: sa.FromClause) -> list[sa.FromClause]:
    if isinstance(source, sa.Join):
        return [source, *_sources(source.left), *_sources(source.right)]
    return [source]


def _check_finite(values: Sequence[float | None], attribute: Attribute) -> None:
    for value in values:
        if value is not None and math.isinf(value):
            raise InvalidValueError(
                f"{attribute.table}.{attribute.name} cannot be compared with {value}: the server "
                "has finite numbers alone."
            )


def _check_text(values: Sequence[str], attribute: Attribute) -> None:
    try:
        "".join(values).encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError(
            f"{attribute.table}.{attribute.name} cannot be compared with text that has half a "
            f"surrogate pair: {error}"
        ) from error


@dataclass(frozen=True, slots=True)
class _Named:
    """The types of the attributes that a text names, and their columns."""

    types: Mapping[str, Known]
    columns: Mapping[str, Element]


_AS_DECLARED = (Family.UUID, Family.BYTES, Family.CODEC)
"""Types whose values SQL cannot tell from texts or bytes."""


def _known(declared: AttributeType | None, origin: AttributeOrigin | None) -> Known:
    if origin is None or (declared is not None and declared.family in _AS_DECLARED):
        return declared
    if declared is None or declared.family is Family.ENUM or isinstance(origin.known, Made):
        return origin.known
    return declared


def _found(
    parsed: Parsed,
    columns: Mapping[str, Element],
    missing: Callable[[str], UnknownAttributeError],
) -> dict[Name, str]:
    """Return the column of each name, found regardless of case as in MySQL."""
    found: dict[Name, str] = {}
    folded: dict[str, str] | None = None
    for name in parsed.names:
        if name.text in columns:
            found[name] = name.text
            continue
        folded = folded or {column.lower(): column for column in columns}
        if name.text.lower() in folded:
            found[name] = folded[name.text.lower()]
        elif name.text.islower() or name.is_quoted:
            # Words in upper case may be SQL's.
            raise missing(name.text)
    return found


def _spelled(
    parsed: Parsed, columns: Mapping[str, Element], found: Mapping[Name, str]
) -> list[str | Element]:
    pieces: list[str | Element] = []
    position = 0
    for name, column in found.items():
        pieces += [parsed.source[position : name.start], columns[column]]
        position = name.end
    return [*pieces, parsed.source[position:]]


def user_texts(node: Node) -> list[str]:
    """Return the restrictions and computed attributes of a query that are SQL, each once."""
    waiting: list[object] = [node]
    texts: dict[str, None] = {}
    # The list grows during the iteration.
    for part in waiting:
        if isinstance(part, SQLText):
            texts[part.text] = None
        elif isinstance(part, Mapping):
            waiting += part.values()
        elif isinstance(part, tuple):
            waiting += part
        elif is_dataclass(part):
            names = [each.name for each in fields(part)]
            waiting += [getattr(part, name) for name in names if name not in ("heading", "tables")]
    return list(texts)
