"""A code location for the browser: two grains, a chain in each, keys that fail while told to.

It keeps its tables, a line for each call of `make` and the files that break keys in the folder that
it is loaded in. The sensor fills the first tables; `Spectrum` and below wait for a person.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dj_dagster as dj
from dj_dagster.orchestration import SensorSettings, TableSettings, build_definitions

HERE = Path.cwd()
BY_HAND = ("Spectrum", "Band", "Fit")

connection = dj.Connection(f"sqlite:///{HERE}/rig.sqlite", safemode=False)
schema = dj.Schema("rig", connection=connection)


def called(table: dj.Table, key: dict[str, Any]) -> str:
    """Note a call of `make`; return what it is called with, ``"Recording 1 3"``."""
    name = " ".join([type(table).__name__, *map(str, key.values())])
    with (HERE / "calls").open("a") as file:
        file.write(f"{name}\n")
    return name


class Made:
    """Notes the call and inserts a row, or fails as the file `broken` has it."""

    def make(self: Any, key: dict[str, Any]) -> None:
        name = called(self, key)
        for line in (HERE / "broken").read_text().splitlines():
            broken, _, error = line.partition(": ")
            if broken == name:
                raise ValueError(error)
        self.insert1({**key, "value": sum(key.values())})


@schema
class Session(dj.Manual):
    definition = """
    # one sitting of an animal
    animal : int32
    session : int32
    """


@schema
class Detector(dj.Lookup):
    definition = """
    # how spikes are found
    detector : int32
    ---
    threshold : float64
    """
    contents = ((1, 3.5), (2, 4.0), (3, 5.0))


@schema
class Recording(Made, dj.Imported):
    definition = """
    # what came off the rig
    -> Session
    ---
    value : int32
    """


@schema
class Cleaned(Made, dj.Computed):
    definition = """
    # without the artefacts
    -> Recording
    ---
    value : int32
    """


@schema
class Sorting(Made, dj.Computed):
    definition = """
    # spikes, by each detector
    -> Cleaned
    -> Detector
    ---
    value : int32
    """


@schema
class Quality(dj.Computed):
    definition = """
    # how well they are apart
    -> Sorting
    ---
    value : int32
    """

    def make(self, key: dict[str, Any]) -> None:
        called(self, key)
        self.insert1({**key, "value": 2 * (Sorting & key).fetch1("value")})


@schema
class Spectrum(Made, dj.Computed):
    definition = """
    # made when a person asks for it
    -> Cleaned
    ---
    value : int32
    """


@schema
class Band(Made, dj.Computed):
    definition = """
    # power in a band
    -> Spectrum
    ---
    value : int32
    """


@schema
class Fit(Made, dj.Computed):
    definition = """
    # a model of it, by each detector
    -> Spectrum
    -> Detector
    ---
    value : int32
    """


settings = SensorSettings(tables={name: TableSettings(automatic=False) for name in BY_HAND})
defs = build_definitions(schema, sensor_settings=settings)
