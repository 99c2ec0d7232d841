"""SQL as a text with its values written into it, as people and old programs want it."""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler


def with_literals(sql: sa.ClauseElement, dialect: sa.Dialect) -> str:
    """Return the text of SQL in which values are literals.

    Raises
    ------
    sqlalchemy.exc.CompileError
        If a value has no literal.
    """
    compiler = _compiler(dialect.statement_compiler)
    text = str(compiler(dialect, sql, compile_kwargs={"literal_binds": True}))
    return text.replace("%%", "%") if dialect.paramstyle == "format" else text


@cache
def _compiler(usual: type[SQLCompiler]) -> type[SQLCompiler]:
    """Return a compiler that writes bytes too, which SQLAlchemy takes for text."""

    def render_literal_value(self: Any, value: Any, type_: Any) -> str:
        if isinstance(value, bytes):
            return f"X'{value.hex()}'"
        return usual.render_literal_value(self, value, type_)

    return type("Literals", (usual,), {"render_literal_value": render_literal_value})
