"""Spellings of DataJoint 0.13 and 0.14 that published pipelines use.

`OldQuery` and `old_delete` are built into query expressions, `OldSchema` into schemas; they
translate each call into today's. `dj_dagster.compat.modules` offers them to packages that import
``datajoint`` too.

Calls with the same spelling but a changed meaning depend on the `era` of the connection, see
`replace_datajoint`. An example is ``aggr``, which left out rows without a match.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from datetime import date, datetime, time
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np

from dj_dagster.class_access import on_class
from dj_dagster.compat.adapters import AdapterCodec, AttributeAdapter, register_adapters
from dj_dagster.errors import QueryError
from dj_dagster.model.names import camel_case, snake_case, underscore_warning

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


F = TypeVar("F", bound=Callable[..., Any])


class _Connection(Protocol):
    """The members of a connection that the old fetches use."""

    @property
    def fetch_format(self) -> Literal["array", "frame"]: ...

    @property
    def era(self) -> str: ...


class _Query(Protocol):
    """The members of a query that the old fetches use."""

    @property
    def connection(self) -> _Connection: ...

    @property
    def primary_key(self) -> list[str]: ...

    def some_dicts(self, names: Iterable[str], **options: Any) -> list[dict[str, Any]]: ...

    def to_dicts(self, **options: Any) -> list[dict[str, Any]]: ...

    def to_arrays(self, *attributes: str, **options: Any) -> Any: ...

    def to_pandas(self, **options: Any) -> Any: ...


class OldQuery:
    """The old ways to get rows."""

    @on_class
    def fetch(
        self,
        *attrs: str,
        offset: int | None = None,
        limit: int | None = None,
        order_by: Any = None,
        format: Literal["array", "frame"] | None = None,
        as_dict: bool | None = None,
        squeeze: bool = False,
        download_path: str | Path | None = None,
    ) -> Any:
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
            For several attributes a list of arrays.

        Raises
        ------
        QueryError
            For a `format` together with attributes or `as_dict`.
        """
        _check_format(format, attrs, as_dict)
        options = {"offset": offset, "limit": limit, "order_by": order_by, "squeeze": squeeze}
        with _downloading(self, download_path):
            return _fetch(cast(_Query, self), attrs, format, as_dict, options)

    @on_class
    def fetch1(
        self, *attrs: str, squeeze: bool = False, download_path: str | Path | None = None
    ) -> Any:
        """Return the one row as a dict, or the values of the named attributes.

        Parameters
        ----------
        *attrs
            ``"KEY"`` among them gives the primary key as a dict.
        squeeze
            Whether arrays in blobs lose their dimensions of length 1.
        download_path
            Folder for attachments, that of the settings by default.

        Raises
        ------
        QueryError
            If the query does not have exactly one row.
        """
        with _downloading(self, download_path):
            return super().fetch1(*attrs, squeeze=squeeze)  # pyright: ignore[reportAttributeAccessIssue]

    @on_class
    def head(self, limit: int = 25, **fetch_options: Any) -> Any:
        """Return the first rows by primary key; options are those of the old `fetch`."""
        if fetch_options or cast(_Query, self).connection.era == "0.14":
            return self.fetch(order_by="KEY", limit=limit, **fetch_options)
        return super().head(limit)  # pyright: ignore[reportAttributeAccessIssue]

    @on_class
    def tail(self, limit: int = 25, **fetch_options: Any) -> Any:
        """Return the last rows by primary key, in its order; options are those of `fetch`."""
        if fetch_options or cast(_Query, self).connection.era == "0.14":
            return self.fetch(order_by="KEY DESC", limit=limit, **fetch_options)[::-1]
        return super().tail(limit)  # pyright: ignore[reportAttributeAccessIssue]

    def aggregate(self, group: Any, *attributes: Any, **computed: Any) -> Any:
        """Return the same as `aggr`."""
        return cast(Any, self).aggr(group, *attributes, **computed)

    def __xor__(self, restriction: Any) -> Any:
        return cast(Any, self).restrict(restriction, semantic_check=False)

    def __matmul__(self, other: Any) -> Any:
        return cast(Any, self).join(other, semantic_check=False)


def old_aggr(aggr: F) -> F:
    """Let ``aggr`` take ``keep_all_rows``, the opposite of today's ``exclude_nonmatching``."""

    @wraps(aggr)
    def spelled(*args: Any, keep_all_rows: bool | None = None, **options: Any) -> Any:
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
        *args: Any,
        safemode: bool | None = None,
        force: bool = False,
        force_parts: bool = False,
        force_masters: bool = False,
        **options: Any,
    ) -> Any:
        if safemode is not None:
            options.setdefault("prompt", safemode)
        if force or force_parts or force_masters:
            options.setdefault("part_integrity", "cascade" if force_masters else "ignore")
        return method(*args, **options)

    return cast(F, spelled)


class OldSchema:
    """The old names of a schema's methods."""

    def spawn_missing_classes(
        self, context: MutableMapping[str, Any] | ModuleType | None = None
    ) -> None:
        """Make classes for tables that lack one, by default in the calling module."""
        self.make_classes(into=context)  # pyright: ignore[reportAttributeAccessIssue]

    def drop(self, prompt: bool | None = None, *, force: bool = False) -> None:
        """Drop the schema with all its tables; `force` does not ask first."""
        super().drop(prompt=False if force else prompt)  # pyright: ignore[reportAttributeAccessIssue]


def key_hash(mapping: Mapping[str, Any]) -> str:
    """Return the MD5 of a key's values in the order of their names, as in old job tables.

    Values are converted as DataJoint does: booleans to 1 or 0, times of day to durations.

    Examples
    --------
    >>> key_hash({"subject": 1, "session": 2})
    '3c59dc048e8850243be8079a5c74d079'
    """
    values = (str(_old_value(mapping[name])) for name in sorted(mapping))
    return hashlib.md5("".join(values).encode(), usedforsecurity=False).hexdigest()


def _old_value(value: Any) -> Any:
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


def _fetch(
    query: _Query,
    attrs: tuple[str, ...],
    format: str | None,
    as_dict: bool | None,
    options: dict[str, Any],
) -> Any:
    if attrs and as_dict:
        names = [n for attr in attrs for n in (query.primary_key if attr == key else [attr])]
        return query.some_dicts(dict.fromkeys(names), **options)
    if attrs:
        columns = query.to_arrays(*attrs, **options)
        return list(columns) if len(attrs) > 1 else columns
    if as_dict:
        return query.to_dicts(**options)
    frame = (format or query.connection.fetch_format) == "frame"
    return query.to_pandas(**options) if frame else query.to_arrays(**options)


def _downloading(query: Any, folder: str | Path | None) -> AbstractContextManager[Any]:
    return nullcontext() if folder is None else query.connection.downloading_to(Path(folder))


__all__ = [
    "AdapterCodec",
    "AttributeAdapter",
    "OldQuery",
    "OldSchema",
    "from_camel_case",
    "key",
    "key_hash",
    "old_aggr",
    "old_delete",
    "register_adapters",
    "to_camel_case",
]
