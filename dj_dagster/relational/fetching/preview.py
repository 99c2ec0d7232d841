"""Short displays of queries: text, HTML for notebooks, Markdown for metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import sqlalchemy as sa

from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.objects.previews import ValuePreview
from dj_dagster.relational.algebra.algebra import Base, In, Node, Projected, Restricted, restrict
from dj_dagster.relational.algebra.top import Order
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.fetching.decode import Row, RowDecoder
from dj_dagster.relational.fetching.peek import Appetite, peek, unreadable
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.sql.ordering import make_window

_CELL = 200
"""Characters that a value may take in HTML."""

_CELL_OF_MARKDOWN = 60

_PICTURED = 2**16
"""Bytes that a packed value may have to be read for its picture in HTML."""

_GLANCE = 64
"""Bytes of a packed value that are read to describe it, where many rows are shown."""

_PLACE = "place of the row"

_LOADED = 2**20
"""Bytes that a value may have to be read for its picture in Markdown, from a row or a store."""

_STYLE = (
    "<style>"
    ".dj-table {border-collapse: collapse; font-size: 85%}"
    ".dj-table caption {text-align: left; font-style: italic}"
    ".dj-table th, .dj-table td {padding: 2px 6px; border: 1px solid #8884; text-align: left}"
    ".dj-table th {background: #8882; font-weight: normal}"
    ".dj-table th.dj-key {font-weight: bold; text-decoration: underline}"
    "</style>"
)


@dataclass(frozen=True, slots=True)
class _Preview:
    """What is shown of a query: its first rows, and how many rows there are."""

    heading: Heading
    rows: Sequence[Sequence[Any]]
    more: bool
    total: int | None


def text_preview(
    connection: Connection, node: Node, limit: int | None = None, width: int | None = None
) -> str:
    """Return a table in plain text, key attributes marked with a star."""
    shown = _shown(connection, node, limit, Appetite())
    heading = shown.heading
    width = max(1, connection.display.width if width is None else width)
    titles = [f"*{name}" if heading[name].in_key else name for name in heading.names]
    lines = [[_cut(_one_line(_text(value)), width) for value in row] for row in shown.rows]
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    text = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [titles, ["-" * width for width in widths], *lines]
    ]
    head = [f"# {heading.comment}"] if heading.comment else []
    more = ["..."] if shown.more else []
    count = [] if shown.total is None else [f"({shown.total} rows)"]
    return "\n".join([*head, *text, *more, *count])


def html_preview(connection: Connection, node: Node) -> str:
    """Return a table in HTML, key attributes bold and underlined, comments as their hints.

    Arrays that are not large are pictured.
    """
    shown = _shown(connection, node, None, Appetite(inline=_PICTURED))
    heading = shown.heading
    caption = f"<caption>{escape(heading.comment)}</caption>" if heading.comment else ""
    titles = "".join(_title(heading[name]) for name in heading.names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_html(value)}</td>" for value in row) + "</tr>"
        for row in shown.rows
    )
    more = "<p>...</p>" if shown.more else ""
    count = "" if shown.total is None else f"<p>{shown.total} rows</p>"
    return (
        f'{_STYLE}<div style="max-width: 100%; overflow: auto"><table class="dj-table">{caption}'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>{more}{count}</div>"
    )


def first_rows(
    connection: Connection, node: Node, by: Sequence[str], limit: int, most: int, *, large: bool
) -> dict[Row, list[Row]]:
    """Return the first rows for each value of some key attributes, with what is shown of them.

    Two queries at most are asked, however many such values there are.

    Parameters
    ----------
    limit
        Rows of each.
    most
        Rows in all.
    large
        Whether larger values are read to be pictured, also those in stores.
    """
    names, key = node.heading.names, node.heading.primary_key
    if not set(key) <= set(by):
        first = _first_keys(connection, node, by, limit)
        node = restrict(node, In(tuple(key), tuple(first)))
    appetite = Appetite(_LOADED, _LOADED) if large else Appetite(_GLANCE)
    places = [names.index(name) for name in by]
    found: dict[Row, list[Row]] = {}
    for row in peek(connection, node, names, _order(node), most, appetite):
        found.setdefault(tuple(row[place] for place in places), []).append(tuple(row))
    return found


def markdown_table(names: Sequence[str], rows: Sequence[Row]) -> str:
    """Return rows as a table in Markdown."""
    cells = [[_markdown(value) for value in row] for row in rows]
    lines = [names, ["---"] * len(names), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain_values(heading: Heading, row: Row, width: int) -> str:
    """Return what a row says beside its key in one line, without values that are described."""
    texts = [
        f"{name} = {_cut(_one_line(_text(value)), _CELL_OF_MARKDOWN)}"
        for name, value in zip(heading.names, row, strict=True)
        if not heading[name].in_key and not isinstance(value, ValuePreview)
    ]
    return _cut(", ".join(texts), width)


def _first_keys(connection: Connection, node: Node, by: Sequence[str], limit: int) -> Sequence[Row]:
    """Return the keys of the first rows for each value of some of its attributes."""
    key, heading, backend = node.heading.primary_key, node.heading, connection.backend
    decoder = RowDecoder(connection, heading, key)
    lowered = Lowering(backend).lower(node)
    columns = dict(lowered.columns)
    for name in decoder.names:
        if (kind := heading[name].type) is not None:
            columns[name] = backend.fetched(columns[name], kind)
    order = [lowered.columns[name] for name in key]
    place = sa.func.row_number().over(
        partition_by=[lowered.columns[name] for name in by], order_by=order
    )
    numbered = replace(lowered, columns={**columns, _PLACE: place})
    rows = numbered.select(*decoder.names, _PLACE).subquery()
    wanted = sa.select(*(rows.c[name] for name in decoder.names)).where(rows.c[_PLACE] <= limit)
    return decoder.rows([tuple(row) for row in connection.rows(wanted)])


def _shown(connection: Connection, node: Node, limit: int | None, appetite: Appetite) -> _Preview:
    display = connection.display
    limit = display.limit if limit is None else limit
    heading = node.heading
    order = _order(node)
    # Says what is wrong with the limit that was asked for, not with one more.
    make_window(order, limit, None, heading)
    rows = peek(connection, node, heading.names, order, limit + 1, appetite)
    total = fetch.count(connection, node) if display.show_tuple_count else None
    return _Preview(heading, rows[:limit], len(rows) > limit, total)


def _order(node: Node) -> Order:
    """Return the order by key for a query of a table, whose first rows the server finds at once."""
    source = node
    while isinstance(source, Restricted | Projected):
        source = source.source
    return "KEY" if node.heading.primary_key and isinstance(source, Base) else None


def _text(value: Any) -> str:
    try:
        text = value.text if isinstance(value, ValuePreview) else str(value)
    except Exception as error:
        text = unreadable(error).text
    # Half a surrogate pair, which JSON allows, can be printed nowhere.
    return text.encode(errors="backslashreplace").decode()


def _html(value: Any) -> str:
    text = escape(_cut(_text(value), _CELL))
    picture = value.data_uri if isinstance(value, ValuePreview) else None
    return text if picture is None else f'<img src="{picture}" alt=""><br>{text}'


def _markdown(value: Any) -> str:
    if isinstance(value, ValuePreview):
        return _text(replace(value, text=value.markdown)).replace("|", "\\|")
    return _cut(_one_line(_text(value)), _CELL_OF_MARKDOWN).replace("|", "\\|")


def _title(attribute: Attribute) -> str:
    key = ' class="dj-key"' if attribute.in_key else ""
    kind = attribute.type.text if attribute.type else "computed"
    hint = f"{kind}: {attribute.comment}" if attribute.comment else kind
    return f'<th{key} title="{escape(hint)}">{escape(attribute.name)}</th>'


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
