"""Union: the rows of two queries with the same primary key."""

from __future__ import annotations

from dataclasses import replace

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Heading
from dj_dagster.relational.algebra.algebra import Node, United
from dj_dagster.relational.algebra.joining import shared_names


def unite(left: Node, right: Node, semantic_check: bool = True) -> United:
    """Return the rows of both queries, one for each key, with the attributes of both.

    Raises
    ------
    QueryError
        If the primary keys have different names or meanings, or both sides have a secondary
        attribute of one name.
    """
    ours, theirs = left.heading, right.heading
    if set(ours.primary_key) != set(theirs.primary_key):
        raise QueryError(
            "A union needs one primary key on both sides; they have "
            f"({', '.join(ours.primary_key)}) and ({', '.join(theirs.primary_key)}). "
            "Rename with proj, or group with dj.U(...) &."
        )
    both = [name for name in ours.secondary_attributes if name in theirs.attributes]
    if both:
        raise QueryError(
            f"Both sides of a union have {', '.join(both)}, and a row can have only one value of "
            f"it. Leave it out of one side, .proj() for the key alone, or rename it."
        )
    shared_names(ours, theirs, semantic_check)
    rest = {**ours.attributes, **theirs.attributes}
    key = [ours[name] for name in ours.primary_key]
    secondary = [
        replace(attribute, nullable=True) for attribute in rest.values() if not attribute.in_key
    ]
    return United(Heading([*key, *secondary]), left.tables | right.tables, left, right)
