"""The metaclass of tables, which gives a table's class all operations of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from dj_dagster.errors import DataJointError
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.plan import PlannedTable
from dj_dagster.relational.expression import QueryExpression

if TYPE_CHECKING:
    from dj_dagster.model.heading import Heading
    from dj_dagster.relational.stored import ForeignKey

    def _bound(cls: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Binding:
    """The link to a schema that a table class gets when the schema decorates it.

    Attributes
    ----------
    class_name
        The name as users write it in the schema's module: ``"Session"``, ``"Session.Trial"``.
    plan
        Returns the table that the definition asks for, given names that take precedence over the
        schema's; None without a definition.
    """

    connection: Connection
    name: TableName
    class_name: str
    plan: Callable[[Mapping[str, Any] | None], PlannedTable] | None = None


T = TypeVar("T", bound=QueryExpression)

_PACKAGE = __name__.partition(".")[0]


class TableMeta(type):
    """Lets a table class stand for the query over all its rows: ``Session & {"subject_id": 1}``."""

    if TYPE_CHECKING:
        # The effect of __getattribute__ below, declared for type checkers; most methods declare it
        # themselves, see `class_access`.
        _binding: Binding | None
        delete = staged_insert1 = restrict = aggregate = make = property(_bound)
        jobs = key_source = upstream = adapter = external = property(_bound)

        @property
        def connection(cls) -> Connection:
            """See `Table.connection`."""
            ...

        @property
        def heading(cls) -> Heading:
            """See `Table.heading`."""
            ...

        @property
        def primary_key(cls) -> list[str]:
            """See `Table.primary_key`."""
            ...

        @property
        def foreign_keys(cls) -> tuple[ForeignKey, ...]:
            """See `Table.foreign_keys`."""
            ...

        @property
        def database(cls) -> str:
            """See `Table.database`."""
            ...

        @property
        def table_name(cls) -> str:
            """See `Table.table_name`."""
            ...

        @property
        def full_table_name(cls) -> str:
            """See `Table.full_table_name`."""
            ...

        @property
        def size_on_disk(cls) -> int:
            """See `Table.size_on_disk`."""
            ...

    else:

        def __getattribute__(cls, name: str) -> Any:
            """Give methods and properties of a declared table already bound to an instance.

            On a class that is not yet declared by a schema, they raise an error when called without
            an instance.
            """
            value = super().__getattribute__(name)
            if isinstance(value, FunctionType | property) and not name.startswith("_"):
                if super().__getattribute__("_binding") is None:
                    return _refusing(cls, value)
                return getattr(cls(), name)
            return value

    def __and__(cls: type[T], restriction: Any) -> T:  # pyright: ignore[reportGeneralTypeIssues]
        return cls() & restriction  # pyright: ignore[reportCallIssue]

    def __sub__(cls: type[T], restriction: Any) -> T:  # pyright: ignore[reportGeneralTypeIssues]
        return cls() - restriction  # pyright: ignore[reportCallIssue]

    def __mul__(cls, other: Any) -> QueryExpression:
        return cls() * other

    def __add__(cls, other: Any) -> QueryExpression:
        return cls() + other

    def __xor__(cls, other: Any) -> QueryExpression:
        return cls() ^ other

    def __matmul__(cls, other: Any) -> QueryExpression:
        return cls() @ other

    def __len__(cls) -> int:
        return len(cls())

    def __bool__(cls) -> bool:
        # An undeclared class must stay true: base classes and tools ask `if cls`.
        return cls._binding is None or bool(cls())

    def __iter__(cls) -> Iterator[dict[str, Any]]:
        return iter(cls())

    def __contains__(cls, row: Mapping[str, Any]) -> bool:
        return row in cls()

    def __repr__(cls) -> str:
        return type.__repr__(cls) if cls._binding is None else f"<table {cls._binding.name}>"


def undeclared(cls: type) -> DataJointError:
    """Return the error for the use of a class that no schema has declared."""
    return DataJointError(
        f"The table {cls.__name__} belongs to no schema yet: it is not properly configured. "
        "Decorate it: @schema above the class, with schema = dj.Schema('my_schema'); "
        "if the schema was given no name, activate it first."
    )


def _refusing(cls: TableMeta, value: Any) -> Any:
    """Return a method of this package, wrapped to raise an error when called without an instance.

    Functions of users are returned as they are: they may be meant to be called on the class.
    """
    if not isinstance(value, FunctionType) or not value.__module__.startswith(f"{_PACKAGE}."):
        return value

    @wraps(value)
    def method(*args: Any, **options: Any) -> Any:
        if not args or not isinstance(type(args[0]), TableMeta):
            raise undeclared(cls)
        return value(*args, **options)

    return method
