"""What connections to SQLite know beside SQLite's own functions.

MySQL's expressions are run by ``dj_mysql``; see `dj_dagster.relational.user_sql.translation`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, Protocol

from dj_dagster.errors import DataJointError, QueryError
from dj_dagster.relational.backends.sqlite_aggregates import AGGREGATES, placed, shown
from dj_dagster.relational.user_sql import json_functions
from dj_dagster.relational.user_sql.translation import evaluate

Function = Callable[..., Any]

_failure = threading.local()


class Registry(Protocol):
    """Python's connection to SQLite, as far as it matters here."""

    def create_function(
        self, name: str, narg: int, func: Function, *, deterministic: bool = False
    ) -> None:
        """Make a function known to SQL."""
        ...

    def create_aggregate(self, name: str, n_arg: int, aggregate_class: Any) -> None:
        """Make an aggregate known to SQL."""
        ...


def register(connection: Registry) -> None:
    """Make the functions known to a connection."""
    connection.create_function("dj_mysql", -1, _told(evaluate), deterministic=True)
    # What gives another value each time.
    connection.create_function("dj_mysql_now", -1, _told(evaluate))
    # Of two arguments, as the one of SQLAlchemy, which heeds case.
    connection.create_function("regexp", 2, _regexp, deterministic=True)
    connection.create_function("dj_shown", 2, shown, deterministic=True)
    connection.create_function("dj_order", 2, placed, deterministic=True)
    connection.create_function("dj_json_value", 2, _json_value, deterministic=True)
    connection.create_function("dj_json_is", 3, _json_is, deterministic=True)
    for name, (count, aggregate) in AGGREGATES.items():
        connection.create_aggregate(name, count, aggregate)


def failure() -> DataJointError | None:
    """Return the error of a function that failed last in this thread, once.

    SQLite itself only tells that there was one.
    """
    error = getattr(_failure, "error", None)
    _failure.error = None
    return error


def _told(function: Function) -> Function:
    @wraps(function)
    def called(source: str, *arguments: Any) -> Any:
        try:
            return function(source, *arguments)
        except DataJointError as error:
            _failure.error = error
            raise
        except Exception as error:
            message = f"SQLite cannot do {source!r} with a value that it met: {error}"
            _failure.error = QueryError(message)
            raise

    return called


def _regexp(pattern: str | None, text: Any) -> bool | None:
    if pattern is None or text is None:
        return None
    return re.search(pattern, str(text), re.IGNORECASE) is not None


_loaded = lru_cache(maxsize=1000)(json.loads)


def _json_value(text: str | None, path: str) -> Any:
    """Return a single value at a path, null for arrays and objects."""
    value = json_functions.at(text, path)
    too_long = isinstance(value, int) and abs(value) >= 2**63
    return None if isinstance(value, list | dict) else str(value) if too_long else value


def _json_is(text: str | None, path: str, wanted: str) -> bool:
    return _is_same(json_functions.at(text, path), _loaded(wanted))


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are equal; to Python true is 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[k], other[k]) for k in one)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(one, bool) is isinstance(other, bool) and one == other
