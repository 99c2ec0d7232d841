"""Schemas, tables and diagrams on the default connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dj_dagster.compat.external import ExternalMapping
from dj_dagster.compat.jobs import JobTable, SchemaJobs
from dj_dagster.compat.log import LogTable
from dj_dagster.default_connection import config, conn
from dj_dagster.errors import QueryError
from dj_dagster.model.names import TableName, Tier, parse_table_name
from dj_dagster.objects.codecs.chain import Codec, CodecRegistry
from dj_dagster.relational.backup.backup import (
    BackupReport,
    RestoreReport,
    make_backup,
    restore_backup,
)
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.diagrams import diagram
from dj_dagster.relational.old_log import LOG, keeps_log
from dj_dagster.relational.schemas import free_table, schema
from dj_dagster.relational.schemas.free_table import PLAIN_TIERS
from dj_dagster.relational.schemas.schema import Schema as RelationalSchema
from dj_dagster.workflow.computed import Computed, Imported
from dj_dagster.workflow.jobs import queues


class Schema(RelationalSchema):
    """A named group of tables; decorate a class with it to declare its table.

    Parameters
    ----------
    name
        The database on MySQL and MariaDB, the first part of the table names on SQLite. Without a
        name, decorated classes wait until `activate` gives it.
    context
        Names that definitions may refer to, besides those that the class can see.
    connection
        The connection; the default connection if omitted.
    create_schema
        Whether a missing schema is created; otherwise it is an error.
    create_tables
        Whether missing tables are created; otherwise the use of their classes is an error. The
        default is the setting ``database.create_tables``.
    add_objects
        Further names, which come before those of the context.
    era
        ``"0.14"`` or ``"2.3"``: the layout in which new tables are declared on MySQL and MariaDB,
        so that DataJoint of that era can use them. The default is that of the existing tables, or
        the later one.
    schema_name
        DataJoint's word for `name`.
    """

    tier_classes = MappingProxyType(
        {**PLAIN_TIERS, Tier.IMPORTED: Imported, Tier.COMPUTED: Computed}
    )

    def __init__(
        self,
        name: str | None = None,
        context: MutableMapping[str, Any] | None = None,
        *,
        connection: Connection | None = None,
        create_schema: bool = True,
        create_tables: bool | None = None,
        add_objects: Mapping[str, object] | None = None,
        era: str | None = None,
        schema_name: str | None = None,
    ) -> None:
        name = name if schema_name is None else schema_name
        if create_tables is None and connection is None:
            create_tables = config()["database.create_tables"]
        super().__init__(
            name,
            connection=connection,
            context=context,
            create_schema=create_schema,
            create_tables=create_tables,
            add_objects=add_objects,
            era=era,
        )

    def activate(self, schema_name: str | None = None, **options: Any) -> None:
        """Give the schema its name; see `Activation.activate` for the options."""
        super().activate(schema_name, **options)
        self.connection.register(self)

    @property
    def jobs(self) -> SchemaJobs | JobTable:
        """The jobs of the schema's computed tables: a query, or the table ``~jobs`` of 0.14."""
        if self.connection.catalog.is_old(self.name):
            return JobTable(self.connection, self.name)
        classes = {
            cls().table_name: cls for cls in (*self.reflected.values(), *self.tables.values())
        }
        names = [name for name in self.list_tables() if _is_computed(name)]
        tables = [
            classes[name]()
            if name in classes
            else free_table.FreeTable(self.connection, TableName(self.name, name))
            for name in names
        ]
        return SchemaJobs(self.connection, self.name, queues(self.connection, tables), tables)

    @property
    def external(self) -> ExternalMapping:
        """The objects of DataJoint 0.14 by store; see `dj_dagster.compat.external`."""
        return ExternalMapping(self.connection, self.name)

    @property
    def code(self) -> str:
        """The source of a module with classes for all tables, as `save` returns it."""
        return self.save()

    @property
    def log(self) -> free_table.FreeTable:
        """The table ``~log``, in which DataJoint 0.14 records declarations and deletions.

        It can be called with the text of an event. Schemas of 2.x do not have it.
        """
        if keeps_log(self.connection, self.name):
            return LogTable(self.connection, self.name)
        return FreeTable(self.connection, TableName(self.name, LOG))

    def _default_connection(self) -> Connection:
        return conn()


