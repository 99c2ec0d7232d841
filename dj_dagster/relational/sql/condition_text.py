"""Conditions as the texts of SQL that DataJoint makes of them, which programs look into."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from dj_dagster.model.heading import Heading
from dj_dagster.relational.algebra import algebra
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.sql.conditions import Conditions, bound
from dj_dagster.relational.sql.literals import with_literals
from dj_dagster.relational.sql.lowered import Lowered
from dj_dagster.relational.sql.lowering import Lowering


def condition_text(
    connection: Connection, condition: algebra.Condition, heading: Heading
) -> str | bool:
    """Return a condition as a text; True or False where it chooses all or nothing."""
    spelling = _spelling(connection)
    over = Lowered(sa.table("t"), {name: sa.column(name) for name in heading.all_attributes})

    def spelled(part: algebra.Condition) -> str:
        match part:
            case algebra.SQLText(text):
                return f" ({text.strip()})"
            case algebra.Equals(name, value):
                known = None if value is None else bound([value], heading[name], connection.backend)
                return _equality(name, known[0] if known else None)
            case algebra.In():
                return spelled(_one_by_one(part))
            case algebra.All(parts) if parts:
                return f" ({')AND('.join(map(spelled, parts))})"
            case algebra.AnyOf(parts) if parts:
                return f" ({' OR '.join(map(spelled, parts))})"
            case algebra.Negated(inner) if not isinstance(inner, algebra.Matches):
                return opposite(inner)
            case _:
                where = spelling.where(part, over, heading)
                return with_literals(where, connection.engine.dialect)

    def opposite(part: algebra.Condition) -> str:
        match part:
            case algebra.Equals(_, None):
                return f"NOT ({spelled(part)})"
            case algebra.Equals(name, _):
                return f" (NOT ({spelled(part)}) OR `{name}` IS NULL)"
            case algebra.All(parts):
                return spelled(algebra.AnyOf(tuple(map(algebra.Negated, parts))))
            case algebra.AnyOf(parts):
                return spelled(algebra.All(tuple(map(algebra.Negated, parts))))
            case algebra.Negated(inner):
                return spelled(inner)
            case algebra.In():
                return opposite(_one_by_one(part))
            case _:
                # A comparison with null is unknown, which for the user means that it fails.
                return f" ({spelled(part)} IS NOT TRUE)"

    if isinstance(condition, algebra.PassedOver) or condition in (algebra.ALWAYS, algebra.NEVER):
        return condition != algebra.NEVER
    return spelled(condition)


def names_in(connection: Connection, condition: algebra.Condition) -> frozenset[str]:
    """Return the names that a condition reads, and perhaps more words of its SQL."""
    return _spelling(connection).names(condition)


def restriction_texts(connection: Connection, node: algebra.Node) -> list[str]:
    """Return what restricts a query, one text for each restriction."""
    texts: list[str] = []
    while isinstance(node, algebra.Restricted):
        text = condition_text(connection, node.condition, node.heading)
        if text is not True:
            texts.insert(0, text or "FALSE")
        node = node.source
    return texts


def _spelling(connection: Connection) -> Conditions:
    lowering = Lowering(connection.backend)
    return Conditions(connection.backend, lambda node, names: lowering.lower(node))


def _one_by_one(condition: algebra.In) -> algebra.AnyOf:
    """Return the equalities that a list of values stands for."""
    rows = (tuple(map(algebra.Equals, condition.names, row)) for row in condition.values)
    return algebra.AnyOf(tuple(map(algebra.All, rows)))


def _equality(name: str, value: Any) -> str:
    match value:
        case None:
            return f"`{name}` IS NULL"
        case bytes():
            return f"`{name}`=X'{value.hex()}'"
        case int() | float() | Decimal():
            return f"`{name}`={value}"
        case _:
            text = str(value).replace("\\", "\\\\").replace('"', '\\"')
            return f'`{name}`="{text}"'
