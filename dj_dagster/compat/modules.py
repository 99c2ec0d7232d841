"""The modules of DataJoint that programs use directly: ``dj.hash.key_hash``, ``dj.table.Table``.

Each is one object, known as ``dj_dagster.hash`` and, after `replace_datajoint`, as
``datajoint.hash``, so that both names show an attribute that a program sets.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from dj_dagster.compat.exports import PUBLIC_NAMES
from dj_dagster.default_connection import config
from dj_dagster.errors import DataJointError
from dj_dagster.relational.database.catalog import checked_era

_NAMES = "dj_dagster.compat.names"
_COMPAT = "dj_dagster.compat.spellings"
_BLOB = "dj_dagster.objects.blob"

_CODEC_MODULES = ("attach", "blob", "filepath", "hash", "npy", "object", "schema")

_SOURCES: dict[str, tuple[str, ...]] = {
    "admin": (),
    "attribute_adapter": (_COMPAT, _NAMES),
    "autopopulate": ("dj_dagster.workflow.computed",),
    "blob": (_NAMES, f"{_BLOB}.writer", f"{_BLOB}.reader", f"{_BLOB}.format"),
    "builtin_codecs": ("dj_dagster.objects.codecs.chain",),
    **dict.fromkeys(
        (f"builtin_codecs.{name}" for name in _CODEC_MODULES),
        ("dj_dagster.objects.codecs.chain",),
    ),
    "codecs": ("dj_dagster.objects.codecs.chain", _NAMES),
    "condition": (_NAMES, "dj_dagster.relational.algebra.condition"),
    "connection": (),
    "declare": (_NAMES,),
    "dependencies": (),
    "deploy": (),
    "diagram": (),
    "errors": (_NAMES,),
    "expression": ("dj_dagster.relational.expression", _NAMES),
    "external": ("dj_dagster.compat.external", _NAMES),
    "fetch": (_COMPAT, _NAMES),
    "gc": (),
    "hash": (_COMPAT, _NAMES),
    "hash_registry": (),
    "heading": ("dj_dagster.model.heading", _NAMES),
    "instance": (),
    "jobs": ("dj_dagster.compat.jobs", _NAMES),
    "lineage": (),
    "logging": (),
    "migrate": (),
    "objectref": (),
    "preview": (_NAMES,),
    "provenance": (_NAMES,),
    "s3": (),
    "schemas": (),
    "settings": (_NAMES, "dj_dagster.settings_model", "dj_dagster.settings_mapping"),
    "spark": (),
    "staged_insert": ("dj_dagster.relational.inserting.insertion",),
    "storage": (_NAMES,),
    "storage_adapter": ("dj_dagster.objects.stores.stores",),
    "table": ("dj_dagster.relational.expression", _NAMES),
    "user_tables": ("dj_dagster.relational.table", _NAMES),
    "utils": (_COMPAT, _NAMES),
    "version": (),
}
"""For each of DataJoint's modules, the modules that hold its names, besides the package itself."""

_INSIDE: dict[str, frozenset[str]] = {
    "declare": frozenset(
        {
            "CORE_TYPE_SQL",
            "SPECIAL_TYPES",
            "alter",
            "compile_attribute",
            "compile_foreign_key",
            "declare",
            "match_type",
            "prepare_declare",
        }
    ),
    "hash_registry": frozenset({"delete_path", "get_hash", "get_store_backend", "put_hash"}),
    "s3": frozenset({"Folder"}),
    "storage": frozenset({"StorageBackend", "build_object_path", "generate_token"}),
}
"""Internal names of DataJoint: they can be imported, and raise an error when called."""

OLD_MODULES = frozenset(_SOURCES)

_OURS = frozenset({"admin", "errors", "instance", "settings"})
"""Modules of this package whose missing names are looked up as those of DataJoint's module."""

_LATE = frozenset({"dependencies", "deploy", "migrate"})
"""Modules of this package with all names of DataJoint's; loaded on use, as some load slowly."""

_PACKAGE = __name__.partition(".")[0]

_VERSIONS = {"0.14": "0.14.10", "2.3": "2.3.5"}
"""The version of DataJoint that is followed in each era, given by `datajoint.version`."""


