"""Schemas: decorating a class with one declares its table."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from textwrap import indent
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from dj_dagster.compat.spellings import register_adapters, spawn_missing_classes
from dj_dagster.errors import DataJointError
from dj_dagster.model.heading import IndexDeclaration
from dj_dagster.model.names import MAX_NAME, TableName, Tier, class_path, parse_table_name
from dj_dagster.relational.caller import Scope, ask_on_terminal, calling_names, warn_caller
from dj_dagster.relational.database.catalog import Era, checked_era, dependency_graph
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring import declare
from dj_dagster.relational.declaring.describe import definition_of
from dj_dagster.relational.deleting.delete import master_of
from dj_dagster.relational.old_log import log_event
from dj_dagster.relational.schemas.class_tables import Declaring, checked_class
from dj_dagster.relational.schemas.free_table import (
    PLAIN_TIERS,
    ClassMaker,
    FreeTable,
    TierClasses,
    find_table_name,
)
from dj_dagster.relational.table import Table

_TAKEN = {"dj", "schema", "self", "master"}


def module_source(connection: Connection, schema: str) -> str:
    """Return the source of a module with the tables of a schema as classes.

    Tables of other schemas that it refers to are reached through virtual modules. Hidden tables,
    and those whose names do not follow a tier, are left out.
    """
    connection.catalog.forget(schema)
    source = _Source(connection, schema)
    tables = "".join(f"\n\n{source.table(name)}" for name in source.masters())
    return f"{source.head()}{tables}"


class _Source:
    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        present = connection.catalog.tables(schema)
        graph = dependency_graph(connection.catalog.related(schema))
        order = graph.order_with_parts(master_of)
        self._tables = [name for name in order if name in present and parse_table_name(name.table)]
        graph.check_acyclic(self._tables)
        with connection.cursor() as session:
            self._indexes: Mapping[str, Mapping[str, IndexDeclaration]] = (
                connection.backend.indexes(session, schema)
            )
        self._modules = _module_names(
            key.parent.schema
            for table in present.values()
            for key in table.foreign_keys
            if key.parent.schema != schema
        )

    def masters(self) -> list[TableName]:
        """Return the tables that are not parts, each after those that it or its parts refer to."""
        return [name for name in self._tables if self._owner(name) == name]

    def head(self) -> str:
        """Return the source text before the classes."""
        lines = [
            f'"""The tables of the schema {self._schema}, as they were found in the database."""',
            "",
            "import dj_dagster as dj",
            "",
            *(f"{name} = dj.VirtualModule({name!r}, {schema!r})"
              for schema, name in self._modules.items()),
            f"schema = dj.Schema({self._schema!r})",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def table(self, name: TableName) -> str:
        """Return the source of a table's class, with its parts inside."""
        parts = [indent(f"\n{self._class(part)}", "    ") for part in self._parts(name)]
        return f"@schema\n{self._class(name)}{''.join(parts)}"

    def _class(self, name: TableName) -> str:
        parsed = parse_table_name(name.table)
        tier = parsed.tier if parsed else Tier.MANUAL
        indexes = self._indexes.get(name.table, {})
        text = definition_of(self._connection, name, indexes, lambda p: self._spelled(name, p))
        quoted = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
        class_name = _class_name(class_path(name.table).split(".")[-1])
        return (
            f"class {class_name}(dj.{tier.value.title()}):\n"
            f'    definition = """\n{indent(quoted, "    ")}    """\n'
        )

    def _parts(self, name: TableName) -> list[TableName]:
        return [part for part in self._tables if master_of(part) == name]

    def _owner(self, name: TableName) -> TableName:
        master = master_of(name)
        return master if master is not None and master in self._tables else name

    def _spelled(self, child: TableName, parent: TableName) -> str:
        if parent == child:
            return "self"
        if parent == master_of(child):
            return "master"
        path = class_path(parent.table)
        if parent.schema == self._schema:
            return ".".join(map(_class_name, path.split(".")))
        return f"{self._modules[parent.schema]}.{path}"


def _class_name(name: str) -> str:
    """Return a valid class name in Python; underscores do not count in table names."""
    return f"{name}_" if keyword.iskeyword(name) else name


def _module_names(schemas: Iterable[str]) -> dict[str, str]:
    """Return a name in Python for each schema."""
    names: dict[str, str] = {}
    for schema in dict.fromkeys(schemas):
        name = re.sub(r"\W|^(?=\d)", "_", schema, flags=re.ASCII)
        while keyword.iskeyword(name) or name in {*_TAKEN, *names.values()}:
            name += "_"
        names[schema] = name
    return names


T = TypeVar("T", bound=type[Table])

_NOT_ACTIVATED = (
    "The schema has no name yet: write schema.activate('my_schema'), or pass the name to dj.Schema."
)


