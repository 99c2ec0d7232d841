"""What is needed of each attribute to encode its values, looked up once for a heading."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.types import Family
from dj_dagster.objects.codecs.chain import CodecChain
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.backends.base import Convert
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.inserting.column_checks import Check, Fits, check_of, fits_of


@dataclass(frozen=True, slots=True)
class InsertColumn:
    """What is needed of one attribute.

    Attributes
    ----------
    check
        Takes a whole column; see `dj_dagster.relational.inserting.column_checks`.
    convert
        Makes a checked value the driver's; None where it is already.
    whole
        The same for values of a column that passed `check`.
    fits
        Tells that a single value is the driver's as it is; None where none is.
    """

    attribute: Attribute
    check: Check
    convert: Convert | None
    whole: Convert | None
    fits: Fits | None = None
    codec: CodecChain | None = None

    @property
    def has_default(self) -> bool:
        """Whether a row may leave the attribute to the database."""
        kind = self.attribute.type
        return self.attribute.default is not None or bool(kind and kind.auto_increment)

    @property
    def has_store(self) -> bool:
        """Whether values are written to a store, of which no transaction takes them back."""
        return self.codec is not None and self.codec.store is not None


@lru_cache(maxsize=1000)
def columns_of(heading: Heading, backend: Backend) -> tuple[tuple[InsertColumn, ...], bool]:
    """Return what is needed of each attribute, looked up once for a heading.

    The second value says whether any has a codec, which is looked up for each insert: its class
    may have been defined again.
    """
    attributes = heading.attributes.values()
    packed = any(a.type is not None and a.type.family is Family.CODEC for a in attributes)
    return tuple(_column_of(attribute, backend) for attribute in attributes), packed


def _column_of(attribute: Attribute, backend: Backend) -> InsertColumn:
    kind = attribute.type
    convert = None if kind is None or kind.family is Family.CODEC else backend.encoder(kind)
    # A whole column of integers in range of a signed type is the driver's already.
    plain = kind is not None and kind.family is Family.INTEGER and not kind.unsigned
    fits = fits_of(attribute) if convert is None or plain else None
    return InsertColumn(attribute, check_of(attribute), convert, None if plain else convert, fits)


def required_names(heading: Heading) -> list[str]:
    """Return the attributes that every row has to give a value for."""
    return [
        name
        for name, attribute in heading.attributes.items()
        if not (attribute.nullable or attribute.default is not None)
        and not (attribute.type is not None and attribute.type.auto_increment)
    ]


@lru_cache(maxsize=1000)
def key_of(heading: Heading) -> tuple[str, ...]:
    """Return the primary key, a hidden one too."""
    return tuple(name for name, attr in heading.all_attributes.items() if attr.in_key)


def has_codec(column: InsertColumn) -> bool:
    """Whether values pass a codec."""
    return column.codec is not None


def with_codec(column: InsertColumn, connection: Connection) -> InsertColumn:
    """Return a column with its codec looked up, if it has one."""
    kind = column.attribute.type
    if kind is None or kind.family is not Family.CODEC:
        return column
    chain = connection.codecs.resolve(kind)
    convert = connection.backend.encoder(chain.column_type)
    return InsertColumn(column.attribute, column.check, convert, convert, None, chain)
