"""SQL put together from given text and columns, as SQLAlchemy elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal

Element = sa.ColumnElement[Any]


class Pieces(sa.ColumnElement[Any]):
    """Pieces of SQL, one after the other, in parentheses.

    Parameters
    ----------
    pieces
        Text as it is, and columns.
    """

    inherit_cache = True
    _traverse_internals: ClassVar[Any] = [("pieces", InternalTraversal.dp_clauseelement_list)]

    def __init__(self, pieces: Sequence[str | Element]) -> None:
        self.pieces = [
            sa.literal_column(piece) if isinstance(piece, str) else piece for piece in pieces
        ]


class LongPieces(Pieces):
    """Pieces too long to be kept in SQLAlchemy's cache of statements."""

    inherit_cache = False


@compiles(Pieces)
def _compiled(element: Pieces, compiler: SQLCompiler, **options: Any) -> str:
    # What the pieces give is no column of the result, only all of them together are.
    options.pop("add_to_result_map", None)
    return f"({''.join(compiler.process(piece, **options) for piece in element.pieces)})"
