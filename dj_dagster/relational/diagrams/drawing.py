"""Drawings of diagrams: by Graphviz into files and notebooks, and as Mermaid text."""

from __future__ import annotations

import html
import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
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
        The position of children: ``"TB"`` below their parents, ``"LR"`` to the right.

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
    """Return a value as a string of the dot language, with its notation for line breaks."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


class Svg(str):
    """The text of an SVG image, which notebooks show as the image."""

    __slots__ = ()

    @property
    def data(self) -> str:
        """The text itself."""
        return str(self)

    def _repr_svg_(self) -> str:
        return str(self)


class Drawn:
    """Methods that draw the picture that a subclass returns by `_picture`."""

    @property
    def direction(self) -> str:
        """The position of children: ``"TB"`` below their parents, ``"LR"`` to the right."""
        return "TB"

    def make_dot(self, direction: str | None = None) -> pydot.Dot:
        """Return the drawing as pydot's graph, which can be changed before it is drawn."""
        return to_dot(self._picture(), direction or self.direction)

    def make_svg(self, direction: str | None = None) -> Svg:
        """Return the drawing as the text of an SVG image."""
        return Svg(draw(self.make_dot(direction), "svg").decode())

    def make_png(self, direction: str | None = None) -> io.BytesIO:
        """Return the drawing as a PNG file in memory."""
        return io.BytesIO(draw(self.make_dot(direction), "png"))

    def make_image(self, direction: str | None = None) -> Any:
        """Return the drawing as an array of pixels, rows first, with red, green, blue and opacity.

        Raises
        ------
        DataJointError
            If matplotlib or the drawing program is not installed.
        """
        return _matplotlib("make_image").imread(self.make_png(direction))

    def make_mermaid(self, direction: str | None = None) -> str:
        """Return the drawing as Mermaid text, which does not require further programs."""
        return to_mermaid(self._picture(), direction or self.direction)

    def save(self, filename: str | Path, format: str | None = None) -> None:
        """Write the drawing into a file.

        Parameters
        ----------
        format
            ``"svg"``, ``"png"``, ``"dot"`` or ``"mermaid"``; by default from the end of the name:
            ``.svg``, ``.png``, ``.dot``, ``.mmd`` or ``.mermaid``.

        Raises
        ------
        DataJointError
            For another format, or if the drawing program is not installed.
        """
        path = Path(filename)
        kind = (format or path.suffix[1:]).lower()
        if kind == "svg":
            path.write_text(self.make_svg(), encoding="utf-8")
        elif kind == "png":
            path.write_bytes(self.make_png().getvalue())
        elif kind == "dot":
            path.write_text(self.make_dot().to_string(), encoding="utf-8")
        elif kind in ("mmd", "mermaid"):
            path.write_text(self.make_mermaid() + "\n", encoding="utf-8")
        else:
            raise DataJointError(
                f"A diagram cannot be saved as {kind or path.name!r}: end the file's name with "
                ".svg, .png, .dot or .mmd, or pass format=."
            )

    def draw(self) -> None:
        """Show the drawing in a window or below the notebook's cell, by matplotlib.

        Raises
        ------
        DataJointError
            If matplotlib or the drawing program is not installed.
        """
        pyplot = _matplotlib("draw")
        pyplot.imshow(self.make_image())
        pyplot.gca().axis("off")
        pyplot.show()

    def _repr_svg_(self) -> str | None:
        try:
            text = self.make_svg().data
        except DataJointError:
            return None
        # Only the SVG element, without the header of a file.
        return text[text.index("<svg") :].rstrip()

    def _repr_html_(self) -> str:
        """Return the image, or Mermaid text where Graphviz is missing."""
        return self._repr_svg_() or f"<pre class='mermaid'>\n{self.make_mermaid()}\n</pre>"

    def _picture(self) -> Picture:
        raise NotImplementedError


def _matplotlib(method: str) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise DataJointError(
            f"{method}() needs matplotlib, which is not installed. In a notebook write the diagram "
            "alone in a cell; elsewhere save('diagram.svg')."
        ) from None
    return pyplot


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
_ARROWS = {Line.WHOLE: "===", Line.PART: "---", Line.SECONDARY: "-.-"}


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
            yield f"    {_mermaid_node(box, ids)}"
        if picture.framed:
            yield "    end"
    for box in picture.boxes.values():
        if box.collapsed:
            yield f"    {_mermaid_node(box, ids)}"
    for link in picture.links:
        renames = ", ".join(f"{new} = {old}" for new, old in link.renames)
        label = f'|"{_escaped(renames)}"|' if renames else ""
        yield f"    {ids[link.parent]} {_ARROWS[link.line]}{label} {ids[link.child]}"
    used = {_look(box) for box in picture.boxes.values()}
    yield from (f"    classDef {name} {look}" for name, look in _LOOKS.items() if name in used)


def _mermaid_node(box: Box, ids: dict[str, str]) -> str:
    opening, closing = ("[[", "]]") if box.collapsed else _SHAPES.get(box.tier, ("[", "]"))
    return f'{ids[box.key]}{opening}"{_escaped(box.label)}"{closing}:::{_look(box)}'


def _look(box: Box) -> str:
    if box.collapsed:
        return "schema"
    return box.tier.value if box.tier else "other"


def _escaped(text: str) -> str:
    """Return a text escaped for a quoted label, which Mermaid reads as HTML."""
    return html.escape(text).replace("\n", "<br/>")
