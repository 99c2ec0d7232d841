"""Versions of the code that computes a table, from the source of `make`, and its place.

The version is that of the syntax tree: comments, formatting and docstrings do not change it. It
covers `make`, the methods that it calls on `self`, and the functions, classes and constants of the
same module that these use, all the way down. A constant is represented by all statements that give
it its value: its assignments, the conditions above them, and later changes of its content. Other
tables are left out, because they have versions of their own.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary

from dj_dagster.workflow.make import STEPS

METHODS = ("make", "_make_tuples", *STEPS)
"""The methods that a version begins with."""

_LIBRARIES = ("dj_dagster", "datajoint", "builtins")

_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_BLOCKS = (ast.stmt, ast.excepthandler, ast.match_case)


def code_version(cls: type) -> str | None:
    """Return the version of the code that fills a table, None where its source is not at hand.

    The version is that of the source at the first call for the class. Later edits of the file do
    not count, because a loaded class goes on as it was.

    Examples
    --------
    >>> code_version(int) is None
    True
    """
    if cls not in _versions:
        _versions[cls] = _Walk(cls).version()
    return _versions[cls]


_versions: WeakKeyDictionary[type, str | None] = WeakKeyDictionary()


def code_place(cls: type) -> tuple[str, int] | None:
    """Return the file and the line of a class, None where its source is not at hand."""
    source = _source_of(cls) if _is_users(cls) else None
    found = source.find(cls.__qualname__) if source else None
    if source is None or found is None:
        return None
    return source.file, found.line


Binding = tuple[ast.AST, ...]
"""All statements that give a name its value, in order."""

Scope = Mapping[str, Binding]


@dataclass(frozen=True)
class _Place:
    """A class in a module's source: its own names, and those around it, the innermost first."""

    line: int
    inside: Scope
    scopes: tuple[Scope, ...]


class _Source:
    """The source of one module."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self._tree = ast.parse(text, file)
        self._places: dict[str, _Place | None] = {}
        self._scopes: dict[ast.AST, Scope] = {}

    def find(self, qualname: str) -> _Place | None:
        """Return a class by its qualified name; the last of several counts, as in Python."""
        if qualname not in self._places:
            self._places[qualname] = self._find(qualname)
        return self._places[qualname]

    def _find(self, qualname: str) -> _Place | None:
        node: _Named | ast.Module = self._tree
        scopes = [self._inside(node)]
        for step in qualname.split("."):
            if step == "<locals>":
                continue
            named = [each for each in scopes[0].get(step, ()) if isinstance(each, _NAMED)]
            if not named:
                return None
            node = named[-1]
            scopes.insert(0, self._inside(node))
        if not isinstance(node, ast.ClassDef):
            return None
        return _Place(node.lineno, scopes[0], tuple(scopes[1:]))

    def _inside(self, node: _Named | ast.Module) -> Scope:
        if node not in self._scopes:
            self._scopes[node] = _definitions(node.body)
        return self._scopes[node]


class _Walk:
    """A walk from `make` through all code that it uses in the module of its class."""

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._seen: dict[str, str] = {}

    def version(self) -> str | None:
        own = [base for base in self._cls.__mro__ if _is_users(base)]
        for name in METHODS:
            self._method(name, own)
        if not self._seen:
            return None
        text = "\n".join(f"{name} {dump}" for name, dump in sorted(self._seen.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _method(self, name: str, classes: Iterable[type]) -> None:
        """Add the attribute `name` of a class, or of the first of its bases that has it."""
        classes = list(classes)
        for cls in classes:
            source = _source_of(cls)
            place = source.find(cls.__qualname__) if source else None
            found = place.inside.get(name) if place else None
            if place is not None and found is not None:
                self._take(f".{name}", found, place.scopes, classes)
                return

    def _take(
        self,
        label: str,
        binding: Binding,
        scopes: tuple[Scope, ...],
        classes: list[type],
    ) -> None:
        if label in self._seen:
            return
        self._seen[label] = " ".join(map(_dump, binding))
        for name in _names(binding):
            found = next((scope[name] for scope in scopes if name in scope), None)
            if found is not None and not self._is_table(name, found):
                self._take(name, found, scopes, classes)
        for name in _own_attributes(binding, {cls.__name__ for cls in classes}):
            self._method(name, classes)

    def _is_table(self, name: str, binding: Binding) -> bool:
        node = binding[-1]
        if not isinstance(node, ast.ClassDef):
            return False
        module = sys.modules.get(self._cls.__module__)
        value = getattr(module, name, None)
        if isinstance(value, type):
            return any(base.__name__ == "Table" for base in value.__mro__)
        return "definition" in _definitions(node.body)


def _is_users(cls: type) -> bool:
    return cls.__module__.split(".")[0] not in _LIBRARIES


def _source_of(cls: type) -> _Source | None:
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py"):
        return None
    try:
        return _read(file, Path(file).stat().st_mtime_ns)
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=256)
def _read(file: str, changed: int) -> _Source:
    del changed  # a file that was written since is another entry
    return _Source(file, Path(file).read_text(encoding="utf-8"))


def _definitions(body: Iterable[ast.stmt]) -> dict[str, Binding]:
    """Return the bindings of the names of a body, including those under `if`, `try` and `with`."""
    found: dict[str, dict[ast.AST, None]] = {}
    begun: set[str] = set()
    for names, changed, binding in _bindings(body, ()):
        begun.update(names)
        first = binding[0] if binding else None
        if isinstance(first, _NAMED) and not first.decorator_list:
            # A definition replaces the earlier bindings of its name.
            found.pop(first.name, None)
        for name in (*names, *changed):
            found.setdefault(name, {}).update(dict.fromkeys(binding))
    # Names that are only changed here come from elsewhere, such as an imported module.
    return {name: tuple(nodes) for name, nodes in found.items() if name in begun}


def _bindings(
    body: Iterable[ast.AST], above: Binding
) -> Iterator[tuple[list[str], list[str], Binding]]:
    """Yield the names that statements give a value, those whose value they change, and how.

    Parameters
    ----------
    above
        The statements that decide on whether and how often the body is executed.
    """
    for node in body:
        if isinstance(node, _NAMED):
            yield [node.name], [], (*above, node)
            continue
        blocks = [child for child in ast.iter_child_nodes(node) if isinstance(child, _BLOCKS)]
        if blocks or isinstance(node, ast.match_case):
            heads = [n for n in ast.iter_child_nodes(node) if not isinstance(n, _BLOCKS)]
            binding = (*above, *heads)
            yield [name for head in heads for name in _stored(head)], [], binding
            yield from _bindings(blocks, binding)
        else:
            yield list(_stored(node)), list(_changed(node)), (*above, node)


def _stored(node: ast.AST) -> Iterator[str]:
    """Yield the names to which something is assigned."""
    for each in ast.walk(node):
        match each:
            case ast.Name(name, ast.Store()):
                yield name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case _:
                pass


def _changed(node: ast.AST) -> Iterator[str]:
    """Yield the names whose values a statement may change in place."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield from _roots([node.value.func])
    elif isinstance(node, ast.Assign | ast.Delete):
        yield from _roots(node.targets)
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        yield from _roots([node.target])


