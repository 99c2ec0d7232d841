"""Tables in the layout of DataJoint 0.14, and its hidden tables of objects in stores.

==============================  =====================  =========================  ================
definition                      column                 comment                    foreign key
==============================  =====================  =========================  ================
native and core types           their own type         the user's                 none
``uuid``                        ``binary(16)``         ``:uuid:``                 none
``<blob>``, ``longblob``        ``longblob``           the user's                 none
other blobs                     their own type         the user's                 none
``<attach>``                    ``longblob``           ``:attach:``               none
``<blob@s>`` (attach, filepath) ``binary(16)``         ``:blob@s:``               ``~external_s``
``<adapter>``                   that of its type       ``:<adapter>:``            if that has one
==============================  =====================  =========================  ================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import DefinitionError
from dj_dagster.model.heading import Attribute, Value
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.objects.codecs.chain import CodecChain
from dj_dagster.objects.external_pointer import KINDS, ExternalObject
from dj_dagster.relational.database.catalog import EXTERNAL_PREFIX, split_comment
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.write_buffer import EncodedRows
from dj_dagster.relational.declaring.plan import PlannedColumn, PlannedTable
from dj_dagster.relational.stored import ForeignKey, RawTable

_CREATE = """
CREATE TABLE IF NOT EXISTS {table} (
    `hash` binary(16) NOT NULL COMMENT ':uuid:hash of contents (blob), of filename + contents (attach), or relative filepath (filepath)',
    `size` bigint unsigned NOT NULL COMMENT 'size of object in bytes',
    `attachment_name` varchar(255) DEFAULT NULL COMMENT 'the filename of an attachment',
    `filepath` varchar(1000) DEFAULT NULL COMMENT 'relative filepath or attachment filename',
    `contents_hash` binary(16) DEFAULT NULL COMMENT ':uuid:used for the filepath datatype',
    `timestamp` timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP COMMENT 'automatic timestamp',
    PRIMARY KEY (`hash`)
) ENGINE=InnoDB COMMENT 'external storage tracking'
"""  # noqa: E501 - as 0.14 writes it
_UUID = parse_type("uuid")
# MySQL's own type for bool.
_TRUTH = replace(parse_type("tinyint"), text="tinyint(1)")


def in_old_layout(connection: Connection, plan: PlannedTable) -> PlannedTable:
    """Return a planned table as DataJoint 0.14 would declare it.

    Raises
    ------
    DefinitionError
        If it has an attribute of a type that 0.14 cannot read.
    """
    columns: list[PlannedColumn] = []
    external: list[ForeignKey] = []
    for column in plan.columns:
        if column.declared is None:
            columns.append(column)
            continue
        found, store = _column(connection, plan.name, column, column.declared)
        columns.append(found)
        if store is not None:
            external.append(external_key(plan.name, column.name, store, nullable=column.nullable))
    return replace(plan, columns=tuple(columns), external=tuple(external), old=True)


def external_key(
    table: TableName, column: str, store: str, *, nullable: bool = False
) -> ForeignKey:
    """Return the foreign key by which a column points into the table of a store's objects."""
    parent = TableName(table.schema, f"{EXTERNAL_PREFIX}{store}")
    return ForeignKey(table, parent, {column: "hash"}, nullable=nullable)


def external_keys(raw: RawTable) -> list[ForeignKey]:
    """Return the foreign keys by which a table's columns point into stores."""
    return [external_key(raw.name, column, store) for column, store in raw.external.items()]


def ensure_external_tables(connection: Connection, plan: PlannedTable) -> None:
    """Create the missing tables of external objects that a planned table refers to."""
    for name in dict.fromkeys(key.parent for key in plan.external):
        ensure_external_table(connection, name)


def ensure_external_table(connection: Connection, name: TableName) -> None:
    """Create a table of external objects unless it exists."""
    if connection.catalog.raw(name) is None:
        quoted = connection.backend.full_name(name).replace("%", "%%")
        with connection.cursor() as session:
            session.exec_driver_sql(_CREATE.format(table=quoted))
        connection.catalog.forget(name.schema)


def _column(
    connection: Connection, table: TableName, column: PlannedColumn, kind: AttributeType
) -> tuple[PlannedColumn, str | None]:
    """Return a column in the layout of 0.14, and the store that it points into, if any."""
    comment = split_comment(column.comment)[1] if kind.core else column.comment
    if kind.family is Family.UUID:
        return column, None
    if kind.family is not Family.CODEC:
        if kind.family is Family.BYTES:
            raise _unknown(table, column.name, kind, "write longblob, in which bytes are packed")
        stored_as = _TRUTH if kind.family is Family.BOOL else column.stored_as
        return replace(column, stored_as=stored_as, comment=comment), None
    chain = connection.codecs.resolve(kind)
    if chain.store is None:
        if kind.codec == "blob":
            stored_as = replace(column.stored_as, text=kind.native or "longblob")
            return replace(column, stored_as=stored_as, comment=comment), None
        return replace(column, comment=f":{_spelled(kind)}:{comment}"), None
    if not any(codec.name in KINDS for codec in chain.codecs):
        raise _unknown(
            table, column.name, kind, "it has blob@store, attach@store and filepath@store"
        )
    store = _store(connection, chain)
    spelled = f"{kind.codec}@{store}" if kind.codec in KINDS else f"<{kind.codec}>"
    return replace(column, stored_as=_UUID, comment=f":{spelled}:{comment}"), store


def _store(connection: Connection, chain: CodecChain) -> str:
    return chain.store or connection.stores.resolve("", chain.codecs[-1].default_store)


def _spelled(kind: AttributeType) -> str:
    return "attach" if kind.codec == "attach" else f"<{kind.codec}>"


def _unknown(table: TableName, name: str, kind: AttributeType, advice: str) -> DefinitionError:
    return DefinitionError(
        f"{table}.{name} : {kind.text} cannot be declared, for the schema {table.schema} is one of "
        f"DataJoint 0.14, whose clients do not know that type: {advice}, declare the table in "
        f"another schema, or migrate this one with `dj-dagster migrate {table.schema}`."
    )


_COLUMNS = ("hash", "size", "attachment_name", "filepath", "contents_hash")
_CHUNK = 10_000


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
