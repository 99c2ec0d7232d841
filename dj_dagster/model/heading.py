"""Headings: the attributes of a table or query, foreign keys resolved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from dj_dagster.model.declaration import Default
from dj_dagster.model.types import AttributeType


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
                value = attribute.default.value
                default = f" = {value}" if attribute.default.is_expression else f" = {value!r}"
            kind = attribute.type.text if attribute.type else "computed"
            comment = f"  # {attribute.comment}" if attribute.comment else ""
            return f"{attribute.name}{default} : {kind}{comment}"

        head = [f"# {self.comment}"] if self.comment else []
        key = [line(self.attributes[name]) for name in self.primary_key]
        rest = [line(self.attributes[name]) for name in self.secondary_attributes]
        return "\n".join([*head, *key, "---", *rest])
