"""Queries as plain data: a tree of nodes, each with the heading of its result.

`dj_dagster.relational.sql.lowering` translates trees to SQL. The modules `operators` and
`condition` beside this file build them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dj_dagster.model.heading import Heading, Value, Values
from dj_dagster.model.names import TableName


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A query; `tables` are all tables that it reads."""

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
    """Other attributes of the same rows: `columns` gives the source of each new name."""

    source: Node
    columns: Mapping[str, Computed]


@dataclass(frozen=True, slots=True, eq=False)
class Joined(Node):
    """The pairs of rows that agree on all shared names.

    Attributes
    ----------
    outer
        Whether a row of `left` without a partner is kept, with nulls for the attributes of `right`.
    """

    left: Node
    right: Node
    shared: tuple[str, ...]
    outer: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Aggregated(Node):
    """One row for each row of `source`, computed from the rows of `group` that agree with it.

    Attributes
    ----------
    columns
        The source of each name; SQL may name attributes of both sides.
    outer
        Whether a row of `source` without rows in `group` is kept.
    """

    source: Node
    group: Node
    shared: tuple[str, ...]
    columns: Mapping[str, Computed]
    outer: bool


@dataclass(frozen=True, slots=True, eq=False)
class Grouped(Node):
    """One row for each combination of the values of `names`; a single row without names.

    Attributes
    ----------
    whole
        Whether there is a row even if `source` is empty, like an aggregate over no rows.
    """

    source: Node
    names: tuple[str, ...]
    columns: Mapping[str, Computed]
    whole: bool


@dataclass(frozen=True, slots=True, eq=False)
class United(Node):
    """The rows of both queries, one for each key; for a key in both, the attributes of both."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True, eq=False)
class Listed(Node):
    """The concatenated rows of several queries, which all have the attributes of the heading.

    Without queries the result is empty.
    """

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Topped(Node):
    """The first rows in some order, after leaving out `offset`.

    Attributes
    ----------
    order
        Terms as users write them, with ``KEY`` expanded: ``("score DESC", "subject_id")``.
    """

    source: Node
    order: tuple[str, ...]
    limit: int | None
    offset: int


_SCALAR = re.compile(
    r"""('(?:[^'\\]|''|\\.)*'|"(?:[^"\\]|""|\\.)*")"""
    r"""|\bnp\.(?:(?:u?int|float)\d+\(([-+.\de]+)\)|str_\(('[^'\\]*')\)|(True|False)_)"""
)


def _plain(match: re.Match[str]) -> str:
    """Return the value of a scalar, and quoted text as it is."""
    return match[1] or match[2] or match[3] or match[4]


@dataclass(frozen=True, slots=True)
class SQLText:
    """SQL as the user wrote it; names in it are attributes.

    Scalars of NumPy in the form of their `repr`, as from ``f"n in {tuple(array)}"``, are converted
    to plain values.

    Examples
    --------
    >>> SQLText("n in (np.int64(1), np.int64(2)) and word = np.str_('a')").text
    "n in (1, 2) and word = 'a'"
    """

    text: str

    def __post_init__(self) -> None:
        if "np." in self.text:
            object.__setattr__(self, "text", _SCALAR.sub(_plain, self.text))


@dataclass(frozen=True, slots=True)
class JSONPath:
    """A value inside an attribute of JSON.

    Attributes
    ----------
    path
        The path in SQL's syntax: ``$.device.channels[0]``.
    returning
        The SQL type to convert the value to; None for text.
    """

    name: str
    path: str
    returning: str | None = None


Computed = str | SQLText | JSONPath
"""The source of an attribute of a query: another attribute's name, or a computed value."""


@dataclass(frozen=True, slots=True)
class Equals:
    """An attribute has a value; None means "is null"."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class JSONEquals:
    """A value inside an attribute of JSON equals a value; None means "is null or missing"."""

    path: JSONPath
    value: Value


@dataclass(frozen=True, slots=True, eq=False)
class In:
    """The attributes together have one of many values."""

    names: tuple[str, ...]
    values: tuple[Values, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """A row of the query agrees on these names; without names, the query has any row."""

    names: tuple[str, ...]
    query: Node


@dataclass(frozen=True, slots=True, eq=False)
class PassedOver:
    """A restriction that holds for every row because it does not name an attribute.

    Attributes
    ----------
    names
        The names in the restriction; empty if it was empty.
    known
        The attributes of the heading.
    """

    names: tuple[str, ...]
    known: tuple[str, ...]


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


Condition = SQLText | Equals | JSONEquals | In | Matches | PassedOver | All | AnyOf | Negated
ALWAYS = All(())
NEVER = AnyOf(())


def keeps_all(condition: Condition) -> bool:
    """Whether a condition holds for every row, such as an empty key or names that are missing."""
    match condition:
        case PassedOver():
            return True
        case All(conditions):
            return all(map(keeps_all, conditions))
        case _:
            return False
