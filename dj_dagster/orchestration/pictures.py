"""Pictures in Dagster's metadata: figures as small images in Markdown."""

from __future__ import annotations

import base64
import io
from typing import Any

from dagster import MarkdownMetadataValue, MetadataValue

MOST_BYTES = 50_000
"""Bytes of a picture, at most, which is kept in the event log that each page of the UI reads."""

_DPI = (100, 80, 64, 50, 40)


def figure_metadata(
    figure: Any, title: str = "", *, most_bytes: int = MOST_BYTES
) -> MarkdownMetadataValue:
    """Return a figure as metadata that the UI shows as a picture.

    Parameters
    ----------
    figure
        A figure of matplotlib, or anything else that has its `savefig`.
    title
        The text that stands for the picture where images are not shown.
    most_bytes
        The size to aim at: a larger picture is drawn again with fewer dots, down to 40 an inch.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure(figsize=(1, 1))
    >>> figure_metadata(figure, "nothing").value[:33]
    '![nothing](data:image/png;base64,'
    """
    data = b""
    for dpi in _DPI:
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=dpi)
        data = stream.getvalue()
        if len(data) <= most_bytes:
            break
    text = base64.b64encode(data).decode()
    return MetadataValue.md(f"![{title}](data:image/png;base64,{text})")
