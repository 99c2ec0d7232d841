"""Columns of a query as data frames and numpy arrays, their types known from the heading."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from dj_dagster.errors import ConfigurationError, QueryError
from dj_dagster.lazy import LateModule
from dj_dagster.model.heading import OBJECT, Attribute, Heading, Value, numpy_type
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.objects.blob.format import Array

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
else:
    pd = LateModule("pandas")


Build = Callable[[ModuleType, Sequence[Value], Attribute], object]
Columns = Mapping[str, Sequence[Value]]

_LONGEST_DECIMAL = 38
"""Digits that a decimal of 128 bits holds, the only size in polars."""


def pandas_frame(columns: Columns, heading: Heading, era: str = "2.3") -> pd.DataFrame:
    """Return a pandas frame indexed by the primary key, with columns even when it is empty.

    Datetimes are ``datetime64[us]``. Integers and booleans beside nulls are floats, with NaN for
    null. They stay objects if floats would lose digits, and for code of DataJoint 0.14.
    """
    series = {name: _pandas_series(values, heading[name], era) for name, values in columns.items()}
    frame = pd.DataFrame(series, copy=False)
    return frame.set_index(heading.primary_key) if heading.primary_key else frame


def polars_frame(columns: Columns, heading: Heading) -> pl.DataFrame:
    """Return a polars frame with the heading's types, the key's columns first.

    Values unpacked by codecs are of type Object; uuids and JSON are text.

    Raises
    ------
    ConfigurationError
        If polars is not installed.
    QueryError
        If polars cannot hold a value.
    """
    polars = optional_package("polars", "polars")
    return polars.DataFrame(
        [
            _fitting(_polars_series, polars, values, heading[name])
            for name, values in columns.items()
        ]
    )


def arrow_table(columns: Columns, heading: Heading, *, as_declared: bool = False) -> pa.Table:
    """Return an Arrow table with the heading's types, the key's columns first.

    For values unpacked by codecs Arrow infers the type: lists of numbers fit, most objects do not.
    Uuids and JSON are text.

    Parameters
    ----------
    as_declared
        Whether numbers have the size of the attribute, as files need it, instead of 64 bits, with
        which they can be computed with.

    Raises
    ------
    ConfigurationError
        If pyarrow is not installed.
    QueryError
        If Arrow cannot hold a value.
    """
    arrow = optional_package("pyarrow", "arrow")
    build = partial(_arrow_array, number=_declared_number if as_declared else _number)
    return arrow.table(
        {name: _fitting(build, arrow, values, heading[name]) for name, values in columns.items()}
    )


def optional_package(module: str, extra: str) -> ModuleType:
    """Import a package that an extra brings.

    Raises
    ------
    ConfigurationError
        If it is not installed, naming the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"This needs the package {error.name}: pip install 'dj-dagster[{extra}]'"
        ) from error


def _fitting(
    build: Build, package: ModuleType, values: Sequence[Value], attribute: Attribute
) -> object:
    try:
        return build(package, values, attribute)
    except Exception as error:
        # Both packages raise errors of many kinds, some of them Python's own.
        name, kind = attribute.name, attribute.type
        raise QueryError(
            f"{name} : {kind.text if kind else 'computed'} has values that do not fit: {error}. "
            f"Leave it out with .proj(..., '-{name}'), or use to_dicts or to_pandas."
        ) from error


@cache
def _pandas_text() -> np.dtype[np.generic] | pd.api.extensions.ExtensionDtype:
    """Return the data type for text of this version of pandas."""
    return pd.Series(["text"]).dtype


def _pandas_series(values: Sequence[Value], attribute: Attribute, era: str) -> object:
    kind = attribute.type
    if kind is None:
        found = array(values, attribute)
        mixed = not values or found.dtype != object or _has_integers(values)
        return found if mixed else pd.Series(list(values))
    try:
        match kind.family:
            case Family.FLOAT:
                return np.array(values, np.float64)
            case Family.INTEGER | Family.BOOL if None in values and era != "0.14":
                return _floats(values)
            case Family.DATETIME:
                return pd.Series(values, dtype="datetime64[us]")
            case Family.JSON | Family.CODEC:
                # Texts alone would become pandas' own, which have no halves of surrogate pairs.
                return pd.Series(objects(values), dtype=object)
            case Family.STRING | Family.ENUM:
                return pd.Series(values, dtype=_pandas_text())
            case _:
                return array(values, attribute)
    except (TypeError, ValueError):
        # MySQL's date of zeros, for example, comes as text.
        return objects(values)


def _floats(values: Sequence[Value]) -> Array:
    """Return integers beside nulls as floats, or as objects if one has more than 53 bits."""
    if any(value is not None and abs(value) > 2**53 for value in values):
        return objects(values)
    return np.array([NAN if value is None else value for value in values], FLOAT)


def _has_integers(values: Sequence[Value]) -> bool:
    return any(type(value) in (int, bool) for value in values)


def _polars_series(polars: ModuleType, values: Sequence[Value], attribute: Attribute) -> object:
    kind = attribute.type
    if kind is None:
        return polars.Series(attribute.name, values)
    dtype = _polars_type(polars, kind)
    return polars.Series(attribute.name, _portable(values, kind), dtype, strict=True)


