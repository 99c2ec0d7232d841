"""Spellings of DataJoint 0.13 and 0.14, and members of connections, that published pipelines use.

Query expressions and schemas have the functions below as methods, or are decorated with them; each
translates a call into today's. `dj_dagster.compat.modules` offers them to packages that import
``datajoint`` too.

Calls with the same spelling but a changed meaning depend on the `era` of the connection, see
`replace_datajoint`. An example is ``aggr``, which left out rows without a match.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, time
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypedDict, TypeVar, Unpack, cast

import numpy as np

from dj_dagster.errors import DataJointError, QueryError
from dj_dagster.lazy import LateModule
from dj_dagster.model.heading import Heading, Row, Value
from dj_dagster.model.names import TableName, camel_case, snake_case, underscore_warning
from dj_dagster.model.types import parse_type
from dj_dagster.objects.codecs.chain import CodecRegistry
from dj_dagster.objects.codecs.codec import Codec

if TYPE_CHECKING:
    import pandas as pd

to_camel_case = camel_case


key = "KEY"
"""Stands for the primary key in ``fetch(dj.key)``."""


def from_camel_case(s: str) -> str:
    """Return the snake case of a class name; underscores are dropped, with a warning.

    Raises
    ------
    DefinitionError
        If the name is not in camel case.

    Examples
    --------
    >>> from_camel_case("SpikeSort")
    'spike_sort'
    """
    if "_" in s:
        warnings.warn(underscore_warning(s), UserWarning, stacklevel=2)
    return snake_case(s)


F = TypeVar("F", bound=Callable[..., object])
R = TypeVar("R", covariant=True)


class FetchOptions(TypedDict):
    """The options that all ways to get rows have."""

    offset: int | None
    limit: int | None
    order_by: str | Sequence[str] | None
    squeeze: bool


class HasObjects(Protocol):
    """A schema with objects of DataJoint 0.14."""

    @property
    def external(self) -> Value: ...


class OldConnection(Protocol):
    """The members of a connection that the old fetches use."""

    @property
    def fetch_format(self) -> Literal["array", "frame"]: ...

    @property
    def era(self) -> str: ...

    @property
    def schemas(self) -> Mapping[str, HasObjects]: ...

    def downloading_to(self, folder: Path) -> AbstractContextManager[None]: ...


class OldQuery(Protocol):
    """The members of a query that the old fetches use."""

    @property
    def connection(self) -> OldConnection: ...

    @property
    def heading(self) -> Heading: ...

    @property
    def primary_key(self) -> list[str]: ...

    def some_dicts(self, names: Iterable[str], **options: Unpack[FetchOptions]) -> list[Row]: ...

    def to_dicts(self, **options: Unpack[FetchOptions]) -> list[Row]: ...

    def to_arrays(self, *attributes: str, **options: Unpack[FetchOptions]) -> Value: ...

    def to_pandas(self, **options: Unpack[FetchOptions]) -> pd.DataFrame: ...


def fetch(
    self: OldQuery,
    *attrs: str,
    offset: int | None = None,
    limit: int | None = None,
    order_by: str | Sequence[str] | None = None,
    format: Literal["array", "frame"] | None = None,
    as_dict: bool | None = None,
    squeeze: bool = False,
    download_path: str | Path | None = None,
) -> Value:
    """Return rows in one of the old shapes.

    New code calls the method for the shape: `to_arrays`, `to_dicts`, `to_pandas`, `keys`.

    Parameters
    ----------
    *attrs
        Attributes to return an array of values for; ``"KEY"`` gives a list of key dicts.
    offset, limit, order_by, squeeze
        As for `to_dicts`.
    format
        ``"array"``, one structured array of all attributes, or ``"frame"``, a data frame; by
        default that of the setting ``fetch_format``.
    as_dict
        Whether rows are dicts.
    download_path
        Folder for attachments, that of the settings by default.

    Returns
    -------
    numpy.ndarray, list or pandas.DataFrame
        For several attributes a tuple of arrays; a list for code of DataJoint 0.14.

    Raises
    ------
    QueryError
        For a `format` together with attributes or `as_dict`.
    """
    _check_format(format, attrs, as_dict)
    options: FetchOptions = {
        "offset": offset,
        "limit": limit,
        "order_by": order_by,
        "squeeze": squeeze,
    }
    if download_path is not None:
        with self.connection.downloading_to(Path(download_path)):
            return fetch(self, *attrs, format=format, as_dict=as_dict, **options)
    if attrs and as_dict:
        names = [n for attr in attrs for n in (self.primary_key if attr == key else [attr])]
        rows = self.some_dicts(dict.fromkeys(names), **options)
        return [as_before(self, row) for row in rows] if self.connection.era == "0.14" else rows
    if attrs:
        columns = self.to_arrays(*attrs, **options)
        old = self.connection.era == "0.14" and len(attrs) > 1
        return list(columns) if old else columns
    if as_dict:
        return self.to_dicts(**options)
    frame = (format or self.connection.fetch_format) == "frame"
    return self.to_pandas(**options) if frame else self.to_arrays(**options)


def as_before(query: Any, row: Row) -> Row:
    """Return a row of named attributes; for code of DataJoint 0.14 with NaN for nulls of floats."""
    if query.connection.era != "0.14":
        return row
    return {
        name: math.nan if value is None and _is_float(query, name) else value
        for name, value in row.items()
    }


def _is_float(query: Any, name: str) -> bool:
    return name in query.heading and query.heading[name].dtype == np.float64


class OldTable(Protocol):
    """The members of a table that its old properties use."""

    @property
    def connection(self) -> OldConnection: ...

    @property
    def database(self) -> str: ...


def external(table: OldTable) -> Value:
    """DataJoint 0.14's objects of the schema, by store; see `Schema.external`."""
    schema = table.connection.schemas.get(table.database)
    if schema is None:
        raise DataJointError(
            f"The schema {table.database} has not been activated here: dj.Schema has it."
        )
    return schema.external


