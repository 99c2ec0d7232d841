"""A transaction as a block: ``with connection.transaction:``."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar


class HasTransactions(Protocol):
    """A connection that can begin a transaction and end it, well or not."""

    def start_transaction(self) -> None:
        """Begin."""

    def commit_transaction(self) -> None:
        """Keep what happened since."""

    def cancel_transaction(self) -> None:
        """Undo what happened since."""


C = TypeVar("C", bound=HasTransactions)


class Transaction(Generic[C]):
    """Commits what happens inside its block together, or nothing of it.

    ``with connection.transaction:`` and ``with connection.transaction():`` are the same.
    """

    def __init__(self, connection: C) -> None:
        self._connection = connection

    def __call__(self) -> Self:
        """Return the block itself."""
        return self

    def __enter__(self) -> C:
        self._connection.start_transaction()
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._connection.commit_transaction()
        else:
            self._connection.cancel_transaction()
