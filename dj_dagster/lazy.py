"""Libraries that take long to load, loaded when one of their names is first used.

Importing dj_dagster would otherwise take twice as long, for libraries that most sessions do not
use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import pandas as pd


class LateModule:
    """A stand-in for a module, which is imported when one of its names is first used.

    Examples
    --------
    >>> colorsys = LateModule("colorsys")
    >>> colorsys.rgb_to_hsv(1, 1, 1)
    (0.0, 0.0, 1)
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value


def is_data_frame(value: object) -> TypeGuard[pd.DataFrame]:
    """Whether a value is a pandas DataFrame; pandas is not imported for the test."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def is_series(value: object) -> TypeGuard[pd.Series]:
    """Whether a value is a pandas Series."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.Series)


def is_pandas_null(value: object) -> bool:
    """Whether a value is ``NA`` or ``NaT``, pandas' marks for a missing value."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)