def _is_computed(table: str) -> bool:
    parsed = parse_table_name(table)
    return parsed is not None and parsed.tier in (Tier.IMPORTED, Tier.COMPUTED)


class VirtualModule(schema.VirtualModule):
    """A module with a class for each table of a schema, by default on the default connection.

    See `dj_dagster.relational.schemas.schema.VirtualModule`.
    """

    schema_class = Schema


def virtual_schema(schema_name: str, **options: Any) -> VirtualModule:
    """Return a `VirtualModule` named after its schema."""
    return VirtualModule(schema_name, schema_name, **options)


_default_conn = conn


class FreeTable(free_table.FreeTable):
    """A table by its name alone: ``FreeTable("lab.session")``, ``FreeTable(connection, name)``.

    See `dj_dagster.relational.schemas.free_table.FreeTable`; `conn` is DataJoint's name for
    `connection`.
    """

    def __init__(
        self, connection: Any = None, full_table_name: Any = None, *, conn: Any = None
    ) -> None:
        connection = connection if conn is None else conn
        if connection is None:
            connection = _default_conn()
        if full_table_name is None:
            connection, full_table_name = _default_conn(), connection
        if not isinstance(connection, Connection):
            raise QueryError("Write FreeTable(connection, 'schema.table'), or the name alone.")
        super().__init__(connection, full_table_name)


class Diagram(diagram.Diagram):
    """A set of tables with the foreign keys between them, to draw and to compute with.

    The setting ``display.diagram_direction`` gives the direction from parents to children. See
    `dj_dagster.relational.diagrams.diagram.Diagram`.
    """

    @property
    def direction(self) -> str:
        """The setting ``display.diagram_direction``."""
        # A connection by URL does not follow settings.
        chosen = getattr(self.connection.display, "diagram_direction", None)
        return chosen or config()["display.diagram_direction"]


def list_schemas(connection: Connection | None = None) -> list[str]:
    """Return the names of the schemas in the database."""
    return (connection or conn()).schema_names()


def list_codecs() -> list[str]:
    """Return the names of the available codecs."""
    return CodecRegistry().names


def get_codec(name: str) -> Codec:
    """Return the codec with a name.

    Raises
    ------
    DefinitionError
        If the name is unknown.
    """
    return CodecRegistry().get(name.strip("<>"))


def backup(
    folder: str | Path,
    schemas: str | Iterable[str],
    *,
    connection: Connection | None = None,
    read_data: bool = False,
    keep: int | None = None,
) -> BackupReport:
    """Copy schemas and the objects of their rows into a folder, while others write.

    The default connection is used if none is given; see
    `dj_dagster.relational.backup.backup.make_backup`.

    Examples
    --------
    ::

        dj.backup("/backups/lab", ["lab"])
        dj.restore("/backups/lab")  # into an empty database and stores
    """
    return make_backup(connection or conn(), folder, schemas, read_data=read_data, keep=keep)


def restore(
    folder: str | Path,
    name: str | None = None,
    *,
    connection: Connection | None = None,
    keep_objects: bool = False,
    ignore_damaged: bool = False,
) -> RestoreReport:
    """Restore a backup, by default the latest, into an empty database and stores.

    The default connection is used if none is given; see
    `dj_dagster.relational.backup.backup.restore_backup`.
    """
    return restore_backup(
        connection or conn(),
        folder,
        name,
        keep_objects=keep_objects,
        ignore_damaged=ignore_damaged,
    )
