"""The numpy types that values of attributes have."""

from __future__ import annotations

from typing import Any

import numpy as np

from dj_dagster.model.types import AttributeType, Family

OBJECT = np.dtype(object)


def numpy_type(kind: AttributeType) -> np.dtype[Any]:
    """Return the type of an array of such values, none of which is null.

    Examples
    --------
    >>> from dj_dagster.model.types import parse_type
    >>> numpy_type(parse_type("int8")), numpy_type(parse_type("date"))
    (dtype('int64'), dtype('O'))
    """
    match kind.family:
        case Family.INTEGER:
            return np.dtype(np.uint64 if kind.unsigned and kind.size == 64 else np.int64)
        case Family.FLOAT:
            return np.dtype(np.float64)
        case Family.BOOL:
            return np.dtype(np.bool_)
        case _:
            return OBJECT
