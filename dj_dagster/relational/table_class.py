"""The class of tables: what a class knows of its schema, and a class in the place of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from dj_dagster.errors import DataJointError
from dj_dagster.model.heading import Row
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.plan import PlannedTable
from dj_dagster.relational.expression import QueryExpression

if TYPE_CHECKING:

    def _of_instance(cls: object) -> Any: ...


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
    plan: Callable[[Mapping[str, object] | None], PlannedTable] | None = None


T = TypeVar("T", bound=QueryExpression)

_PACKAGE = __name__.partition(".")[0]


class TableMeta(type):
    """Lets a table class stand for the query over all its rows: ``Session & {"subject_id": 1}``."""

    if TYPE_CHECKING:
        # Defined anew by classes, or returning the class itself; for others see `class_access`.
        _binding: Binding | None
        delete = restrict = make = key_source = upstream = property(_of_instance)

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

    def __and__(cls: type[T], restriction: object) -> T:  # pyright: ignore[reportGeneralTypeIssues]
        return cls() & restriction  # pyright: ignore[reportCallIssue]

    def __sub__(cls: type[T], restriction: object) -> T:  # pyright: ignore[reportGeneralTypeIssues]
        return cls() - restriction  # pyright: ignore[reportCallIssue]

    def __mul__(cls, other: object) -> QueryExpression:
        return cls() * other

    def __add__(cls, other: object) -> QueryExpression:
        return cls() + other

    def __xor__(cls, other: object) -> QueryExpression:
        return cls() ^ other

    def __matmul__(cls, other: object) -> QueryExpression:
        return cls() @ other

    def __len__(cls) -> int:
        return len(cls())

    def __bool__(cls) -> bool:
        # An undeclared class must stay true: base classes and tools ask `if cls`.
        return cls._binding is None or bool(cls())

    def __iter__(cls) -> Iterator[Row]:
        return iter(cls())

    def __contains__(cls, row: object) -> bool:
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


def _refusing(cls: TableMeta, value: object) -> object:
    """Return a method of this package, wrapped to raise an error when called without an instance.

    Functions of users are returned as they are: they may be meant to be called on the class.
    """
    if not isinstance(value, FunctionType) or not value.__module__.startswith(f"{_PACKAGE}."):
        return value

    @wraps(value)
    def method(*args: object, **options: object) -> object:
        if not args or not isinstance(type(args[0]), TableMeta):
            raise undeclared(cls)
        return value(*args, **options)

    return method
