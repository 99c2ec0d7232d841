"""Drawings of diagrams: as plain data first, then by Graphviz into files and as Mermaid text."""

from __future__ import annotations

import html
import io
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from dj_dagster.errors import DataJointError
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.names import TableName, Tier, class_path, parse_table_name
from dj_dagster.objects.blob.format import Array
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.relatives import is_hidden, is_renaming, is_whole_key
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.stored import ForeignKey, StoredTable
from dj_dagster.relational.table import Part, Table, TableMeta

if TYPE_CHECKING:
    import pydot


class Line(Enum):
    """The strength of a dependency, which determines its line."""

    WHOLE = "whole"
    """The child's whole key: at most one row of the child for each of the parent."""
    PART = "part"
    """Part of the child's key: many rows of the child for one of the parent."""
    SECONDARY = "secondary"
    """Outside the child's key."""


@dataclass(frozen=True, slots=True)
class Box:
    """A table, or a collapsed schema.

    Attributes
    ----------
    key
        Unique within the picture.
    tier
        None for a schema, and for a table whose name does not follow a tier.
    own_key
        Whether the table adds attributes of its own to the keys that it inherits.
    tooltip
        The attributes, or the tables of a schema, one per line.
    """

    key: str
    label: str
    schema: str
    tier: Tier | None = None
    own_key: bool = False
    collapsed: bool = False
    tooltip: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A foreign key, or all between two boxes if one is collapsed; renames map new to old names."""

    parent: str
    child: str
    line: Line
    renames: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Picture:
    """The boxes and links of a drawing, independent of its format."""

    boxes: dict[str, Box] = field(default_factory=dict[str, Box])
    links: list[Link] = field(default_factory=list[Link])

    @property
    def schemas(self) -> dict[str, list[Box]]:
        """The boxes of each schema, without collapsed ones, which are drawn without a frame."""
        found: dict[str, list[Box]] = {}
        for box in self.boxes.values():
            if not box.collapsed:
                found.setdefault(box.schema, []).append(box)
        return found

    @property
    def framed(self) -> bool:
        """Whether schemas are distinguished by frames."""
        return len({box.schema for box in self.boxes.values()}) > 1


def make_picture(
    connection: Connection,
    tables: Iterable[TableName],
    expanded: Collection[TableName],
    labels: Labels,
) -> Picture:
    """Return the picture of some tables and of the foreign keys between them.

    Parameters
    ----------
    tables
        The tables in the order of drawing.
    expanded
        The tables that are drawn as boxes; each schema of the others is drawn as one box.
    """
    picture, keys = Picture(), dict[TableName, str]()
    collapsed: dict[str, list[TableName]] = {}
    for name in tables:
        if name in expanded:
            keys[name] = str(name)
            picture.boxes[str(name)] = _table_box(connection, name, labels[name])
        else:
            keys[name] = name.schema
            collapsed.setdefault(name.schema, []).append(name)
    for schema, names in collapsed.items():
        picture.boxes[schema] = _schema_box(schema, [labels[name] for name in names])
    links = dict.fromkeys(
        link for name in keys for link in _links(connection.catalog.find(name), keys)
    )
    picture.links.extend(links)
    return picture


def _table_box(connection: Connection, name: TableName, label: str) -> Box:
    stored, parsed = connection.catalog.find(name), parse_table_name(name.table)
    return Box(
        str(name),
        label,
        name.schema,
        tier=parsed.tier if parsed else None,
        own_key=stored is not None and _has_own_key(stored),
        tooltip=_attributes(stored.heading) if stored else "",
    )


def _schema_box(schema: str, labels: list[str]) -> Box:
    count = f"{len(labels)} table{'s' * (len(labels) != 1)}"
    return Box(schema, f"{schema}\n({count})", schema, collapsed=True, tooltip="\n".join(labels))


def _has_own_key(stored: StoredTable) -> bool:
    inherited = {name for key in stored.foreign_keys for name in key.attributes}
    return any(attr.in_key and attr.name not in inherited for attr in _visible(stored.heading))


def _attributes(heading: Heading) -> str:
    """Return a heading in the form of a definition, without foreign keys."""
    lines = [f"# {heading.comment}"] if heading.comment else []
    in_key = True
    for attribute in _visible(heading):
        if in_key and not attribute.in_key:
            in_key = False
            lines.append("---")
        kind = f" : {attribute.type.text}" if attribute.type else ""
        null = " = null" if attribute.nullable else ""
        remark = f"  # {attribute.comment}" if attribute.comment else ""
        lines.append(f"{attribute.name}{null}{kind}{remark}")
    return "\n".join(lines)


def _visible(heading: Heading) -> Iterable[Attribute]:
    return heading.attributes.values()


def _links(stored: StoredTable | None, keys: Mapping[TableName, str]) -> Iterable[Link]:
    for key in stored.foreign_keys if stored else ():
        parent, child = keys.get(key.parent), keys[key.child]
        if stored is None or parent is None:
            continue
        if str(key.parent) == parent and str(key.child) == child:
            yield Link(parent, child, _line(key, stored), _renames(key))
        elif parent != child:
            yield Link(parent, child, Line.PART)


def _line(key: ForeignKey, child: StoredTable) -> Line:
    if not key.primary:
        return Line.SECONDARY
    return Line.WHOLE if is_whole_key(key, child) else Line.PART


def _renames(key: ForeignKey) -> tuple[tuple[str, str], ...]:
    if not is_renaming(key):
        return ()
    return tuple((own, old) for own, old in key.attributes.items() if own != old)


class Source(NamedTuple):
    """The tables of a diagram's source, with their connection."""

    connection: Connection
    tables: frozenset[TableName]


