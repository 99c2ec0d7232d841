"""Grains: sets of tables with the same entities as keys, which share one partitions definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dagster import DynamicPartitionsDefinition

from dj_dagster.model.heading import Attribute
from dj_dagster.orchestration.tables.partition_keys import decode_key, row_encoder, values_of

Identity = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Grain:
    """The kind of entity that a partition is: a session, a session with a set of parameters, ...

    Attributes
    ----------
    name
        The name of the partitions definition: the table where the grain begins, ``"lab.Session"``.
    attributes
        The attributes of the key, in the order of that table.

    Examples
    --------
    >>> from dj_dagster.model.types import parse_type
    >>> grain = Grain("lab.Subject", (Attribute("subject_id", parse_type("int32")),))
    >>> grain.encode({"subject_id": 7, "sex": "F"}), grain.decode("subject_id=7")
    ('subject_id=7', {'subject_id': 7})
    """

    name: str
    attributes: tuple[Attribute, ...]

    @cached_property
    def partitions_def(self) -> DynamicPartitionsDefinition:
        """The dynamic partitions that all tables of the grain share."""
        return DynamicPartitionsDefinition(name=self.name)

    @cached_property
    def names(self) -> list[str]:
        """The names of the attributes, in order."""
        return [attribute.name for attribute in self.attributes]

    @cached_property
    def _encode_row(self) -> Callable[[Sequence[Any]], str]:
        return row_encoder(self.attributes)

    def encode(self, key: Mapping[str, Any]) -> str:
        """Return the partition of a row; see `encode_key`."""
        return self._encode_row(values_of(key, self.names))

    def encode_all(self, keys: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the partitions of rows in their order, each once."""
        return list(dict.fromkeys(map(self.encode, keys)))

    def encode_rows(self, rows: Iterable[Sequence[Any]]) -> list[str]:
        """Return the partitions of rows, given as the attributes' values in order, each once."""
        return list(dict.fromkeys(map(self._encode_row, rows)))

    def decode(self, partition: str) -> dict[str, Any]:
        """Return the key that a partition stands for; see `decode_key`."""
        return decode_key(self.attributes, partition)


class GrainBook:
    """The grains found so far, by the attributes of their keys."""

    def __init__(self) -> None:
        self._grains: dict[Identity, Grain] = {}

    def grain(self, begins_at: str, attributes: Iterable[Attribute]) -> Grain | None:
        """Return the grain of a key, None for an empty key; a new grain is named `begins_at`.

        Two keys are the same grain when they have the same attributes by name and by lineage,
        in any order.
        """
        attributes = tuple(attributes)
        if not attributes:
            return None
        identity = frozenset((a.name, a.lineage or f"{begins_at}.{a.name}") for a in attributes)
        return self._grains.setdefault(identity, Grain(begins_at, attributes))
