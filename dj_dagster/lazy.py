"""Libraries that take long to load, loaded when one of their names is first used.

Importing dj_dagster would otherwise take twice as long, for libraries that most sessions do not
use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


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
