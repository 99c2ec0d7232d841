"""The objects that a schema of DataJoint 0.14 has in stores: ``schema.external["store"]``."""

from __future__ import annotations

from base64 import b32decode
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

from dj_dagster.errors import DataJointError, MissingExternalFile, MissingTableError, ObjectError
from dj_dagster.model.heading import Attribute, Heading, Value
from dj_dagster.model.names import TableName
from dj_dagster.model.types import parse_type
from dj_dagster.objects.codecs.codec import read_reference
from dj_dagster.objects.external_pointer import (
    ExternalObject,
    bytes_hash,
    external_content,
    external_path,
    local_file,
    placed_attachment,
    placed_blob,
    placed_file,
)
from dj_dagster.objects.layout import object_root, schema_objects
from dj_dagster.objects.stores.store import Store
from dj_dagster.relational.algebra.condition import Not
from dj_dagster.relational.algebra.nodes import Written
from dj_dagster.relational.database.catalog import EXTERNAL_PREFIX
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.garbage.collector import GarbageCollector
from dj_dagster.relational.garbage.references import belonging, column_values, reference_columns
from dj_dagster.relational.old_layout import ensure_external_table, external_objects
from dj_dagster.relational.schemas.free_table import FreeTable
from dj_dagster.relational.schemas.schema import Schema

_TYPES = {
    "hash": "uuid",
    "size": "bigint unsigned",
    "attachment_name": "varchar(255)",
    "filepath": "varchar(1000)",
    "contents_hash": "uuid",
    "timestamp": "timestamp",
}
_NULLABLE = ("attachment_name", "filepath", "contents_hash", "timestamp")


class ExternalTable(FreeTable):
    """The table ``~external_<store>``, which lists a schema's objects in one store.

    Parameters
    ----------
    connection
        The connection of the schema.
    store, database
        Names of the store and the schema; the table is created if it is missing.

    Examples
    --------
    ::

        external = schema.external["raw"]
        len(external), len(external.unused())
        external.delete(delete_external_files=True)
    """

    def __init__(self, connection: Connection, store: str, database: str) -> None:
        name = TableName(database, f"{EXTERNAL_PREFIX}{store}")
        ensure_external_table(connection, name)
        super().__init__(connection, name)
        self.store = store

    @property
    def references(self) -> Iterator[dict[str, str]]:
        """The columns that point here, as ``referencing_table`` and ``column_name``."""
        return _columns(self.connection, self._pointers())

    @property
    def spec(self) -> dict[str, Value]:
        """The settings of the store; its secrets are masked."""
        return _spec(self._store)

    def unused(self) -> QueryExpression:
        """Return the objects that rows do not point to."""
        return self.restrict(Not(self._pointing()), semantic_check=False)

    def used(self) -> QueryExpression:
        """Return the objects that rows point to."""
        return self.restrict(self._pointing(), semantic_check=False)

    def fetch_external_paths(self, **options: Value) -> list[tuple[UUID, PurePosixPath]]:
        """Return hash and path of each object; options are those of `fetch`."""
        names = ("hash", "attachment_name", "filepath")
        rows = self.fetch(*names, as_dict=True, **options)
        return [(row["hash"], PurePosixPath(self._store.url(self._path(row)))) for row in rows]

    def put(self, blob: bytes) -> UUID:
        """Put bytes into the store, unless they are there, and return their hash."""
        return self._noted(placed_blob(self._store, self.name.schema, blob))

    def get(self, uuid: UUID) -> bytes:
        """Return the bytes of the object with a hash, verified.

        Raises
        ------
        MissingExternalFile
            If the table lacks the hash, or its object is gone.
        """
        return external_content(self._store, self._known(uuid), self.name.schema)

    def upload_attachment(self, local_path: str | Path) -> UUID:
        """Put a file into the store under its name, and return its hash."""
        return self._noted(placed_attachment(self._store, self.name.schema, Path(local_path)))

    def get_attachment_name(self, uuid: UUID) -> str | None:
        """Return the name that an attached file had."""
        return self._known(uuid).attachment_name

    def download_attachment(
        self, uuid: UUID, attachment_name: str, download_path: str | Path
    ) -> None:
        """Write an attachment to a local file.

        Parameters
        ----------
        attachment_name
            The attachment's name, as `get_attachment_name` gives it.
        download_path
            The path of the file to write.
        """
        path = self._path({"hash": uuid, "attachment_name": attachment_name, "filepath": None})
        # Verified together with its name.
        self.get(uuid)
        Path(download_path).write_bytes(self._store.get(path))

    def upload_filepath(self, local_filepath: str | Path) -> UUID:
        """Copy a file of the store's stage into the store, and return the hash of its path.

        Raises
        ------
        InvalidValueError
            If the file lies elsewhere, or the store has another file of that path.
        """
        return self._noted(placed_file(self._store, str(local_filepath)))

    def download_filepath(self, filepath_hash: UUID) -> tuple[str, UUID]:
        """Return the path at which a file can be read, and the hash of its content.

        The file is copied to the store's stage, or to the download folder, if it has to be.
        """
        found = self._known(filepath_hash)
        if found.filepath is None or found.contents_hash is None:
            raise MissingExternalFile(f"The object {filepath_hash} is not a file with a path.")
        folder = self.connection.download_path
        return str(local_file(self._store, found, found.filepath, folder)), found.contents_hash

    def _noted(self, found: ExternalObject) -> UUID:
        fields = ("hash", "size", "attachment_name", "filepath", "contents_hash")
        row = {name: getattr(found, name) for name in fields}
        self.insert1(row, skip_duplicates=True)
        return found.hash

    def _known(self, uuid: UUID) -> ExternalObject:
        found = external_objects(self.connection, self.name.schema, self.store, [uuid]).get(uuid)
        if found is None:
            raise MissingExternalFile(f"{self.name} has no object {uuid}.")
        return found

    def delete(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *,
        delete_external_files: bool | None = None,
        limit: int | None = None,
        display_progress: bool = False,
        errors_as_string: bool = True,
    ) -> list[tuple[UUID, str, Value]]:
        """Delete the rows of objects that are not used, and on request the objects.

        Parameters
        ----------
        delete_external_files
            Whether the objects themselves are deleted too; must be given.
        limit
            The largest number of objects to delete.
        display_progress
            Has no effect, and is accepted as DataJoint does.
        errors_as_string
            Whether errors are returned as text.

        Returns
        -------
        list
            Hash, path and error of each object that could not be deleted; its row is put back.
        """
        del display_progress
        if delete_external_files is None:
            raise _undecided()
        if not delete_external_files:
            keys = self.unused().fetch("KEY", limit=limit)
            if keys:
                (self & keys).delete_quick()
            return []
        failed: list[tuple[UUID, str, Value]] = []
        for row in self.unused().to_dicts(limit=limit):
            path = self._path(row)
            key = {"hash": row["hash"]}
            try:
                # The foreign key refuses this if a row has come to point to the object meanwhile.
                (self & key).delete_quick()
            except DataJointError:
                continue
            try:
                self._store.delete(path)
            except Exception as error:
                self.insert1(row, skip_duplicates=True)
                failed.append((row["hash"], path, str(error) if errors_as_string else error))
        return failed

    @property
    def _store(self) -> Store:
        return self.connection.stores.get(self.store)

    def _path(self, row: Mapping[str, Value]) -> str:
        if row["filepath"] is not None:
            return str(row["filepath"])
        found = ExternalObject(self.store, row["hash"], 0, row["attachment_name"])
        return external_path(self._store, self.name.schema, found)

    def _pointers(self) -> list[tuple[TableName, str]]:
        tables = self.connection.catalog.related(self.name.schema, fresh=True)
        return [
            (raw.name, column)
            for raw in tables
            if raw.name.schema == self.name.schema
            for column, store in raw.external.items()
            if store == self.store
        ]

    def _pointing(self) -> list[QueryExpression]:
        return [
            FreeTable(self.connection, table).proj(hash=column).proj("hash")
            for table, column in self._pointers()
        ]