class Activation:
    """The base of `Schema`, which activates the schema and declares its classes."""

    def __init__(
        self,
        name: str | None = None,
        *,
        connection: Connection | None = None,
        context: MutableMapping[str, Any] | None = None,
        create_schema: bool = True,
        create_tables: bool | None = None,
        add_objects: Mapping[str, object] | None = None,
        era: str | None = None,
    ) -> None:
        self.context = context
        self._era: Era | None = None if era is None else checked_era(era)
        self.create_schema = create_schema
        self.create_tables = True if create_tables is None else create_tables
        self.add_objects = dict(add_objects or {})
        self.tables: dict[str, type[Table]] = {}
        self.reflected: dict[str, type[Table]] = {}
        self._name: str | None = None
        self._connection = connection
        # Keyed by name: a class that is defined again, as in a notebook, replaces the first one.
        self._decorated: dict[str, tuple[type[Table], Mapping[str, object]]] = {}
        self._waiting: dict[str, tuple[type[Table], Mapping[str, object]]] = {}
        if name is not None:
            self.activate(name)

    @property
    def name(self) -> str:
        """The schema's name.

        Raises
        ------
        DataJointError
            Before the schema is activated.
        """
        if self._name is None:
            raise DataJointError(_NOT_ACTIVATED)
        return self._name

    @property
    def database(self) -> str | None:
        """The schema's name, None before it is activated."""
        return self._name

    @property
    def connection(self) -> Connection:
        """The connection of the schema's database.

        Raises
        ------
        DataJointError
            Before the schema is activated, unless it was made with a connection.
        """
        if self._connection is None:
            raise DataJointError(_NOT_ACTIVATED)
        return self._connection

    @property
    def exists(self) -> bool:
        """Whether the database has the schema; an error before it is activated."""
        return self.name in self.connection.schema_names()

    def is_activated(self) -> bool:
        """Whether the schema has a name and a connection."""
        return self._name is not None

    def activate(
        self,
        schema_name: str | None = None,
        *,
        connection: Connection | None = None,
        create_schema: bool | None = None,
        create_tables: bool | None = None,
        add_objects: Mapping[str, object] | None = None,
    ) -> None:
        """Give the schema its name and declare the waiting classes in their order.

        Activating it again by the same name declares the classes that still wait, for example after
        an error; another name is refused, unless the schema has been dropped meanwhile.

        Parameters
        ----------
        schema_name
            None only makes sure that the schema is activated.
        connection, create_schema, create_tables
            As for `Schema`; those that are not given stay as they were.
        add_objects
            Names that definitions may refer to, which take precedence over all others:
            ``add_objects=linking_module.__dict__``.

        Raises
        ------
        DataJointError
            If a name is missing, or the schema already has another one.
        DefinitionError
            If a waiting class cannot be declared; it and those after it go on waiting.
        """
        if schema_name is None:
            _ = self.name
            return
        self._check_same(schema_name, connection)
        _checked_name(schema_name)
        chosen = connection or self._connection or self._default_connection()
        create = self.create_schema if create_schema is None else create_schema
        if self._name is None:
            is_new = declare.ensure_schema(chosen, schema_name, create=create)
            if self._era is not None:
                chosen.catalog.set_era(schema_name, self._era)
            if is_new:
                log_event(chosen, schema_name, "created")
            self._waiting = dict(self._decorated)
            self._name, self._connection = schema_name, chosen
        self.create_schema = create
        self.create_tables = self.create_tables if create_tables is None else create_tables
        self.add_objects |= add_objects or {}
        for name, decorated in list(self._waiting.items()):
            self._declare(*decorated)
            del self._waiting[name]

    def __call__(self, cls: T, *, context: Mapping[str, object] | None = None) -> T:
        """Declare a table class and its parts; returns the class itself.

        Before the schema is activated the class waits instead.

        Parameters
        ----------
        context
            Names that the definition may refer to, in place of the local ones.

        Raises
        ------
        DefinitionError
            If a definition does not parse or refers to an unknown table; nothing is declared then.
        """
        checked_class(cls)
        decorated = (cls, calling_names() if context is None else context)
        if self._name is None:
            self._waiting[cls.__name__] = decorated
        else:
            self._declare(*decorated)
            self._waiting.pop(cls.__name__, None)
        self._decorated[cls.__name__] = decorated
        return cls

    def _default_connection(self) -> Connection:
        """Return the connection of a schema that is made without one."""
        raise DataJointError("The schema has no connection: pass connection=.")

    def _check_same(self, name: str, connection: Connection | None) -> None:
        """Refuse another name or connection, unless the schema was dropped."""
        if self._name is not None and not self.exists:
            self._name = None
        if self._name is not None and connection not in (None, self._connection):
            raise DataJointError(
                f"The schema is already activated on {self.connection.url} and stays there: make "
                "another one."
            )
        if self._name not in (None, name):
            raise DataJointError(
                f"The schema is already activated as {self._name!r} and cannot become {name!r}: "
                "make another one."
            )

    def _declare(self, cls: type[Table], local: Mapping[str, object]) -> None:
        scope = Scope(
            (self.add_objects, self.context or {}, local, {**self.reflected, **self.tables})
        )
        Declaring(self.connection, self.name, scope, create=self.create_tables).declare(cls)
        self.tables[cls.__name__] = cls


