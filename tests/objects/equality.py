"""Strict equality of stored values: types, shapes and bits, so that nan equals nan."""

from __future__ import annotations

from typing import Any

import numpy as np


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray | np.generic):
        return type(left) is type(right) and _same_array(np.asarray(left), np.asarray(right))
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left), list(right)) and all(
            same(value, right[key]) for key, value in left.items()
        )
    return repr(left) == repr(right) or left == right


def _same_array(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.names:
        return all(_same_array(left[name], right[name]) for name in left.dtype.names)
    if left.dtype == object:
        return all(map(same, left.ravel().tolist(), right.ravel().tolist()))
    return left.tobytes() == right.tobytes()
