"""The public names of DataJoint 2.3 are here too, methods with all of their parameters."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.relational.expression import QueryExpression

with warnings.catch_warnings():
    # It asks for a settings file.
    warnings.simplefilter("ignore")
    import datajoint
    from datajoint.expression import QueryExpression as TheirQueryExpression

INTERNAL = "a piece of how DataJoint makes SQL; ours are in dj_dagster.relational.sql.lowering"

WITHOUT = {
    "__author__": "in the metadata of the distribution",
    "QueryExpression.cursor": INTERNAL,
    "QueryExpression.from_clause": INTERNAL,
    "QueryExpression.make_subquery": INTERNAL,
    "QueryExpression.original_heading": INTERNAL,
    "QueryExpression.restrict_in_place": "expressions are immutable",
    "QueryExpression.restriction_attributes": INTERNAL,
    "QueryExpression.sorting_clauses": INTERNAL,
    "QueryExpression.support": INTERNAL,
    "QueryExpression.where_clause": INTERNAL,
    "QueryExpression.join.allow_nullable_pk": INTERNAL,
    "Table.declaration_context": "definitions are read when classes are decorated",
    "Table.declare": "a schema declares: @schema",
    "Table.get_select_fields": INTERNAL,
    "Connection.connect": "connections open when they are used",
}
"""What we do without, and why."""

OF_0_14 = """
config conn Connection Schema schema VirtualModule create_virtual_module list_schemas Table
FreeTable Manual Lookup Imported Computed Part Not AndList Top U Diagram Di ERD set_password
kill MatCell MatStruct AttributeAdapter errors DataJointError key key_hash logger
"""

CLASSES = [
    ("QueryExpression", TheirQueryExpression, QueryExpression),
    *(
        (name, getattr(datajoint, name), getattr(dj, name, object))
        for name in (
            "Table",
            "Part",
            "AutoPopulate",
            "Connection",
            "Instance",
            "Schema",
            "FreeTable",
            "U",
            "Top",
        )
    ),
]


def public(owner: Any) -> Iterator[str]:
    return (name for name in dir(owner) if not name.startswith("_"))


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(function, "__func__", function)).parameters)


def accepts(ours: Any, theirs: Any) -> list[str]:
    """Return the names of the parameters that ours lacks."""
    mine = parameters(ours)
    if any(p.kind is p.VAR_KEYWORD for p in mine.values()):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, p in parameters(theirs).items() if p.kind in named and name not in mine]


def test_names_of_0_14() -> None:
    assert [name for name in OF_0_14.split() if not hasattr(dj, name)] == []


def test_module() -> None:
    missing = [name for name in datajoint.__all__ if not hasattr(dj, name)]
    assert [name for name in missing if name not in WITHOUT] == []


@pytest.mark.parametrize(("label", "theirs", "ours"), CLASSES, ids=[row[0] for row in CLASSES])
def test_class(label: str, theirs: Any, ours: Any) -> None:
    inherited = () if label == "QueryExpression" else ("QueryExpression", "Table")
    reasons = {key.removeprefix(f"{owner}.") for owner in (label, *inherited) for key in WITHOUT
               if key.startswith(f"{owner}.")}  # fmt: skip
    missing: list[str] = []
    for name in public(theirs):
        method = inspect.getattr_static(theirs, name)
        if not hasattr(ours, name):
            missing.append(name)
        elif inspect.isfunction(getattr(method, "__func__", method)):
            lacking = accepts(inspect.getattr_static(ours, name), method)
            missing.extend(f"{name}.{parameter}" for parameter in lacking)
    assert [name for name in missing if name not in reasons] == []


def test_what_we_do_without_is_current() -> None:
    present = [name for name in WITHOUT if "." not in name and name in dj.__all__]
    owners = {label: ours for label, _, ours in CLASSES}
    for key in (key for key in WITHOUT if key.count(".") == 1):
        owner, name = key.split(".")
        present += [key] if hasattr(owners[owner], name) else []
    assert present == []
