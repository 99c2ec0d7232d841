"""A line of a definition as it was written, and searches that skip its quoted strings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dj_dagster.errors import DefinitionError

STRING = r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*\""""
"""Regular expression of a quoted string; quotes inside are doubled or follow a backslash."""

_TOKEN = re.compile(rf"(?P<string>{STRING})|.", re.DOTALL)


def unquote(literal: str) -> str:
    r"""Return the text inside a quoted string.

    Examples
    --------
    >>> unquote("'it''s'"), unquote('"a # b"')
    ("it's", 'a # b')
    """
    mark = literal[0]
    return re.sub(
        rf"\\(['\"\\])|{mark}{mark}", lambda found: found[1] or mark, literal[1:-1], flags=re.DOTALL
    )


def quote(value: str) -> str:
    """Return `value` as a single-quoted string that `unquote` reads back.

    Examples
    --------
    >>> quote("it's")
    "'it''s'"
    """
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line without its indentation, and where it stands.

    Attributes
    ----------
    text
        The line, stripped; columns count from its first character.
    number
        The line's number in `file`, or in the definition if `file` is None.
    table, file
        The names that messages give the table and its source; both may be absent.
    """

    text: str
    number: int
    table: str = ""
    file: str | None = None

    @property
    def where(self) -> str:
        """The place in words: ``pipeline.py:12, table Session``."""
        place = f"{self.file}:{self.number}" if self.file else f"line {self.number}"
        return f"{place}, table {self.table}" if self.table else place

    def error(self, problem: str, column: int, advice: str) -> DefinitionError:
        """Return the error that shows this line with a caret under `column` (from 0)."""
        shown = "".join(" " if char.isspace() else char for char in self.text)
        return DefinitionError(
            f"{self.where}: {problem}\n    {shown}\n    {' ' * column}^\n{advice}"
        )

    def scan(self, chars: str, start: int = 0) -> Iterator[tuple[int, str]]:
        """Yield the column and character of each of `chars` outside quoted strings.

        Raises
        ------
        DefinitionError
            At a quote that is never closed.
        """
        for token in _TOKEN.finditer(self.text, start):
            if token["string"] is None and token[0] in chars:
                yield token.start(), token[0]
            elif token["string"] is None and token[0] in "'\"":
                raise self.error(
                    f"the quote {token[0]} is never closed",
                    token.start(),
                    "close it on the same line; a quote inside a string is doubled ('it''s')",
                )

    def find(self, chars: str, start: int = 0) -> int:
        """Return the column of the first of `chars` outside quoted strings, or the line's end."""
        return next((column for column, _ in self.scan(chars, start)), len(self.text))

    def closing(self, opening: int) -> int:
        """Return the column of the parenthesis that closes the one at column `opening`."""
        depth = 0
        for column, char in self.scan("()", opening):
            depth += 1 if char == "(" else -1
            if depth == 0:
                return column
        raise self.error("this parenthesis is never closed", opening, "add the missing )")

    def arguments(self, opening: int, closing: int) -> list[tuple[int, str]]:
        """Return column and text of the comma-separated arguments between two parentheses.

        A comma before the closing parenthesis adds nothing, as in Python.
        """
        cuts, depth = [opening], 0
        for column, char in self.scan("(),", opening + 1):
            if column >= closing:
                break
            depth += {"(": 1, ")": -1}.get(char, 0)
            if char == "," and depth == 0:
                cuts.append(column)
        spans = zip(cuts, [*cuts[1:], closing], strict=True)
        found = [self._trimmed(left + 1, right) for left, right in spans]
        return found if found[-1][1] else found[:-1]

    def _trimmed(self, start: int, end: int) -> tuple[int, str]:
        part = self.text[start:end]
        return start + len(part) - len(part.lstrip()), part.strip()

    def expect_end(self, start: int, advice: str) -> None:
        """Raise `DefinitionError` unless only a comment follows from column `start`."""
        column, rest = self._trimmed(start, len(self.text))
        if rest and not rest.startswith("#"):
            raise self.error(f"{rest!r} is not expected here", column, advice)
