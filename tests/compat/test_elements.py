"""The published Elements, written for DataJoint 0.14, on dj_dagster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.conftest import installed

PACKAGES = (
    "element-lab==0.3.0",
    "element-animal==0.1.8",
    "element-session==0.1.6",
    "element-event==0.2.3",
    "element-interface==0.6.1",
    "element-array-ephys==0.2.11",
    "element-calcium-imaging==0.7.8",
)
PIPELINE = Path(__file__).with_name("elements_pipeline.py")


@pytest.fixture(scope="session")
def elements(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages, from PyPI."""
    return installed(request, tmp_path_factory.mktemp("elements"), PACKAGES)


SHARED = {
    "lab": 16, "project": 8, "subject": 15, "genotyping": 11, "surgery": 6,
    "session_with_datetime": 6, "event": 5, "trial": 7,
}  # fmt: skip
"""Tables of the modules that all variants share, parts included."""

VARIED = {"probe": 5, "scan": 9, "ephys_report": 5, "imaging_report": 2, "analysis": 4}

VARIANTS = [
    {"ephys_acute": 21, "imaging": 25},
    {"ephys_chronic": 21, "imaging_no_curation": 24},
    {"ephys_no_curation": 20, "imaging_preprocess": 31},
    {"ephys_precluster": 27, "imaging_no_curation": 24},
]


def test_elements(elements: Path, database_url: str, schema_prefix: str, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DJ_")}
    path = os.pathsep.join([str(elements), str(PIPELINE.parents[2])])
    done = subprocess.run(
        [sys.executable, str(PIPELINE), database_url, schema_prefix],
        cwd=tmp_path,
        env={**clean, "PYTHONPATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shared, *varied, end = map(json.loads, done.stdout.splitlines())
    assert shared["missing"] == []
    assert shared["counts"] == SHARED
    assert shared["used"] == {
        "experimenters": ["ann"],
        "sessions": ["2024-05-01 12:30:00"],
        "pairs": [0, 1],
        "gaps": [1.5, 1.75],
        "sample": [1.75, [1, None]],
        "progress": [0, 1],
        "trials": 1,
        "frame": ["subject", "session_datetime", "event_type", "event_start_time"],
        "dicts": [
            {"event_type": "go", "event_type_description": ""},
            {"event_type": "stop", "event_type_description": "the end"},
        ],
    }
    assert [found.pop("counts") for found in varied] == [VARIED | v for v in VARIANTS]
    expected = {
        "missing": [],
        "params": {"tau": 1.25, "n": None},
        "hash": True,
        "probe types": 5,
        "columns": [48] * 8,
    }
    assert varied == [expected] * len(VARIANTS)
    assert end == {"deleted": 1, "left": 0}
