"""References of rows to objects, read from the columns as stored, and the owners of objects.

The rows of all schemas count, since a copied row may refer to an object of another schema, and so
do the columns of unknown codecs. JSON and text that look like a reference count too: a client that
copies, renames or alters a table may drop the comments that mark its references. Tables that the
user may not read are named, since servers hide them.

A database registers with a store before it writes its first object there, see
`dj_dagster.objects.collection`: once a process, store and schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import (
    ConfigurationError,
    DefinitionError,
    MissingTableError,
    ObjectError,
    QueryError,
    TransientError,
    UnknownAttributeError,
)
from dj_dagster.model.heading import Attribute, Value
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.objects.codecs.bytes import HashCodec
from dj_dagster.objects.codecs.chain import CodecChain
from dj_dagster.objects.codecs.codec import read_reference
from dj_dagster.objects.codecs.files import FilepathCodec
from dj_dagster.objects.collection import Registration, claim, register, registrations
from dj_dagster.objects.expected import Expected
from dj_dagster.objects.external_pointer import ExternalPointerCodec, ExternalPointerType
from dj_dagster.objects.stores.store import OWN_FOLDER, Store, checked_path
from dj_dagster.objects.stores.stores import Stores
from dj_dagster.relational.backends.common import Rights
from dj_dagster.relational.database.catalog import Catalog
from dj_dagster.relational.database.connection import Connection

_NAMELESS = "unknown"
"""The identity of databases whose users may not read their identity."""


def register_writer(connection: Connection, schema: str, chain: CodecChain) -> None:
    """Register the database with the store that a codec is about to write to.

    A store that takes objects but not records is written to nevertheless, but is not collected.

    Raises
    ------
    ObjectError
        If the store does not take a record, and other databases have left theirs.
    """
    codec = chain.codecs[-1]
    if chain.store is None or isinstance(codec, FilepathCodec | ExternalPointerCodec):
        return
    try:
        name = connection.stores.resolve(chain.store, codec.default_store)
    except ConfigurationError:
        # The codec raises this error with the place of the value.
        return
    if (name, schema) in connection.registered:
        return
    _register(connection, connection.stores.get(name), schema)
    connection.registered.add((name, schema))


def check_owner(connection: Connection, schema: str, store: Store) -> None:
    """Make sure that the objects of a schema belong to this database and to no other.

    Raises
    ------
    ObjectError
        If other databases use them, which the message names, or if their writer is not known.
    """
    identity = identity_of(connection, schema, create=False)
    found = registrations(store, schema)
    others = [one for one in found if one.identity != identity]
    where = f"Nothing was deleted: the objects of schema {schema} in store '{store.name}'"
    remedy = (
        f"say so once by `dj-dagster gc {schema} --store {store.name} --claim`, or by "
        "GarbageCollector.claim()."
    )
    if others and identity is None:
        raise ObjectError(
            f"{where} belong to {'; '.join(map(str, others))}. Whether that is {connection.url} "
            f"cannot be told: `{schema}`.`~identity` is not there, or may not be read. If it "
            f"is, {remedy}"
        )
    if others:
        raise ObjectError(
            f"{where} are used by other databases as well, whose rows are not seen from "
            f"{connection.url}: {'; '.join(map(str, others))}. If they are gone, or have been "
            f"moved here, {remedy}"
        )
    if not found:
        raise ObjectError(
            f"{where} were written by programs that did not register: DataJoint, or an earlier "
            f"version. If only rows of {connection.url} refer to them, {remedy}"
        )
    if any(one.found_objects for one in found):
        raise ObjectError(
            f"{where} were there, in part, before any database had registered: DataJoint, or an "
            f"earlier version, wrote them. If only rows of {connection.url} refer to them, {remedy}"
        )


def claim_schema(connection: Connection, schema: str, store: Store) -> list[Registration]:
    """Make this database the only owner of a schema's objects; return the former owners."""
    identity = identity_of(connection, schema, create=True) or _NAMELESS
    return claim(store, schema, identity, connection.url)


def identity_of(connection: Connection, schema: str, *, create: bool) -> str | None:
    """Return the identity of the database that a schema is in; see `Backend.identity`."""
    backend = connection.backend
    # Creating a table on MySQL would commit the transaction; SQLite allows only one writer.
    apart = connection.session_apart if not backend.rolls_back_ddl else connection.cursor
    with apart() as session:
        return backend.identity(session, schema, create=create)


def _register(connection: Connection, store: Store, schema: str) -> None:
    identity = identity_of(connection, schema, create=True)
    try:
        if identity is None and registrations(store, schema):
            # This database is one of the registered ones, but the user may not read its identity.
            return
        register(store, schema, identity or _NAMELESS, connection.url)
    except (ConfigurationError, ObjectError) as error:
        if others := _others(store, schema, identity):
            raise ObjectError(
                f"Store '{store.name}' takes no record of {connection.url}, without which the "
                f"collectors of {'; '.join(map(str, others))} would remove what is written here: "
                f"allow writing to {store.url(OWN_FOLDER)}."
            ) from error


