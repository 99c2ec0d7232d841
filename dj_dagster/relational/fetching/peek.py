"""The first rows of a query for displays: large values are described, not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from dj_dagster.errors import DataJointError, InvalidValueError
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.types import Family
from dj_dagster.objects.codecs.chain import CodecChain, ObjectContext
from dj_dagster.objects.external_pointer import ExternalPointerType
from dj_dagster.objects.previews import ValuePreview, byte_text
from dj_dagster.objects.stored_previews import stored_preview
from dj_dagster.relational.algebra.algebra import Node
from dj_dagster.relational.algebra.top import Order
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching.decode import Row, decoder_of
from dj_dagster.relational.fetching.reading import Reading, read
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.sql.ordering import Window, make_window
from dj_dagster.relational.sql_elements import Element

UNREADABLE = "(cannot be read)"
"""Stands for a value that is damaged, or whose object is missing; what is wrong follows."""


@dataclass(frozen=True, slots=True)
class Appetite:
    """How much of a large value is read to describe it, in bytes.

    Attributes
    ----------
    inline
        Of a value in its row; a longer one is told by its beginning.
    stored
        Of a value in a store; a longer one is told by its reference.
    """

    inline: int = 4096
    stored: int = 0


def peek(
    connection: Connection,
    node: Node,
    names: Sequence[str],
    order_by: Order,
    limit: int,
    appetite: Appetite,
) -> list[Row]:
    """Return rows of the named attributes; values of codecs, and bytes, as `ValuePreview`.

    So is what cannot be read, as `UNREADABLE`.
    """
    window = make_window(order_by, limit, None, node.heading)
    peeker = _Peeker(connection, node.heading, names, appetite)
    what = ("peek", *names, window, appetite)
    try:
        fetched, _ = read(connection, node, what, lambda: Reading(peeker.select(node, window)))
    except InvalidValueError:
        # Some text is none; the driver then gives no row at all.
        peeker = _Peeker(connection, node.heading, names, appetite, careful=True)
        careful = peeker.select(node, window)
        fetched, _ = read(connection, node, (*what, "careful"), lambda: Reading(careful))
    return peeker.rows(fetched)


def is_heavy(attribute: Attribute) -> bool:
    """Whether an attribute's values are described in displays, instead of being read."""
    return attribute.type is not None and attribute.type.family in (Family.CODEC, Family.BYTES)


class _Peeker:
    """Selects and describes rows of a heading.

    Parameters
    ----------
    careful
        Whether text comes as bytes, which it can be none of.
    """

    def __init__(
        self,
        connection: Connection,
        heading: Heading,
        names: Sequence[str],
        appetite: Appetite,
        *,
        careful: bool = False,
    ) -> None:
        self._careful = careful
        self._connection, self._appetite, self._names = connection, appetite, names
        light = [name for name in names if not is_heavy(heading[name])]
        heavy = [name for name in names if name not in light]
        if heavy:
            # Errors name the row by its key.
            light += [name for name in heading.primary_key if name not in light]
        self._light = [_Light(connection, heading[name]) for name in light]
        self._heavy = [_Heavy(connection, heading[name]) for name in heavy]
        self._heading = heading

    def select(self, node: Node, window: Window) -> sa.Select[Any]:
        """Return what is to be fetched: light attributes, then of heavy ones piece and size."""
        backend = self._connection.backend
        lowered = Lowering(backend).ordered(node, window.order, window.limit, window.offset)
        columns = dict(lowered.columns)
        names = [light.name for light in self._light]
        for name in names:
            if (kind := self._heading[name].type) is not None:
                columns[name] = backend.fetched(columns[name], kind)
        for heavy in self._heavy:
            pieces = heavy.pieces(columns[heavy.name], self._appetite.inline)
            columns |= pieces
            names += pieces
        if self._careful:
            columns |= {name: backend.undecoded(columns[name]) for name in names}
        return replace(lowered, columns=columns).select(*names)

    def rows(self, fetched: Sequence[Row]) -> list[Row]:
        """Return what is shown of rows."""
        return [self._row(iter(row)) for row in fetched]

    def _row(self, pieces: Iterator[Any]) -> Row:
        cells: dict[str, Any] = {
            light.name: light.shown(next(pieces), careful=self._careful) for light in self._light
        }
        key = {name: cells[name] for name in self._heading.primary_key if name in cells}
        for heavy in self._heavy:
            stored, size = next(pieces), next(pieces)
            context = heavy.context(self._connection, key)
            cells[heavy.name] = heavy.described(context, stored, size, self._appetite.stored)
        return tuple(cells[name] for name in self._names)


