"""The map of all modules: a line for each file, from the first line of its docstring.

``python -m tools.rooms`` writes ``docs/rooms.md`` anew, which a test compares, and prints how many
modules and lines of code there are, and how often the type ``Any`` stands in them.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "dj_dagster"
MAP = REPOSITORY / "docs" / "rooms.md"

HEAD = """\
# The rooms

A line for each module, written by `python -m tools.rooms` from the modules' own docstrings. Floors
are in architecture.md: a module imports from its own floor and from those below.
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


def size() -> str:
    """Return the number of modules, of lines of code, and of ``Any`` for 1,000 of these lines."""
    texts = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    lines = sum(len(_code_lines(text)) for text in texts)
    found = sum(_is_any(token) for text in texts for token in _tokens(text))
    return f"{len(texts)} files, {lines} lines of code, {1000 * found / lines:.1f} Any per 1,000"


def _code_lines(text: str) -> set[int]:
    """Return the lines that hold code: neither blank, nor comments, nor docstrings."""
    spans = [(token.start[0], token.end[0]) for token in _tokens(text) if token.string.strip()]
    code = {line for first, last in spans for line in range(first, last + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if ast.get_docstring(node, clean=False) is not None and first is not None:
                code -= set(range(first.lineno, (first.end_lineno or 0) + 1))
    return code


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            yield token


def _is_any(token: tokenize.TokenInfo) -> bool:
    return token.type == tokenize.NAME and token.string == "Any"


if __name__ == "__main__":
    MAP.write_text(rooms(), encoding="utf-8")
    print(size())
