"""Table definitions: from the text in a class to plain data.

A definition has one item a line::

    # the table's comment
    -> Session
    trial : int32                           # attribute of the primary key
    ---
    -> [nullable] Subject.proj(owner='subject_id')
    score = null : float64                  # attribute with a default
    unique index(score)

What stands above ``---`` is the primary key. A definition without a key is that of a table with at
most one row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from dj_dagster.model.attribute_line import read_attribute, read_comment
from dj_dagster.model.declaration import (
    AttributeDeclaration,
    IndexDeclaration,
    Item,
    TableDefinition,
)
from dj_dagster.model.foreign_key_line import is_foreign_key, read_foreign_key
from dj_dagster.model.index_line import is_index, read_index
from dj_dagster.model.scanner import SourceLine

_DIVIDER = re.compile(r"-{2,}|_{3,}")
# The first line of a definition in DataJoint for MATLAB, and in Python's before 2016.
_HEADER = re.compile(r"[\w.`]+\s*\((?:manual|lookup|imported|computed)\)\s*(?:#.*)?", re.IGNORECASE)


def parse_definition(
    text: str, *, table: str = "", file: str | None = None, first_line: int = 1
) -> TableDefinition:
    r"""Return what a definition says. No class is looked up and no database asked.

    Parameters
    ----------
    text
        The definition, as in a class's ``definition``.
    table, file
        What error messages call the table and the place that the text is from.
    first_line
        Number of the text's first line in `file`.

    Raises
    ------
    DefinitionError
        When a line does not parse; the message shows file and line, table, the line itself with a
        caret under the offending column, and what to write instead.

    Examples
    --------
    >>> parsed = parse_definition("# people\nid : int64\n---\nname = '' : varchar(80)  # in full")
    >>> parsed.comment, [attribute.name for attribute in parsed.attributes]
    ('people', ['id', 'name'])
    """
    reading = _Reading()
    for position, line in enumerate(_lines(text, table, file, first_line)):
        if position == 0 and _HEADER.fullmatch(line.text):
            reading.header(line)
        elif not line.text.startswith("#"):
            reading.add(line)
        elif position == 0:
            reading.comment = read_comment(line, 0)
    return reading.result()


def _lines(text: str, table: str, file: str | None, first_line: int) -> Iterator[SourceLine]:
    for number, written in enumerate(text.split("\n"), first_line):
        if stripped := written.strip():
            yield SourceLine(stripped, number, table, file)


@dataclass
class _Reading:
    """The items read so far."""

    comment: str = ""
    key: list[Item] = field(default_factory=list[Item])
    secondary: list[Item] = field(default_factory=list[Item])
    indexes: list[IndexDeclaration] = field(default_factory=list[IndexDeclaration])
    deprecations: list[str] = field(default_factory=list[str])
    in_key: bool = True

    def header(self, line: SourceLine) -> None:
        """Take in a first line that repeats the table's name and tier."""
        self.comment = read_comment(line, line.find("#"))
        sentence = "the class says the name and the tier: write the comment alone, as '# comment'"
        self._deprecate(line, sentence)

    def add(self, line: SourceLine) -> None:
        """Take in one line that is not a comment."""
        if divider := _DIVIDER.match(line.text):
            self._divide(line, divider[0])
        elif is_foreign_key(line.text):
            self._foreign_key(line)
        elif is_index(line.text):
            self.indexes.append(read_index(line))
        else:
            self._attribute(line)

    def _divide(self, line: SourceLine, divider: str) -> None:
        if divider == "--":
            raise line.error("a key ends with three dashes", 0, "write ---")
        line.expect_end(len(divider), "write --- on a line of its own")
        if divider.startswith("_"):
            self._deprecate(line, f"{divider!r} is an old spelling: write '---'")
        self.in_key = False

    def _foreign_key(self, line: SourceLine) -> None:
        foreign_key, old = read_foreign_key(line)
        if self.in_key and foreign_key.nullable:
            problem = "a foreign key in the primary key cannot be nullable"
            advice = "leave 'nullable' out, or move the line below ---"
            raise line.error(problem, line.text.lower().index("nullable"), advice)
        self._take(foreign_key)
        self._deprecate(line, old)

    def _attribute(self, line: SourceLine) -> None:
        attribute, old = read_attribute(line, in_key=self.in_key)
        earlier = self._declared(attribute.name)
        if earlier is None:
            self._take(attribute)
            self._deprecate(line, old)
        elif earlier.type != attribute.type:
            was = f"as {earlier.type.text} on line {earlier.line}"
            self._deprecate(line, f"{attribute.name!r} is already declared, {was}, which holds")

    def _declared(self, name: str) -> AttributeDeclaration | None:
        for item in (*self.key, *self.secondary):
            if isinstance(item, AttributeDeclaration) and item.name == name:
                return item
        return None

    def _take(self, item: Item) -> None:
        (self.key if self.in_key else self.secondary).append(item)

    def _deprecate(self, line: SourceLine, sentence: str | None) -> None:
        if sentence is not None:
            self.deprecations.append(f"{line.where}: {sentence}")

    def result(self) -> TableDefinition:
        return TableDefinition(
            self.comment,
            tuple(self.key),
            tuple(self.secondary),
            tuple(self.indexes),
            tuple(self.deprecations),
        )
