"""The map of all modules: a line for each file, from the first line of its docstring.

``python -m tools.rooms`` writes ``docs/rooms.md`` anew; a test compares the two.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "dj_dagster"
MAP = REPOSITORY / "docs" / "rooms.md"

HEAD = """\
# The rooms

A line for each module, written by `python -m tools.rooms` from the modules' own docstrings. Floors
are in the README: a module imports from its own floor and from those below.
"""


def rooms() -> str:
    """Return the map as Markdown, a heading and a table for each folder."""
    return "\n".join([HEAD, *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    for folder in sorted({path.parent for path in PACKAGE.rglob("*.py")}):
        about = _summary(folder / "__init__.py")
        name = folder.relative_to(REPOSITORY).as_posix()
        yield f"## `{name}/`\n\n{about}\n\n| module | holds |\n|---|---|"
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                yield f"| [`{path.stem}`](../{name}/{path.name}) | {_summary(path)} |"
        yield ""


def _summary(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].replace("|", "\\|")


if __name__ == "__main__":
    MAP.write_text(rooms(), encoding="utf-8")
