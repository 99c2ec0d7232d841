"""Rows as they were given, a batch at a time and column by column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


def _nowhere(position: int) -> str:
    del position
    return ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive rows.

    Attributes
    ----------
    columns
        By attribute, one value a row; None where a row gives none.
    size
        Number of rows.
    start
        How many rows came before.
    extra
        Names that the table does not have, each with the position of the first row that has it.
    place
        Says where the row at a position was read, as ``"scores.csv, line 3"``; "" for nowhere.
    """

    columns: Mapping[str, Sequence[Any]]
    size: int
    start: int = 0
    extra: Mapping[str, int] = field(default_factory=dict[str, int])
    place: Callable[[int], str] = _nowhere

    def values(self, position: int, names: Sequence[str]) -> dict[str, Any]:
        """Return some attributes of one row."""
        return {
            name: self.columns[name][position] if name in self.columns else None for name in names
        }


def batch_of(
    columns: Mapping[Any, Sequence[Any]],
    size: int,
    known: Mapping[str, Any],
    start: int = 0,
    place: Callable[[int], str] = _nowhere,
) -> Batch:
    """Return rows that all have the same names, those that the table does not have set aside."""
    kept = {name: values for name, values in columns.items() if name in known}
    extra = {str(name): 0 for name in columns if name not in known}
    return Batch(kept, size, start, extra, place)
