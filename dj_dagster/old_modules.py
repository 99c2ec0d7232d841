"""The modules of DataJoint that old code reaches into: ``dj.hash.key_hash``, ``dj.table.Table``."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from dj_dagster import compat, errors, settings
from dj_dagster.default_connection import config
from dj_dagster.model import heading
from dj_dagster.objects import blob
from dj_dagster.relational import expression
from dj_dagster.relational.algebra import condition
from dj_dagster.relational.database.eras import checked_era
from dj_dagster.workflow import computed

_SOURCES: dict[str, tuple[ModuleType, ...]] = {
    "attribute_adapter": (compat,),
    "autopopulate": (computed,),
    "blob": (blob,),
    "codecs": (),
    "condition": (condition,),
    "connection": (),
    "diagram": (),
    "errors": (errors,),
    "expression": (expression,),
    "fetch": (compat,),
    "gc": (),
    "hash": (compat,),
    "heading": (heading,),
    "logging": (),
    "schemas": (),
    "settings": (settings,),
    "table": (),
    "user_tables": (),
    "utils": (compat,),
    "version": (),
}
"""DataJoint's modules, and where some of their names are here; others are in the package itself."""

OLD_MODULES = frozenset(_SOURCES)


class OldModule(ModuleType):
    """A module of DataJoint's that looks its names up where they are here.

    Parameters
    ----------
    name
        One of `OLD_MODULES`.
    package
        The public face, where most names are.
    """

    def __init__(self, name: str, package: ModuleType) -> None:
        super().__init__(name, f"The names of DataJoint's module {name}.")
        self._sources = (*_SOURCES[name], package)

    def __getattr__(self, name: str) -> Any:
        # The package would look for submodules of DataJoint again.
        for source in () if name.startswith("__") or name in OLD_MODULES else self._sources:
            if hasattr(source, name):
                return getattr(source, name)
        raise AttributeError(f"DataJoint's module {self.__name__} has no {name!r} in dj_dagster.")


def replace_datajoint(*, era: str | None = None) -> None:
    """Put dj_dagster in the place of ``datajoint``, for packages that import that.

    ``from datajoint.errors import DataJointError`` and the like work as well; a name that is not
    there is an `ImportError`, as ever.

    Parameters
    ----------
    era
        ``"0.14"`` for code that was written for that era, where the same words mean something else
        now. For all connections that follow the settings: names alone decide what matches, ``aggr``
        leaves out rows without a match, ``dj.U(...) * table`` adds to the key, ``head`` and
        ``tail`` give what `fetch` gives, ``schema.jobs`` is iterated over by its rows, and new
        schemas on servers are laid out as 0.14 has them. What differs is listed in
        ``docs/eras.md``. By default the era stays as the setting `era` has it.

    Raises
    ------
    ImportError
        If DataJoint itself has been imported before.

    Examples
    --------
    ::

        import dj_dagster as dj

        dj.replace_datajoint(era="0.14")  # before anything that imports datajoint
        from element_lab import lab       # a published package, written for DataJoint 0.14
    """
    if era is not None:
        config()["era"] = checked_era(era)
    package = sys.modules[__name__.partition(".")[0]]
    if sys.modules.setdefault("datajoint", package) is not package:
        raise ImportError(
            "datajoint has been imported already: call replace_datajoint() before that."
        )
    for name in OLD_MODULES:
        sys.modules.setdefault(f"datajoint.{name}", OldModule(name, package))
