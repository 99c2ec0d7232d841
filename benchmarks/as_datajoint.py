"""A plugin for pytest that puts dj_dagster in the place of DataJoint, for `datajoint_suites`.

It stays there when a test removes modules to import them anew, even where DataJoint is installed,
and in the processes that tests begin, which import this as they start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

import dj_dagster
from dj_dagster.compat.modules import OLD_MODULES, old_module


class InPlace(MetaPathFinder, Loader):
    """Finds dj_dagster's modules by DataJoint's names, and nothing else by them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of DataJoint's, None for others."""
        package, _, name = fullname.partition(".")
        if package != "datajoint":
            return None
        if name and name not in OLD_MODULES and find_spec(f"dj_dagster.{name}") is None:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module that stands for it."""
        _, _, name = spec.name.partition(".")
        if name == "cli":
            return import_module("dj_dagster.compat.cli")
        return old_module(name) if name else dj_dagster

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it has been run."""

    def get_code(self, fullname: str) -> CodeType:
        """Return what ``python -m datajoint.cli`` runs."""
        name = fullname.replace("datajoint", "dj_dagster").replace(".cli", ".compat.cli")
        text = f"import runpy; runpy.run_module({name!r}, run_name='__main__')"
        return compile(text, fullname, "exec")


dj_dagster.replace_datajoint(era=os.environ.get("DJ_SUITE_ERA") or None)
sys.meta_path.insert(0, InPlace())
# To be found anew as the program that is run, or by what asks for it first.
sys.modules.pop("datajoint.cli", None)
