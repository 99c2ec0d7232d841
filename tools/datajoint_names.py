"""DataJoint's public names beside ours, which a test compares and a page of the reference lists."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from typing import Any

import dj_dagster as dj
from dj_dagster.relational.expression import QueryExpression

with warnings.catch_warnings():
    # It asks for a settings file.
    warnings.simplefilter("ignore")
    import datajoint
    from datajoint.expression import QueryExpression as TheirQueryExpression
    from datajoint.table import FreeTable as TheirFreeTable

INTERNAL = "a piece of how DataJoint makes SQL; ours are in `dj_dagster.relational.sql.lowering`"

WITHOUT = {
    "__author__": "in the metadata of the distribution",
    "QueryExpression.make_subquery": INTERNAL,
    "QueryExpression.original_heading": INTERNAL,
    "QueryExpression.restrict_in_place": "expressions are immutable",
    "QueryExpression.sorting_clauses": INTERNAL,
    "QueryExpression.join.allow_nullable_pk": INTERNAL,
    "Table.declaration_context": "definitions are read when classes are decorated",
    "Table.get_select_fields": INTERNAL,
    "Connection.connect": "connections open when they are used",
}
"""Names, methods and parameters that are not here, and why."""

_IN_MODULE = (
    "Table",
    "Part",
    "AutoPopulate",
    "Connection",
    "Instance",
    "Schema",
    "U",
    "Top",
)

CLASSES: dict[str, tuple[Any, Any]] = {
    "QueryExpression": (TheirQueryExpression, QueryExpression),
    **{name: (getattr(datajoint, name), getattr(dj, name)) for name in _IN_MODULE},
    # Its package exports a function that makes one.
    "FreeTable": (TheirFreeTable, dj.FreeTable),
}
"""DataJoint's classes and ours, by name; those that inherit come after what they inherit from."""

_INHERITED = ("QueryExpression", "Table")


@dataclass(frozen=True)
class Comparison:
    """A public name of a class of DataJoint, compared with ours.

    Attributes
    ----------
    name
        The name.
    here
        Whether our class has it.
    lacking
        Parameters that ours does not take.
    more
        Parameters that only ours takes.
    about
        The first line of our docstring.
    """

    name: str
    here: bool
    lacking: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    about: str = ""


def missing_names() -> list[str]:
    """Return the names that DataJoint's package exports and ours lacks."""
    return [name for name in datajoint.__all__ if not hasattr(dj, name)]


def compared(label: str) -> list[Comparison]:
    """Return the public names of a class of DataJoint, each compared with ours."""
    theirs, ours = CLASSES[label]
    return [_compared(theirs, ours, name) for name in dir(theirs) if not name.startswith("_")]


def reason(label: str, name: str) -> str:
    """Return why a class lacks a method, or a parameter as in ``join.left``; empty if unknown."""
    owners = (label,) if label == "QueryExpression" else (label, *_INHERITED)
    return next(
        (WITHOUT[f"{owner}.{name}"] for owner in owners if f"{owner}.{name}" in WITHOUT), ""
    )


def datajoint_names() -> str:
    """Return the comparison as Markdown, a heading and a table for each class."""
    parts = [f"Compared with DataJoint {datajoint.__version__}."]
    shown: dict[str, str] = {}
    for label in CLASSES:
        found = {each: _verdict(label, each) for each in compared(label)}
        bases = _bases(label)
        if bases:
            found = {each: said for each, said in found.items() if shown.get(each.name) != said}
        if not found:
            # All of it is the same as what it inherits.
            continue
        if label in _INHERITED:
            shown |= {each.name: said for each, said in found.items()}
        scope = f"In addition to a {bases[-1]}, or otherwise than there.\n\n" if bases else ""
        parts += [f"\n## {label}\n\n{scope}| name | its parameters here | |", "|---|---|---|"]
        parts += [
            f"| `{each.name}` | {verdict} | {each.about} |" for each, verdict in found.items()
        ]
    without = "; ".join(f"`{name}` ({WITHOUT[name]})" for name in missing_names())
    return "\n".join([*parts, f"\n## Names of the package\n\nNot here: {without or 'none'}.\n"])


def _bases(label: str) -> list[str]:
    theirs = CLASSES[label][0]
    return [
        base
        for base in _INHERITED
        if base != label and isinstance(theirs, type) and issubclass(theirs, CLASSES[base][0])
    ]


def _verdict(label: str, found: Comparison) -> str:
    if not found.here:
        return f"not here: {reason(label, found.name)}"
    said = [f"without `{name}`: {reason(label, f'{found.name}.{name}')}" for name in found.lacking]
    if found.more:
        said.append(f"takes {', '.join(f'`{name}`' for name in found.more)} too")
    return "; ".join(said) or "the same"


def _compared(theirs: Any, ours: Any, name: str) -> Comparison:
    method = inspect.getattr_static(theirs, name)
    if not hasattr(ours, name):
        return Comparison(name, here=False)
    member = inspect.getattr_static(ours, name)
    about = "" if isinstance(member, str) else (inspect.getdoc(member) or "").partition("\n")[0]
    if not inspect.isfunction(getattr(method, "__func__", method)):
        return Comparison(name, here=True, about=about)
    mine, known = parameters(member), parameters(method)
    lacking, more = _only_in(known, mine), _only_in(mine, known)
    return Comparison(name, here=True, lacking=lacking, more=more, about=about)


def _only_in(
    some: dict[str, inspect.Parameter], others: dict[str, inspect.Parameter]
) -> tuple[str, ...]:
    """Return the names by which some parameters are given and which the others do not take."""
    if any(each.kind is each.VAR_KEYWORD for each in others.values()):
        return ()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(name for name, p in some.items() if p.kind in kinds and name not in others)


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function, or of the function of a class method."""
    return dict(inspect.signature(getattr(function, "__func__", function)).parameters)
