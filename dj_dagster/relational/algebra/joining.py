"""Joins: which names two queries share, and what the key of their join is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.relational.algebra.algebra import Computed, Joined, Node, Projected
from dj_dagster.relational.algebra.projection import unknown

AS_BEFORE = "For code written for DataJoint 0.14 call dj.replace_datajoint(era='0.14') first."
"""What to do where an error is due to the era that code was written for."""


def with_key(query: Node, names: Iterable[str]) -> Projected:
    """Return the same rows with more attributes in their key, as DataJoint 0.14 has ``U * query``.

    Raises
    ------
    UnknownAttributeError
        If the query does not have one of them.
    """
    heading = query.heading
    for name in names:
        if name not in heading:
            raise unknown(name, heading)
    key = [*heading.primary_key, *names]
    attributes = [replace(a, in_key=a.name in key) for a in heading.attributes.values()]
    attributes.sort(key=lambda attribute: not attribute.in_key)
    columns: dict[str, Computed] = {attribute.name: attribute.name for attribute in attributes}
    return Projected(Heading(attributes, heading.comment), query.tables, query, columns)


def shared_names(left: Heading, right: Heading, semantic_check: bool = True) -> tuple[str, ...]:
    """Return the names that two headings share, refusing those that mean different things.

    Parameters
    ----------
    semantic_check
        False to compare names only.

    Raises
    ------
    QueryError
        If a shared name has different lineages, or none: two attributes of one name that no
        foreign key ties together.
    """
    shared = tuple(name for name in left.names if name in right.attributes)
    for name in shared if semantic_check else ():
        ours, theirs = left[name].lineage, right[name].lineage
        if ours is None or ours != theirs:
            raise QueryError(
                f"The attribute {name!r} is not the same thing on both sides, by its lineage: "
                f"{_origin(left[name])} and {_origin(right[name])}. Rename or leave out one of "
                f"them, for example with .proj(other_{name}='{name}'). Where names alone are to "
                f"decide: dj.config['semantic_check'] = False. {AS_BEFORE}"
            )
    return shared


def join(left: Node, right: Node, semantic_check: bool = True, outer: bool = False) -> Joined:
    """Return the pairs of rows that agree on all shared names.

    Parameters
    ----------
    outer
        Whether to keep rows of `left` without a partner; each may have one partner at most.

    Raises
    ------
    QueryError
        If names are shared that mean different things; if an outer join could leave nulls in the
        primary key.
    """
    shared = shared_names(left.heading, right.heading, semantic_check)
    if outer:
        _check_determined(left.heading, right.heading)
    key = _joined_key(left.heading, right.heading)
    attributes = _merged(left.heading, right.heading, key, outer)
    return Joined(Heading(attributes), left.tables | right.tables, left, right, shared, outer)


def _merged(left: Heading, right: Heading, key: list[str], outer: bool) -> list[Attribute]:
    theirs = {
        name: replace(attribute, nullable=attribute.nullable or outer)
        for name, attribute in right.attributes.items()
    }
    # The side whose key it is comes first, as in DataJoint.
    first = left.attributes if key == left.primary_key else theirs
    merged = {**first, **theirs, **left.attributes}
    rest = [name for name in merged if name not in key]
    return [replace(merged[name], in_key=name in key) for name in [*key, *rest]]


def _check_determined(left: Heading, right: Heading) -> None:
    missing = [name for name in right.primary_key if name not in left.attributes]
    if missing:
        raise QueryError(
            "This needs the left operand to determine the right one. It lacks "
            f"{', '.join(missing)} of that one's primary key, so that one row could have many "
            "partners, or none and a null in its key. Swap the sides, use * for pairs, or aggr for "
            "one row each."
        )


def _joined_key(left: Heading, right: Heading) -> list[str]:
    if left.determines(right):
        return left.primary_key
    if right.determines(left):
        return right.primary_key
    return list(dict.fromkeys([*left.primary_key, *right.primary_key]))


def _origin(attribute: Attribute) -> str:
    return attribute.lineage or f"{attribute.table or 'a computed'}.{attribute.name}"
