"""Comparison of values and files that were made again with those of a release."""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from dj_dagster.errors import BlobError
from dj_dagster.objects.blob.reader import is_packed, unpack

_NUMPY = b"\x93NUMPY"


def close(one: object, other: object, tolerance: float) -> bool:
    """Whether two values are equal, numbers within a tolerance; NaN equals NaN.

    A tolerance is a part of a number's size, or of 1 where that is more. Without one, numbers are
    equal bit for bit: 0.0 differs from -0.0.

    Examples
    --------
    >>> close([1.0, {"a": float("nan")}], [1.0, {"a": float("nan")}], 0.0)
    True
    >>> close(1.0, 1.001, 0.01), close(1.0, 1.001, 0.0001)
    (True, False)
    """
    if isinstance(one, np.generic | complex) and type(one) is type(other):
        return close(np.asarray(one), np.asarray(other), tolerance)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return (
            one.shape == other.shape
            and one.dtype == other.dtype
            and _arrays_close(one, other, tolerance)
        )
    if isinstance(one, float) and isinstance(other, float):
        if one == other:
            return tolerance > 0 or math.copysign(1, one) == math.copysign(1, other)
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(
            close(one[name], other[name], tolerance) for name in one
        )
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(
            close(a, b, tolerance) for a, b in zip(one, other, strict=True)
        )
    return type(one) is type(other) and bool(one == other)


def contents_close(one: bytes, other: bytes, tolerance: float) -> bool:
    """Whether files or packed values have the same bytes, or arrays of numbers that are close."""
    if one == other:
        return True
    if not tolerance:
        return False
    if one.startswith(_NUMPY) and other.startswith(_NUMPY):
        first, second = (np.load(BytesIO(data), allow_pickle=False) for data in (one, other))
        return close(first, second, tolerance)
    if is_packed(one) and is_packed(other):
        try:
            return close(unpack(one), unpack(other), tolerance)
        except BlobError:
            # A file may begin as a blob does by chance.
            return False
    return False


def _arrays_close(one: npt.NDArray[Any], other: npt.NDArray[Any], t: float) -> bool:
    kind = one.dtype.kind
    if one.dtype.names is not None:
        return all(close(one[name], other[name], t) for name in one.dtype.names)
    if kind == "O":
        return close(one.tolist(), other.tolist(), t)
    if kind == "c":
        return all(close(part(one), part(other), t) for part in (np.real, np.imag))
    if kind != "f":
        return bool(np.array_equal(one, other, equal_nan=kind in "mM"))
    both_nan = np.isnan(one) & np.isnan(other)
    if not t:
        same = (one == other) & (np.signbit(one) == np.signbit(other))
        return bool(np.all(same | both_nan))
    wide = np.result_type(one.dtype, np.float64)
    a, b = one.astype(wide), other.astype(wide)
    finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(all="ignore"):
        near = abs(a - b) <= t * np.maximum(np.maximum(abs(a), abs(b)), 1)
    return bool(np.all((a == b) | both_nan | (finite & near)))
