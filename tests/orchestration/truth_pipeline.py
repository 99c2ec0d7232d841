"""The pipeline of the truth machine: a module that is written anew when a `make` changes.

Sessions and parameters are entered by people; two grains hang on them. `Made` has parts and keeps
an array in a store, `Chosen` takes approved sessions alone, and people grade what `Made` has made.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

Key = tuple[int, ...]

ENTERED = ("Session", "Param", "Grade")
COMPUTED = ("Made", "Below", "Chosen", "Fine")

KEYS = {
    "Session": ("subject", "session"),
    "Param": ("param",),
    "Grade": ("subject", "session"),
    "Made": ("subject", "session"),
    "Below": ("subject", "session"),
    "Chosen": ("subject", "session"),
    "Fine": ("subject", "session", "param"),
}

PIECES = 2
"""Rows of the part of `Made` for each of its rows."""

TEXT = '''
import dj_dagster as dj
from tests.orchestration.truth_pipeline import RIG


class Session(dj.Manual):
    definition = """
    subject : int32
    session : int32
    ---
    weight : int32
    approved : int8
    """


class Param(dj.Manual):
    definition = """
    param : int32
    ---
    scale : int32
    """


class Made(dj.Computed):
    definition = """
    -> Session
    ---
    value : int64
    data : <blob@local>
    """

    class Piece(dj.Part):
        definition = """
        -> master
        piece : int32
        ---
        height : int64
        """

    def make(self, key):
        RIG.called("Made", key)
        value = MADE + (Session & key).fetch1("weight")
        self.insert1({**key, "value": value, "data": [value, key["session"]]})
        self.Piece.insert([{**key, "piece": n, "height": value + n} for n in range(PIECES)])


class Grade(dj.Manual):
    definition = """
    -> Made
    ---
    grade : int32
    """


class Below(dj.Computed):
    definition = """
    -> Made
    ---
    value : int64
    """

    def make(self, key):
        RIG.called("Below", key)
        self.insert1({**key, "value": BELOW + (Made & key).fetch1("data")[0]})


class Chosen(dj.Computed):
    definition = """
    -> Session
    ---
    value : int64
    """

    @property
    def key_source(self):
        return Session & "approved = 1"

    def make(self, key):
        RIG.called("Chosen", key)
        self.insert1({**key, "value": CHOSEN + (Session & key).fetch1("weight")})


class Fine(dj.Computed):
    definition = """
    -> Made
    -> Param
    ---
    value : int64
    """

    def make(self, key):
        RIG.called("Fine", key)
        made, scale = (Made & key).fetch1("value"), (Param & key).fetch1("scale")
        self.insert1({**key, "value": FINE + made + scale})
'''

_numbers = itertools.count()


class Rig:
    """What a `make` meets that is no code: it notes who was called, and breaks for some keys.

    Attributes
    ----------
    calls
        How often a key was tried since this was emptied.
    broken
        Keys that fail, by table.
    """

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, Key]] = Counter()
        self.broken: set[tuple[str, Key]] = set()

    def reset(self) -> None:
        self.calls.clear()
        self.broken.clear()

    def called(self, table: str, key: dict[str, Any]) -> None:
        each = table, tuple(key[name] for name in KEYS[table])
        self.calls[each] += 1
        if each in self.broken:
            raise ValueError(f"no signal for {each[1]}")


RIG = Rig()


def load_pipeline(folder: Path, codes: dict[str, int]) -> ModuleType:
    """Write the tables' module with some numbers for its makes, and import it."""
    name = f"truth_{next(_numbers)}"
    constants = {table.upper(): number for table, number in codes.items()} | {"PIECES": PIECES}
    lines = [f"{constant} = {number}" for constant, number in constants.items()]
    path = folder / f"{name}.py"
    path.write_text("\n".join([*lines, TEXT]))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
