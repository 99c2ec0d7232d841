"""Published packages on dj_dagster and on DataJoint 0.14.10: the same steps, tables and rows.

Not part of a run of all tests, for it takes minutes and gets packages from PyPI:
``pytest -m packages``. ``DJ_TEST_PACKAGES`` names a folder where their environments are kept.
"""

from __future__ import annotations

import operator
import os
from pathlib import Path

import pytest

from benchmarks.public_pipelines import CLIENTS, PIPELINES, run_all


@pytest.mark.packages
@pytest.mark.timeout(5400)
@pytest.mark.parametrize(
    ("name", "steps", "least"),
    [("elements", (13, 13, 13), (140, 390, 9_000)), ("spyglass", (7, 7, 7), (280, 800, 100))],
)
def test_others_packages(
    name: str, steps: tuple[int, int, int], least: tuple[int, int, int], tmp_path: Path
) -> None:
    """Elements load and trigger, by populate() and by Dagster; Spyglass reads a session."""
    kept = os.environ.get("DJ_TEST_PACKAGES")
    folder = (Path(kept) if kept else tmp_path) / name
    folder.mkdir(parents=True, exist_ok=True)
    found = run_all(PIPELINES[name], folder, {})
    assert found.lost == []
    assert found.comparison.declared_otherwise == []
    assert found.comparison.differences == []
    for client, count in zip(CLIENTS, steps, strict=True):
        passed = [step for step in found.ran[client].passed if not step.startswith("import ")]
        assert len(passed) == count, found.ran[client].failed
    counted = (found.comparison.tables, found.comparison.keys, found.comparison.rows)
    assert all(map(operator.ge, counted, least)), counted
