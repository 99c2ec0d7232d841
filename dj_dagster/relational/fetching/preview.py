"""Short displays of queries, as text and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from typing import Any

from dj_dagster.errors import InvalidValueError
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.types import Family
from dj_dagster.relational.algebra.algebra import Base, Node, Projected, Restricted
from dj_dagster.relational.algebra.top import Order
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.sql.ordering import make_window

_CELL = 200
"""Characters that a value may take in HTML."""

_UNREADABLE = "(cannot be read)"

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
    """What is shown of a query: the cells of its first rows, and how many rows there are."""

    heading: Heading
    lines: list[list[str]]
    more: bool
    total: int | None


def text_preview(
    connection: Connection, node: Node, limit: int | None = None, width: int | None = None
) -> str:
    """Return a table in plain text, key attributes marked with a star."""
    shown = _shown(connection, node, limit)
    heading = shown.heading
    width = max(1, connection.display.width if width is None else width)
    titles = [f"*{name}" if heading[name].in_key else name for name in heading.names]
    lines = [[_cut(_one_line(cell), width) for cell in line] for line in shown.lines]
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
    """Return a table in HTML, key attributes bold and underlined, comments as their hints."""
    shown = _shown(connection, node, None)
    heading = shown.heading
    caption = f"<caption>{escape(heading.comment)}</caption>" if heading.comment else ""
    titles = "".join(_title(heading[name]) for name in heading.names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cut(cell, _CELL))}</td>" for cell in line) + "</tr>"
        for line in shown.lines
    )
    more = "<p>...</p>" if shown.more else ""
    count = "" if shown.total is None else f"<p>{shown.total} rows</p>"
    return (
        f'{_STYLE}<div style="max-width: 100%; overflow: auto"><table class="dj-table">{caption}'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>{more}{count}</div>"
    )


def _shown(connection: Connection, node: Node, limit: int | None) -> _Preview:
    display = connection.display
    limit = display.limit if limit is None else limit
    heading = node.heading
    light = [name for name in heading.names if not _is_heavy(heading[name])]
    order = "KEY" if heading.primary_key and _has_no_order(node) else None
    make_window(order, limit, None, heading)
    rows = _readable(connection, node, light, order, limit + 1)
    cells = [_cells(row, light, heading) for row in rows[:limit]]
    total = fetch.count(connection, node) if display.show_tuple_count else None
    return _Preview(heading, cells, len(rows) > limit, total)


def _readable(
    connection: Connection, node: Node, names: Sequence[str], order: Order, limit: int
) -> Sequence[Sequence[Any]]:
    """Return rows; for an attribute with a damaged value, something to say so."""
    try:
        return fetch.rows(connection, node, names, order, limit)
    except InvalidValueError:
        columns: list[Sequence[Any]] = []
        for name in names:
            with suppress(InvalidValueError):
                columns.append(fetch.columns(connection, node, [name], order, limit)[name])
                continue
            columns.append(())
        return list(zip_longest(*columns, fillvalue=_UNREADABLE))


def _has_no_order(node: Node) -> bool:
    """Whether a query is one of a table, whose first rows by key the server finds at once."""
    while isinstance(node, Restricted | Projected):
        node = node.source
    return isinstance(node, Base)


def _is_heavy(attribute: Attribute) -> bool:
    """Whether values are not read for a preview, only named."""
    return attribute.type is not None and attribute.type.family in (Family.CODEC, Family.BYTES)


def _cells(row: Sequence[Any], light: Sequence[str], heading: Heading) -> list[str]:
    values = dict(zip(light, row, strict=True))
    return [_cell(values, heading[name]) for name in heading.names]


def _cell(values: dict[str, Any], attribute: Attribute) -> str:
    if attribute.name not in values:
        return attribute.type.text if attribute.type else ""
    return str(values[attribute.name])


def _title(attribute: Attribute) -> str:
    key = ' class="dj-key"' if attribute.in_key else ""
    kind = attribute.type.text if attribute.type else "computed"
    hint = f"{kind}: {attribute.comment}" if attribute.comment else kind
    return f'<th{key} title="{escape(hint)}">{escape(attribute.name)}</th>'


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
