"""Declarations: table definitions as plain data, in which foreign keys are unresolved names."""

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
        Whether it is ``CURRENT_TIMESTAMP``, with or without a precision, and is not quoted in SQL.
    """

    value: str
    is_expression: bool = False

    def __str__(self) -> str:
        return self.value


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