def _checked_name(name: Any) -> None:
    plain = isinstance(name, str) and not set(name) & set('.`"')
    if not plain or not 0 < len(name) <= MAX_NAME:
        raise DataJointError(
            f"{name!r} cannot be the name of a schema: write up to {MAX_NAME} characters, "
            "without dots and quotes."
        )


class Schema(Activation):
    """A named group of tables in one database.

    Definitions may refer to the classes of their own family and of the schema, to names of the
    module that their class is in, and to local names where the class is decorated.

    Parameters
    ----------
    name
        On MySQL and MariaDB the database; on SQLite the first part of the table names. Without a
        name, decorated classes wait until `activate` gives one.
    connection
        The connection of the schema's database.
    context
        Further names that definitions may refer to; they take precedence over those mentioned
        above.
    create_schema
        Whether a missing schema is created; otherwise it is an error.
    create_tables
        Whether missing tables are created; otherwise the use of their classes is an error, so that
        modules can be imported where a part of their tables is there.
    add_objects
        Further names, which take precedence over those of the context.
    era
        ``"0.14"`` or ``"2.3"``: the era whose layout new tables have on MySQL and MariaDB, so that
        DataJoint of that era can use them; by default that of the existing tables, or else the
        later one.

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
    """The base classes of reflected classes by tier."""

    def make_classes(
        self, into: MutableMapping[str, Any] | ModuleType | None = None
    ) -> dict[str, type[Table]]:
        """Make classes for those tables of the schema that do not have one yet.

        Their tiers are read from the tables' names, and parts become attributes of their masters.
        Tables whose names do not follow a tier are left out: use `FreeTable` for them. Of two
        tables in different tiers whose classes would have one name, the younger is left out with a
        warning.

        Parameters
        ----------
        into
            The module or ``globals()`` that gets the classes under their names; by default the
            schema's context, or else the calling module. Existing names there stay as they are. In
            a call from a function only `locals` gets them: use the returned dict.

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
        """Return the names in SQL of the schema's tables without hidden ones, parents first.

        Parts come right after their masters, unless another table has to come between. The database
        is queried each time, since other processes declare tables too.
        """
        self.connection.catalog.forget(self.name)
        present = set(self.connection.catalog.names(self.name))
        graph = dependency_graph(self.connection.catalog.related(self.name))
        return [name.table for name in graph.order_with_parts(master_of) if name in present]

    def get_table(self, name: str) -> FreeTable:
        """Return a table by its name in SQL, with or without the tier's prefix, or its class name.

        The database is queried each time, so that the table is as other processes have left it.

        Raises
        ------
        MissingTableError
            If the schema lacks the table.

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
        """The size in bytes of all tables, hidden ones too; see `Table.size_on_disk`."""
        names = self.connection.catalog.names(self.name)
        with self.connection.cursor() as session:
            return self.connection.backend.size_on_disk(session, names)

    @property
    def lineage(self) -> dict[str, str]:
        """The origins of attributes of keys and foreign keys, by ``schema.table.attribute``.

        It is read from the foreign keys, independently of the table ``~lineage``.
        """
        return declare.schema_lineage(self.connection, self.name)

    @property
    def lineage_table_exists(self) -> bool:
        """Whether the table ``~lineage`` exists, which DataJoint needs; always False on SQLite."""
        self.connection.catalog.forget(self.name)
        return self.connection.catalog.raw(TableName(self.name, "~lineage")) is not None

    def rebuild_lineage(self) -> None:
        """Rewrite the table ``~lineage``, which DataJoint needs, from the foreign keys.

        It has no effect on SQLite, which lacks that table.
        """
        declare.rebuild(self.connection, self.name)

    def save(self, python_filename: str | Path | None = None) -> str:
        """Return a Python module with classes for all tables, as the database has them.

        Imported where the same database is configured, it has the same tables.

        Parameters
        ----------
        python_filename
            A file to write the module to as well.
        """
        source = module_source(self.connection, self.name)
        if python_filename is not None:
            Path(python_filename).write_text(source, encoding="utf-8")
        return source

    spawn_missing_classes = spawn_missing_classes

    def drop(self, prompt: bool | None = None, *, force: bool = False) -> None:
        """Drop the schema with all its tables.

        Parameters
        ----------
        prompt
            Whether to ask first; the connection's safemode by default.
        force
            Whether not to ask, in DataJoint 0.14's words.

        Raises
        ------
        QueryError
            If tables of other schemas refer to its tables, or inside a transaction.
        """
        ask = not force and (self.connection.safemode if prompt is None else prompt)
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


class VirtualModule(ModuleType):
    """A module with a class for each table of a schema, for use without the original Python code.

    Its attribute `schema` is the `Schema`. Tables whose names do not follow a tier are left without
    a class; use `FreeTable` for them.

    Parameters
    ----------
    module_name
        The name of the module.
    schema_name
        The schema to read.
    create_schema, create_tables
        Whether a schema that does not exist is created, and whether classes decorated with
        ``module.schema`` create their tables.
    connection
        The connection of the schema's database.
    add_objects
        Further names for the module; adapters among them are used for the tables' attributes.

    Raises
    ------
    DataJointError
        If the schema does not exist.

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
        add_objects: Mapping[str, object] | None = None,
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