def read_source(source: object) -> Source:
    """Return the tables of a schema, a module, a table, a query, or of a sequence of those.

    Raises
    ------
    DataJointError
        For anything else, for a table that has not been declared, and for several databases.
    """
    if isinstance(source, Schema):
        return _of_schema(source)
    if isinstance(source, ModuleType):
        return _together([_of_schema(schema) for schema in _schemas(source)], source)
    if isinstance(source, QueryExpression | TableMeta):
        return _of_query(source() if isinstance(source, TableMeta) else source)
    if isinstance(source, Iterable) and not isinstance(source, str | bytes | Mapping):
        return _together([read_source(each) for each in source], source)
    raise DataJointError(
        f"A diagram shows a schema, a module, a table, a query or a list of those, not {source!r}."
    )


def _of_schema(schema: Schema) -> Source:
    # Other processes may have declared tables since.
    schema.connection.catalog.forget(schema.name)
    names = schema.connection.catalog.names(schema.name)
    return Source(schema.connection, frozenset(name for name in names if not is_hidden(name)))


def _of_query(query: QueryExpression) -> Source:
    if isinstance(query, Table):
        return Source(query.connection, frozenset([query.name]))
    return Source(query.connection, frozenset(query.node.tables))


def _schemas(module: ModuleType) -> list[Schema]:
    """Return the schemas of a module: the one called `schema`, or else all."""
    found = vars(module).get("schema")
    if isinstance(found, Schema):
        return [found]
    return [value for value in vars(module).values() if isinstance(value, Schema)]


def _together(sources: list[Source], given: object) -> Source:
    connections = list(dict.fromkeys(source.connection for source in sources))
    if not connections:
        raise DataJointError(f"There is no schema and no table in {given!r}.")
    if len(connections) > 1:
        raise DataJointError("A diagram shows the tables of one connection, these are of several.")
    return Source(connections[0], frozenset().union(*(source.tables for source in sources)))


class Labels:
    """The labels of the tables of a diagram, which are the names of their classes.

    Parameters
    ----------
    names
        The names in which classes are searched: directly, or inside modules (``lab.Subject``).
    """

    def __init__(self, names: Mapping[str, object]) -> None:
        self._labels: dict[TableName, str] = {}
        for label, table in (*_classes(names, ""), *_inside_modules(names)):
            self._labels.setdefault(table, label)

    def __getitem__(self, table: TableName) -> str:
        return self._labels.get(table) or class_path(table.table)


def _inside_modules(names: Mapping[str, object]) -> Iterator[tuple[str, TableName]]:
    for name, value in list(names.items()):
        if isinstance(value, ModuleType) and not name.startswith("_"):
            yield from _classes(vars(value), f"{name}.")


def _classes(names: Mapping[str, object], before: str) -> Iterator[tuple[str, TableName]]:
    for name, value in list(names.items()):
        if isinstance(value, TableMeta) and issubclass(value, Table) and not name.startswith("_"):
            for label, table in ((name, value), *_parts(name, value)):
                if table._binding is not None:
                    yield before + label, table._binding.name


def _parts(name: str, cls: type[Table]) -> Iterator[tuple[str, type[Table]]]:
    for inner, value in vars(cls).items():
        if isinstance(value, TableMeta) and issubclass(value, Part):
            yield f"{name}.{inner}", value


_FONT = "Helvetica, Arial, sans-serif"
_TIERS: dict[Tier | None, Mapping[str, str | float]] = {
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
_LINES: dict[Line, dict[str, str | float]] = {
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


def _pydot() -> ModuleType:
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


def _frame(pydot: ModuleType, schema: str) -> Any:
    return pydot.Cluster(
        _identifier(schema),
        label=_quoted(schema),
        fontname=_quoted(_FONT),
        fontsize=10,
        fontcolor=_quoted("#555555"),
        style="rounded",
        color=_quoted("#c4c4c4"),
    )


def _node(pydot: ModuleType, box: Box) -> pydot.Node:
    look = _COLLAPSED if box.collapsed else _TIERS[box.tier]
    label = _quoted(box.label)
    if box.own_key and not box.collapsed:
        label = f"<<u>{html.escape(box.label)}</u>>"
    options = {name: _quoted(value) for name, value in look.items()}
    return pydot.Node(_quoted(box.key), label=label, tooltip=_quoted(box.tooltip or " "), **options)


def _knot(pydot: ModuleType, name: str, tooltip: str) -> pydot.Node:
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


def _quoted(value: object) -> str:
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

    def svg_string(self) -> str:
        """Return the drawing as the text of an SVG image; the same as `make_svg`."""
        return self.make_svg().data

    def make_png(self, direction: str | None = None) -> io.BytesIO:
        """Return the drawing as a PNG file in memory."""
        return io.BytesIO(draw(self.make_dot(direction), "png"))

    def make_image(self, direction: str | None = None) -> Array:
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


def _matplotlib(method: str) -> ModuleType:
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
