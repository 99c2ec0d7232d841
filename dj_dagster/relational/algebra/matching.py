"""The names that two queries share, and the heading of their join, by the rules of either era."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Attribute, Heading

AS_BEFORE = "For code written for DataJoint 0.14 call dj.replace_datajoint(era='0.14') first."
"""The remedy if an error is due to the era that code was written for."""


@dataclass(frozen=True, slots=True)
class Matching:
    """The rules by which rows of two queries agree.

    Attributes
    ----------
    is_checked
        Whether names that may mean different things are refused; otherwise names alone decide.
    is_old
        Whether the rules are those of DataJoint 0.14. There a shared name has to be in the primary
        key of one side, and the key of a join has the attributes of both keys.
    """

    is_checked: bool = True
    is_old: bool = False


BY_LINEAGE = Matching()


def shared_names(left: Heading, right: Heading, matching: Matching = BY_LINEAGE) -> tuple[str, ...]:
    """Return the names that two headings share, refusing those that mean different things.

    Raises
    ------
    QueryError
        If a shared name has different lineages or lacks one: two attributes of one name that are
        not related by a foreign key. In the era of DataJoint 0.14, if it is in neither primary key.
    """
    shared = tuple(name for name in left.names if name in right.attributes)
    if matching.is_checked:
        (_check_keys if matching.is_old else _check_lineage)(left, right, shared)
    return shared


def _check_lineage(left: Heading, right: Heading, shared: Iterable[str]) -> None:
    for name in shared:
        ours, theirs = left[name].lineage, right[name].lineage
        if ours is None or ours != theirs:
            raise QueryError(
                f"The attribute {name!r} is not the same thing on both sides, by its lineage: "
                f"{_origin(left[name])} and {_origin(right[name])}. Rename or leave out one of "
                f"them, for example with .proj(other_{name}='{name}'). Where names alone are to "
                f"decide: dj.config['semantic_check'] = False. {AS_BEFORE}"
            )


def _check_keys(left: Heading, right: Heading, shared: Iterable[str]) -> None:
    for name in shared:
        if not left[name].in_key and not right[name].in_key:
            raise QueryError(
                f"Cannot join query expressions on dependent attribute `{name}`, which is in the "
                f"primary key of neither side: {_origin(left[name])} and {_origin(right[name])}. "
                f"Rename or leave out one of them, for example with .proj(other_{name}='{name}'). "
                "Where names alone are to decide: @ in place of *, and ^ in place of &."
            )


def joined_heading(left: Heading, right: Heading, matching: Matching, outer: bool) -> Heading:
    """Return the heading of a join.

    Raises
    ------
    QueryError
        If an outer join could leave nulls in the primary key, except in the era of DataJoint 0.14.
    """
    if outer and not matching.is_old:
        _check_determined(left, right)
    theirs = {
        name: replace(attribute, nullable=attribute.nullable or outer)
        for name, attribute in right.attributes.items()
    }
    key = _joined_key(left, right, matching.is_old)
    # The side that determines the key comes first, as in DataJoint 2.
    left_first = matching.is_old or key == left.primary_key
    merged = {**(left.attributes if left_first else theirs), **theirs, **left.attributes}
    order = [*key, *(name for name in merged if name not in key)]
    return Heading(replace(merged[name], in_key=name in key) for name in order)


def _joined_key(left: Heading, right: Heading, is_old: bool) -> list[str]:
    if not is_old and left.determines(right):
        return left.primary_key
    if not is_old and right.determines(left):
        return right.primary_key
    return list(dict.fromkeys([*left.primary_key, *right.primary_key]))


def _check_determined(left: Heading, right: Heading) -> None:
    missing = [name for name in right.primary_key if name not in left.attributes]
    if missing:
        raise QueryError(
            "This needs the left operand to determine the right one. It lacks "
            f"{', '.join(missing)} of that one's primary key, so that one row could have many "
            "partners, or none and a null in its key. Swap the sides, use * for pairs, or aggr for "
            "one row each."
        )


def _origin(attribute: Attribute) -> str:
    return attribute.lineage or f"{attribute.table or 'a computed'}.{attribute.name}"