def _columns(
    connection: Connection, columns: Iterable[tuple[TableName, str]]
) -> Iterator[dict[str, str]]:
    for table, column in columns:
        yield {"referencing_table": connection.full_name(table), "column_name": column}


def _spec(store: Store) -> dict[str, Value]:
    return store.settings.model_dump(exclude_none=True)


def _undecided() -> DataJointError:
    return DataJointError(
        "Say whether the objects themselves are deleted as well: "
        "delete(delete_external_files=True), or False."
    )


class StoredObjects(QueryExpression):
    """The objects of a schema in a store of SQLite, as a query with the attributes of 0.14.

    The rows are found when it is made. Schemas of SQLite have the layout of 2.x, in which rows hold
    references: the hash is that of the content where the reference has it, otherwise that of the
    path. Names of attachments are in the objects, and not known here.
    """

    def __init__(self, connection: Connection, store: str, database: str) -> None:
        heading = Heading(
            Attribute(name, parse_type(kind), in_key=name == "hash", nullable=name in _NULLABLE)
            for name, kind in _TYPES.items()
        )
        self._store, self._schema = connection.stores.get(store), database
        used = dict(_referred(connection, self._store, database))
        roots = {object_root(path, database, self._store.settings) for path in used}
        found = schema_objects(self._store, database)
        unused = {one.path: one for one in found if one.path not in used.keys() | roots}
        self._paths = {_digest(path, fields): path for path, fields in used.items()}
        self._used = frozenset(self._paths)
        self._paths |= {_digest(path, {}): path for path in unused}
        rows = [_row(path, fields, self._store) for path, fields in used.items()]
        rows += [_row(path, {"size": one.size}, self._store) for path, one in unused.items()]
        super().__init__(connection, Written(heading, frozenset(), tuple(rows)))

    @property
    def full_table_name(self) -> str:
        """The name that the table of these objects has on servers; SQLite lacks the table."""
        name = TableName(self._schema, f"{EXTERNAL_PREFIX}{self._store.name}")
        return self.connection.full_name(name)

    @property
    def references(self) -> Iterator[dict[str, str]]:
        """The columns that refer to the store, as ``referencing_table`` and ``column_name``."""
        belongs = belonging(self.connection.stores, self._store)
        found = [
            (column.table, column.name)
            for column in reference_columns(self.connection)
            if column.table.schema == self._schema and column.concerns(belongs)
        ]
        return _columns(self.connection, found)

    @property
    def spec(self) -> dict[str, Value]:
        """The settings of the store; its secrets are masked."""
        return _spec(self._store)

    def unused(self) -> QueryExpression:
        """Return the objects that rows do not point to."""
        return self.restrict([{"hash": digest} for digest in self._paths.keys() - self._used])

    def used(self) -> QueryExpression:
        """Return the objects that rows point to."""
        return self.restrict([{"hash": digest} for digest in self._used])

    def fetch_external_paths(self, **options: Value) -> list[tuple[UUID, PurePosixPath]]:
        """Return hash and path of each object; options are those of `fetch`."""
        hashes = self.fetch("hash", **options)
        return [(digest, PurePosixPath(self._store.url(self._paths[digest]))) for digest in hashes]

    def delete(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, delete_external_files: bool | None = None, **options: object
    ) -> list[tuple[UUID, str, Value]]:
        """Move unused objects to the trash of the store, if `delete_external_files` is true.

        Objects that are younger than a day stay, as `GarbageCollector` keeps them, and so do
        users' own files.

        Returns
        -------
        list
            Nothing, since an object that cannot be removed is an error.
        """
        del options
        if delete_external_files is None:
            raise _undecided()
        schema = self.connection.schemas.get(self._schema)
        if delete_external_files and isinstance(schema, Schema):
            GarbageCollector(schema, store=self._store.name).collect(dry_run=False)
        return []


