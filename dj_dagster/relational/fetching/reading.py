"""Running queries: SQL is made once for all queries of one shape, and kept by the connection."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dj_dagster.errors import QuerySyntaxError
from dj_dagster.relational.algebra.algebra import Node
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.driver import Tuples, fetch_select
from dj_dagster.relational.database.write import flush_before_reading
from dj_dagster.relational.fetching.decode import RowDecoder
from dj_dagster.relational.fetching.shape import shape_of
from dj_dagster.relational.sql.user_texts import user_texts


@dataclass(frozen=True, slots=True)
class Reading:
    """A SELECT, and what decodes its rows: None for values that are Python's own already."""

    select: sa.Select[Any]
    decoder: RowDecoder | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """The SQL of a shape of query; its parameters are the query's values, then `tail`.

    Attributes
    ----------
    decoder
        None where codecs take part, too: they can be registered anew.
    """

    sql: str
    tail: tuple[Any, ...]
    decoder: RowDecoder | None


def read(
    connection: Connection, node: Node, what: Hashable, make: Callable[[], Reading]
) -> tuple[Tuples, RowDecoder | None]:
    """Return rows as the driver gives them, and the decoder that fits if it is known.

    Parameters
    ----------
    what
        All that the SELECT depends on besides the query itself.
    make
        Returns the SELECT; not called for a shape and `what` that are known.

    Raises
    ------
    QuerySyntaxError
        If SQL of the user cannot be parsed; it is shown.
    """
    try:
        return _read(connection, node, what, make)
    except QuerySyntaxError as error:
        written = ", ".join(map(repr, user_texts(node)))
        raise QuerySyntaxError(f"{error}. Look at {written}." if written else str(error)) from error


def _read(
    connection: Connection, node: Node, what: Hashable, make: Callable[[], Reading]
) -> tuple[Tuples, RowDecoder | None]:
    flush_before_reading(connection, node.tables)
    shape = shape_of(node, connection.backend)
    if shape is None:
        return _run(connection, make())
    place, values = (shape[0], what), shape[1]
    compiled: Compiled | None = connection.statements.get(place)
    if compiled is None:
        reading = make()
        compiled = _compile(connection, reading, values)
        if compiled is None:
            return _run(connection, reading)
        connection.statements.put(place, compiled)
    return connection.tuples(compiled.sql, (*values, *compiled.tail)), compiled.decoder


def _run(connection: Connection, reading: Reading) -> tuple[Tuples, RowDecoder | None]:
    rows = connection.read(lambda session: fetch_select(session, reading.select))
    return rows, reading.decoder


def _compile(connection: Connection, reading: Reading, values: Sequence[Any]) -> Compiled | None:
    """Return a statement for all values, None if its parameters are not the expected ones."""
    compiled = reading.select.compile(dialect=connection.engine.dialect)
    names = compiled.positiontup or []
    given = [compiled.params[name] for name in names]
    # SQLAlchemy's names for the parameters of LIMIT and OFFSET.
    counted = all(name.startswith("param_") for name in names[len(values) :])
    if given[: len(values)] != list(values) or not counted:
        return None
    decoder = reading.decoder
    kept = None if decoder is not None and decoder.unpacks else decoder
    return Compiled(compiled.string, tuple(given[len(values) :]), kept)