def _others(store: Store, schema: str, identity: str | None) -> list[Registration]:
    try:
        return [one for one in registrations(store, schema) if one.identity != identity]
    except (ConfigurationError, ObjectError):
        return []


_ROWS_AT_ONCE = 5000

_TRIES = 5
"""Number of attempts to read the rows while tables are declared or dropped meanwhile."""

Reference = tuple[str, str | None]
"""The path of an object and the name of its store, None for the default one."""

Read = Callable[[Value], Iterable[Reference]]
Describe = Callable[[str, Value], Expected | None]
Belongs = Callable[[str | None], bool]


@dataclass(frozen=True)
class ReferenceColumn:
    """A column that may hold references.

    Attributes
    ----------
    read
        Returns the references in a value.
    store
        The store that it was declared for, "" for the default store, None if that is not known.
    declared
        Whether the database marks it as holding references. A column that is not marked holds them
        only if a client has copied or altered a table without its comments.
    describe
        Returns what a value says of the object at a path, None for values of other shapes.
    """

    table: TableName
    name: str
    read: Read
    store: str | None
    declared: bool = True
    describe: Describe = lambda _path, _value: None

    @property
    def place(self) -> str:
        """The schema, table and attribute of the column."""
        return f"{self.table}.{self.name}"

    def concerns(self, belongs: Belongs) -> bool:
        """Whether it is declared and its values may refer to a store."""
        return self.declared and (self.store is None or belongs(self.store))


@dataclass
class Marks:
    """The objects in one store that the rows of a database refer to.

    Attributes
    ----------
    elsewhere
        Those of the paths that rows refer to only in stores that are not set up here, and these.
    unreadable
        Columns with values whose references are unknown, each with one such value and its error.
    unseen
        Tables and schemas that the user may not read although they may refer to the store.
    """

    paths: set[str] = field(default_factory=set[str])
    elsewhere: dict[str, str] = field(default_factory=dict[str, str])
    unreadable: dict[str, str] = field(default_factory=dict[str, str])
    unseen: list[str] = field(default_factory=list[str])


def marks(connection: Connection, store: Store) -> Marks:
    """Read all references to the objects of a store.

    Raises
    ------
    QueryError
        In a transaction, which may see an old state of the rows.
    TransientError
        If tables are declared or dropped during each attempt.
    """
    if connection.holds_transaction:
        raise QueryError("Garbage is collected outside of transactions: leave this one first.")
    belongs = belonging(connection.stores, store)
    columns = _all_columns(connection)
    for _ in range(_TRIES):
        found = None
        with suppress(MissingTableError, UnknownAttributeError):
            found = _marks(connection, columns, belongs)
        before, columns = columns, _all_columns(connection)
        # A table that was declared meanwhile may have taken over references from another.
        same = [column.place for column in before] == [column.place for column in columns]
        if found is not None and same:
            found.unseen += _hidden(connection)
            return found
    raise TransientError(
        "Nothing was deleted, as tables were declared, altered or dropped all the time while their "
        "rows were read: try again when that is over."
    )


def _marks(connection: Connection, columns: Iterable[ReferenceColumn], belongs: Belongs) -> Marks:
    found = Marks()
    rights = _rights(connection)
    with snapshot(connection) as session:
        for column in columns:
            if rights.reads(column.table):
                for value in _values(session, connection, column):
                    _mark(found, column, value, belongs, connection.stores)
            elif column.concerns(belongs) and str(column.table) not in found.unseen:
                found.unseen.append(str(column.table))
    return found


def _mark(
    found: Marks, column: ReferenceColumn, value: Value, belongs: Belongs, stores: Stores
) -> None:
    try:
        references = [(checked_path(path), name) for path, name in column.read(value)]
    except Exception as error:
        # A third party's codec may raise any error.
        if column.concerns(belongs):
            found.unreadable.setdefault(column.place, f"{value!r:.100} ({error})")
        return
    # The declared store is not used: it may have changed since the row was inserted.
    for path, name in references:
        if not belongs(name):
            continue
        if name is None or name in stores:
            found.elsewhere.pop(path, None)
        elif path not in found.paths:
            found.elsewhere[path] = name
        found.paths.add(path)


def _hidden(connection: Connection) -> Iterator[str]:
    """Yield descriptions of tables and schemas whose existence may be hidden from the user."""
    rights = _rights(connection)
    for schema in sorted({*connection.schema_names(), *rights.revoked}):
        if not rights.shows_tables(schema):
            yield f"tables of {schema}"
    if not rights.shows_schemas:
        yield "schemas that are not shown to this user"


def _rights(connection: Connection) -> Rights:
    with connection.cursor() as session:
        return connection.backend.rights(session)


