"""Restrictions that restrict nothing by accident: fine to read by, refused where rows would go."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from dj_dagster.errors import QueryError, UnknownAttributeError
from dj_dagster.relational.algebra.algebra import (
    Aggregated,
    All,
    AnyOf,
    Condition,
    Grouped,
    Joined,
    Matches,
    Negated,
    Node,
    PassedOver,
    Projected,
    Restricted,
    Topped,
    United,
)


def refuse_oversights(node: Node, doing: str, above: Node | None = None) -> None:
    """Refuse a query with a restriction that names no attribute, and so holds for every row.

    Such as a mapping whose only name is mistyped, an empty one, or a query without an attribute
    in common; alone, in a list, negated, or in a query that restricts this one.

    Parameters
    ----------
    doing
        What the query is for: ``"delete from lab.session"``.
    above
        A part of the query that is not looked at, such as a key source.

    Raises
    ------
    UnknownAttributeError
        Naming what is no attribute, and the nearest attributes.
    QueryError
        If it is empty, or a query.
    """
    for found in _oversights(node, above):
        raise _refusal(found, doing)


def _oversights(node: Node, above: Node | None = None) -> Iterator[PassedOver | Matches]:
    if node is above:
        return
    match node:
        case Restricted(source=source, condition=condition):
            yield from _in_condition(condition)
            yield from _oversights(source, above)
        case Projected(source=source) | Topped(source=source) | Grouped(source=source):
            yield from _oversights(source, above)
        case Joined(left=one, right=other) | United(left=one, right=other):
            yield from _oversights(one, above)
            yield from _oversights(other, above)
        case Aggregated(source=one, group=other):
            yield from _oversights(one, above)
            yield from _oversights(other, above)
        case _:
            return


def _in_condition(condition: Condition) -> Iterator[PassedOver | Matches]:
    match condition:
        case PassedOver() | Matches(names=()):
            yield condition
        case Matches(query=query):
            yield from _oversights(query)
        case All(conditions) | AnyOf(conditions):
            for each in conditions:
                yield from _in_condition(each)
        case Negated(inner):
            yield from _in_condition(inner)
        case _:
            return


def _refusal(found: PassedOver | Matches, doing: str) -> QueryError:
    whole = "so that it would hold for every row; for all rows leave it out"
    if isinstance(found, Matches):
        tables = ", ".join(sorted(map(str, found.query.tables)))
        return QueryError(
            f"Cannot {doing}: the restriction by a query of {tables} has no attribute in common "
            f"with what it restricts, {whole}."
        )
    if not found.names:
        return QueryError(
            f"Cannot {doing}: a restriction is empty, {whole}; for none restrict by False or []."
        )
    near = dict.fromkeys(n for name in found.names for n in get_close_matches(name, found.known))
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    named = ", ".join(map(repr, found.names))
    return UnknownAttributeError(
        f"Cannot {doing}: a restriction names {named} alone, not an attribute, {whole}.{meant} "
        f"The attributes are {', '.join(found.known)}."
    )
