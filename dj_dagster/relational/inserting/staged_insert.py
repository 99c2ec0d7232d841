"""Staged inserts: objects are written into their store first, and the row is inserted last."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, suppress
from types import TracebackType
from typing import IO, Any, Protocol

from dj_dagster.class_access import ClassMethod, ClassProperty
from dj_dagster.errors import DataJointError, QueryError
from dj_dagster.model.heading import Heading
from dj_dagster.model.names import TableName
from dj_dagster.objects.checksums import manifest_path
from dj_dagster.objects.codecs.files import ObjectCodec, published
from dj_dagster.objects.layout import object_path
from dj_dagster.objects.stores.store import Store
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.garbage.references import register_writer


class Insertable(Protocol):
    """The interface of a table that a staged insert uses."""

    # Declared as type checkers see what the class has too.
    connection: ClassProperty[Connection]
    heading: ClassProperty[Heading]
    name: ClassProperty[TableName]
    insert1: ClassMethod[..., None]


class StagedInsert(AbstractContextManager["StagedInsert"]):
    """One row whose objects are written straight into their store.

    Set the key in `rec` first, then write; the reference of each object is filled in at the end of
    the block, when the row is inserted. If the block fails, the objects are deleted; if the process
    dies, the garbage collector deletes them. Do not pause writing for longer than the collector's
    grace period.

    Attributes
    ----------
    rec
        The row.

    Examples
    --------
    ::

        with Scan.staged_insert1 as staged:
            staged.rec["scan_id"] = 7
            movie = zarr.open(staged.store("movie", ".zarr"), mode="w", shape=(9000, 512, 512))
            movie[:] = frames
    """

    def __init__(self, table: Insertable) -> None:
        self._table = table
        self.rec: dict[str, Any] = {}
        self._staged: dict[str, tuple[Store, str, str]] = {}
        self._opened = ExitStack()

    @property
    def fs(self) -> Any:
        """The fsspec file system of the default store; that of an attribute is ``store(…).fs``."""
        return self._table.connection.stores.get().filesystem

    def store(self, field: str, ext: str = "") -> Any:
        """Return a mapping of paths to bytes, an fsspec ``FSMap``, for an attribute's folder.

        Parameters
        ----------
        field
            An attribute ``<object@store>`` or ``<zarr@store>``.
        ext
            Extension of the folder's name, such as ``".zarr"``; used by the first call for an
            attribute.

        Raises
        ------
        QueryError
            If the attribute does not exist, or `rec` lacks a part of the key.
        """
        store, path = self._place(field, ext)
        return store.filesystem.get_mapper(store.full_path(path))

    def open(self, field: str, ext: str = "", mode: str = "wb") -> IO[Any]:
        """Open the file of an attribute for writing; it is closed at the end of the block.

        Parameters and errors are the same as for `store`.
        """
        store, path = self._place(field, ext)
        return self._opened.enter_context(store.filesystem.open(store.full_path(path), mode))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # Files are closed after an error too: some file systems finish an upload only then.
            self._opened.close()
            if error is None:
                self._insert()
        except BaseException:
            self._clean_up()
            raise
        if error is not None:
            self._clean_up()

    def _insert(self) -> None:
        for field, (store, path, ext) in self._staged.items():
            self.rec[field] = published(store, path, ext or None)
        self._table.insert1(self.rec)

    def _clean_up(self) -> None:
        for store, path, _ in self._staged.values():
            # The garbage collector removes objects that remain.
            with suppress(DataJointError):
                store.delete_many([*(list(store.list(path)) or [path]), manifest_path(path)])
                store.tidy(path)

    def _place(self, field: str, ext: str) -> tuple[Store, str]:
        if field not in self._staged:
            store = self._store_of(field)
            name, key = self._table.name, self._key()
            path = object_path(store.settings, name.schema, name.table, field, key, ext)
            self._staged[field] = (store, path, ext)
        store, path, _ = self._staged[field]
        return store, path

    def _store_of(self, field: str) -> Store:
        connection, heading = self._table.connection, self._table.heading
        kind = heading[field].type if field in heading else None
        chain = connection.codecs.resolve(kind) if kind is not None else None
        if chain is None or not chain.codecs or not isinstance(chain.codecs[0], ObjectCodec):
            raise QueryError(
                f"{self._table.name} has no attribute {field!r} of type <object@> or <zarr@>: only "
                "these are written in place."
            )
        register_writer(connection, self._table.name.schema, chain)
        return connection.stores.get(chain.store)

    def _key(self) -> dict[str, Any]:
        names = self._table.heading.primary_key
        missing = [name for name in names if name not in self.rec]
        if missing:
            raise QueryError(
                f"Primary key attribute {missing[0]!r} of {self._table.name} is not set, which the "
                f"path of an object holds: set staged.rec[{missing[0]!r}] before store() or open()."
            )
        return {name: self.rec[name] for name in names}
