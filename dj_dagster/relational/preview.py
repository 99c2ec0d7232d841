"""Short displays of queries, as text and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.types import Family

WIDTH = 24
"""Characters that a value may take in a text preview."""


def shown_names(heading: Heading) -> list[str]:
    """Return the attributes whose values a preview fetches: blobs are only named."""
    return [name for name, attribute in heading.attributes.items() if not _is_heavy(attribute)]


def text_preview(heading: Heading, rows: Sequence[dict[str, Any]], total: int) -> str:
    """Return a table in plain text, key attributes marked with a star."""
    titles = [f"*{name}" if heading[name].in_key else name for name in heading.names]
    lines = [[_cell(row, heading, name) for name in heading.names] for row in rows]
    widths = [max(len(line[column]) for line in [titles, *lines]) for column in range(len(titles))]
    text = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [titles, ["-" * width for width in widths], *lines]
    ]
    head = [f"# {heading.comment}"] if heading.comment else []
    more = ["..."] if total > len(rows) else []
    return "\n".join([*head, *text, *more, f"({total} rows)"])


def html_preview(heading: Heading, rows: Sequence[dict[str, Any]], total: int) -> str:
    """Return a table in HTML, key attributes in bold."""
    titles = "".join(
        f"<th title='{escape(heading[name].comment, quote=True)}'>"
        + (f"<b>{escape(name)}</b>" if heading[name].in_key else f"<i>{escape(name)}</i>")
        + "</th>"
        for name in heading.names
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td>{escape(_cell(row, heading, name))}</td>" for name in heading.names)
        + "</tr>"
        for row in rows
    )
    more = "<p>...</p>" if total > len(rows) else ""
    return (
        f"<p>{escape(heading.comment)}</p><table><thead><tr>{titles}</tr></thead>"
        f"<tbody>{body}</tbody></table>{more}<p>{total} rows</p>"
    )


def _is_heavy(attribute: Attribute) -> bool:
    return attribute.type is not None and attribute.type.family in (Family.CODEC, Family.BYTES)


def _cell(row: dict[str, Any], heading: Heading, name: str) -> str:
    attribute = heading[name]
    if name not in row:
        return attribute.type.text if attribute.type else ""
    text = str(row[name])
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
