"""Values that a computed attribute is compared with, in the form in which servers compare them."""

from __future__ import annotations

from collections.abc import Sequence

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Value
from dj_dagster.model.types import quote
from dj_dagster.relational.user_sql.kinds import Kind, number


def compared(name: str, values: Sequence[Value], kind: Kind) -> tuple[str, Sequence[Value]]:
    """Return SQL of the attribute that equals values where it does on a server, and the values.

    A text beside a number counts as the number at its beginning.

    Parameters
    ----------
    values
        Values as the driver takes them, none of them null.

    Returns
    -------
    text
        SQL over the attribute, empty for its column itself.

    Raises
    ------
    QueryError
        If servers differ, or the values are of several types.
    """
    are_numbers = {isinstance(value, int | float) for value in values}
    if kind.is_exact or kind.family == "float":
        return "", [v if isinstance(v, int | float) else number(_text(v)) for v in values]
    if kind.family == "json":
        if len(values) != 1:
            raise QueryError(
                f"SQLite cannot compare the computed attribute {name!r}, which is JSON, with "
                f"several values: servers differ. Compute it by JSON_VALUE()."
            )
        return f"if(`{name}` = {_literal(values[0])}, 1, 0)", [1]
    if kind.family not in ("text", "bytes") or not values:
        return "", values
    if are_numbers == {True}:
        return f"`{name}` + 0", values
    if are_numbers != {False}:
        raise QueryError(
            f"SQLite cannot compare the computed attribute {name!r} with texts and numbers at "
            f"once. Give values of one type."
        )
    if kind.family == "bytes":
        return "", [value.encode() if isinstance(value, str) else value for value in values]
    return "", [_text(value) for value in values]


def _text(value: Value) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _literal(value: Value) -> str:
    if isinstance(value, float):
        return f"{value!r}" if "e" in repr(value) else f"{value!r}e0"
    return str(int(value)) if isinstance(value, int) else quote(_text(value))
