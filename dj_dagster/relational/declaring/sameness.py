"""Whether what a database reports is what a definition says, spelled in another way."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from dj_dagster.model.declaration import Default, IndexDeclaration
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.stored import ForeignKey

_NUMERIC = (Family.INTEGER, Family.FLOAT, Family.DECIMAL, Family.BOOL)
# What MySQL itself calls these types.
_SYNONYMS = {
    "numeric": "decimal",
    "integer": "int",
    "real": "double",
    "serial": "bigint unsigned auto_increment",
}


def same_type(old: AttributeType | None, new: AttributeType | None) -> bool:
    """Whether two types are one, however they are spelled."""
    return old == new or (
        old is not None
        and new is not None
        and old.auto_increment == new.auto_increment
        and _canonical(old) == _canonical(new)
    )


def _canonical(kind: AttributeType) -> str:
    word = re.match(r"\w+", kind.text)
    name = word[0] if word else ""
    return _SYNONYMS.get(name, name) + kind.text[len(name) :]


def same_default(old: Default | None, new: Default | None, kind: AttributeType | None) -> bool:
    """Whether two defaults are the same value: servers write them in their own way."""
    if old is None or new is None or old == new:
        return old == new
    if old.is_expression or new.is_expression or kind is None:
        return old.value.upper() == new.value.upper()
    if kind.family in _NUMERIC:
        try:
            return Decimal(old.value) == Decimal(new.value)
        except InvalidOperation:
            return False
    if kind.family is Family.DATETIME:
        return _whole(old.value) == _whole(new.value)
    return False


def _whole(moment: str) -> str:
    """Return the text of a moment without zeros that say nothing."""
    return re.sub(r"( 00:00:00)?(\.0+)?$", "", moment)


def same_foreign_key(one: ForeignKey, other: ForeignKey) -> bool:
    """Whether two foreign keys relate the same attributes."""
    return (one.parent, one.attributes) == (other.parent, other.attributes)


def index_key(index: IndexDeclaration) -> tuple[bool, tuple[str, ...]]:
    """Return what tells indexes apart; servers write expressions in their own way."""
    parts = [
        re.sub(r"[`()\s]|_utf8mb4", "", part).lower() if part.startswith("(") else part
        for part in index.parts
    ]
    return index.unique, tuple(parts)
