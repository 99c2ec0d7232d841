"""A table that exists already, and a definition that says something else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dj_dagster.relational.declaring.plan import PlannedTable
from dj_dagster.relational.stored import ForeignKey, StoredTable


def differences(stored: StoredTable, plan: PlannedTable) -> list[str]:
    """Return in words how a table differs from its definition; what needs a query is left out."""
    return [*_names(stored, plan), *_types(stored, plan), *_foreign_keys(stored, plan)]


def _names(stored: StoredTable, plan: PlannedTable) -> Iterator[str]:
    here = set(stored.heading.names)
    wanted = {column.name for column in plan.columns if not column.name.startswith("_")}
    key = [name for name, attr in stored.heading.all_attributes.items() if attr.in_key]
    if key != list(plan.key):
        yield f"its primary key is ({', '.join(key)}), not ({', '.join(plan.key)})"
    if wanted - here:
        yield f"it has no {', '.join(sorted(wanted - here))}"
    if here - wanted:
        yield f"it has {', '.join(sorted(here - wanted))} besides"


def _types(stored: StoredTable, plan: PlannedTable) -> Iterator[str]:
    for column in plan.columns:
        found = stored.heading.all_attributes.get(column.name)
        kind = found.type if found else None
        # Types without a mark in the database are not known for sure.
        if kind is None or column.declared is None or not (kind.core and column.declared.core):
            continue
        if kind != column.declared:
            yield f"{column.name} is {kind.text}, not {column.declared.text}"


def _foreign_keys(stored: StoredTable, plan: PlannedTable) -> Iterator[str]:
    here, wanted = _references(stored.foreign_keys), _references(plan.foreign_keys)
    for parent, columns in sorted(wanted - here):
        yield f"it does not refer to {parent} by {', '.join(columns)}"
    for parent, columns in sorted(here - wanted):
        yield f"it refers to {parent} by {', '.join(columns)}"


def _references(foreign_keys: Iterable[ForeignKey]) -> set[tuple[str, tuple[str, ...]]]:
    return {(str(key.parent), tuple(sorted(key.attributes))) for key in foreign_keys}
