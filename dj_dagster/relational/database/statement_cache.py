"""Compiled statements, kept by the shape of their query."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

CAPACITY = 1000


class StatementCache(Generic[T]):
    """A bounded mapping that threads may share; once it is full it starts anew."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, T] = {}

    def get(self, shape: Hashable) -> T | None:
        """Return what is kept for a shape, None for nothing."""
        return self._kept.get(shape)

    def put(self, shape: Hashable, statement: T) -> None:
        """Keep a statement."""
        if len(self._kept) >= CAPACITY:
            self._kept.clear()
        self._kept[shape] = statement
