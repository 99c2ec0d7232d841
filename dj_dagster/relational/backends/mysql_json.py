"""Paths and values in JSON columns on MySQL and MariaDB.

Where the two servers differ, both forms are built; the connection determines which is used.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Value
from dj_dagster.relational.algebra.nodes import json_steps
from dj_dagster.relational.backends.common import Element, Pieces


class _EachInItsWords(Element):
    """SQL that MySQL and MariaDB write differently; the connection determines the form."""

    inherit_cache = True
    _traverse_internals: ClassVar[Any] = [
        ("mysql", InternalTraversal.dp_clauseelement),
        ("mariadb", InternalTraversal.dp_clauseelement),
    ]

    def __init__(self, mysql: Element, mariadb: Element) -> None:
        self.mysql = mysql
        self.mariadb = mariadb


@compiles(_EachInItsWords)
def _compiled(element: _EachInItsWords, compiler: SQLCompiler, **options: object) -> str:
    options.pop("add_to_result_map", None)
    is_mariadb = getattr(compiler.dialect, "is_mariadb", False)
    return f"({compiler.process(element.mariadb if is_mariadb else element.mysql, **options)})"


class _NotInMariaDB(Element):
    inherit_cache = False


@compiles(_NotInMariaDB)
def _refused(*_: object, **options: object) -> str:
    raise QueryError(
        "MariaDB does not find keys of JSON that begin with '-': give the key another name."
    )


def json_at(function: str, column: Element, path: str) -> Element:
    """Return the result of a function such as ``json_extract`` for a path."""
    call = getattr(sa.func, function)
    if any(str(step).startswith("-") for step in json_steps(path) if step != -1):
        return _EachInItsWords(call(column, path), _NotInMariaDB())
    # MariaDB compares keys as they are written, possibly with escapes.
    spellings = dict.fromkeys((path, _escaped(path)))
    if len(spellings) == 1 and "[last]" not in path:
        return call(column, path)
    found = [call(column, _read_anew(column, spelling)) for spelling in spellings]
    return _EachInItsWords(call(column, path), sa.func.coalesce(*found, sa.null()))


def _read_anew(column: Element, path: str) -> Element:
    """Return a path that MariaDB takes to be different for each row.

    Otherwise it uses the position of ``[last]`` in the first row for all rows.
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


def _is_in_mariadb(column: Element, path: str, value: str, wanted: Value) -> Element:
    found = json_at("json_extract", column, path)
    if isinstance(wanted, str):
        # Compared after decoding, since a text can be written in several ways.
        text = _binary(json_at("json_value", column, path)) == _binary(sa.literal(wanted))
        return sa.and_(sa.func.json_type(found) == "STRING", text)
    ways = dict.fromkeys((value, _escaped(value)))
    return sa.or_(*[sa.func.json_equals(found, way) == 1 for way in ways])


def _binary(text: Element) -> Element:
    return Pieces(["CAST", Pieces([text, " AS BINARY"])])


def _escaped(text: str) -> str:
    """Return JSON or a path with all characters beyond ASCII as escapes, as Python writes them."""
    return "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