def old_end(order_by: str) -> Callable[[F], F]:
    """Return a decorator that lets ``head`` or ``tail`` take the options of the old `fetch`.

    With options, and in code of DataJoint 0.14, they return what it does.

    Parameters
    ----------
    order_by
        The order of the rows; one that descends is reversed afterwards.
    """
    step = -1 if order_by.endswith(" DESC") else 1

    def decorated(end: F) -> F:
        @wraps(end)
        def spelled(query: Any, limit: int = 25, **fetch_options: object) -> Value:
            if fetch_options or query.connection.era == "0.14":
                return query.fetch(order_by=order_by, limit=limit, **fetch_options)[::step]
            return end(query, limit)

        return cast(F, spelled)

    return decorated


class Restrictable(Protocol[R]):
    """A query that can be restricted."""

    def restrict(self, restriction: object, semantic_check: bool | None = None) -> R: ...


class Joinable(Protocol[R]):
    """A query that can be joined."""

    def join(self, other: object, semantic_check: bool | None = None) -> R: ...


def restrict_by_names(query: Restrictable[R], restriction: object) -> R:
    """Return ``query ^ restriction``: names match whatever they mean."""
    return query.restrict(restriction, semantic_check=False)


def join_by_names(query: Joinable[R], other: object) -> R:
    """Return ``query @ other``: the join on all shared names, whatever they mean."""
    return query.join(other, semantic_check=False)


def old_aggr(aggr: F) -> F:
    """Let ``aggr`` take ``keep_all_rows``, the opposite of today's ``exclude_nonmatching``."""

    @wraps(aggr)
    def spelled(*args: object, keep_all_rows: bool | None = None, **options: object) -> object:
        if keep_all_rows is not None:
            options.setdefault("exclude_nonmatching", not keep_all_rows)
        return aggr(*args, **options)

    return cast(F, spelled)


def old_delete(method: F) -> F:
    """Let ``delete`` and ``drop`` take the old names of today's options.

    ``safemode`` is ``prompt``; ``force`` and ``force_parts`` are ``part_integrity="ignore"``,
    ``force_masters`` is ``part_integrity="cascade"``.
    """

    @wraps(method)
    def spelled(
        *args: object,
        safemode: bool | None = None,
        force: bool = False,
        force_parts: bool = False,
        force_masters: bool = False,
        **options: object,
    ) -> object:
        if safemode is not None:
            options.setdefault("prompt", safemode)
        if force or force_parts or force_masters:
            options.setdefault("part_integrity", "cascade" if force_masters else "ignore")
        return method(*args, **options)

    return cast(F, spelled)


class OldSchema(Protocol):
    """The members of a schema that its old methods use."""

    def make_classes(
        self, into: MutableMapping[str, object] | ModuleType | None = None
    ) -> Mapping[str, type]: ...


def spawn_missing_classes(
    schema: OldSchema, context: MutableMapping[str, object] | ModuleType | None = None
) -> None:
    """Make classes for tables that lack one, by default in the calling module."""
    schema.make_classes(into=context)


def key_hash(mapping: Mapping[str, Value]) -> str:
    """Return the MD5 of a key's values in the order of their names, as in old job tables.

    Values are converted as DataJoint does: booleans to 1 or 0, times of day to durations.

    Examples
    --------
    >>> key_hash({"subject": 1, "session": 2})
    '3c59dc048e8850243be8079a5c74d079'
    """
    values = (str(_old_value(mapping[name])) for name in sorted(mapping))
    return hashlib.md5("".join(values).encode(), usedforsecurity=False).hexdigest()


