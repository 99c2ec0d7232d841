"""Databases that use a store: each writes a record there before it writes its first object.

A record lies at ``.dj_dagster/databases/{schema}/{identity}``, outside the sections that DataJoint
knows, so that neither its readers nor its collector find it. Each database has a file of its own,
which is written whole, so that several may register at once.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from dj_dagster.errors import ObjectError
from dj_dagster.objects.layout import schema_folders, schema_objects
from dj_dagster.objects.stores.store import OWN_FOLDER, Store


@dataclass(frozen=True, slots=True)
class Registration:
    """A database that writes objects of a schema into a store.

    Attributes
    ----------
    identity
        A text that differs for each database, copies of a database included.
    place
        The database's address when it registered, for people.
    since
        The time of the registration.
    found_objects
        Whether the store then already held objects of the schema, of unknown origin.
    """

    identity: str
    place: str
    since: str
    found_objects: bool = False

    def __str__(self) -> str:
        return f"{self.place} (since {self.since[:10]})"


def registrations(store: Store, schema: str) -> list[Registration]:
    """Return the databases that have registered for a schema, in the order of their identities.

    Raises
    ------
    ObjectError
        If a record cannot be read.
    """
    return [_read(store, path) for path in sorted(store.list(registry_folder(schema)))]


def register(store: Store, schema: str, identity: str, place: str) -> None:
    """Write a database's record, unless it is there."""
    path = _path(schema, identity)
    if store.exists(path):
        return
    first = next(iter(store.list(registry_folder(schema))), None) is None
    found = first and _has_objects(store, schema)
    # Another process of this database may have registered, and written objects, meanwhile.
    if not (found and store.exists(path)):
        _write(store, schema, Registration(identity, place, _now(), found))


def claim(store: Store, schema: str, identity: str, place: str) -> list[Registration]:
    """Make a database the only one registered for a schema; return the others, now removed."""
    others = [one for one in registrations(store, schema) if one.identity != identity]
    _write(store, schema, Registration(identity, place, _now()))
    for one in others:
        store.delete(_path(schema, one.identity))
    return others


def _has_objects(store: Store, schema: str) -> bool:
    """Whether a schema has objects; for a new schema, without folders, the answer is quick."""
    content, *rows = schema_folders(store, schema)
    if not rows and schema not in store.folders(content.rpartition("/")[0]):
        return False
    # The folder may hold just the sign of a collector.
    return next(schema_objects(store, schema), None) is not None


def registry_folder(schema: str) -> str:
    """Return the path of the folder of a schema's records."""
    return f"{OWN_FOLDER}/databases/{schema}"


def _path(schema: str, identity: str) -> str:
    return f"{registry_folder(schema)}/{identity}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(store: Store, schema: str, record: Registration) -> None:
    fields = {name: value for name, value in asdict(record).items() if name != "identity"}
    store.put(_path(schema, record.identity), json.dumps(fields, indent=2).encode())


def _read(store: Store, path: str) -> Registration:
    try:
        fields: Any = json.loads(store.get(path))
        return Registration(
            path.rpartition("/")[2],
            str(fields["place"]),
            str(fields["since"]),
            bool(fields["found_objects"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ObjectError(
            f"{store.url(path)} in store '{store.name}' is no record of a database that uses it. "
            "Nothing is collected until it is mended or deleted."
        ) from error
