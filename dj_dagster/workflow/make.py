"""Tables that fill themselves: `make`, where its keys come from, and what is above them."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from dj_dagster.errors import DataJointError
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.table import Table
from dj_dagster.workflow.key_source import default_key_source
from dj_dagster.workflow.upstream import Upstream

STEPS = ("make_fetch", "make_compute", "make_insert")
"""The methods of a make in three parts."""


class Makes(Table):
    """A table that can fill itself.

    Write either `make`, or three methods between which long computations hold no transaction:

    - ``make_fetch(self, key, **make_kwargs)`` returns a tuple of all that is needed;
    - ``make_compute(self, key, *fetched)`` returns a tuple of results;
    - ``make_insert(self, key, *computed)`` inserts them.

    The inputs are fetched again in the transaction that inserts; if they have changed since, the
    key fails. A `make` that is a generator does the same: it yields the inputs, then, when the
    ``yield`` gave it None, the results, and inserts those that it is sent.
    """

    _made_key: dict[str, Any] | None = None
    _upstream: Upstream | None = None

    @property
    def key_source(self) -> QueryExpression:
        """The keys to make: the join of the parents in the primary key.

        Override it, as a property or as a query in the class's body, to narrow them or to make
        several rows at a time; its key may have fewer attributes than the table's.
        """
        return default_key_source(self)

    @property
    def upstream(self) -> Upstream:
        """The ancestors' rows that the key being made refers to: ``self.upstream[Session]``.

        Raises
        ------
        DataJointError
            Outside a `make`.
        """
        if self._made_key is None:
            raise DataJointError(
                f"{self.class_name}.upstream is only available inside make(self, key). Outside, "
                "restrict the ancestor itself: Session & key."
            )
        if self._upstream is None:
            self._upstream = Upstream(self, self._made_key)
        return self._upstream

    def make(self, key: dict[str, Any]) -> Any:
        """Compute the rows of one key and insert them with `self.insert1`; yours to write.

        Raises
        ------
        DataJointError
            Here, because the class does not define it.
        """
        raise DataJointError(
            f"{self.class_name} has no make: write def make(self, key) in its class, "
            f"which inserts the rows of {key}, or {', '.join(STEPS)}."
        )

    @contextmanager
    def making(self, key: Mapping[str, Any]) -> Generator[None]:
        """Let `upstream` look from a key."""
        self._made_key = dict(key)
        try:
            yield
        finally:
            self._made_key = self._upstream = None


def has_own_key_source(table: Makes) -> bool:
    """Whether a class says itself which keys it makes."""
    return _defined(table, "key_source") is not vars(Makes)["key_source"]


def in_three_parts(table: Makes) -> bool:
    """Whether a class has the three methods and no `make`."""
    return _defined(table, "make") is vars(Makes)["make"] and all(
        _defined(table, step) is not None for step in STEPS
    )


def _defined(table: Makes, name: str) -> Any:
    return inspect.getattr_static(table, name, None)
