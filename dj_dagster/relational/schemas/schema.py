"""Schemas: decorating a class with one declares its table."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from dj_dagster.model.names import TableName, class_path
from dj_dagster.relational.asking import ask_on_terminal
from dj_dagster.relational.database.catalog import dependency_graph
from dj_dagster.relational.declaring import declare
from dj_dagster.relational.deleting.cascade import master_of
from dj_dagster.relational.schemas import origins
from dj_dagster.relational.schemas.activation import Activation
from dj_dagster.relational.schemas.free_table import FreeTable, find_table_name
from dj_dagster.relational.schemas.reflection import PLAIN_TIERS, ClassMaker, TierClasses
from dj_dagster.relational.schemas.save import module_source
from dj_dagster.relational.scope import calling_names, warn_caller
from dj_dagster.relational.table import Table


class Schema(Activation):
    """A named group of tables in one database.

    Definitions may refer to the classes of their own family and of the schema, to names of the
    module that their class is in, and to local names where the class is decorated.

    Parameters
    ----------
    name
        On MySQL and MariaDB the database; on SQLite the first part of the table names. Without
        one, decorated classes wait until `activate` gives it.
    connection
        Where the schema lives.
    context
        Names that definitions may refer to besides; they come before those mentioned above.
    create_schema, create_tables
        Whether what does not exist is created; otherwise it is an error.
    add_objects
        Further names, which come before those of the context.
    era
        ``"0.14"`` or ``"2.3"``: in whose layout new tables are declared on MySQL and MariaDB, so
        that DataJoint of that era can use them; by default that of the tables that there are, or
        the later one.

    Attributes
    ----------
    tables
        The declared classes by name, in order; parts and reflected classes are not among them.
    reflected
        The classes that `make_classes` made, by name.

    Examples
    --------
    >>> from dj_dagster.relational.database.connection import Connection
    >>> connection = Connection("sqlite:///:memory:")
    >>> schema = Schema("lab", connection=connection)
    >>> schema.list_tables()
    []
    """

    tier_classes: ClassVar[TierClasses] = PLAIN_TIERS
    """What reflected classes derive from."""

    def make_classes(
        self, into: MutableMapping[str, Any] | ModuleType | None = None
    ) -> dict[str, type[Table]]:
        """Make classes for those tables of the schema that have none yet.

        Their tiers are read from the tables' names, parts become attributes of their masters.
        Tables whose names follow no tier are left out: `FreeTable` reaches them. So is, with a
        warning, the younger of two tables whose classes would have one name, in two tiers.

        Parameters
        ----------
        into
            Where the classes are put under their names: a module or its ``globals()``; by default
            the schema's context, or else the module that calls this. Names that are taken there
            stay as they are. Called from a function, only `locals` has them there: use what is
            returned.

        Returns
        -------
        dict
            The new classes by name, without the parts.
        """
        names = self._target(into)
        maker = ClassMaker(self.connection, self.name, self.tier_classes)
        made = maker.make(names)
        for one, other in maker.left_out:
            warn_caller(
                f"{one} and {other} would both be the class {class_path(one.table)}, which is the "
                f"first one's; schema[{other.table!r}] reaches the other, with its parts.",
                UserWarning,
            )
        names.update(made)
        self.reflected |= made
        return made

    def list_tables(self) -> list[str]:
        """Return the names of the schema's tables in SQL, parents first, hidden ones left out.

        Parts come right after their masters, where no other table has to be between. The database
        is asked each time: other processes declare tables too.
        """
        self.connection.catalog.forget(self.name)
        present = set(self.connection.catalog.names(self.name))
        graph = dependency_graph(self.connection.catalog.related(self.name))
        return [name.table for name in graph.order_with_parts(master_of) if name in present]

    def get_table(self, name: str) -> FreeTable:
        """Return a table by its name in SQL, with or without the tier's prefix, or its class name.

        The database is asked each time, so that the table is as other processes have left it.

        Raises
        ------
        MissingTableError
            If the schema has no such table.

        Examples
        --------
        ::

            schema["Session"].to_dicts()
        """
        self.connection.catalog.forget(self.name)
        found = find_table_name(self.connection, self.name, name)
        return FreeTable(self.connection, TableName(self.name, found))

    def __getitem__(self, name: str) -> FreeTable:
        return self.get_table(name)

    def __iter__(self) -> Iterator[FreeTable]:
        for name in self.list_tables():
            yield FreeTable(self.connection, TableName(self.name, name))

    def __contains__(self, name: str) -> bool:
        return find_table_name(self.connection, self.name, name, missing_ok=True) != ""

    @property
    def size_on_disk(self) -> int:
        """Bytes that all tables take, hidden ones too; see `Table.size_on_disk`."""
        names = self.connection.catalog.names(self.name)
        with self.connection.cursor() as session:
            return self.connection.backend.size_on_disk(session, names)

    @property
    def lineage(self) -> dict[str, str]:
        """Where key attributes and those of foreign keys come from, by ``schema.table.attribute``.

        Read from the foreign keys, so that it is right whatever the table ``~lineage`` says.
        """
        return origins.schema_lineage(self.connection, self.name)

    @property
    def lineage_table_exists(self) -> bool:
        """Whether there is a table ``~lineage``, which DataJoint needs; never so on SQLite."""
        self.connection.catalog.forget(self.name)
        return self.connection.catalog.raw(TableName(self.name, "~lineage")) is not None

    def rebuild_lineage(self) -> None:
        """Write the table ``~lineage``, which DataJoint needs, anew from the foreign keys.

        Nothing happens on SQLite, where there is no such table.
        """
        origins.rebuild(self.connection, self.name)

    def save(self, python_filename: str | Path | None = None) -> str:
        """Return a Python module with classes for all tables, as the database has them.

        Imported where the same database is configured, it has the same tables.

        Parameters
        ----------
        python_filename
            Where the module is written to as well.
        """
        source = module_source(self.connection, self.name)
        if python_filename is not None:
            Path(python_filename).write_text(source, encoding="utf-8")
        return source

    def drop(self, prompt: bool | None = None) -> None:
        """Drop the schema with all its tables.

        Parameters
        ----------
        prompt
            Whether to ask first; the connection's safemode by default.

        Raises
        ------
        QueryError
            If tables of other schemas refer to its tables, or inside a transaction.
        """
        ask = self.connection.safemode if prompt is None else prompt
        names = ", ".join(self.list_tables()) if ask else ""
        question = f"Dropping the schema {self.name} with all its tables: {names or 'none'}."
        if ask and not ask_on_terminal(question):
            return
        declare.drop_schema(self.connection, self.name)

    def __repr__(self) -> str:
        if self._name is None:
            return "Schema(not activated)"
        return f"Schema `{self.name}` of {self.connection.url}"

    def _target(
        self, into: MutableMapping[str, Any] | ModuleType | None
    ) -> MutableMapping[str, Any]:
        if isinstance(into, ModuleType):
            return vars(into)
        if into is not None:
            return into
        return self.context if self.context is not None else calling_names(live=True)
