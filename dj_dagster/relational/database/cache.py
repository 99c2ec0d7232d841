"""A cache of statements by the shape of their query, which the threads of a connection share."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

CAPACITY = 1000


class StatementCache(Generic[T]):
    """A bounded mapping that threads may share; it is emptied when it is full."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, T] = {}

    def get(self, shape: Hashable) -> T | None:
        """Return the statement that is kept for a shape, None if it is not kept."""
        return self._kept.get(shape)

    def put(self, shape: Hashable, statement: T) -> None:
        """Keep a statement."""
        if len(self._kept) >= CAPACITY:
            self._kept.clear()
        self._kept[shape] = statement
