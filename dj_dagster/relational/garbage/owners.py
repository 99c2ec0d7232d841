"""The databases that own the objects of a schema in a store.

A database registers with a store before it writes its first object there, see
`dj_dagster.objects.store_users`: once a process, store and schema.
"""

from __future__ import annotations

from dj_dagster.errors import ConfigurationError, ObjectError
from dj_dagster.objects.codecs.chain import CodecChain
from dj_dagster.objects.codecs.files import FilepathCodec
from dj_dagster.objects.external_pointer import ExternalPointerCodec
from dj_dagster.objects.store_users import Registration, claim, register, registrations
from dj_dagster.objects.stores.store import OWN_FOLDER, Store
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
