"""Lines of definitions and texts of SQL, taken apart as DataJoint's own functions do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dj_dagster.errors import DefinitionError
from dj_dagster.relational.user_sql.parsing import parse

_QUOTED = r"\"[^\"]*\"|'[^']*'"
_FOREIGN_KEY = re.compile(
    r"\s*->\s*(?:\[\s*(?P<options>[a-zA-Z]+(?:\s*,\s*[a-zA-Z]+)*)\s*\])?(?P<ref_table>.*)"
)
_ATTRIBUTE = re.compile(
    r"\s*(?P<name>[a-z_][a-z0-9_]*)\s*"
    rf"(?:=\s*(?P<default>(?:{_QUOTED}|[^:\"'])*))?"
    rf":\s*(?P<type>(?:{_QUOTED}|[^#\"'])+)#(?P<comment>.*)"
)


class ParsedLine(dict[str, Any]):
    """The parts of a line by name; as an attribute, a part that is missing is an empty text."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name, "")

    def as_dict(self) -> dict[str, Any]:
        """Return the parts as a plain dict."""
        return dict(self)

    asDict = as_dict


class LineParser:
    """A parser for one kind of line in definitions, with the methods of pyparsing that it needs.

    Parameters
    ----------
    pattern
        The pattern of a line, with a group for each part.
    kind
        The name of a line in errors.
    """

    def __init__(self, pattern: re.Pattern[str], kind: str) -> None:
        self._pattern = pattern
        self._kind = kind

    def parse_string(self, line: str, parse_all: bool = False, **options: object) -> ParsedLine:
        """Return the parts of a line.

        Parameters
        ----------
        parse_all
            Has no effect: a line is always read to its end.

        Raises
        ------
        DefinitionError
            If it is a line of another kind.
        """
        del parse_all, options
        found = self._pattern.match(line)
        if found is None:
            raise DefinitionError(f"This is not a line with {self._kind}: {line!r}.")
        parts = {name: text for name, text in found.groupdict().items() if text is not None}
        parsed = ParsedLine(parts)
        if "options" in parts:
            parsed["options"] = [word.strip() for word in parts["options"].split(",")]
        return parsed

    parseString = parse_string


foreign_key_parser = LineParser(_FOREIGN_KEY, "a foreign key, such as '-> Session'")
"""The parser of foreign keys, which gives ``options`` and ``ref_table``."""

attribute_parser = LineParser(_ATTRIBUTE, "an attribute, such as 'weight : float # grams'")
"""The parser of attributes, which gives ``name``, ``default``, ``type`` and ``comment``.

The comment is required, as in DataJoint, whose callers add a ``#``.
"""


def is_foreign_key(line: str) -> bool:
    """Whether a line of a definition is a foreign key.

    Examples
    --------
    >>> is_foreign_key("-> Session"), is_foreign_key("note : varchar(9)  # a -> b")
    (True, False)
    """
    before, arrow, _ = line.partition("->")
    return bool(arrow) and not set(before) & {'"', "'", "#"}


def extract_column_names(sql_expression: str) -> set[str]:
    """Return the names of attributes in a text of SQL.

    Examples
    --------
    >>> sorted(extract_column_names("`age` > 3 and upper(sex) = 'm'"))
    ['age', 'sex']
    """
    return set(parse(sql_expression).words)


def parse_sql(filepath: str | Path) -> Iterator[str]:
    """Yield the statements of a file of SQL; lines of ``--`` are left out.

    Another delimiter than ``;`` is chosen by a line ``delimiter //``.
    """
    delimiter, statement = ";", list[str]()
    for line in map(str.strip, Path(filepath).read_text().splitlines()):
        if len(line) < 2 or line.startswith("--"):
            continue
        if line.startswith("delimiter"):
            delimiter = line.split()[1]
            continue
        statement.append(line)
        if line.endswith(delimiter):
            yield " ".join(statement)
            statement = []
    if statement:
        yield " ".join(statement)
