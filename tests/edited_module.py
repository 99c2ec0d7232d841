"""A module with tables that a test edits and imports again."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

MODULE = '''
from dj_dagster.relational.table import Manual, Part
from dj_dagster.workflow.computed import Computed

OFFSET = 1
UNUSED = 2


def shifted(value):
    return value + OFFSET


def unused(value):
    return UNUSED


class Base(Computed):
    def scale(self, value):
        """Scale it."""
        return 2 * value


class Thing(Manual):
    definition = """
    thing : int32
    """


class Result(Base):
    definition = """
    -> Thing
    ---
    value : int32
    """

    def make(self, key):
        # a comment
        self.insert1({**key, "value": self.scale(shifted(key["thing"]))})


class Later(Computed):
    definition = """
    -> Result
    ---
    value : int32
    """

    def make(self, key):
        self.insert1({**key, "value": (Result & key).fetch1("value")})
'''


class EditedModule:
    """A module that can be edited and imported again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.edits = 0

    def load(self, *changes: tuple[str, str]) -> ModuleType:
        text = MODULE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.edits += 1
        name = f"written_{self.folder.name.replace('-', '_')}_{self.edits}"
        (self.folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module(name)
