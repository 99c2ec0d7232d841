"""The keys of a table a page at a time, so that a million of them are no single statement.

Each page is a query of its own that begins behind the last key of the one before: nothing is held
open meanwhile, neither a cursor nor a transaction. Rows that come or go behind the page are not
seen; who needs them looks at what has changed beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from dj_dagster.errors import InvalidValueError
from dj_dagster.relational.database.sessions import Tuples, fetch_select
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.fetching.decode import RowDecoder
from dj_dagster.relational.sql.lowered import NOT_COMPARABLE, beyond
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.table import Table

PAGE = 20_000
"""Rows of a page, at most."""

Rows = Sequence[Sequence[Any]]


def key_pages(table: Table, names: Sequence[str]) -> Iterator[Rows]:
    """Yield the values of attributes of the key that there are, each once.

    Parameters
    ----------
    names
        Attributes of the primary key. If the key begins with them, in any order, each page is read
        from its index.
    """
    heading, connection = table.heading, table.connection
    kinds = [heading[name].type for name in names]
    if any(kind is not None and kind.family in NOT_COMPARABLE for kind in kinds):
        yield from _whole(table, names)
        return
    decoder = RowDecoder(connection, heading, names)
    order = [names.index(name) for name in heading.primary_key if name in names]
    last: Sequence[Any] | None = None
    done = 0
    while True:
        try:
            page = _page(table, names, order, last)
        except InvalidValueError:
            # A text is none, and the driver gives no page that it is in.
            yield from _whole(table, names, [names[position] for position in order], done)
            return
        if page:
            # One that cannot be read is named by the check `readable`.
            rows = decoder.readable(page)[0]
            done += len(rows)
            yield rows
        if len(page) < PAGE:
            return
        last = page[-1]


def _whole(
    table: Table, names: Sequence[str], order: Sequence[str] | None = None, done: int = 0
) -> Iterator[Rows]:
    """Yield the same from one query, without the rows that were yielded before."""
    found = fetch.keys(table.connection, table.node, names, order)
    rows = list(dict.fromkeys(map(tuple, found)))
    yield from (rows[start : start + PAGE] for start in range(done, len(rows), PAGE))


def _page(
    table: Table, names: Sequence[str], order: Sequence[int], last: Sequence[Any] | None
) -> Tuples:
    """Return the first rows behind the last one, as the driver gives them."""
    backend = table.connection.backend
    lowered = Lowering(backend).lower(table.node)
    columns = [lowered.columns[name] for name in names]
    ordered = [columns[position] for position in order]
    select = sa.select(*columns).select_from(lowered.source).where(*lowered.where)
    if len(names) < len(table.primary_key):
        select = select.distinct()
    if last is not None:
        place = [last[position] for position in order]
        select = select.where(beyond(backend.name, ordered, place))
    select = select.order_by(*ordered).limit(PAGE)
    return table.connection.read(lambda session: fetch_select(session, select))