def _roots(targets: Iterable[ast.expr]) -> Iterator[str]:
    """Yield the name before the dots and brackets of each target that has any."""
    for target in targets:
        each = target
        while isinstance(each, ast.Attribute | ast.Subscript | ast.Call):
            each = each.func if isinstance(each, ast.Call) else each.value
        if each is not target and isinstance(each, ast.Name):
            yield each.id


def _names(binding: Binding) -> list[str]:
    loaded = (n.id for node in binding for n in ast.walk(node) if isinstance(n, ast.Name))
    return list(dict.fromkeys(loaded))


def _own_attributes(binding: Binding, class_names: set[str]) -> list[str]:
    """Return the attributes that are read from `self`, `cls`, the class by its name, and `super()`.

    The table may have another name, or be given to a function, so any parameter may be the table.
    """
    nodes = [each for node in binding for each in ast.walk(node)]
    owners = {"self", "cls", *class_names, *(n.arg for n in nodes if isinstance(n, ast.arg))}
    found: dict[str, None] = {}
    for each in nodes:
        match each:
            case ast.Assign([ast.Name(alias)], ast.Name(owner)) if owner in owners:
                owners.add(alias)
            case (
                ast.Attribute(ast.Name(owner), name)
                | ast.Attribute(ast.Call(ast.Name("type"), [ast.Name(owner)]), name)
                | ast.Attribute(ast.Attribute(ast.Name(owner), "__class__"), name)
                | ast.Call(ast.Name("getattr"), [ast.Name(owner), ast.Constant(str(name)), *_])
            ) if owner in owners:
                found[name] = None
            case ast.Attribute(ast.Call(ast.Name("super")), name):
                found[name] = None
            case _:
                pass
    return list(found)


def _dump(node: ast.AST) -> str:
    """Return a tree as text without its docstrings and places."""
    bodies = [(each, each.body) for each in ast.walk(node) if isinstance(each, _NAMED)]
    for each, body in bodies:
        each.body = body[1:] if _is_docstring(body) else body
    try:
        return ast.dump(node)
    finally:
        for each, body in bodies:
            each.body = body


def _is_docstring(body: list[ast.stmt]) -> bool:
    first = body[0] if body else None
    return (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