class OldModule(ModuleType):
    """A module of DataJoint's whose names are looked up in the modules of this package.

    Parameters
    ----------
    name
        The module's name, one of `OLD_MODULES`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{_PACKAGE}.{name}", f"The names of DataJoint's module {name}.")
        self._sources = (*_SOURCES[name], _PACKAGE)
        self._inside = _INSIDE.get(name, frozenset[str]())
        self._public = PUBLIC_NAMES.get(name, ())
        if name == "builtin_codecs":
            vars(self)["__path__"] = []

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._public})

    def __getattr__(self, name: str) -> Any:
        if name == "__all__" and self._public:
            return list(self._public)
        if name in self._inside:
            return partial(_refuse, f"{self.__name__}.{name}")
        return _found(self.__name__, self._sources, name)


def install_modules() -> None:
    """Let ``import dj_dagster.hash`` and the like find DataJoint's modules."""
    for name in OLD_MODULES - _LATE:
        full = f"{_PACKAGE}.{name}"
        if name in _OURS:
            vars(import_module(full))["__getattr__"] = OldModule(name).__getattr__
        else:
            sys.modules[full] = OldModule(name)
    vars(old_module("version"))["__version__"] = _VERSIONS["2.3"]
    # These settings have no effect: blobs of 32-bit MATLAB are recognised by their content, and
    # values are always packed, which gives the same blobs again.
    vars(old_module("blob")).update(use_32bit_dims=False, bypass_serialization=False)
    vars(old_module("diagram"))["diagram_active"] = True
    # Codecs are found by their classes here: programs may clear this registry without effect.
    vars(old_module("codecs"))["_codec_registry"] = {}


def old_module(name: str) -> ModuleType:
    """Return one of DataJoint's modules, the same one each time."""
    return import_module(f"{_PACKAGE}.{name}")


def replace_datajoint(*, era: str | None = None) -> None:
    """Put dj_dagster in the place of ``datajoint``, for packages that import ``datajoint``.

    ``from datajoint.errors import DataJointError`` and the like work as well; a missing name raises
    an `ImportError`, as usual.

    Parameters
    ----------
    era
        ``"0.14"`` for code that was written for that era, in which some calls have another meaning.
        For all connections that follow the settings, attributes are matched by their names alone,
        ``aggr`` leaves out rows without a match, ``dj.U(...) * table`` adds to the key, ``head``
        and ``tail`` return the shapes of `fetch`, iterating over ``schema.jobs`` gives its rows,
        and new schemas on servers have the layout of 0.14. ``dj.__version__`` is then DataJoint's
        version, which packages compare with the one that they need. ``docs/eras.md`` lists the
        differences. By default the setting `era` is not changed.

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
        for module in (old_module("version"), sys.modules[_PACKAGE]):
            vars(module)["__version__"] = _VERSIONS[checked_era(era)]
    package = sys.modules[_PACKAGE]
    # Programs look at it before they use a name: they mean the version of the API.
    vars(package)["__version__"] = vars(old_module("version"))["__version__"]
    if sys.modules.setdefault("datajoint", package) is not package:
        raise ImportError(
            "datajoint has been imported already: call replace_datajoint() before that."
        )
    for name in OLD_MODULES:
        sys.modules.setdefault(f"datajoint.{name}", old_module(name))
    _share_logger()
    # In this package, the name belongs to the command ``dj-dagster``.
    sys.modules.setdefault("datajoint.cli", import_module(f"{_PACKAGE}.compat.cli"))


def _share_logger() -> None:
    """Let ``logging.getLogger("datajoint")`` be this package's logger, with what was set before."""
    ours = logging.getLogger(_PACKAGE)
    known = logging.Logger.manager.loggerDict
    before = known.get("datajoint")
    if isinstance(before, logging.Logger) and before is not ours:
        if before.level:
            ours.setLevel(before.level)
        for handler in before.handlers:
            ours.addHandler(handler)
    known["datajoint"] = ours


def _refuse(name: str, *arguments: object, **options: object) -> NoReturn:
    raise DataJointError(
        f"{name} is a piece of how DataJoint works inside, which dj_dagster does in another way: "
        "use definitions, tables and their methods."
    )


def _found(module: str, sources: tuple[str, ...], name: str) -> object:
    """Return a name from the first source that has it.

    Raises
    ------
    AttributeError
        If none of the sources has it.
    """
    for source in () if name.startswith("__") else sources:
        # The package would look for the submodules of DataJoint again.
        if source != _PACKAGE or name not in OLD_MODULES:
            found = import_module(source)
            if hasattr(found, name):
                return getattr(found, name)
    raise AttributeError(f"DataJoint's module {module} has no {name!r} in dj_dagster.")