def reference_columns(connection: Connection) -> list[ReferenceColumn]:
    """Return the columns that were declared to hold references."""
    return [column for column in _all_columns(connection) if column.declared]


def _all_columns(connection: Connection) -> list[ReferenceColumn]:
    # A new catalog, since another process may have declared tables that are not in ours.
    catalog = Catalog(connection.backend, connection.cursor)
    return [
        column
        for schema in connection.schema_names()
        for name, stored in catalog.tables(schema).items()
        for attribute in stored.heading.all_attributes.values()
        if (column := _column(name, attribute, connection)) is not None
    ]


def _column(
    table: TableName, attribute: Attribute, connection: Connection
) -> ReferenceColumn | None:
    kind = attribute.type
    if kind is not None and _may_be_json(kind):
        return ReferenceColumn(table, attribute.name, _any_paths, None, declared=False)
    # Objects of DataJoint 0.14 lie outside of the folders that are collected.
    if kind is None or kind.family is not Family.CODEC or isinstance(kind, ExternalPointerType):
        return None
    try:
        chain = connection.codecs.resolve(kind)
    except DefinitionError:
        return ReferenceColumn(table, attribute.name, _required(_any_paths, kind.store), kind.store)
    inner = chain.column_type
    if inner.family is not Family.JSON and chain.store is None:
        return None
    decode = connection.backend.decoder(inner) or (lambda value: value)
    read = _required(lambda value: _paths(chain, decode(value)), chain.store)
    is_hashed = isinstance(chain.codecs[-1], HashCodec)

    def describe(path: str, value: Value) -> Expected | None:
        with suppress(ObjectError):
            fields = read_reference(decode(value))
            if fields["path"] == path:
                return Expected.of(f"{table}.{attribute.name}", fields, is_hashed=is_hashed)
        return None

    return ReferenceColumn(table, attribute.name, read, chain.store, describe=describe)


def _may_be_json(kind: AttributeType) -> bool:
    """Whether a column without a codec can hold codecs' JSON: it is JSON or text of any length."""
    is_long = kind.family is Family.STRING and kind.size is None
    return is_long or kind.family is Family.JSON


def _paths(chain: CodecChain, stored: Value) -> list[Reference]:
    return [found for codec in chain.codecs for found in codec.referenced_paths(stored)]


def _any_paths(value: Value) -> list[Reference]:
    """Return the values named ``path`` in the JSON of an unknown codec, with their stores."""
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value)
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    return list(_nested(value))


def _nested(value: Value) -> Iterator[Reference]:
    if isinstance(value, Mapping):
        path, name = value.get("path"), value.get("store")
        if isinstance(path, str):
            yield path, name if isinstance(name, str) and name else None
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _nested(item)


def _required(read: Read, store: str | None) -> Read:
    """Refuse values of a codec with a store that do not refer to an object."""
    if store is None:
        return read

    def checked(value: Value) -> Iterable[Reference]:
        references = list(read(value))
        if not references:
            raise ObjectError("it names no object; its codec may need referenced_paths()")
        return references

    return checked


def belonging(stores: Stores, store: Store) -> Belongs:
    """Return a function that tests whether a reference by a store's name may mean this store."""

    def belongs(name: str | None) -> bool:
        name = name or stores.default
        if name is None or name not in stores:
            # It may be this store under a name from another machine's settings.
            return True
        return name == store.name or stores.get(name).url() == store.url()

    known: dict[str | None, bool] = {}

    def remembered(name: str | None) -> bool:
        if name not in known:
            known[name] = belongs(name)
        return known[name]

    return remembered


@contextmanager
def snapshot(connection: Connection) -> Generator[SAConnection]:
    """Give a connection that sees all tables as they were at one moment."""
    with connection.session_apart() as session:
        for statement in connection.backend.begin_snapshot:
            session.exec_driver_sql(statement)
        try:
            yield session
        finally:
            session.exec_driver_sql("ROLLBACK")


def _values(
    session: SAConnection, connection: Connection, column: ReferenceColumn
) -> Iterator[Value]:
    """Yield the values of a column that may hold references."""
    like = None if column.declared else '%"path"%'
    return column_values(session, connection, column.table, column.name, like)


def column_values(
    session: SAConnection,
    connection: Connection,
    table: TableName,
    name: str,
    like: str | None = None,
) -> Iterator[Value]:
    """Yield the values of a column that are not null, as a session sees them.

    Parameters
    ----------
    like
        A pattern of SQL's LIKE that the values have to match.
    """
    column = sa.column(name)
    source = connection.backend.sql_table(table, column)
    statement = sa.select(source.c[name]).where(source.c[name].is_not(None))
    if like is not None:
        statement = statement.where(source.c[name].like(like))
    result = session.execute(statement, execution_options={"yield_per": _ROWS_AT_ONCE})
    return (value for (value,) in result)
