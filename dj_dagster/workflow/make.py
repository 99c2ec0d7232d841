"""Running one `make`: all of its rows, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dj_dagster.errors import DataJointError, PopulateError
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.table import Table
from dj_dagster.relational.write import unit_of_work
from dj_dagster.workflow.key_source import default_key_source


@dataclass(frozen=True, slots=True)
class Made:
    """What a `make` wrote.

    Attributes
    ----------
    own_rows
        Rows of the table itself.
    rows
        Rows of all tables.
    bytes
        Size of the packed blobs among them, in the rows and in stores.
    """

    own_rows: int
    rows: int
    bytes: int


class Makes(Table):
    """A table that can fill itself."""

    @property
    def key_source(self) -> QueryExpression:
        """The keys to make: the join of the parents in the primary key. Override to narrow it."""
        return default_key_source(self)

    def make(self, key: dict[str, Any]) -> None:
        """Compute the rows of one key and insert them with `self.insert1`; yours to write.

        Raises
        ------
        DataJointError
            Here, because the class does not define it.
        """
        raise DataJointError(
            f"{self.class_name} has no make: write def make(self, key) in its class, "
            f"which inserts the rows of {key}."
        )


def run_make(
    table: Makes, key: Mapping[str, Any], *, must_insert: bool = False, **make_kwargs: Any
) -> Made:
    """Call a table's `make` for a key and write what it inserted, in one short transaction.

    Parameters
    ----------
    must_insert
        Whether a make that inserts no row of the table is an error.

    Raises
    ------
    Exception
        What the make raised; nothing has been written then.
    """
    allowed = frozenset({table.name, *(part().name for part in type(table).parts())})
    with unit_of_work(table.connection, allowed) as buffer:
        table.make(dict(key), **make_kwargs)
        if must_insert and not buffer.written.get(table.name):
            raise PopulateError(
                f"make() of {table.name} inserted no row for {key}. Insert one, or leave such "
                "keys out by defining key_source."
            )
    return Made(
        buffer.written.get(table.name, 0),
        sum(buffer.written.values()),
        buffer.bytes,
    )
