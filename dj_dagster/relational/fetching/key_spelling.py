"""Whether values of keys are stored as we write them, so that they are found by what they mean.

A program that writes into SQLite may spell a date as ``20260105``, or put 1.5 where integers are.
Such a value is read as the same as another one, and no query finds its row by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from dj_dagster.errors import InvalidValueError
from dj_dagster.model.heading import Attribute
from dj_dagster.model.types import Family
from dj_dagster.relational.backends import Backend

Row = Sequence[Any]
IsOurs = Callable[[Any, Any], bool]

_TYPES: dict[Family, tuple[type, ...]] = {
    Family.INTEGER: (int,),
    Family.FLOAT: (float, int),
    Family.STRING: (str,),
    Family.ENUM: (str,),
}
_TEXTS = (Family.DATE, Family.DATETIME, Family.TIME, Family.UUID)


class KeySpelling:
    """Tells values that another program has spelled in its own way.

    Nothing is looked at where the database itself knows the types, but booleans, which are numbers
    everywhere.
    """

    def __init__(self, backend: Backend, attributes: Sequence[Attribute]) -> None:
        self._checks = [
            (position, attribute, check)
            for position, attribute in enumerate(attributes)
            if (check := _check_of(attribute, backend)) is not None
        ]

    def check(self, stored: Sequence[Row], decoded: Sequence[Row]) -> None:
        """Refuse rows with such a value.

        Raises
        ------
        InvalidValueError
            Naming table, attribute and value.
        """
        for position, attribute, is_ours in self._checks:
            for one, other in zip(stored, decoded, strict=True):
                value = one[position]
                if value is not None and not is_ours(value, other[position]):
                    kind = attribute.type.text if attribute.type else ""
                    raise InvalidValueError(
                        f"{attribute.table}.{attribute.name} : {kind} is part of a key and holds "
                        f"{value!r:.80}, which is not how such a value is written: another program "
                        "has put it there, and no query finds it. Correct the row."
                    )


def _check_of(attribute: Attribute, backend: Backend) -> IsOurs | None:
    kind = attribute.type
    if kind is None:
        return None
    if kind.family is Family.BOOL:
        return lambda stored, _: stored in (0, 1)
    if backend.checks_values:
        return None
    if kind.family in _TYPES:
        types = _TYPES[kind.family]
        return lambda stored, _: type(stored) in types
    if kind.family is Family.DECIMAL:
        return lambda stored, decoded: Decimal(str(stored)) == decoded
    encode = backend.encoder(kind)
    if kind.family in _TEXTS and encode is not None:
        return lambda stored, decoded: stored == encode(decoded)
    return None
