"""Reading one foreign-key line, today's ``-> Table`` and the old ``(attr) -> Table``.

DataJoint evaluates what follows the arrow as Python, so that ``-> (master)``, ``-> Table()`` and
``-> Table.proj('attribute', ...)`` are in use too: they say no more than ``-> Table``.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from dj_dagster.model.declaration import ForeignKeyDeclaration
from dj_dagster.model.scanner import STRING, SourceLine, unquote

_NAME = re.compile(r"[a-z][a-z0-9_]*")
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
_FORM = "write '-> Table' or '-> [nullable, unique] Table.proj(new=''old'')'".replace("''", "'")


def is_foreign_key(text: str) -> bool:
    """Return whether a line is meant as a foreign key."""
    return _ARROW.match(text) is not None


def read_foreign_key(line: SourceLine) -> tuple[ForeignKeyDeclaration, str | None]:
    """Return the foreign key of a line, and a sentence about its spelling when that is old.

    The old ``(attr) -> Table`` does not say which attribute of the parent is meant: its rename is
    ``{attr: ""}``, the one key attribute of the parent that the child does not have otherwise.

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
        raise line.error("the foreign key names no table", column, _FORM)
    options = _options(line, arrow)
    renames, end = {}, target.end()
    if arrow["new"] is not None:
        renames, end = _old_renames(line, arrow, end)
    elif target["proj"]:
        renames, end = _projection(line, end)
    line.expect_end(end, f"{_FORM}; a foreign key cannot be restricted or joined")
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
        # The primary key is inherited whole, whatever else is kept.
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
        raise line.error(problem, arrow.start("new"), _FORM)
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
