"""Libraries that take long to load, loaded when something of them is first used.

Importing dj_dagster would otherwise take twice as long, for what most sessions never touch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import pandas as pd


class LateModule:
    """Stands for a module and imports it at the first look at one of its names.

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
    """Whether a value is a pandas DataFrame; whoever has one has imported pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def is_series(value: object) -> TypeGuard[pd.Series]:
    """Whether a value is a pandas Series."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.Series)


def is_pandas_null(value: object) -> bool:
    """Whether a value is one of pandas' two marks for a missing one."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)
