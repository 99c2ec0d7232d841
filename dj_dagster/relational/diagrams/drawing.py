"""Drawing a picture with Graphviz: its program `dot`, and pydot to speak to it."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dj_dagster.errors import DataJointError
from dj_dagster.model.names import Tier
from dj_dagster.relational.diagrams.picture import Box, Line, Link, Picture

if TYPE_CHECKING:
    import pydot

_FONT = "Helvetica, Arial, sans-serif"
_TIERS: dict[Tier | None, dict[str, Any]] = {
    Tier.MANUAL: {"shape": "box", "style": "filled,rounded", "color": "#4c9a4c"}
    | {"fillcolor": "#dff2df", "fontcolor": "#155215"},
    Tier.LOOKUP: {"shape": "box", "style": "filled,rounded", "color": "#8c8c8c"}
    | {"fillcolor": "#e8e8e8", "fontcolor": "#333333"},
    Tier.IMPORTED: {"shape": "ellipse", "style": "filled", "color": "#4a6fc4"}
    | {"fillcolor": "#dde6fb", "fontcolor": "#152c6b"},
    Tier.COMPUTED: {"shape": "ellipse", "style": "filled", "color": "#c8504b"}
    | {"fillcolor": "#fbdfdd", "fontcolor": "#7a1512"},
    Tier.PART: {"shape": "plaintext", "fontcolor": "#222222", "fontsize": 9}
    | {"margin": "0.02,0.02", "height": 0.2},
    None: {"shape": "box", "style": "filled", "color": "#b09a3c"}
    | {"fillcolor": "#fbf6dd", "fontcolor": "#5c4e10"},
}
_COLLAPSED = {"shape": "box3d", "style": "filled", "color": "#8c8c8c"} | {
    "fillcolor": "#f2f2f2",
    "fontcolor": "#333333",
}
_LINES: dict[Line, dict[str, Any]] = {
    Line.WHOLE: {"style": "solid", "penwidth": 2.5},
    Line.PART: {"style": "solid", "penwidth": 0.9},
    Line.SECONDARY: {"style": "dashed", "penwidth": 0.9},
}
_GREY, _ORANGE = "#7f7f7f", "#f08c00"


def to_dot(picture: Picture, direction: str) -> pydot.Dot:
    """Return a picture as pydot's graph, which can be changed before it is drawn.

    Parameters
    ----------
    direction
        Where children lie: ``"TB"`` below their parents, ``"LR"`` to the right.

    Raises
    ------
    DataJointError
        If pydot is not installed.
    """
    pydot = _pydot()
    graph = pydot.Dot(
        "diagram", graph_type="digraph", rankdir=direction, bgcolor="transparent", nodesep=0.25
    )
    graph.set_node_defaults(fontname=_quoted(_FONT), fontsize=11, height=0.3)
    graph.set_edge_defaults(arrowhead="none", color=_quoted(_GREY))
    frames = {schema: _frame(pydot, schema) for schema in picture.schemas if picture.framed}
    for frame in frames.values():
        graph.add_subgraph(frame)
    for box in picture.boxes.values():
        inside = graph if box.collapsed else frames.get(box.schema, graph)
        inside.add_node(_node(pydot, box))
    for number, link in enumerate(picture.links):
        ends = [_quoted(link.parent), _quoted(link.child)]
        if link.renames:
            knot = _quoted(f"renamed {number}")
            schemas = {picture.boxes[end].schema for end in (link.parent, link.child)}
            inside = frames.get(schemas.pop(), graph) if len(schemas) == 1 else graph
            inside.add_node(_knot(pydot, knot, _renamed(link)))
            ends.insert(1, knot)
        look = {**_LINES[link.line], "tooltip": _quoted(_renamed(link) or " ")}
        for start, end in pairwise(ends):
            graph.add_edge(pydot.Edge(start, end, **look))
    return graph


def draw(graph: pydot.Dot, kind: str) -> bytes:
    """Return a graph drawn by Graphviz, as ``"svg"`` or ``"png"``.

    Raises
    ------
    DataJointError
        If Graphviz is not installed, or refuses the graph.
    """
    program = shutil.which("dot")
    if program is None:
        raise _missing("the program dot")
    done = subprocess.run(
        [program, f"-T{kind}"], input=graph.to_string().encode(), capture_output=True, check=False
    )
    if done.returncode:
        raise DataJointError(f"Graphviz cannot draw the diagram: {done.stderr.decode().strip()}")
    return done.stdout


def _pydot() -> Any:
    try:
        import pydot
    except ImportError:
        raise _missing("the package pydot") from None
    return pydot


def _missing(what: str) -> DataJointError:
    return DataJointError(
        f"A diagram is drawn by Graphviz through pydot, and {what} is not installed. Install both: "
        "pip install 'dj-dagster[diagram]', and Graphviz by apt, brew or conda (install graphviz). "
        "make_mermaid() and save('diagram.mmd') need neither."
    )


def _frame(pydot: Any, schema: str) -> Any:
    return pydot.Cluster(
        _identifier(schema),
        label=_quoted(schema),
        fontname=_quoted(_FONT),
        fontsize=10,
        fontcolor=_quoted("#555555"),
        style="rounded",
        color=_quoted("#c4c4c4"),
    )


def _node(pydot: Any, box: Box) -> Any:
    look = _COLLAPSED if box.collapsed else _TIERS[box.tier]
    label = _quoted(box.label)
    if box.own_key and not box.collapsed:
        label = f"<<u>{html.escape(box.label)}</u>>"
    options = {name: _quoted(value) for name, value in look.items()}
    return pydot.Node(_quoted(box.key), label=label, tooltip=_quoted(box.tooltip or " "), **options)


def _knot(pydot: Any, name: str, tooltip: str) -> Any:
    """Return the dot in the line of a foreign key that renames."""
    look = {
        "shape": "circle",
        "style": "filled",
        "fixedsize": "true",
        "width": 0.08,
        "height": 0.08,
    }
    colors = dict.fromkeys(("color", "fillcolor"), _quoted(_ORANGE))
    return pydot.Node(name, label=_quoted(""), tooltip=_quoted(tooltip), **look, **colors)


def _renamed(link: Link) -> str:
    return ", ".join(f"{new} = {old}" for new, old in link.renames)


def _identifier(text: str) -> str:
    return re.sub("[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):x}", text)


def _quoted(value: Any) -> str:
    """Return a value as a string of the dot language, line breaks as it writes them."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'
