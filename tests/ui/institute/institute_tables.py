"""A code location of 300 tables in six schemas, for the browser; `institute` runs it in a folder.

A few tables of `lab` are written out, so that they can be filled. The others are what a big
institute has: a branch of four steps for each measure, in each schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dj_dagster as dj
from dj_dagster.orchestration import build_definitions

connection = dj.Connection(f"sqlite:///{Path.cwd()}/institute.sqlite", safemode=False)
lab = dj.Schema("lab", connection=connection)


@lab
class Animal(dj.Manual):
    definition = """
    # an animal of the institute
    animal_id : int32  # its ear tag
    ---
    sex : enum('F', 'M')
    born : date
    weight : float32  # g
    note = null : varchar(100)
    """


@lab
class Growth(dj.Computed):
    definition = """
    # how heavy it will be
    -> Animal
    ---
    expected : float64  # g
    """

    def make(self, key: dict[str, Any]) -> None:
        weight = (Animal & key).fetch1("weight")
        self.insert1({**key, "expected": 2.0 * weight})


@lab
class Diet(dj.Computed):
    definition = """
    # what it needs for that
    -> Growth
    ---
    food : float64  # g per day
    """

    def make(self, key: dict[str, Any]) -> None:
        expected = (Growth & key).fetch1("expected")
        self.insert1({**key, "food": expected / 10})


@lab
class Session(dj.Manual):
    definition = """
    # one sitting of an animal
    -> Animal
    session_id : int32
    """


MEASURES = ("Signal", "Trace", "Event", "Unit", "Rate", "Phase", "Burst", "Map", "Field", "Tuning",
            "Latency", "Spectrum")  # fmt: skip
STAGES = ("Raw", "Clean", "Fit", "Summary")


def stage(schema: dj.Schema, name: str, parents: str) -> None:
    """Declare one step of a branch: what is recorded is Imported, the rest Computed."""

    def make(self: Any, key: dict[str, Any]) -> None:
        self.insert1({**key, "value": 1.0})

    base = dj.Imported if name.endswith("Raw") else dj.Computed
    definition = f"# {name} of a session\n{parents}\n---\nvalue : float64"
    schema(type(name, (base,), {"definition": definition, "make": make}))


def branch(schema: dj.Schema, measure: str, root: str) -> None:
    """Declare the steps of a measure, each from the one before it."""
    parents = root
    for each in STAGES:
        stage(schema, f"{measure}{each}", parents)
        parents = f"-> {measure}{each}"


def fill(schema: dj.Schema, measures: tuple[str, ...], root: str = "-> Recording") -> dj.Schema:
    """Declare what was recorded in a session, with which settings, and the branches from `root`."""
    recording = "# what was recorded\n-> Session\n---\nfile : varchar(100)"
    settings = "# of the amplifier\nsettings : int32\n---\nrate : float64  # Hz"
    schema(type("Recording", (dj.Manual,), {"definition": recording}))
    schema(type("Settings", (dj.Lookup,), {"definition": settings, "contents": [(1, 1e4)]}))
    for measure in measures:
        branch(schema, measure, root)
    return schema


def new_schema(name: str, **parents: type) -> dj.Schema:
    """Return a schema whose tables may refer to those of others, by these names."""
    return dj.Schema(name, connection=connection, context={"Session": Session, **parents})


fill(lab, MEASURES[1:])
behavior, ephys, imaging, histology = (
    fill(new_schema(name), MEASURES) for name in ("behavior", "ephys", "imaging", "histology")
)
units, cells = ephys.tables["UnitSummary"], imaging.tables["SignalSummary"]
analysis = fill(new_schema("analysis", Unit=units, Cell=cells), MEASURES, "-> Unit\n-> Cell")

defs = build_definitions([lab, behavior, ephys, imaging, histology, analysis])
