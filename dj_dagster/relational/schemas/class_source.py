"""The definition in a class's source: reading it, and saying where it stands when it is wrong."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Generator
from contextlib import contextmanager

from dj_dagster.definition import parse_definition
from dj_dagster.errors import DefinitionError, MissingDefinitionError
from dj_dagster.model.declaration import TableDefinition
from dj_dagster.relational.table import Table


def read_definition(cls: type[Table], class_name: str) -> TableDefinition:
    """Return what the ``definition`` of a class says.

    Raises
    ------
    MissingDefinitionError
        If there is none.
    DefinitionError
        If it does not parse; with the line in the class's file.
    """
    text = definition_text(cls)
    if not text:
        raise MissingDefinitionError(
            f"The table {class_name} has no definition: write definition = '''...''' in its class."
        )
    try:
        return parse_definition(text, table=class_name)
    except DefinitionError:
        # Sources are looked up for messages alone: that takes a while.
        file, first_line = _place(cls)
        return parse_definition(text, table=class_name, file=file, first_line=first_line)


def definition_text(cls: type[Table]) -> str:
    """Return the ``definition`` of a class or of those that it derives from, ``""`` without one.

    It may be a property, which is then asked of an instance. That is one which belongs to no schema
    yet, unless the class has an ``__init__`` of its own, which may write the definition.
    """
    found = inspect.getattr_static(cls, "definition", "")
    if has_own_init(cls) and cls._binding is not None:
        found = cls().definition
    elif isinstance(found, property):
        found = found.__get__(object.__new__(cls))
    return found if isinstance(found, str) else ""


def has_own_init(cls: type[Table]) -> bool:
    """Whether making an instance of a class does more than it does for any table."""
    return cls.__init__ is not Table.__init__


@contextmanager
def located(cls: type[Table], class_name: str, line: int) -> Generator[None]:
    """Put the place of a line of the definition, counted from 1, before errors raised inside."""
    try:
        yield
    except DefinitionError as error:
        file, first_line = _place(cls)
        place = f"{file}:{first_line + line - 1}" if file else f"line {line}"
        raise DefinitionError(f"{place}, table {class_name}: {error}") from None


def _place(cls: type[Table]) -> tuple[str | None, int]:
    """Return the file of a class's definition and the line that its text begins on."""
    try:
        lines, start = inspect.getsourcelines(cls)
        indented = lines[0][:1].isspace()
        tree = ast.parse("".join(["if True:\n", *lines] if indented else lines))
        file = inspect.getsourcefile(cls)
    except (OSError, TypeError, SyntaxError):
        return None, 1
    found = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for statement in found.body:
        match statement:
            case ast.Assign([ast.Name("definition")], value) | ast.AnnAssign(
                ast.Name("definition"), _, ast.expr() as value
            ):
                return file, start + value.lineno - 1 - indented
            case _:
                pass
    return file, start
