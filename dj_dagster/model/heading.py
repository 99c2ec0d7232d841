"""Headings: the attributes of a table or query, foreign keys resolved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dj_dagster.model.declaration import Default
from dj_dagster.model.types import AttributeType, Family

_NUMBERS = (Family.INTEGER, Family.FLOAT, Family.DECIMAL, Family.BOOL)
_TEXTS = (Family.STRING, Family.ENUM, Family.DATE, Family.DATETIME, Family.TIME)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a heading.

    Attributes
    ----------
    type
        None for an attribute computed by a query, whose type only the server knows.
    lineage
        ``schema.table.attribute`` where the attribute was first declared, None for secondary
        attributes and for computed ones. Attributes are the same thing when lineages are equal.
    table
        ``schema.table`` that holds the column, for messages about its values.
    """

    name: str
    type: AttributeType | None
    in_key: bool = False
    nullable: bool = False
    default: Default | None = None
    comment: str = ""
    lineage: str | None = None
    table: str = ""

    @property
    def hidden(self) -> bool:
        """Whether queries leave the attribute out unless it is asked for by name."""
        return self.name.startswith("_")

    @property
    def original_type(self) -> str | None:
        """A core type or codec as the definition has it; None for the database's own types."""
        return self.type.text if self.type is not None and self.type.core else None

    @property
    def family(self) -> Family | None:
        """The kind of value, None where the type is unknown."""
        return self.type.family if self.type is not None else None

    @property
    def numeric(self) -> bool:
        """Whether values are numbers; booleans count."""
        return self.family in _NUMBERS

    @property
    def string(self) -> bool:
        """Whether SQL writes values in quotes: texts, choices, dates and times."""
        return self.family in _TEXTS

    @property
    def uuid(self) -> bool:
        """Whether values are UUIDs."""
        return self.family is Family.UUID

    @property
    def json(self) -> bool:
        """Whether values are JSON."""
        return self.family is Family.JSON

    @property
    def is_blob(self) -> bool:
        """Whether values are bytes, or anything that a codec stores, wherever that is."""
        return self.family in (Family.BYTES, Family.CODEC)

    @property
    def holds_bytes(self) -> bool:
        """Whether the table itself has bytes in the column, maybe many."""
        return self.is_blob and not self.is_external

    @property
    def is_attachment(self) -> bool:
        """Whether values are files that a row carries, in the table or in a store."""
        return self.codec == "attach"

    @property
    def codec(self) -> str | None:
        """The name of the codec, None without."""
        return self.type.codec if self.type is not None else None

    @property
    def store(self) -> str | None:
        """The name of the store that has the values, empty for the default store, None without."""
        return self.type.store if self.type is not None else None

    @property
    def is_external(self) -> bool:
        """Whether a store has the values, the table only a reference."""
        return self.store is not None

    @property
    def autoincrement(self) -> bool:
        """Whether the database counts rows where no value is given."""
        return self.type is not None and self.type.auto_increment

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of fetched values: that of objects where some may be null."""
        return OBJECT if self.type is None or self.nullable else numpy_type(self.type)


class Heading:
    """An ordered, immutable collection of attributes."""

    def __init__(self, attributes: Iterable[Attribute], comment: str = "") -> None:
        self._all = {attribute.name: attribute for attribute in attributes}
        self.comment = comment

    @cached_property
    def attributes(self) -> dict[str, Attribute]:
        """The visible attributes by name, in order."""
        return {name: attr for name, attr in self._all.items() if not attr.hidden}

    @property
    def all_attributes(self) -> dict[str, Attribute]:
        """All attributes by name, hidden ones (`_job_start_time`, `_singleton`) too."""
        return self._all

    @cached_property
    def names(self) -> list[str]:
        """The visible names, in order."""
        return list(self.attributes)

    @cached_property
    def primary_key(self) -> list[str]:
        """Names of the visible primary key, in order; empty for a singleton table."""
        return [name for name, attr in self.attributes.items() if attr.in_key]

    @cached_property
    def secondary_attributes(self) -> list[str]:
        """Visible names outside the primary key, in order."""
        return [name for name, attr in self.attributes.items() if not attr.in_key]

    @cached_property
    def blobs(self) -> list[str]:
        """Visible names whose values are bytes or what codecs store."""
        return [name for name, attr in self.attributes.items() if attr.is_blob]

    @cached_property
    def non_blobs(self) -> list[str]:
        """Visible names whose values are plain: no bytes, no codecs, no JSON."""
        return [n for n, attr in self.attributes.items() if not (attr.is_blob or attr.json)]

    @property
    def has_autoincrement(self) -> bool:
        """Whether the database counts rows by one of the attributes."""
        return any(attr.autoincrement for attr in self.attributes.values())

    @property
    def as_dtype(self) -> np.dtype[Any]:
        """The numpy type of fetched records."""
        return np.dtype([(name, attr.dtype) for name, attr in self.attributes.items()])

    @property
    def table_status(self) -> dict[str, str]:
        """What is known of the table as a whole: its ``comment``."""
        return {"comment": self.comment}

    @property
    def table_info(self) -> dict[str, Any] | None:
        """The ``database`` and ``table_name`` of a table's heading, None for one of a query.

        There is no ``context``: which names a definition may use is known to the table's schema.
        """
        tables = {attribute.table for attribute in self._all.values()}
        if len(tables) != 1 or "" in tables:
            return None
        database, _, name = tables.pop().partition(".")
        return {"database": database, "table_name": name, "context": None}

    def as_sql(self, fields: Iterable[str], include_aliases: bool = True) -> str:
        """Return names as a SELECT of SQL has them, of a query that is a table or stands as one.

        Parameters
        ----------
        include_aliases
            Has no effect: it was for names that are computed in the same SELECT.

        Examples
        --------
        >>> Heading([]).as_sql(["session", "trial"])
        '`session`,`trial`'
        """
        del include_aliases
        return ",".join(f"`{name}`" for name in fields)

    def determines(self, other: Heading) -> bool:
        """Whether a row of this heading tells which row of the other is meant."""
        return set(other.primary_key) <= self.attributes.keys()

    def __getitem__(self, name: str) -> Attribute:
        return self._all[name]

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.attributes)

    def __repr__(self) -> str:
        def line(attribute: Attribute) -> str:
            default = " = null" if attribute.nullable else ""
            if attribute.default is not None:
                bare = attribute.default.is_expression or attribute.numeric
                value = attribute.default.value
                default = f" = {value}" if bare else f" = {value!r}"
            kind = attribute.type.text if attribute.type else "computed"
            comment = f"  # {attribute.comment}" if attribute.comment else ""
            return f"{attribute.name}{default} : {kind}{comment}"

        head = [f"# {self.comment}"] if self.comment else []
        key = [line(self.attributes[name]) for name in self.primary_key]
        rest = [line(self.attributes[name]) for name in self.secondary_attributes]
        return "\n".join([*head, *key, "---", *rest])


OBJECT = np.dtype(object)


def numpy_type(kind: AttributeType) -> np.dtype[Any]:
    """Return the type of an array of such values, none of which is null.

    Examples
    --------
    >>> from dj_dagster.model.types import parse_type
    >>> numpy_type(parse_type("int8")), numpy_type(parse_type("date"))
    (dtype('int64'), dtype('O'))
    """
    match kind.family:
        case Family.INTEGER:
            return np.dtype(np.uint64 if kind.unsigned and kind.size == 64 else np.int64)
        case Family.FLOAT:
            return np.dtype(np.float64)
        case Family.BOOL:
            return np.dtype(np.bool_)
        case _:
            return OBJECT
