"""Queries as texts of SQL with literal values, as DataJoint shows them to users and programs."""

from __future__ import annotations

from decimal import Decimal
from functools import cache

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler

from dj_dagster.model.heading import Heading, Value
from dj_dagster.relational.algebra import nodes
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.sql.select import Conditions, Lowered, bound


def with_literals(sql: sa.ClauseElement, dialect: sa.Dialect) -> str:
    """Return the text of SQL in which values are literals.

    Raises
    ------
    sqlalchemy.exc.CompileError
        If a value cannot be written as a literal.
    """
    compiler = _compiler(dialect.statement_compiler)
    text = str(compiler(dialect, sql, compile_kwargs={"literal_binds": True}))
    return text.replace("%%", "%") if dialect.paramstyle in ("format", "pyformat") else text


@cache
def _compiler(usual: type[SQLCompiler]) -> type[SQLCompiler]:
    """Return a compiler that also writes literals of bytes, which SQLAlchemy takes for text."""

    def render_literal_value(
        self: SQLCompiler, value: Value, type_: sa.types.TypeEngine[Value]
    ) -> str:
        if isinstance(value, bytes):
            return f"X'{value.hex()}'"
        return usual.render_literal_value(self, value, type_)

    return type("Literals", (usual,), {"render_literal_value": render_literal_value})


def condition_text(
    connection: Connection, condition: nodes.Condition, heading: Heading
) -> str | bool:
    """Return a condition as a text; True or False where it selects all rows or none."""
    spelling = _spelling(connection)
    over = Lowered(sa.table("t"), {name: sa.column(name) for name in heading.all_attributes})

    def spelled(part: nodes.Condition) -> str:
        match part:
            case nodes.SQLText(text):
                return f" ({text.strip()})"
            case nodes.Equals(name, value):
                known = None if value is None else bound([value], heading[name], connection.backend)
                return _equality(name, known[0] if known else None)
            case nodes.In():
                return spelled(_one_by_one(part))
            case nodes.All(parts) if parts:
                return f" ({')AND('.join(map(spelled, parts))})"
            case nodes.AnyOf(parts) if parts:
                return f" ({' OR '.join(map(spelled, parts))})"
            case nodes.Negated(inner) if not isinstance(inner, nodes.Matches):
                return opposite(inner)
            case _:
                where = spelling.where(part, over, heading)
                return with_literals(where, connection.engine.dialect)

    def opposite(part: nodes.Condition) -> str:
        match part:
            case nodes.Equals(_, None):
                return f"NOT ({spelled(part)})"
            case nodes.Equals(name, _):
                return f" (NOT ({spelled(part)}) OR `{name}` IS NULL)"
            case nodes.All(parts):
                return spelled(nodes.AnyOf(tuple(map(nodes.Negated, parts))))
            case nodes.AnyOf(parts):
                return spelled(nodes.All(tuple(map(nodes.Negated, parts))))
            case nodes.Negated(inner):
                return spelled(inner)
            case nodes.In():
                return opposite(_one_by_one(part))
            case _:
                # A comparison with null is unknown, which counts as false for the user.
                return f" ({spelled(part)} IS NOT TRUE)"

    if isinstance(condition, nodes.PassedOver) or condition in (nodes.ALWAYS, nodes.NEVER):
        return condition != nodes.NEVER
    return spelled(condition)


def names_in(connection: Connection, condition: nodes.Condition) -> frozenset[str]:
    """Return the names that a condition reads, and perhaps more words of its SQL."""
    return _spelling(connection).names(condition)


def restriction_texts(connection: Connection, node: nodes.Node) -> list[str]:
    """Return the restrictions of a query, one text each."""
    texts: list[str] = []
    while isinstance(node, nodes.Restricted):
        text = condition_text(connection, node.condition, node.heading)
        if text is not True:
            texts.insert(0, text or "FALSE")
        node = node.source
    return texts


def _spelling(connection: Connection) -> Conditions:
    lowering = Lowering(connection.backend)
    return Conditions(connection.backend, lambda node, names: lowering.lower(node))


def _one_by_one(condition: nodes.In) -> nodes.AnyOf:
    """Return the equalities that a list of values stands for."""
    rows = (tuple(map(nodes.Equals, condition.names, row)) for row in condition.values)
    return nodes.AnyOf(tuple(map(nodes.All, rows)))


def _equality(name: str, value: Value) -> str:
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
