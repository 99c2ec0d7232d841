"""Table definitions: the text in a class is parsed into plain data, line by line.

A definition has one item a line::

    # the table's comment
    -> Session
    trial : int32                           # attribute of the primary key
    ---
    -> [nullable] Subject.proj(owner='subject_id')
    score = null : float64                  # attribute with a default
    unique index(score)

The items above ``---`` are the primary key. A table whose definition lacks a key has at most one
row.

DataJoint evaluates the text after the arrow as Python, so that ``-> (master)``, ``-> Table()`` and
``-> Table.proj('attribute', ...)`` are in use too: they mean the same as ``-> Table``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches

from dj_dagster.errors import DefinitionError
from dj_dagster.model.heading import (
    AttributeDeclaration,
    Default,
    ForeignKeyDeclaration,
    IndexDeclaration,
    Item,
    TableDefinition,
)
from dj_dagster.model.names import MAX_NAME
from dj_dagster.model.types import STRING, AttributeType, Family, read_type, unquote

_TOKEN = re.compile(rf"(?P<string>{STRING})|.", re.DOTALL)


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


_DIVIDER = re.compile(r"-{2,}|_{3,}")
# The first line of a definition in DataJoint for MATLAB, and for Python before 2016.
_HEADER = re.compile(r"[\w.`]+\s*\((?:manual|lookup|imported|computed)\)\s*(?:#.*)?", re.IGNORECASE)


def parse_definition(
    text: str,
    *,
    table: str = "",
    file: str | None = None,
    first_line: int = 1,
    repeats: bool = False,
) -> TableDefinition:
    r"""Parse a definition, without looking up classes or asking a database.

    Parameters
    ----------
    text
        The definition, as in a class's ``definition``.
    table, file
        The table's name and the file of the text, for error messages.
    first_line
        Number of the text's first line in `file`.
    repeats
        Whether an attribute may be declared again with another type or default, with a note among
        the deprecations; the first line holds.

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
    reading = _Reading(repeats=repeats)
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
    repeats: bool = False

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
        elif _as_declared(earlier) != _as_declared(attribute):
            default = "null" if earlier.nullable else earlier.default
            form = earlier.type.text if default is None else f"{default} : {earlier.type.text}"
            problem = f"{attribute.name!r} is already declared, as {form} on line {earlier.line}"
            if not self.repeats:
                raise line.error(problem, 0, "leave one of the two lines out")
            self._deprecate(line, f"{problem}, which holds")

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


def _as_declared(attribute: AttributeDeclaration) -> tuple[object, ...]:
    return attribute.type, attribute.default, attribute.nullable