class _Light:
    """An attribute whose values are shown as they are."""

    def __init__(self, connection: Connection, attribute: Attribute) -> None:
        self.name = attribute.name
        self._decode = decoder_of(attribute, connection)

    def shown(self, stored: Any, *, careful: bool = False) -> Any:
        """Return a value, or what is shown of one that is none of its type."""
        try:
            value = stored.decode() if careful and isinstance(stored, bytes) else stored
            return value if value is None or self._decode is None else self._decode(value)
        except Exception as error:
            return unreadable(error)


def unreadable(error: Exception, place: str = "") -> ValuePreview:
    """Return what is shown of a value that cannot be read.

    Parameters
    ----------
    place
        What the error need not say, as the cell's place does.
    """
    reason = str(error) if isinstance(error, DataJointError) else f"{type(error).__name__}: {error}"
    return ValuePreview(f"{UNREADABLE} {reason.removeprefix(f'{place}: ')}")


class _Heavy:
    """An attribute whose values are described."""

    def __init__(self, connection: Connection, attribute: Attribute) -> None:
        self.name, self._attribute = attribute.name, attribute
        self._chain = _chain(connection, attribute)
        kind = self._chain.column_type if self._chain else attribute.type
        self._is_bytes = kind is not None and kind.family is Family.BYTES
        self._decode = connection.backend.decoder(kind) if kind is not None else None

    def pieces(self, column: Element, most: int) -> dict[str, Element]:
        """Return what to select: the beginning, and how many bytes there are."""
        if not self._is_bytes:
            return {self.name: column, f"bytes of {self.name}": sa.null()}
        # Numbers as they are, not as parameters: the SQL is kept for other rows.
        beginning = sa.func.substr(column, sa.literal_column("1"), sa.literal_column(str(most)))
        return {self.name: beginning, f"bytes of {self.name}": sa.func.length(column)}

    def context(self, connection: Connection, key: Mapping[str, Any]) -> ObjectContext:
        """Return where a value belongs."""
        schema, _, table = self._attribute.table.partition(".")
        limits = connection.read_limits
        return ObjectContext(connection.stores, schema, table, self.name, key, limits=limits)

    def described(self, context: ObjectContext, stored: Any, size: Any, most: int) -> ValuePreview:
        """Return what is shown of a value: its type where there is nothing else to say."""
        kind = ValuePreview(self._attribute.type.text if self._attribute.type else "")
        if stored is None:
            return ValuePreview("None")
        if self._chain is None:
            return ValuePreview(f"bytes, {byte_text(int(size))}") if self._is_bytes else kind
        try:
            if isinstance(stored, bytes) and not self._is_bytes:
                stored = stored.decode()
            content = stored if self._decode is None else self._decode(stored)
            length = None if size is None else int(size)
            return stored_preview(self._chain, content, length, context, most) or kind
        except Exception as error:
            return unreadable(error, context.place)


def _chain(connection: Connection, attribute: Attribute) -> CodecChain | None:
    kind = attribute.type
    # What a pointer of DataJoint 0.14 stands for is in another table.
    if kind is None or kind.family is not Family.CODEC or isinstance(kind, ExternalPointerType):
        return None
    try:
        return connection.codecs.resolve(kind)
    except DataJointError:
        return None
