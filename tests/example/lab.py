"""A pipeline as a project of its own has it: type checkers see it, nobody runs it."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
import pandas as pd

import dj_dagster as dj
from dj_dagster.orchestration import SensorSettings, TableTranslator, build_definitions

schema = dj.Schema("lab")


@schema
class Session(dj.Manual):
    definition = """
    session : int32
    ---
    file : varchar(255)
    """

    class Trial(dj.Part):
        definition = """
        -> master
        trial : int32
        """


@schema
class Trace(dj.Imported):
    definition = """
    -> Session
    ---
    data : <blob>
    """

    def make(self, key: dict[str, Any]) -> None:
        self.insert1({**key, "data": np.loadtxt((Session & key).fetch1("file"))})


class Translator(TableTranslator):
    """A translator without changes."""


Session.insert([{"session": 1, "file": "a.txt"}])
frame = assert_type(Session.to_pandas(), pd.DataFrame)
rows = assert_type((Session * Trace & {"session": 1}).to_dicts(), list[dict[str, Any]])
count = assert_type(len(Session - Trace), int)
remaining, total = Trace.progress()
Trace.populate(reserve_jobs=True, processes=2)
(Session.Trial & "trial > 1").delete(dry_run=True)
try:
    Session.insert1({"session": 1})
except dj.MissingAttributeError as error:
    print(error.transient)
settings = SensorSettings(batch_size=10)
defs = build_definitions(schema, translator=Translator(), sensor_settings=settings)
Session.insert1(3, nonsense=True)  # an error, which each checker has to find