def _old_value(value: Value) -> Value:
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, time):
        return datetime.combine(date.min, value) - datetime.combine(date.min, time.min)
    return value


def _check_format(format: str | None, attrs: tuple[str, ...], as_dict: bool | None) -> None:
    if format not in (None, "array", "frame"):
        raise QueryError(f"fetch knows the formats 'array' and 'frame', not {format!r}.")
    if format is not None and (attrs or as_dict):
        raise QueryError(
            f"fetch gives whole rows only in a format: format={format!r} cannot be combined with "
            "attributes or as_dict."
        )


__all__ = [
    "AdapterCodec",
    "AttributeAdapter",
    "as_before",
    "external",
    "fetch",
    "from_camel_case",
    "join_by_names",
    "key",
    "key_hash",
    "old_aggr",
    "old_delete",
    "old_end",
    "register_adapters",
    "restrict_by_names",
    "spawn_missing_classes",
    "to_camel_case",
]


class AttributeAdapter:
    """The base of one's own kinds of values, as they were defined before `Codec`.

    The name of an instance in definitions, ``<name>``, is that of the variable that holds it.

    Attributes
    ----------
    attribute_type
        The type of the stored values: ``"longblob"``, ``"attach@raw"``, ``"varchar(255)"``.
    """

    attribute_type: ClassVar[str]

    def put(self, obj: Value) -> Value:
        """Return the stored form of a value."""
        raise NotImplementedError(f"{type(self).__name__} needs a method put(self, obj).")

    def get(self, value: Value) -> Value:
        """Return the value that `put` was given."""
        raise NotImplementedError(f"{type(self).__name__} needs a method get(self, value).")


class AdapterCodec(Codec, register=False):
    """An `AttributeAdapter` as a codec."""

    def __init__(self, name: str, adapter: AttributeAdapter) -> None:
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]
        self._adapter = adapter

    def get_dtype(self, is_store: bool) -> str:
        """Return the adapter's type in today's spelling."""
        return parse_type(self._adapter.attribute_type).text

    def encode(
        self, value: Value, *, key: Mapping[str, Value] | None = None, store_name: str | None = None
    ) -> Value:
        """Return the result of the adapter's `put`."""
        return self._adapter.put(value)

    def decode(self, stored: Value, *, key: Mapping[str, Value] | None = None) -> Value:
        """Return the result of the adapter's `get`."""
        return self._adapter.get(stored)


def register_adapters(
    registry: CodecRegistry, names: Iterable[str], found: Callable[[str], Iterable[object]]
) -> None:
    """Make the adapters among the codec names of a definition available as codecs.

    Parameters
    ----------
    found
        A function from a name to the objects of that name that the definition can see.
    """
    for name in names:
        for value in found(name):
            if isinstance(value, AttributeAdapter):
                registry.register(AdapterCodec(name, value))
                break


# It needs networkx, and the floors above this one.
graphs = LateModule("dj_dagster.dependencies")


class Adapter:
    """A stand-in for DataJoint's adapter of a database, which only quotes names and texts.

    Parameters
    ----------
    backend
        The kind of database: ``"mysql"`` or ``"sqlite"``.
    full_name
        A function that writes a table's name together with its schema's.
    """

    def __init__(self, backend: str, full_name: Callable[[TableName], str]) -> None:
        self.backend = backend
        self._full_name = full_name

    def quote_identifier(self, name: str) -> str:
        """Return a name quoted for SQL.

        Examples
        --------
        >>> Adapter("mysql", str).quote_identifier("session")
        '`session`'
        """
        return "`" + name.replace("`", "``") + "`"

    def quote_string(self, text: str) -> str:
        """Return a text quoted for SQL."""
        return "'" + text.replace("'", "''") + "'"

    def make_full_table_name(self, database: str, table_name: str) -> str:
        """Return the full name of a table for SQL."""
        return self._full_name(TableName(database, table_name))


class HasKind(Protocol):
    """A kind of database."""

    name: str


class HasNames(Protocol):
    """A connection to a database."""

    @property
    def backend(self) -> HasKind:
        """The kind of database."""
        ...

    def full_name(self, name: TableName, /) -> str:
        """Return a table's name together with its schema's for SQL."""
        ...


def adapter_of(connection: HasNames) -> Adapter:
    """Return the quoting of names and texts in the SQL of the database."""
    return Adapter(connection.backend.name, connection.full_name)


def dependencies_of(connection: object) -> Any:
    """Return the graph of the tables of `schemas`; see `dj_dagster.dependencies.Dependencies`.

    It is empty before its method ``load()`` is called.
    """
    return graphs.Dependencies(connection)
