"""Declarations: table definitions as plain data, in which foreign keys are still names."""

from __future__ import annotations

from dataclasses import dataclass, field

from dj_dagster.model.types import AttributeType


@dataclass(frozen=True, slots=True)
class Default:
    """The default of an attribute.

    Attributes
    ----------
    value
        The literal's text without quotes, or the SQL expression.
    is_expression
        True for ``CURRENT_TIMESTAMP``, with or without a precision: written to SQL bare.
    """

    value: str
    is_expression: bool = False

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class AttributeDeclaration:
    """One ``name [= default] : type [# comment]`` line. ``= null`` makes `nullable` true."""

    name: str
    type: AttributeType
    default: Default | None = None
    nullable: bool = False
    comment: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class ForeignKeyDeclaration:
    """One ``-> [options] Target.proj(new='old')`` line.

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
    """One ``[unique] index(...)`` line; a part is an attribute, a prefix ``a(10)``, or SQL."""

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
        One sentence for each old spelling that was met and normalised.
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