_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ATTRIBUTE_FORM = (
    "write 'name : type', 'name = default : type', '-> Table', '---' or 'index(attribute)'"
)
_NOW = re.compile(r"CURRENT_TIMESTAMP(?:\s*\(\s*[0-6]?\s*\))?", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_BOOLS = {"true": "1", "false": "0", "1": "1", "0": "0"}
_NUMERIC = (Family.INTEGER, Family.FLOAT, Family.DECIMAL)
_OPAQUE = (Family.BYTES, Family.JSON, Family.CODEC)
_STORE_ONLY = ("hash", "npy", "object", "filepath")


def read_attribute(line: SourceLine, *, in_key: bool) -> tuple[AttributeDeclaration, str | None]:
    """Return the attribute of a line, and a sentence about its type's spelling when that is old.

    Raises
    ------
    DefinitionError
        When the line does not parse, or is not allowed at its place in the table.

    Examples
    --------
    >>> attribute, _ = read_attribute(SourceLine("gain = 1.5 : float64  # V/V", 3), in_key=False)
    >>> attribute.name, attribute.default.value, attribute.type.text, attribute.comment
    ('gain', '1.5', 'float64', 'V/V')
    """
    colon = line.find(":#")
    if line.text[colon : colon + 1] != ":":
        raise line.error("this line has no ':' and so no type", colon, _ATTRIBUTE_FORM)
    name, default_at = _name(line, colon)
    kind_at = _skip_spaces(line, colon + 1)
    kind_end = line.find("#", kind_at)
    kind, old = _type(line, kind_at, kind_end)
    default, nullable = _default(line, default_at, colon, kind)
    if default_at == colon and old is None:
        old = f"{name!r} has an '=' and no default, so it has none: leave the '=' out"
    if in_key:
        _check_key(line, default_at, kind_at, kind, nullable=nullable)
    comment = read_comment(line, kind_end)
    return AttributeDeclaration(name, kind, default, nullable, comment, line.number), old


def read_comment(line: SourceLine, hash_at: int) -> str:
    """Return the comment after the ``#`` at a column, "" at the line's end."""
    comment = line.text[hash_at + 1 :].strip()
    if comment.startswith(":"):
        advice = "begin the comment with another character: ':' marks types in the database"
        raise line.error("a comment may not begin with ':'", line.text.index(":", hash_at), advice)
    return comment


def check_attribute_name(line: SourceLine, name: str, column: int) -> None:
    """Raise `DefinitionError` unless `name`, at `column`, can name an attribute."""
    if not _NAME.fullmatch(name):
        tidy = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
        instead = f"write {tidy!r}: " if _NAME.fullmatch(tidy) else "write "
        rule = "lower-case letters, digits and underscores, beginning with a letter"
        raise line.error(f"{name!r} is not an attribute name", column, instead + rule)
    if len(name) > MAX_NAME:
        problem = f"the attribute name has {len(name)} characters"
        raise line.error(problem, column, f"write at most {MAX_NAME}")


def _skip_spaces(line: SourceLine, column: int) -> int:
    rest = line.text[column:]
    return column + len(rest) - len(rest.lstrip())


def _name(line: SourceLine, colon: int) -> tuple[str, int | None]:
    """Return the name, and the column of the default or None."""
    equals = line.text.find("=", 0, colon)
    name = line.text[: colon if equals < 0 else equals].strip()
    check_attribute_name(line, name, 0)
    return name, None if equals < 0 else _skip_spaces(line, equals + 1)


def _type(line: SourceLine, start: int, end: int) -> tuple[AttributeType, str | None]:
    text = line.text[start:end].strip()
    if not text:
        raise line.error("the type is missing", start, "write it after the ':', such as int64")
    try:
        kind, old = read_type(text)
    except DefinitionError as error:
        problem, _, advice = str(error).partition("\n")
        if "=" in text and not text.startswith(("enum", "<")):
            advice = "write the default before the ':', as in 'name = 0 : int64'"
        raise line.error(problem, start, advice) from None
    if kind.codec in _STORE_ONLY and kind.store is None:
        problem = f"{kind.text} keeps its objects in a store and names none"
        advice = f"write <{kind.codec}@> for the default store, or <{kind.codec}@store>"
        raise line.error(problem, start, advice)
    return kind, old


def _default(
    line: SourceLine, start: int | None, colon: int, kind: AttributeType
) -> tuple[Default | None, bool]:
    """Return the default and whether the attribute is nullable."""
    if start is None:
        return None, False
    text = line.text[start:colon].strip()
    # DataJoint takes `name = : type` for an attribute without a default.
    if not text:
        return None, False
    if text.lower() == "null":
        return None, True
    if kind.family in _OPAQUE:
        problem = f"{kind.text} can have no default but null"
        raise line.error(problem, start, "write '= null', or leave the default out")
    if _NOW.fullmatch(text):
        # With the digits of the type: MySQL refuses others.
        digits = kind.size if kind.family is Family.DATETIME else None
        return Default(
            f"CURRENT_TIMESTAMP({digits})" if digits else "CURRENT_TIMESTAMP", True
        ), False
    return Default(_literal(line, start, text, kind)), False


def _literal(line: SourceLine, start: int, text: str, kind: AttributeType) -> str:
    if re.fullmatch(STRING, text, re.DOTALL):
        value = unquote(text)
    elif line.find("'\"", start) < start + len(text) or re.search(STRING, text):
        raise line.error(f"{text!r} is not one value", start, "put the whole default in quotes")
    else:
        value = text
    if kind.family is Family.BOOL:
        if value.lower() not in _BOOLS:
            raise line.error(f"{value!r} is not a bool", start, "write True or False")
        return _BOOLS[value.lower()]
    if kind.family in _NUMERIC and not _NUMBER.fullmatch(value.strip()):
        raise line.error(f"{value!r} is not a number", start, "write a number, or null")
    if kind.family is Family.ENUM and value not in kind.values:
        raise line.error(f"{value!r} is not in {kind.text}", start, "write one of its values")
    return value


def _check_key(
    line: SourceLine, default_at: int | None, kind_at: int, kind: AttributeType, *, nullable: bool
) -> None:
    if nullable:
        problem = "an attribute of the primary key cannot be null"
        advice = "leave '= null' out, or move the line below ---"
        raise line.error(problem, default_at or 0, advice)
    if kind.family in _OPAQUE:
        problem = f"{kind.text} cannot be in the primary key"
        advice = "move the line below ---, or identify the row by a number, text, date or uuid"
        raise line.error(problem, kind_at, advice)


_ARROW = re.compile(r"(?P<new>\([^()]*\))?\s*->\s*(?P<options>\[[^\]]*\])?\s*")
_WORD = r"[A-Za-z_]\w*(?:\(\))?"
_TARGET = re.compile(
    rf"(?P<open>\(\s*)?(?P<target>{_WORD}(?:\.(?!proj\s*\(){_WORD})*)(?(open)\s*\))"
    r"\s*(?P<proj>\.\s*proj\s*(?=\())?",
    re.ASCII,
)
_RENAME = re.compile(rf"(?P<new>\w+)\s*=\s*(?P<old>{STRING})")
_KEPT = re.compile(rf"\.\.\.|{STRING}")
_OPTIONS = ("nullable", "unique")
_FOREIGN_KEY_FORM = "write '-> Table' or '-> [nullable, unique] Table.proj(new=''old'')'".replace(
    "''", "'"
)


def is_foreign_key(text: str) -> bool:
    """Return whether a line is meant as a foreign key."""
    return _ARROW.match(text) is not None


def read_foreign_key(line: SourceLine) -> tuple[ForeignKeyDeclaration, str | None]:
    """Return the foreign key of a line, and a sentence about its spelling when that is old.

    The old ``(attr) -> Table`` does not name the attribute of the parent. Its rename is
    ``{attr: ""}``, where "" means the one key attribute of the parent that the child lacks.

    Raises
    ------
    DefinitionError
        When the line does not parse.

    Examples
    --------
    >>> line = SourceLine("-> [nullable] Subject.proj(mother='subject_id')", 1)
    >>> read_foreign_key(line)[0].renames
    {'mother': 'subject_id'}
    """
    arrow = _ARROW.match(line.text)
    target = arrow and _TARGET.match(line.text, arrow.end())
    if arrow is None or target is None:
        column = arrow.end() if arrow else 0
        raise line.error("the foreign key names no table", column, _FOREIGN_KEY_FORM)
    options = _options(line, arrow)
    renames, end = {}, target.end()
    if arrow["new"] is not None:
        renames, end = _old_renames(line, arrow, end)
    elif target["proj"]:
        renames, end = _projection(line, end)
    line.expect_end(end, f"{_FOREIGN_KEY_FORM}; a foreign key cannot be restricted or joined")
    name = target["target"].replace("()", "")
    key = ForeignKeyDeclaration(
        name, renames, "nullable" in options, "unique" in options, line.number
    )
    if arrow["new"] is not None:
        return key, _modern_spelling(key, options)
    if name != target["target"]:
        return key, f"'-> {target['target']}' is an old spelling: write '-> {name}'"
    return key, None


def _options(line: SourceLine, arrow: re.Match[str]) -> list[str]:
    inside = (arrow["options"] or "")[1:-1]
    options = [option.strip().lower() for option in inside.split(",") if option.strip()]
    for option in options:
        if option not in _OPTIONS:
            close = get_close_matches(option, _OPTIONS, n=1)
            instead = f"write [{close[0]}]" if close else "write [nullable], [unique] or both"
            problem = f"{option!r} is not an option of a foreign key"
            raise line.error(problem, arrow.start("options") + 1, instead)
    return options


def _projection(line: SourceLine, opening: int) -> tuple[dict[str, str], int]:
    closing = line.closing(opening)
    renames: dict[str, str] = {}
    for column, text in line.arguments(opening, closing):
        # The primary key is inherited whole; kept attributes do not change that.
        if _KEPT.fullmatch(text):
            continue
        match = _RENAME.fullmatch(text)
        if match is None:
            advice = "write new='old': in a foreign key proj only renames key attributes"
            raise line.error(f"{text!r} is not a rename", column, advice)
        old = unquote(match["old"])
        _check_names(line, column, match["new"], old)
        if match["new"] in renames:
            raise line.error(f"{match['new']!r} is given twice", column, "give each new name once")
        renames[match["new"]] = old
    return renames, closing + 1


def _old_renames(line: SourceLine, arrow: re.Match[str], end: int) -> tuple[dict[str, str], int]:
    new = [text for _, text in line.arguments(arrow.start("new"), arrow.end("new") - 1)]
    old = [""]
    if line.text[end : end + 1] == "(":
        closing = line.closing(end)
        old = [text for _, text in line.arguments(end, closing)]
        end = closing + 1
    _check_names(line, arrow.start("new"), *new, *filter(None, old))
    if len(new) != len(old):
        problem = f"{len(new)} new names for {len(old)} of the parent's attributes"
        raise line.error(problem, arrow.start("new"), _FOREIGN_KEY_FORM)
    return {n: o for n, o in zip(new, old, strict=True) if n != o}, end


def _check_names(line: SourceLine, column: int, *names: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            problem = f"{name!r} is not an attribute name"
            advice = "write lower-case letters, digits and underscores, beginning with a letter"
            raise line.error(problem, column, advice)


def _modern_spelling(key: ForeignKeyDeclaration, options: list[str]) -> str:
    bracket = f"[{', '.join(options)}] " if options else ""
    renames = ", ".join(f"{new}={old or '<attribute>'!r}" for new, old in key.renames.items())
    modern = f"-> {bracket}{key.target}" + (f".proj({renames})" if renames else "")
    return f"'(attribute) -> {key.target}' is an old spelling: write {modern}"


_INDEX = re.compile(r"(?P<unique>unique\s+)?index\s*(?=\()", re.IGNORECASE)
# A name, the first n characters of it, a path into its JSON with a type, or any expression.
_PART = re.compile(
    r"[a-z][a-z0-9_]*(?:\s*\([0-9]+\)|[.\[][^()]*(?:\([0-9, ]*\))?)?|\(.+\)", re.DOTALL
)
_INDEX_FORM = (
    "write 'index(a, b)' or 'unique index(a, b(10), (expression))' with attributes a and b"
)


def is_index(text: str) -> bool:
    """Return whether a line is meant as an index."""
    return _INDEX.match(text) is not None


def read_index(line: SourceLine) -> IndexDeclaration:
    """Return the index of a line.

    Raises
    ------
    DefinitionError
        When the line does not parse.

    Examples
    --------
    >>> read_index(SourceLine("unique index (first_name, last_name(10))", 1)).parts
    ('first_name', 'last_name(10)')
    """
    head = _INDEX.match(line.text)
    if head is None:
        raise line.error("this is not an index", 0, _INDEX_FORM)
    closing = line.closing(head.end())
    parts = line.arguments(head.end(), closing)
    if not parts:
        raise line.error("the index names no attribute", head.end(), _INDEX_FORM)
    for column, text in parts:
        if not _PART.fullmatch(text):
            raise line.error(f"{text!r} cannot be indexed", column, _INDEX_FORM)
    line.expect_end(closing + 1, _INDEX_FORM)
    return IndexDeclaration(tuple(text for _, text in parts), bool(head["unique"]), line.number)
