"""Values on their way out: from what the driver gave to Python values, blobs unpacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.types import Family
from dj_dagster.objects.codecs import CodecChain, ObjectContext
from dj_dagster.relational.connection import Connection

Row = tuple[Any, ...]


class RowDecoder:
    """Decodes rows of some attributes of a heading; what it needs is looked up once.

    Attributes
    ----------
    names
        What to select: the wanted names, and with codecs also the key, by which their errors name
        the row.
    """

    def __init__(self, connection: Connection, heading: Heading, wanted: Sequence[str]) -> None:
        self._stores = connection.stores
        self._width = len(wanted)
        attributes = [heading[name] for name in wanted]
        chains = [_chain(attribute, connection) for attribute in attributes]
        self._decoders = [
            (position, decoder)
            for position, attribute in enumerate(attributes)
            if (decoder := _decoder(attribute, chains[position], connection)) is not None
        ]
        self._codecs = [
            (position, attributes[position], chain)
            for position, chain in enumerate(chains)
            if chain is not None
        ]
        key = heading.primary_key if self._codecs else []
        self.names = [*wanted, *(name for name in key if name not in wanted)]
        self._key = [(name, self.names.index(name)) for name in key]

    def decode(self, fetched: Sequence[Sequence[Any]]) -> list[Row]:
        """Return the wanted values of rows.

        Raises
        ------
        ObjectError
            If a blob or its object is missing or damaged, naming table, attribute and key.
        """
        if not self._width:
            return [() for _ in fetched]
        if not self._decoders and not self._codecs:
            return [tuple(row) for row in fetched]
        return [self._decoded(row) for row in fetched]

    def _decoded(self, row: Sequence[Any]) -> Row:
        values = list(row[: self._width])
        for position, decoder in self._decoders:
            if values[position] is not None:
                values[position] = decoder(values[position])
        for position, attribute, chain in self._codecs:
            if values[position] is not None:
                values[position] = chain.decode(values[position], self._place(attribute, row))
        return tuple(values)

    def _place(self, attribute: Attribute, row: Sequence[Any]) -> ObjectContext:
        schema, _, table = attribute.table.partition(".")
        key = {name: row[position] for name, position in self._key}
        return ObjectContext(self._stores, schema, table, attribute.name, key)


def _chain(attribute: Attribute, connection: Connection) -> CodecChain | None:
    kind = attribute.type
    if kind is None or kind.family is not Family.CODEC:
        return None
    return connection.codecs.resolve(kind)


def _decoder(
    attribute: Attribute, chain: CodecChain | None, connection: Connection
) -> Callable[[Any], Any] | None:
    stored_as = chain.column_type if chain is not None else attribute.type
    return connection.backend.decoder(stored_as) if stored_as is not None else None
