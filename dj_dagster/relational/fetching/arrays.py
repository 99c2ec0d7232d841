"""Columns of a query as numpy arrays, their dtypes known from the heading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dj_dagster.model.heading import OBJECT, Attribute, Heading, numpy_type

Array = np.ndarray[Any, Any]

FLOAT = np.dtype(np.float64)
NAN = float("nan")

_MISFITS = (TypeError, ValueError, OverflowError)


def array(values: Sequence[Any], attribute: Attribute) -> Array:
    """Return an attribute's values as an array.

    Integers come as int64 (uint64 for unsigned 64 bits), floats as float64 with NaN for null,
    booleans as bool, all else as objects. So do other numbers beside nulls, which numpy has no
    place for; an empty array of a nullable attribute therefore is one of objects. The values of an
    attribute computed by the query decide for themselves.
    """
    dtype = numpy_type(attribute.type) if attribute.type else _found(values)
    if dtype == FLOAT and None in values:
        values = [NAN if value is None else value for value in values]
    if dtype == FLOAT and all(isinstance(value, float | int) for value in values):
        return np.array(values, dtype)
    if dtype == OBJECT or None in values or (attribute.nullable and not values):
        return objects(values)
    try:
        return np.array(values, dtype)
    except _MISFITS:
        # SQLite keeps whatever other programs wrote, text in a column of numbers too.
        return objects(values)


def objects(values: Sequence[Any]) -> Array:
    """Return an array of Python objects, one a value: arrays among them make no matrix."""
    return np.fromiter(values, dtype=object, count=len(values))


def records(columns: Mapping[str, Sequence[Any]], heading: Heading) -> np.recarray[Any, Any]:
    """Return a record array; integers that may be null are objects, whether or not one is."""
    arrays = [_field(values, heading[name]) for name, values in columns.items()]
    fields = [(name, values.dtype) for name, values in zip(columns, arrays, strict=True)]
    result = np.recarray(len(arrays[0]) if arrays else 0, dtype=fields)
    for name, values in zip(columns, arrays, strict=True):
        result[name] = values
    return result


def _field(values: Sequence[Any], attribute: Attribute) -> Array:
    kind = attribute.type
    may_be_null = attribute.nullable and kind is not None and numpy_type(kind) != FLOAT
    return objects(values) if may_be_null else array(values, attribute)


def _found(values: Sequence[Any]) -> np.dtype[Any]:
    kinds = set(map(type, values))
    for kind, dtype in ((bool, np.bool_), (int, np.int64), (float, np.float64)):
        if kinds == {kind}:
            return np.dtype(dtype)
    return OBJECT
