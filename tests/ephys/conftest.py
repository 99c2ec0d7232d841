"""The ephys pipeline in a folder of its own, with recordings of noise and of simulated neurons."""

from __future__ import annotations

import os
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from dj_dagster import default_connection
from tests.ephys.recordings import CUT, LOST, STATIC, look

MODULES = (
    *("stores", "probe", "session", "recording", "paramset", "sorting", "quality", "verdict"),
    *(
        "delivery",
        "acquisition",
        "ingest",
        "judging",
        "pictures",
        "summaries",
        "session_table",
        "definitions",
        "toolbox",
    ),
)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The pipeline's modules, whose schemas are in the database of an empty folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("lab"))
        for name in [name for name in os.environ if name.startswith("DJ_")]:
            patch.delenv(name)
        patch.setattr(default_connection, "_config", None)
        patch.setattr(default_connection, "_connection", None)
        modules = {name: import_module(f"pipelines.ephys.{name}") for name in MODULES}
        return SimpleNamespace(**modules, folder=modules["definitions"].watched_folder())


@pytest.fixture(scope="session")
def sorted_lab(lab: Any) -> Any:
    """Three sessions of the demo, recorded, entered and sorted: one of them has a cut file."""
    for number in (STATIC, LOST, CUT):
        lab.acquisition.record(lab.acquisition.demo_session(number), lab.folder)
    look(lab)
    for table in (
        lab.recording.RawEphys,
        lab.sorting.SpikeSorting,
        lab.quality.QualityMetrics,
        lab.quality.GroundTruthComparison,
    ):
        table.populate("subject != 'x1'", reserve_jobs=True, suppress_errors=True)
    return lab
