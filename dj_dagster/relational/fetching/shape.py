"""What queries whose SQL differs in its values only have in common.

Only what is asked for again and again is recognised: a table restricted by values or SQL, with or
without a projection.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from dj_dagster.model.heading import Heading
from dj_dagster.relational.algebra.algebra import (
    All,
    Base,
    Condition,
    Equals,
    Node,
    Projected,
    Restricted,
    SQLText,
)
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.sql.conditions import bound


def shape_of(node: Node, backend: Backend) -> tuple[Hashable, list[Any]] | None:
    """Return the shape of a query and its values for the driver, in the order of its SQL.

    Headings stand in the shape as the objects they are, so that a table that was altered has
    another shape. None for a query that has to be lowered each time.

    Raises
    ------
    InvalidValueError
        If a value is of another kind than its attribute.
    """
    values: list[Any] = []
    shape = _node(node, backend, values)
    return None if shape is None else (shape, values)


def _node(node: Node, backend: Backend, values: list[Any]) -> Hashable | None:
    # The exact class: another kind of node may extend one of these.
    kind = type(node)
    if kind is Base:
        assert isinstance(node, Base)
        return (node.name, node.heading)
    if kind is Restricted:
        assert isinstance(node, Restricted)
        source = _node(node.source, backend, values)
        if source is None:
            return None
        condition = _condition(node.condition, node.source.heading, backend, values)
        return None if condition is None else (source, condition)
    if kind is Projected:
        assert isinstance(node, Projected)
        if not all(type(old) in (str, SQLText) for old in node.columns.values()):
            return None
        source = _node(node.source, backend, values)
        return None if source is None else (source, *node.columns.items())
    return None


def _condition(
    condition: Condition, heading: Heading, backend: Backend, values: list[Any]
) -> Hashable | None:
    if isinstance(condition, Equals):
        if condition.value is None:
            return (condition.name, None)
        values += bound([condition.value], heading[condition.name], backend)
        return condition.name
    if isinstance(condition, SQLText):
        return condition
    if isinstance(condition, All):
        parts = [_condition(part, heading, backend, values) for part in condition.conditions]
        return None if None in parts else tuple(parts)
    return None