def _arrow_array(
    arrow: ModuleType,
    values: Sequence[Value],
    attribute: Attribute,
    number: Callable[[AttributeType], str],
) -> object:
    kind = attribute.type
    if kind is None or kind.family is Family.CODEC:
        return arrow.array(values)
    return arrow.array(_portable(values, kind), _arrow_type(arrow, kind, number))


def _portable(values: Sequence[Value], kind: AttributeType) -> Sequence[Value]:
    """Return values as types that polars and Arrow share with other languages."""
    if kind.family is Family.UUID:
        return [None if value is None else str(value) for value in values]
    if kind.family is Family.JSON:
        return [None if value is None else json.dumps(value) for value in values]
    if _is_long_decimal(kind):
        return [None if value is None else format(value, "f") for value in values]
    return values


def _polars_type(polars: ModuleType, kind: AttributeType) -> object:
    match kind.family:
        case Family.INTEGER | Family.FLOAT:
            return getattr(polars, _number(kind).capitalize().replace("Ui", "UI"))
        case Family.DECIMAL if not _is_long_decimal(kind):
            return polars.Decimal(kind.size, kind.scale or 0)
        case Family.BOOL:
            return polars.Boolean
        case Family.DATE:
            return polars.Date
        case Family.DATETIME:
            return polars.Datetime("us")
        case Family.TIME:
            return polars.Duration("us")
        case Family.BYTES:
            return polars.Binary
        case Family.CODEC:
            return polars.Object
        case _:
            return polars.String


def _arrow_type(
    arrow: ModuleType, kind: AttributeType, number: Callable[[AttributeType], str]
) -> object:
    match kind.family:
        case Family.INTEGER | Family.FLOAT:
            return getattr(arrow, number(kind))()
        case Family.DECIMAL if not _is_long_decimal(kind):
            return arrow.decimal128(kind.size, kind.scale or 0)
        case Family.BOOL:
            return arrow.bool_()
        case Family.DATE:
            return arrow.date32()
        case Family.DATETIME:
            return arrow.timestamp("us")
        case Family.TIME:
            return arrow.duration("us")
        case Family.BYTES:
            return arrow.binary()
        case _:
            return arrow.string()


def _number(kind: AttributeType) -> str:
    """Return the name that polars and Arrow have for a number's type of 64 bits: ``int64``.

    In narrower types sums of a column's values with each other overflow without an error.
    """
    return str(numpy_type(kind))


def _declared_number(kind: AttributeType) -> str:
    """Return the name of a number's type with the attribute's own size: ``uint32``."""
    if kind.family is Family.FLOAT:
        return f"float{kind.size}"
    bits = next(bits for bits in (8, 16, 32, 64) if bits >= (kind.size or 64))
    return f"uint{bits}" if kind.unsigned else f"int{bits}"


def _is_long_decimal(kind: AttributeType) -> bool:
    """Whether a decimal is kept as text: 128 bits do not hold it."""
    return kind.family is Family.DECIMAL and (kind.size or 0) > _LONGEST_DECIMAL


FLOAT = np.dtype(np.float64)
NAN = float("nan")

_MISFITS = (TypeError, ValueError, OverflowError)


def array(values: Sequence[Value], attribute: Attribute) -> Array:
    """Return an attribute's values as an array.

    Integers come as int64 (uint64 if one does not fit), floats as float64 with NaN for null,
    booleans as bool, all other values as objects. Integers and booleans beside nulls, which numpy
    cannot hold, also come as objects, and so does an empty array of a nullable attribute. For an
    attribute computed by the query, the values determine the type.
    """
    dtype = numpy_type(attribute.type) if attribute.type else _found(values)
    if dtype == FLOAT and None in values:
        values = [NAN if value is None else value for value in values]
    if dtype == FLOAT and all(isinstance(value, float | int) for value in values):
        return np.array(values, dtype)
    if dtype == OBJECT or None in values or (attribute.nullable and not values):
        return objects(values)
    kind = attribute.type
    for fitting in (dtype, np.dtype(np.uint64)) if kind is not None and kind.unsigned else (dtype,):
        try:
            return np.array(values, fitting)
        except _MISFITS:
            pass
    # SQLite keeps any value that other programs wrote, even text in a column of numbers.
    return objects(values)


def objects(values: Sequence[Value]) -> Array:
    """Return a one-dimensional array of Python objects, even if the values are arrays."""
    return np.fromiter(values, dtype=object, count=len(values))


def records(
    columns: Mapping[str, Sequence[Value]], heading: Heading
) -> np.recarray[tuple[int], np.dtype[np.void]]:
    """Return a record array; integers that may be null are objects even without a null."""
    arrays = [_field(values, heading[name]) for name, values in columns.items()]
    fields = [(name, values.dtype) for name, values in zip(columns, arrays, strict=True)]
    result = np.recarray(len(arrays[0]) if arrays else 0, dtype=fields)
    for name, values in zip(columns, arrays, strict=True):
        result[name] = values
    return result


def _field(values: Sequence[Value], attribute: Attribute) -> Array:
    kind = attribute.type
    may_be_null = attribute.nullable and kind is not None and numpy_type(kind) != FLOAT
    return objects(values) if may_be_null else array(values, attribute)


def _found(values: Sequence[Value]) -> np.dtype[np.generic]:
    kinds = set(map(type, values))
    for kind, dtype in ((bool, np.bool_), (int, np.int64), (float, np.float64)):
        if kinds == {kind}:
            return np.dtype(dtype)
    return OBJECT
