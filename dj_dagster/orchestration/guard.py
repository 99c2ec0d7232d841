"""Doing one thing after another, where the failure of one stops none of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dj_dagster.errors import ConnectionFailedError
from dj_dagster.relational.database.connection import Connection


@dataclass
class Guard:
    """What went wrong in a tick.

    Attributes
    ----------
    errors
        By what was tried.
    """

    errors: dict[str, Exception] = field(default_factory=dict[str, Exception])
    _unreachable: set[Connection] = field(default_factory=set[Connection])

    def attempt(
        self, what: str, connection: Connection, action: Callable[..., None], *args: Any
    ) -> bool:
        """Do one thing, and return whether that succeeded; its error is kept for the end.

        A database that cannot be reached is asked once.
        """
        if connection in self._unreachable:
            return False
        try:
            action(*args)
        except Exception as error:
            self.errors[what] = error
            if isinstance(error, ConnectionFailedError):
                self._unreachable.add(connection)
            return False
        return True