def _referred(
    connection: Connection, store: Store, database: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path and the fields of each reference of a schema's rows to a store."""
    belongs = belonging(connection.stores, store)
    for column in reference_columns(connection):
        if column.table.schema != database or not column.concerns(belongs):
            continue
        with connection.cursor() as session:
            for value in column_values(session, connection, column.table, column.name):
                # References of a codec's own have no fields that are known here.
                fields = _fields(value)
                for path, name in column.read(value):
                    if belongs(name):
                        yield path, fields if fields.get("path") == path else {}


def _fields(value: Value) -> Mapping[str, Any]:
    try:
        return read_reference(value)
    except ObjectError:
        return {}


def _digest(path: str, fields: Mapping[str, Any]) -> UUID:
    """Return the hash of an object's content from its name or reference, or that of its path."""
    text = str(fields.get("hash") or path.rpartition("/")[2])
    try:
        found = b32decode(text.upper() + "======")
    except ValueError:
        found = b""
    return UUID(bytes=found) if len(found) == 16 else bytes_hash(path.encode())


def _row(path: str, fields: Mapping[str, Any], store: Store) -> tuple[Value, ...]:
    settings = store.settings
    own = [f"{prefix.strip('/')}/" for prefix in (settings.hash_prefix, settings.schema_prefix)]
    filepath = None if path.startswith(tuple(own)) else path
    written = str(fields.get("timestamp") or "")[:19].replace("T", " ")
    size = int(fields.get("size") or 0)
    return str(_digest(path, fields)), size, None, filepath, None, written or None


class ExternalMapping(Mapping[str, ExternalTable | StoredObjects]):
    """The stores in which a schema of DataJoint 0.14 has objects."""

    def __init__(self, connection: Connection, database: str) -> None:
        self._connection = connection
        self._database = database

    def __getitem__(self, store: str) -> ExternalTable | StoredObjects:
        known = store in list(self)
        on_server = self._connection.backend.keeps_lineage
        if not on_server and self._connection.era == "0.14" and store in self._connection.stores:
            return StoredObjects(self._connection, store, self._database)
        if not known and not self._connection.catalog.is_old(self._database):
            raise MissingTableError(
                f"The schema {self._database} has no objects of DataJoint 0.14 in a store "
                f"{store!r}. Unused objects of today's are found by `dj-dagster gc`."
            )
        return ExternalTable(self._connection, store, self._database)

    def __iter__(self) -> Iterator[str]:
        connection = self._connection
        if not connection.backend.keeps_lineage and connection.era == "0.14":
            columns = reference_columns(connection)
            stores = {one.store for one in columns if one.table.schema == self._database}
            yield from sorted({connection.stores.resolve(name) for name in stores})
            return
        for name in self._connection.catalog.names(self._database):
            if name.table.startswith(EXTERNAL_PREFIX):
                yield name.table.removeprefix(EXTERNAL_PREFIX)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"ExternalMapping({self._database!r}: {', '.join(self) or 'none'})"
