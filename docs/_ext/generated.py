"""The directive ``generated``: a part of the reference that a function of `tools` writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parents[2]))

from pygments.lexers.special import TextLexer

from tools import datajoint_names, reference


class Generated(SphinxDirective):
    """A page's part by the name of the function that returns it as Markdown."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """Return the parsed text."""
        name = self.arguments[0]
        module = reference if hasattr(reference, name) else datajoint_names
        text = getattr(module, name)()
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("generated", Generated)
    # Diagrams of Mermaid are shown as their text, which needs no program of a browser's.
    app.add_lexer("mermaid", TextLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
