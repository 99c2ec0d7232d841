"""The file ``llms.txt``: all pages with their titles and first sentences, for programs to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

HEAD = """\
# dj_dagster

> Relational workflows for scientific labs, run by Dagster: tables are workflow steps, foreign keys
> are dependencies, and `make(key)` computes the rows of one primary key. The model and the Python
> names are those of DataJoint 2.3; code and databases of DataJoint 0.14 work too.

"""


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the list beside the pages."""
    if error or app.builder.format != "html":
        return
    parts = dict[str, list[str]]()
    for page in sorted(app.env.found_docs):
        folder = page.partition("/")[0] if "/" in page else "pages"
        title = app.env.titles[page].astext()
        line = f"- [{title}]({app.builder.get_target_uri(page)}): {_first(app, page)}"
        parts.setdefault(folder, []).append(line.removesuffix(": "))
    text = "\n\n".join(f"## {name}\n\n" + "\n".join(lines) for name, lines in parts.items())
    (Path(app.outdir) / "llms.txt").write_text(f"{HEAD}{text}\n", encoding="utf-8")


def _first(app: Sphinx, page: str) -> str:
    """Return the first sentence of a page."""
    for paragraph in app.env.get_doctree(page).findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if text.startswith(("Bases: ", "alias of ")):
            continue
        return text.partition(". ")[0].removesuffix(".").removesuffix(":")
    return ""


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the file when the site is built."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
