"""Looking at a table again when it lacks a name: another process may have altered it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

from dj_dagster.errors import UnknownAttributeError
from dj_dagster.model.names import TableName
from dj_dagster.relational.algebra.algebra import Node
from dj_dagster.relational.database.catalog import Catalog
from dj_dagster.relational.database.connection import Connection

F = TypeVar("F", bound=Callable[..., Any])


class _Query(Protocol):
    @property
    def connection(self) -> Connection: ...

    @property
    def node(self) -> Node: ...


def looks_again(method: F) -> F:
    """Have the tables of a query read anew after a method found that they lack a name.

    The call fails nevertheless, for its rows may be used up; the error says whether to try again.
    """

    @wraps(method)
    def looking(query: _Query, *args: Any, **options: Any) -> Any:
        try:
            return method(query, *args, **options)
        except UnknownAttributeError as error:
            if _have_changed(query):
                error.add_note("The table has been changed meanwhile: try again.")
            raise

    return cast(F, looking)


def _have_changed(query: _Query) -> bool:
    catalog, tables = query.connection.catalog, query.node.tables
    before = [_names(catalog, name) for name in tables]
    for schema in {name.schema for name in tables}:
        catalog.forget(schema)
    return before != [_names(catalog, name) for name in tables]


def _names(catalog: Catalog, name: TableName) -> list[str]:
    stored = catalog.find(name)
    return stored.heading.names if stored else []
