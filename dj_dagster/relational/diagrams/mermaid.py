"""A picture as Mermaid text, which GitHub, JupyterLab and many editors draw by themselves."""

from __future__ import annotations

import html
from collections.abc import Iterator

from dj_dagster.model.names import Tier
from dj_dagster.relational.diagrams.picture import Box, Line, Picture

_LOOKS = {
    "manual": "fill:#dff2df,stroke:#4c9a4c,color:#155215",
    "lookup": "fill:#e8e8e8,stroke:#8c8c8c,color:#333333",
    "imported": "fill:#dde6fb,stroke:#4a6fc4,color:#152c6b",
    "computed": "fill:#fbdfdd,stroke:#c8504b,color:#7a1512",
    "part": "fill:none,stroke:none,color:#222222",
    "schema": "fill:#f2f2f2,stroke:#8c8c8c,color:#333333",
    "other": "fill:#fbf6dd,stroke:#b09a3c,color:#5c4e10",
}
_SHAPES: dict[Tier | None, tuple[str, str]] = {
    **dict.fromkeys((Tier.MANUAL, Tier.LOOKUP), ("(", ")")),
    **dict.fromkeys((Tier.IMPORTED, Tier.COMPUTED), ("([", "])")),
}
_LINES = {Line.WHOLE: "===", Line.PART: "---", Line.SECONDARY: "-.-"}


def to_mermaid(picture: Picture, direction: str) -> str:
    """Return the text of a picture; `direction` is ``"TB"`` or ``"LR"``."""
    return "\n".join(_lines(picture, direction))


def _lines(picture: Picture, direction: str) -> Iterator[str]:
    ids = {key: f"t{number}" for number, key in enumerate(picture.boxes)}
    yield f"flowchart {direction}"
    for number, (schema, boxes) in enumerate(picture.schemas.items()):
        if picture.framed:
            yield f'    subgraph s{number}["{_escaped(schema)}"]'
        for box in boxes:
            yield f"    {_node(box, ids)}"
        if picture.framed:
            yield "    end"
    for box in picture.boxes.values():
        if box.collapsed:
            yield f"    {_node(box, ids)}"
    for link in picture.links:
        renames = ", ".join(f"{new} = {old}" for new, old in link.renames)
        label = f'|"{_escaped(renames)}"|' if renames else ""
        yield f"    {ids[link.parent]} {_LINES[link.line]}{label} {ids[link.child]}"
    used = {_look(box) for box in picture.boxes.values()}
    yield from (f"    classDef {name} {look}" for name, look in _LOOKS.items() if name in used)


def _node(box: Box, ids: dict[str, str]) -> str:
    opening, closing = ("[[", "]]") if box.collapsed else _SHAPES.get(box.tier, ("[", "]"))
    return f'{ids[box.key]}{opening}"{_escaped(box.label)}"{closing}:::{_look(box)}'


def _look(box: Box) -> str:
    if box.collapsed:
        return "schema"
    return box.tier.value if box.tier else "other"


def _escaped(text: str) -> str:
    """Return text for a quoted label, where Mermaid reads HTML."""
    return html.escape(text).replace("\n", "<br/>")
