"""The hidden tables ``~external_<store>``, in which DataJoint 0.14 tracks objects in stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.model.heading import Attribute, Value
from dj_dagster.model.names import TableName
from dj_dagster.model.types import parse_type
from dj_dagster.objects.external_pointer import ExternalObject
from dj_dagster.relational.database.catalog import EXTERNAL_PREFIX
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.sessions import EncodedRows

_COLUMNS = ("hash", "size", "attachment_name", "filepath", "contents_hash")
_CHUNK = 10_000
_UUID = parse_type("uuid")


def followed(
    connection: Connection, attribute: Attribute, values: Sequence[UUID | None]
) -> list[ExternalObject | UUID | None]:
    """Return the objects that a column's values point to; see `external_objects`.

    A hash without a known object is returned as it is.
    """
    schema = attribute.table.partition(".")[0]
    store = attribute.type.store if attribute.type else None
    hashes = {digest for digest in values if digest is not None}
    objects = external_objects(connection, schema, str(store), hashes)
    return [None if digest is None else objects.get(digest, digest) for digest in values]


def external_objects(
    connection: Connection, schema: str, store: str, hashes: Iterable[UUID]
) -> dict[UUID, ExternalObject]:
    """Look up objects by their hashes, in one query (for each ten thousand of them).

    Hashes without an object are left out of the result.
    """
    wanted = list(dict.fromkeys(hashes))
    found: dict[UUID, ExternalObject] = {}
    for start in range(0, len(wanted), _CHUNK):
        for row in _rows(connection, schema, store, wanted[start : start + _CHUNK]):
            one = _object(connection, store, row)
            found[one.hash] = one
    return found


def tracking_rows(
    connection: Connection, schema: str, objects: Iterable[ExternalObject]
) -> tuple[EncodedRows, ...]:
    """Return the rows for hidden tables that track objects; existing rows are not replaced."""
    encode = connection.backend.encoder(_UUID) or (lambda value: value)
    by_store: dict[str, dict[UUID, ExternalObject]] = {}
    for one in objects:
        by_store.setdefault(one.store, {})[one.hash] = one
    found: list[EncodedRows] = []
    for store, given in by_store.items():
        rows = [
            (
                encode(one.hash),
                one.size,
                one.attachment_name,
                one.filepath,
                None if one.contents_hash is None else encode(one.contents_hash),
            )
            for one in given.values()
        ]
        name = TableName(schema, f"{EXTERNAL_PREFIX}{store}")
        values = tuple(zip(*rows, strict=True))
        found.append(EncodedRows(name, _COLUMNS, values, len(rows), ("hash",), "skip"))
    return tuple(found)


def all_external_objects(
    session: SAConnection, connection: Connection, schema: str, store: str
) -> Iterator[ExternalObject]:
    """Yield all objects of a hidden table, as a session sees them."""
    rows = session.execute(sa.select(*_table(connection, schema, store).c))
    return (_object(connection, store, row) for row in rows)


def _object(connection: Connection, store: str, row: Sequence[Value]) -> ExternalObject:
    digest, size, name, path, contents = row
    return ExternalObject(
        store,
        _uuid(connection, digest),
        int(size),
        name,
        path,
        None if contents is None else _uuid(connection, contents),
    )


def _table(connection: Connection, schema: str, store: str) -> sa.TableClause:
    name = TableName(schema, f"{EXTERNAL_PREFIX}{store}")
    return connection.backend.sql_table(name, *map(sa.column, _COLUMNS))


def _rows(
    connection: Connection, schema: str, store: str, hashes: list[UUID]
) -> Sequence[Sequence[Value]]:
    table = _table(connection, schema, store)
    encode = connection.backend.encoder(_UUID) or (lambda value: value)
    among = connection.backend.is_among([table.c.hash], [(encode(digest),) for digest in hashes])
    return connection.rows(sa.select(*table.c).where(among))


def _uuid(connection: Connection, value: Value) -> UUID:
    decode = connection.backend.decoder(_UUID)
    return decode(value) if decode is not None else UUID(value)
