"""Values inside JSON on MySQL, which has a type for it, and on MariaDB, which keeps its text."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal

from dj_dagster.relational.sql_elements import Element, Pieces


class _EachInItsWords(sa.ColumnElement[Any]):
    """SQL that MySQL and MariaDB spell differently; which it is for is known to the connection."""

    inherit_cache = True
    _traverse_internals: ClassVar[Any] = [
        ("mysql", InternalTraversal.dp_clauseelement),
        ("mariadb", InternalTraversal.dp_clauseelement),
    ]

    def __init__(self, mysql: Element, mariadb: Element) -> None:
        self.mysql = mysql
        self.mariadb = mariadb


@compiles(_EachInItsWords)
def _compiled(element: _EachInItsWords, compiler: SQLCompiler, **options: Any) -> str:
    options.pop("add_to_result_map", None)
    is_mariadb = getattr(compiler.dialect, "is_mariadb", False)
    return f"({compiler.process(element.mariadb if is_mariadb else element.mysql, **options)})"


def json_at(function: str, column: Element, path: str) -> Element:
    """Return what a function such as ``json_extract`` gives for a path."""
    call = getattr(sa.func, function)
    # MariaDB compares keys as they are written, which may be with escapes.
    spellings = dict.fromkeys((path, _escaped(path)))
    if len(spellings) == 1 and "[last]" not in path:
        return call(column, path)
    found = [call(column, _read_anew(column, spelling)) for spelling in spellings]
    return _EachInItsWords(call(column, path), sa.func.coalesce(*found, sa.null()))


def _read_anew(column: Element, path: str) -> Element:
    """Return a path that differs for each row, to MariaDB's mind.

    Otherwise it takes ``[last]`` in all rows for the position that it is in the first.
    """
    given = sa.literal(path)
    return sa.func.concat(given, sa.func.left(column, 0)) if "[last]" in path else given


def json_is(column: Element, path: str, value: str) -> Element:
    """Return the condition that the value at a path is the given one."""
    found, wanted = json_at("json_extract", column, path), json.loads(value)
    if wanted is None:
        return sa.or_(found.is_(None), sa.func.json_type(found) == "NULL")
    as_json = Pieces(["CAST", Pieces([sa.literal(value), " AS JSON"])])
    return _EachInItsWords(found == as_json, _is_in_mariadb(column, path, value, wanted))


def _is_in_mariadb(column: Element, path: str, value: str, wanted: Any) -> Element:
    found = json_at("json_extract", column, path)
    if isinstance(wanted, str):
        # Decoded, as a text can be written in several ways.
        text = _binary(json_at("json_value", column, path)) == _binary(sa.literal(wanted))
        return sa.and_(sa.func.json_type(found) == "STRING", text)
    ways = dict.fromkeys((value, _escaped(value)))
    return sa.or_(*[sa.func.json_equals(found, way) == 1 for way in ways])


def _binary(text: Element) -> Element:
    return Pieces(["CAST", Pieces([text, " AS BINARY"])])


def _escaped(text: str) -> str:
    """Return JSON or a path with all characters beyond ASCII as escapes, as Python writes them."""
    return "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
