"""Declarations, in which foreign keys are names still, and headings of tables and queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from dj_dagster.model.types import AttributeType, Family

Value = Any
"""A value of an attribute: each of Python's types that a type of attribute, or a codec, has."""

Row = dict[str, Value]
"""A row, or some attributes of it, by name."""

Key = dict[str, Value]
"""The primary key of a row by name."""

Values = tuple[Value, ...]
"""The values of some attributes of a row, in their order."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Default(str):
    """The default of an attribute, which is also a string: the text that DataJoint has for it.

    Attributes
    ----------
    value
        The literal's text without quotes, or the SQL expression.
    is_expression
        Whether it is ``CURRENT_TIMESTAMP``, with or without a precision, and is not quoted in SQL.
    quoted
        Whether the string has quotes, as in DataJoint's headings: ``'"abc"'``.
    """

    value: str
    is_expression: bool = False
    quoted: bool = False

    def __new__(cls, value: str, is_expression: bool = False, quoted: bool = False) -> Self:
        """Make the string; the rest are fields."""
        # Not super(): with slots the class is made twice, and it would mean the first.
        return str.__new__(cls, f'"{value}"' if quoted and not is_expression else value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Default):
            return (self.value, self.is_expression) == (other.value, other.is_expression)
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True)
class AttributeDeclaration:
    """A line ``name [= default] : type [# comment]``; ``= null`` makes `nullable` true."""

    name: str
    type: AttributeType
    default: Default | None = None
    nullable: bool = False
    comment: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class ForeignKeyDeclaration:
    """A line ``-> [options] Target.proj(new='old')``.

    Attributes
    ----------
    target
        The referenced class as written: ``"Session"``, ``"lab.Subject"``, ``"Session.Trial"``,
        ``"master"`` or ``"self"``.
    renames
        ``{new: old}`` of the ``.proj()``; the inherited attribute gets the new name.
    """

    target: str
    renames: dict[str, str] = field(default_factory=dict[str, str])
    nullable: bool = False
    unique: bool = False
    line: int = 0


@dataclass(frozen=True, slots=True)
class IndexDeclaration:
    """A line ``[unique] index(...)``; a part is an attribute, a prefix ``a(10)``, or SQL."""

    parts: tuple[str, ...]
    unique: bool = False
    line: int = 0


Item = AttributeDeclaration | ForeignKeyDeclaration


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """A parsed definition.

    Attributes
    ----------
    comment
        The table comment (the first ``#`` line before anything else), or "".
    key, secondary
        The items above and below ``---``, in order.
    indexes
        Index lines, in order.
    deprecations
        A sentence for each old spelling that was found and replaced.
    """

    comment: str = ""
    key: tuple[Item, ...] = ()
    secondary: tuple[Item, ...] = ()
    indexes: tuple[IndexDeclaration, ...] = ()
    deprecations: tuple[str, ...] = ()

    @property
    def foreign_keys(self) -> tuple[ForeignKeyDeclaration, ...]:
        """All foreign keys, those of the primary key first."""
        return tuple(
            item for item in (*self.key, *self.secondary) if isinstance(item, ForeignKeyDeclaration)
        )

    @property
    def attributes(self) -> tuple[AttributeDeclaration, ...]:
        """The attributes that the table itself declares, those of the primary key first."""
        return tuple(
            item for item in (*self.key, *self.secondary) if isinstance(item, AttributeDeclaration)
        )


_NUMBERS = (Family.INTEGER, Family.FLOAT, Family.DECIMAL, Family.BOOL)
TEXTS = (Family.STRING, Family.ENUM, Family.DATE, Family.DATETIME, Family.TIME)
"""Families of values that SQL writes in quotes."""


_OWN_CODECS = (None, "blob", "attach", "filepath", "hash", "object", "npy")
_PROPERTIES = (
    *("name", "type", "original_type", "in_key", "nullable", "default", "comment"),
    *("autoincrement", "numeric", "string", "uuid", "json", "is_blob", "is_attachment"),
    *("is_filepath", "is_external", "is_hidden", "adapter", "codec", "store", "unsupported"),
    *("database", "dtype", "lineage"),
)


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a heading.

    Attributes
    ----------
    type
        None for an attribute computed by a query, whose type only the server knows.
    lineage
        ``schema.table.attribute`` where the attribute was first declared, None for secondary
        attributes and for computed ones. Attributes with equal lineages mean the same.
    table
        ``schema.table`` that holds the column, for messages about its values.
    computation
        The SQL that computes the attribute and what it is computed from, None for others.
    """

    name: str
    type: AttributeType | None
    in_key: bool = False
    nullable: bool = False
    default: Default | None = None
    comment: str = ""
    lineage: str | None = None
    table: str = ""
    computation: Computation | None = field(default=None, repr=False, compare=False)

    @property
    def hidden(self) -> bool:
        """Whether queries leave the attribute out unless it is named."""
        return self.name.startswith("_")

    @property
    def original_type(self) -> str | None:
        """The core type or codec as the definition writes it; None for native types."""
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
        return self.family in TEXTS

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
        """Whether values are bytes or stored by a codec that is not one of files."""
        return self.family in (Family.BYTES, Family.CODEC) and not self._is_file

    @property
    def holds_bytes(self) -> bool:
        """Whether the column itself holds bytes or an encoded value, not a reference."""
        return self.family in (Family.BYTES, Family.CODEC) and not self.is_external

    @property
    def is_attachment(self) -> bool:
        """Whether values are files that a row carries, in the table or in a store."""
        return self.codec == "attach"

    @property
    def is_filepath(self) -> bool:
        """Whether values are users' own files in a store."""
        return self.codec == "filepath"

    @property
    def _is_file(self) -> bool:
        return self.is_attachment or self.is_filepath

    @property
    def is_hidden(self) -> bool:
        """The same as `hidden`."""
        return self.hidden

    @property
    def unsupported(self) -> bool:
        """False: what DataJoint has for columns that it cannot read."""
        return False

    @property
    def database(self) -> str | None:
        """The schema of the table that holds the column."""
        return self.table.partition(".")[0] or None

    @property
    def adapter(self) -> str | None:
        """The name of a codec of one's own, where DataJoint 0.14 has the adapter itself."""
        return None if self.codec in _OWN_CODECS else self.codec

    @property
    def sql_type(self) -> str:
        """The type of the column, for attributes without a codec."""
        return "binary(16)" if self.uuid else str(self.type or "expression")

    @property
    def sql_comment(self) -> str:
        """The comment of the column, with the marker by which uuids are known."""
        return f":uuid:{self.comment}" if self.uuid else self.comment

    @property
    def sql(self) -> str:
        """The SQL that declares a column like this one that must not be null."""
        return f'`{self.name}` {self.sql_type} NOT NULL COMMENT "{self.sql_comment}"'

    def todict(self) -> dict[str, Value]:
        """Return what is known of the attribute by DataJoint's names; a null default is "null"."""
        found = {name: getattr(self, name) for name in _PROPERTIES}
        return {**found, "default": "null" if self.nullable else self.default}

    _asdict = todict

    @property
    def codec(self) -> str | None:
        """The name of the codec; None for types without one."""
        return self.type.codec if self.type is not None else None

    @property
    def store(self) -> str | None:
        """The name of the store, "" for the default store; None for values in the table."""
        return self.type.store if self.type is not None else None

    @property
    def is_external(self) -> bool:
        """Whether values are in a store, and the table only holds references."""
        return self.store is not None

    @property
    def autoincrement(self) -> bool:
        """Whether the database numbers rows that are inserted without a value."""
        return self.type is not None and self.type.auto_increment

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The numpy type of fetched values: object if they may be null, but for floats."""
        found = OBJECT if self.type is None else numpy_type(self.type)
        return found if found == np.float64 or not self.nullable else OBJECT


@dataclass(frozen=True, slots=True, eq=False)
class Computation:
    """SQL of a user over the attributes of a heading."""

    text: str
    over: Heading


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
        """Visible names whose values are bytes or stored by a codec that is not one of files."""
        return [name for name, attr in self.attributes.items() if attr.is_blob]

    @cached_property
    def non_blobs(self) -> list[str]:
        """Visible names whose values are plain: neither bytes, nor stored by a codec, nor JSON."""
        plain = (n for n, attr in self.attributes.items() if not (attr.is_blob or attr.json))
        return [name for name in plain if self._all[name].family is not Family.CODEC]

    @property
    def new_attributes(self) -> list[str]:
        """Visible names that the query computes."""
        return [name for name, attr in self.attributes.items() if not attr.table]

    @property
    def has_autoincrement(self) -> bool:
        """Whether the database numbers rows by one of the attributes."""
        return any(attr.autoincrement for attr in self.attributes.values())

    @property
    def as_dtype(self) -> np.dtype[np.generic]:
        """The numpy type of fetched records."""
        return np.dtype([(name, attr.dtype) for name, attr in self.attributes.items()])

    @property
    def table_status(self) -> dict[str, str]:
        """The facts of the table as a whole: its ``comment``."""
        return {"comment": self.comment}

    @property
    def table_info(self) -> dict[str, str | None] | None:
        """The ``database`` and ``table_name`` of a table; None for the heading of a query.

        The ``context`` is None: the table's schema knows the names that definitions may use.
        """
        tables = {attribute.table for attribute in self._all.values()}
        if len(tables) != 1 or "" in tables:
            return None
        database, _, name = tables.pop().partition(".")
        return {"database": database, "table_name": name, "context": None}

    def as_sql(self, fields: Iterable[str], include_aliases: bool = True) -> str:
        """Return names as the column list of a SELECT from a table or subquery.

        Parameters
        ----------
        include_aliases
            Has no effect: in DataJoint it concerns names computed in the same SELECT.

        Examples
        --------
        >>> Heading([]).as_sql(["session", "trial"])
        '`session`,`trial`'
        """
        del include_aliases
        return ",".join(f"`{name}`" for name in fields)

    def determines(self, other: Heading) -> bool:
        """Whether each row of this heading determines at most one row of the other."""
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


def numpy_type(kind: AttributeType) -> np.dtype[np.generic]:
    """Return the numpy type of an array of values that are not null.

    Integers have a sign, also of unsigned attributes, so that their differences have one.

    Examples
    --------
    >>> from dj_dagster.model.types import parse_type
    >>> numpy_type(parse_type("int8")), numpy_type(parse_type("date"))
    (dtype('int64'), dtype('O'))
    """
    match kind.family:
        case Family.INTEGER:
            return np.dtype(np.int64)
        case Family.FLOAT:
            return np.dtype(np.float64)
        case Family.BOOL:
            return np.dtype(np.bool_)
        case _:
            return OBJECT
