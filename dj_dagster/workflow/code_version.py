"""Which code computes a table: its version, told from the source of `make`, and where it stands.

The version is that of the syntax tree: comments, formatting and docstrings do not change it. It
covers `make`, the methods that it calls on `self`, and the functions, classes and constants of the
same module that these use, all the way down. Other tables are left out: they have their own.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from dj_dagster.workflow.make import STEPS

METHODS = ("make", "_make_tuples", *STEPS)
"""The methods that a version begins with."""

_LIBRARIES = ("dj_dagster", "datajoint", "builtins")

_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Definition = _Named | ast.Assign | ast.AnnAssign


def code_version(cls: type) -> str | None:
    """Return the version of the code that fills a table, None where its source is not at hand.

    It is that of the source as it was when it was first asked for: a class that is loaded goes on
    as it was, however its file is edited.

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


Scope = Mapping[str, Definition]


@dataclass(frozen=True)
class _Place:
    """A class in a module's source: what is in it, and what is around it, the innermost first."""

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
        """Return a class by its qualified name; of several the last one counts, as in Python."""
        if qualname not in self._places:
            self._places[qualname] = self._find(qualname)
        return self._places[qualname]

    def _find(self, qualname: str) -> _Place | None:
        node: _Named | ast.Module = self._tree
        scopes = [self._inside(node)]
        for step in qualname.split("."):
            if step == "<locals>":
                continue
            inside = scopes[0].get(step)
            if not isinstance(inside, _NAMED):
                return None
            node = inside
            scopes.insert(0, self._inside(node))
        if not isinstance(node, ast.ClassDef):
            return None
        return _Place(node.lineno, scopes[0], tuple(scopes[1:]))

    def _inside(self, node: _Named | ast.Module) -> Scope:
        if node not in self._scopes:
            self._scopes[node] = _definitions(node.body)
        return self._scopes[node]


class _Walk:
    """Goes from `make` through all that it uses in the module of its class."""

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
        """Take in what a class or the first of its bases calls `name`."""
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
        node: Definition,
        scopes: tuple[Scope, ...],
        classes: list[type],
    ) -> None:
        if label in self._seen:
            return
        self._seen[label] = _dump(node)
        for name in _names(node):
            found = next((scope[name] for scope in scopes if name in scope), None)
            if found is not None and not self._is_table(name, found):
                self._take(name, found, scopes, classes)
        for name in _own_attributes(node, {cls.__name__ for cls in classes}):
            self._method(name, classes)

    def _is_table(self, name: str, node: Definition) -> bool:
        if not isinstance(node, ast.ClassDef):
            return False
        module: Any = sys.modules.get(self._cls.__module__)
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


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements of a body, those under `if`, `try` and `with` too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
            if not isinstance(child, _NAMED):
                yield from _statements(child)
        elif isinstance(child, ast.excepthandler):
            yield from _statements(child)


def _definitions(body: Iterable[ast.stmt]) -> dict[str, Definition]:
    found: dict[str, Definition] = {}
    for node in _statements(ast.Module(list(body), [])):
        if isinstance(node, _NAMED):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= dict.fromkeys(_targets(node), node)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


def _targets(node: ast.Assign) -> Iterator[str]:
    for target in node.targets:
        yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def _names(node: ast.AST) -> list[str]:
    loaded = (n.id for n in ast.walk(node) if isinstance(n, ast.Name))
    return list(dict.fromkeys(loaded))


def _own_attributes(node: ast.AST, class_names: set[str]) -> list[str]:
    """Return what is asked of `self`, `cls`, the class by its name, and `super()`."""
    owners = {"self", "cls"} | class_names
    found: dict[str, None] = {}
    for each in ast.walk(node):
        match each:
            case ast.Attribute(ast.Name(owner), name) if owner in owners:
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
