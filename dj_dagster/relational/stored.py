"""Tables as the database holds them, as plain data: first raw, then with types and lineage."""

from __future__ import annotations

from dataclasses import dataclass, field

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Default, Heading
from dj_dagster.model.names import TableName


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """A column as the database reports it; `comment` carries the ``:type:`` marker."""

    name: str
    sql_type: str
    nullable: bool
    default: Default | None
    comment: str
    auto_increment: bool = False


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key with both ends resolved.

    Attributes
    ----------
    attributes
        ``{child attribute: parent attribute}`` in the parent's key order.
    primary
        Whether all child attributes lie in the child's primary key.
    """

    child: TableName
    parent: TableName
    attributes: dict[str, str]
    primary: bool = False
    nullable: bool = False
    unique: bool = False


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table as the database reports it.

    Attributes
    ----------
    external
        By column, the store that it points into through a table of DataJoint 0.14; these foreign
        keys are not among the others.
    is_view
        Whether it is a view of the database, which can only be read and whose key is not known.
    """

    name: TableName
    comment: str
    columns: tuple[StoredColumn, ...]
    primary_key: tuple[str, ...]
    foreign_keys: tuple[ForeignKey, ...]
    unique: tuple[tuple[str, ...], ...] = ()
    external: dict[str, str] = field(default_factory=dict[str, str])
    is_view: bool = False


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table of the database whose columns have been given their attribute types."""

    name: TableName
    heading: Heading
    foreign_keys: tuple[ForeignKey, ...]
    is_view: bool = False

    def check_table(self, doing: str) -> None:
        """Refuse an operation that views do not support.

        Raises
        ------
        QueryError
            If this is a view.
        """
        if self.is_view:
            raise QueryError(
                f"{self.name} is a view of the database, which can only be read: {doing} the "
                "tables that it selects from, or change the view itself in SQL."
            )
