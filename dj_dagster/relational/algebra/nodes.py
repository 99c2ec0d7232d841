"""Queries as plain data: a tree of nodes, each with the heading of its result; paths into JSON.

`dj_dagster.relational.sql.lowering` translates trees to SQL. The modules `operators` and
`condition` beside this file build them.
"""

from __future__ import annotations

import json
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
class Written(Node):
    """Rows that the query itself holds, in the order of the heading, as the database stores them.

    Only SQLite has such queries.
    """

    rows: tuple[Values, ...]


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
class Now:
    """The database's time, which all its clients share."""


@dataclass(frozen=True, slots=True)
class Between:
    """The value of an attribute lies between two bounds, ends included; None leaves a side open."""

    name: str
    low: Value | Now
    high: Value | Now


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


Condition = (
    SQLText | Equals | Between | JSONEquals | In | Matches | PassedOver | All | AnyOf | Negated
)
ALWAYS = All(())
NEVER = AnyOf(())


_QUOTED = r'"(?:[^"\\]|\\.)*"'
_INDEX = r"\[(?:[0-9]+|last)\]"
_TYPE = r"(?:\s*:\s*(?P<type>[A-Za-z][\w ]*(?:\(\s*\d+\s*(?:,\s*\d+\s*)?\))?))?"
_WORD = r"[^\W\d]\w*"
_LOOSE = r'[^\s.\[\]:"*](?:[^.\[\]:"]*[^\s.\[\]:"])?'


def _path(key: str) -> re.Pattern[str]:
    steps = rf"(?:\.(?:{key}|{_QUOTED})|{_INDEX})+"
    return re.compile(rf"(?P<name>[A-Za-z_]\w*)(?P<path>{steps}){_TYPE}", re.DOTALL)


_IN_SQL, _ALONE = _path(_WORD), _path(_LOOSE)
_STEP = re.compile(rf"\.({_QUOTED})|\.({_LOOSE})|\[([0-9]+|last)\]", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def parse_json_path(text: str, *, alone: bool = False) -> JSONPath | None:
    """Return the path that a text expresses, None if it is not a path.

    Parameters
    ----------
    alone
        Whether the text can only be a path, so that keys may contain dashes, blanks and other
        signs. In SQL, where ``info.a - b`` is a difference, such a key is put in double quotes. In
        quotes a key may have any characters, with a backslash before quotes and backslashes.

    Examples
    --------
    >>> parse_json_path("settings.channels[0].gain:float")
    JSONPath(name='settings', path='$.channels[0].gain', returning='float')
    >>> parse_json_path("settings.f-stop", alone=True).path
    '$."f-stop"'
    >>> parse_json_path("a + b")
    """
    match = (_ALONE if alone else _IN_SQL).fullmatch(text.strip())
    if match is None:
        return None
    try:
        spelled = "".join(_spelled(step) for step in json_steps(match["path"]))
    except ValueError:
        return None
    kind = match["type"]
    return JSONPath(match["name"], f"${spelled}", kind.strip().lower() if kind else None)


def json_steps(path: str) -> tuple[str | int, ...]:
    """Return the keys and positions in a path; -1 is the last element.

    Raises
    ------
    ValueError
        If a key in quotes cannot be read.

    Examples
    --------
    >>> json_steps('$.device."f-stop"[0][last]')
    ('device', 'f-stop', 0, -1)
    """
    return tuple(_step(*match.groups()) for match in _STEP.finditer(path))


def _step(quoted: str | None, key: str | None, index: str | None) -> str | int:
    if index is not None:
        return -1 if index == "last" else int(index)
    name = str(key if quoted is None else json.loads(quoted, strict=False))
    name.encode()  # raises UnicodeError for half a surrogate pair, which no database takes
    return name


def _spelled(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{'last' if step < 0 else step}]"
    return f".{step if _PLAIN.fullmatch(step) else json.dumps(step, ensure_ascii=False)}"
