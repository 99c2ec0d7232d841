"""Modules whose classes are read from the database."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from dj_dagster.compat.spellings import register_adapters
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema


class VirtualModule(ModuleType):
    """A module with a class for each table of a schema, for use without the Python that made it.

    Its name `schema` is the `Schema`. Tables whose names follow no tier have no class; `FreeTable`
    reaches them.

    Parameters
    ----------
    module_name
        What the module is called.
    schema_name
        The schema to read.
    create_schema, create_tables
        Whether a schema that does not exist is created, and whether classes decorated with
        ``module.schema`` create their tables.
    connection
        Where the schema lives.
    add_objects
        Further names for the module; adapters among them are those of the tables' attributes.

    Raises
    ------
    DataJointError
        If there is no such schema.

    Examples
    --------
    >>> connection = Connection("sqlite:///:memory:")
    >>> lab = VirtualModule("lab", "lab", connection=connection, create_schema=True)
    >>> lab.schema.list_tables()
    []
    """

    schema_class: ClassVar[type[Schema]] = Schema

    def __init__(
        self,
        module_name: str,
        schema_name: str,
        *,
        create_schema: bool = False,
        create_tables: bool = False,
        connection: Connection | None = None,
        add_objects: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(module_name, f"The tables of the schema {schema_name}.")
        self.schema = self.schema_class(
            schema_name,
            connection=connection,
            create_schema=create_schema,
            create_tables=create_tables,
            add_objects=add_objects,
        )
        objects = dict(add_objects or {})
        register_adapters(self.schema.connection.codecs, objects, lambda name: [objects[name]])
        vars(self).update(objects)
        self.schema.make_classes(into=self)
