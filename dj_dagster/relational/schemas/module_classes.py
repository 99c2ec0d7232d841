"""The declared table classes of Python modules, found by looking at the modules' names."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import ModuleType

from dj_dagster.relational.table import Part, Table


def own_classes(module: ModuleType) -> list[type[Table]]:
    """Return the table classes that a module declares or, without any, those that it imports.

    Parts are left out, as they come with their masters.
    """
    found = [each for each in _declared(module) if not issubclass(each, Part)]
    return [each for each in found if each.__module__ == module.__name__] or found


def classes_within_reach(
    modules: Iterable[ModuleType], classes: Iterable[type[Table]] = ()
) -> list[type[Table]]:
    """Return the table classes of modules, and those that the modules of these classes have.

    A class finds the parents of its table by the names of its module, as classes or in modules
    that are imported there. Therefore the parents are found as well, and theirs.

    Parameters
    ----------
    classes
        Further classes to begin with, which come first.
    """
    waiting, looked_at = list(modules), set[str]()
    found = dict.fromkeys(classes)
    waiting += _homes(found)
    while waiting:
        module = waiting.pop()
        if module.__name__ in looked_at:
            continue
        looked_at.add(module.__name__)
        declared = list(_declared(module))
        found |= dict.fromkeys(declared)
        waiting += _homes(declared)
        imported = [each for each in vars(module).values() if isinstance(each, ModuleType)]
        waiting += [each for each in imported if next(_declared(each), None) is not None]
    return list(found)


def _homes(classes: Iterable[type[Table]]) -> list[ModuleType]:
    """Return the modules in which classes are written."""
    names = dict.fromkeys(each.__module__ for each in classes)
    return [sys.modules[name] for name in names if name in sys.modules]


def _declared(module: ModuleType) -> Iterator[type[Table]]:
    for each in dict.fromkeys(each for each in vars(module).values() if isinstance(each, type)):
        if issubclass(each, Table) and each._binding is not None:
            yield each
