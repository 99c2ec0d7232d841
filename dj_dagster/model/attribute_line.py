"""Reading one attribute line: ``name [= default] : type [# comment]``."""

from __future__ import annotations

import re

from dj_dagster.errors import DefinitionError
from dj_dagster.model.declaration import AttributeDeclaration, Default
from dj_dagster.model.names import MAX_NAME
from dj_dagster.model.scanner import STRING, SourceLine, unquote
from dj_dagster.model.types import AttributeType, Family, read_type

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FORM = "write 'name : type', 'name = default : type', '-> Table', '---' or 'index(attribute)'"
_NOW = re.compile(r"CURRENT_TIMESTAMP(?:\s*\(\s*([0-6]?)\s*\))?", re.IGNORECASE)
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
        When the line does not parse, or says what its place in the table does not allow.

    Examples
    --------
    >>> attribute, _ = read_attribute(SourceLine("gain = 1.5 : float64  # V/V", 3), in_key=False)
    >>> attribute.name, attribute.default.value, attribute.type.text, attribute.comment
    ('gain', '1.5', 'float64', 'V/V')
    """
    colon = line.find(":#")
    if line.text[colon : colon + 1] != ":":
        raise line.error("this line has no ':' and so no type", colon, _FORM)
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
    """Return the name, and the column of the default if there is one."""
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
    if now := _NOW.fullmatch(text):
        return Default(
            f"CURRENT_TIMESTAMP({now[1]})" if now[1] else "CURRENT_TIMESTAMP", True
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
