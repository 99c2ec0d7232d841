"""From what users write after ``&`` and ``-`` to conditions."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Heading
from dj_dagster.relational.algebra import (
    ALWAYS,
    NEVER,
    All,
    AnyOf,
    Condition,
    Equals,
    In,
    Matches,
    Negated,
    Node,
    SQLText,
    shared_names,
)


@runtime_checkable
class HasNode(Protocol):
    """A query expression, or a table."""

    @property
    def node(self) -> Node:
        """The query as plain data."""
        ...


class AndList(list[Any]):
    """Conditions that must all hold; a plain list is one in which any may hold.

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
        Anything that may stand after ``&``.
    """

    def __init__(self, restriction: Any) -> None:
        self.restriction = restriction


def make_condition(operand: Any, heading: Heading) -> Condition:
    """Return the condition that a restriction means for a heading.

    Parameters
    ----------
    operand
        A mapping (equality on the names that the heading has), a string of SQL, a query or table
        (agreement on all shared names), a list, tuple, set, generator or DataFrame (any of them),
        an `AndList` (all of them), a `Not`, or a boolean.

    Raises
    ------
    QueryError
        If the operand is none of these, or a query's shared names mean different things.
    """
    match operand:
        case bool() | np.bool():
            return ALWAYS if operand else NEVER
        case str():
            return SQLText(operand)
        case Not():
            return Negated(make_condition(operand.restriction, heading))
        case AndList():
            return All(tuple(make_condition(item, heading) for item in operand))
        case Mapping():
            return _equalities(operand, heading)
        case np.void():
            return _equalities(as_mapping(operand), heading)
        case pd.DataFrame():
            return _frame(operand, heading)
        case HasNode():
            return Matches(shared_names(heading, query_node(operand).heading), operand.node)
        case Iterable() if not inspect.isclass(operand):
            return _any_of(list(operand), heading)
        case _:
            raise QueryError(
                f"A query cannot be restricted by {operand!r} ({type(operand).__name__}). "
                "Use a dict, a string of SQL, a query, or a list of these."
            )


def query_node(operand: Any) -> Node:
    """Return the tree of a query.

    Raises
    ------
    QueryError
        If it is a table class that no schema has declared.
    """
    if isinstance(operand.node, Node):
        return operand.node
    raise QueryError(f"{operand!r} belongs to no schema yet: decorate it with its schema first.")


def as_mapping(record: np.void) -> dict[str, Any]:
    """Return a numpy record as a dict."""
    return {name: record[name] for name in record.dtype.names or ()}


def _equalities(values: Mapping[Any, Any], heading: Heading) -> Condition:
    known = [(name, value) for name, value in values.items() if name in heading]
    return All(tuple(Equals(name, value) for name, value in known))


def _frame(frame: pd.DataFrame, heading: Heading) -> Condition:
    named = [name for name in frame.index.names if name is not None]
    return _any_of((frame.reset_index() if named else frame).to_dict("records"), heading)


def _any_of(items: list[Any], heading: Heading) -> Condition:
    """Keys with the same names become one IN, everything else an OR."""
    groups: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    others: list[Condition] = []
    for item in items:
        item = as_mapping(item) if isinstance(item, np.void) else item
        names = _key_names(item, heading)
        if names:
            groups.setdefault(names, []).append(tuple(item[name] for name in names))
        else:
            others.append(make_condition(item, heading))
    keys = [In(names, tuple(dict.fromkeys(rows))) for names, rows in groups.items()]
    return AnyOf((*keys, *others))


def _key_names(item: Any, heading: Heading) -> tuple[str, ...]:
    """Return the names by which a mapping can join an IN: none where a value is null."""
    if not isinstance(item, Mapping):
        return ()
    names = tuple(name for name in heading.names if name in item)
    plain = all(item[name] is not None and isinstance(item[name], Hashable) for name in names)
    return names if plain else ()
