"""Checks that refuse circles of foreign keys and of modules."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, ModuleType

from dj_dagster.errors import DefinitionError
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.table import Table, TableMeta

Neighbours = Callable[[str], Iterator[str]]


def check_imports(child: type[Table], parent: type[Table]) -> None:
    """Refuse a foreign key between tables whose modules import each other in a circle.

    Imports at the top of modules count; those inside functions do not, nor do modules that are
    passed in when a schema is activated. The imports of modules without tables are not restricted.

    Parameters
    ----------
    child, parent
        Table classes of two schemas.

    Raises
    ------
    DefinitionError
        If they do; the message names the modules of the circle.
    """
    here, there = child.__module__, parent.__module__
    # The names in modules are checked first, because reading source files takes a while.
    if here == there or _path(there, here, _held) is None:
        return
    path = _path(there, here, _imported)
    if path is not None and there in _statements(here):
        raise _module_circle(child, parent.__qualname__, path)


def check_half_imported(child: type[Table], target: str, found: Iterable[object]) -> None:
    """Refuse a foreign key to a table that is missing because its module waits for this one.

    Parameters
    ----------
    target
        The name of the parent in the foreign key.
    found
        The values of its first word in the scope, of which only modules are checked.

    Raises
    ------
    DefinitionError
        If modules import each other in a circle; the message names them.
    """
    here = child.__module__
    for module in found:
        if isinstance(module, ModuleType) and module.__name__ != here and _is_loading(module):
            path = _path(module.__name__, here, _loaded)
            if path is not None:
                raise _module_circle(child, target, path)


def _module_circle(child: type[Table], target: str, path: list[str]) -> DefinitionError:
    """Return the error for a path from the module of a foreign key's target back to the child's."""
    circle = " → ".join([child.__module__, *path])
    return DefinitionError(
        f"{child.__qualname__} refers to {target}, but their modules import each other in a "
        f"circle: {circle}\n"
        f"a schema's module imports those that its tables refer to, never the reverse: remove the "
        f"import from {path[-2]}, or put it inside the function that needs it"
    )


def _path(start: str, goal: str, neighbours: Neighbours) -> list[str] | None:
    """Return the modules on the path from one to another, None without a path."""
    paths = {start: [start]}
    waiting = [start]
    # The list grows while it is walked.
    for module in waiting:
        for other in neighbours(module):
            if other == goal:
                return [*paths[module], goal]
            if other not in paths and _holds_tables(other):
                paths[other] = [*paths[module], other]
                waiting.append(other)
    return None


def _held(module: str) -> Iterator[str]:
    """Yield the names of the modules, and of the modules of classes and functions, in a module."""
    for value in list(vars(sys.modules.get(module, object)).values()):
        if isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(value, type | FunctionType) and value.__module__ != module:
            yield value.__module__


def _imported(module: str) -> Iterator[str]:
    """Yield those modules of `_held` that the module imports by a statement of its own."""
    statements = _statements(module)
    return (name for name in dict.fromkeys(_held(module)) if name in statements)


def _loaded(module: str) -> Iterator[str]:
    """Yield the modules that a module imports by statements, as far as they are loaded."""
    return (name for name in sorted(_statements(module)) if name in sys.modules)


def _is_loading(module: ModuleType | None) -> bool:
    return getattr(getattr(module, "__spec__", None), "_initializing", False)


def _holds_tables(module: str) -> bool:
    if _is_loading(sys.modules.get(module)):
        return True
    values = list(vars(sys.modules.get(module, object)).values())
    return any(isinstance(value, TableMeta) and value.__module__ == module for value in values)


def _statements(module: str) -> set[str]:
    """Return all names in the import statements outside a module's functions."""
    found = sys.modules.get(module)
    try:
        tree = ast.parse(inspect.getsource(found)) if found else ast.Module([], [])
    except (OSError, TypeError, SyntaxError):
        # A notebook or a module made at run time does not have a source file.
        return set()
    package = getattr(found, "__package__", None) or ""
    return {name for node in _outside_functions(tree) for name in _names(node, package)}


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for inner in ast.iter_child_nodes(node):
        if not isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _outside_functions(inner)


def _names(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


Step = tuple[TableName, TableName]
"""A foreign key: the child and its parent."""


def check_acyclic(connection: Connection, name: TableName, parents: Iterable[TableName]) -> None:
    """Refuse new foreign keys of a table that would close a circle.

    The walk uses the catalogue, so that only schemas that have not been read yet are queried. A
    foreign key of a new table within its own schema cannot close a circle and is not walked.

    Parameters
    ----------
    parents
        The tables that the foreign keys refer to.

    Raises
    ------
    DefinitionError
        If they would; the message names the circle, of schemas (``lab → ephys → lab``) or of
        tables, and its foreign keys.
    """
    exists = connection.catalog.find(name) is not None
    for parent in dict.fromkeys(parents):
        if parent.schema != name.schema:
            path = _schema_path(connection, parent.schema, name.schema)
            if path is not None:
                raise _table_circle([(name, parent), *path], schemas=True)
        elif exists and parent != name:
            path = _table_path(connection, parent, name)
            if path is not None:
                raise _table_circle([(name, parent), *path], schemas=False)


def _schema_path(connection: Connection, start: str, goal: str) -> list[Step] | None:
    """Return the foreign keys on a path from one schema up to another, None without a path."""
    paths: dict[str, list[Step]] = {start: []}
    waiting = [start]
    # The list grows while it is walked.
    for schema in waiting:
        for child, parent in _outward(connection, schema):
            path = [*paths[schema], (child, parent)]
            if parent.schema == goal:
                return path
            if parent.schema not in paths:
                paths[parent.schema] = path
                waiting.append(parent.schema)
    return None


def _outward(connection: Connection, schema: str) -> Iterator[Step]:
    for name in connection.catalog.names(schema):
        raw = connection.catalog.raw(name)
        for key in raw.foreign_keys if raw else ():
            if key.parent.schema != schema:
                yield name, key.parent


def _table_path(connection: Connection, start: TableName, goal: TableName) -> list[Step] | None:
    """Return the foreign keys on a path from one table up to another, None without a path."""
    paths: dict[TableName, list[Step]] = {start: []}
    waiting = [start]
    for name in waiting:
        raw = connection.catalog.raw(name)
        keys = raw.foreign_keys if raw else ()
        for parent in dict.fromkeys(key.parent for key in keys):
            path = [*paths[name], (name, parent)]
            if parent == goal:
                return path
            if parent not in paths:
                paths[parent] = path
                waiting.append(parent)
    return None


def _table_circle(steps: list[Step], *, schemas: bool) -> DefinitionError:
    """Return the error for a circle of foreign keys, given with the new one first."""
    child, parent = steps[0]
    what = "schemas" if schemas else "tables"
    # From parent to child, the direction of data and of diagrams.
    stops = [start.schema if schemas else str(start) for start, _ in steps]
    circle = " → ".join([stops[0], *reversed(stops)])
    reasons = "; ".join(f"{start} refers to {end}" for start, end in steps)
    return DefinitionError(
        f"the foreign key of {child} to {parent} closes a circle of {what}: {circle} ({reasons})\n"
        f"leave one of these foreign keys out, or move a table to the other schema"
    )
