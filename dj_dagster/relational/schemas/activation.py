"""How a schema gets its name and its classes their tables, at once or late."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, TypeVar

from dj_dagster.errors import DataJointError
from dj_dagster.model.names import MAX_NAME
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.eras import Era, checked_era
from dj_dagster.relational.declaring import declare
from dj_dagster.relational.schemas.declaring import Declaring, checked_class
from dj_dagster.relational.scope import Scope, calling_names
from dj_dagster.relational.table import Table

T = TypeVar("T", bound=type[Table])

_NOT_ACTIVATED = (
    "The schema has no name yet: write schema.activate('my_schema'), or pass the name to dj.Schema."
)


class Activation:
    """The half of a `Schema` that declares: see there."""

    def __init__(
        self,
        name: str | None = None,
        *,
        connection: Connection | None = None,
        context: MutableMapping[str, Any] | None = None,
        create_schema: bool = True,
        create_tables: bool | None = None,
        add_objects: Mapping[str, Any] | None = None,
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
        # By name: a class that is written once more, as in a notebook, takes the first one's place.
        self._decorated: dict[str, tuple[type[Table], Mapping[str, Any]]] = {}
        self._waiting: dict[str, tuple[type[Table], Mapping[str, Any]]] = {}
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
        """Where the schema lives.

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
        add_objects: Mapping[str, Any] | None = None,
    ) -> None:
        """Give the schema its name and declare the classes that wait for it, in their order.

        Activating it once more by the same name declares what still waits, as after an error; by
        another name it is refused, unless the schema has been dropped meanwhile.

        Parameters
        ----------
        schema_name
            None only makes sure that the schema is activated.
        connection, create_schema, create_tables
            As of `Schema`; those that are not given stay as they were.
        add_objects
            Names that definitions may refer to, which come before all others:
            ``add_objects=linking_module.__dict__``.

        Raises
        ------
        DataJointError
            If there is no name, or another one already.
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
            declare.ensure_schema(chosen, schema_name, create=create)
            if self._era is not None:
                chosen.catalog.set_era(schema_name, self._era)
            self._waiting = dict(self._decorated)
            self._name, self._connection = schema_name, chosen
        self.create_schema = create
        self.create_tables = self.create_tables if create_tables is None else create_tables
        self.add_objects |= add_objects or {}
        for name, decorated in list(self._waiting.items()):
            self._declare(*decorated)
            del self._waiting[name]

    def __call__(self, cls: T, *, context: Mapping[str, Any] | None = None) -> T:
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
        """Return the connection of a schema that is given none."""
        raise DataJointError("The schema has no connection: pass connection=.")

    def _check_same(self, name: str, connection: Connection | None) -> None:
        """Refuse another name or place; a schema that was dropped may be activated once more."""
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

    def _declare(self, cls: type[Table], local: Mapping[str, Any]) -> None:
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
