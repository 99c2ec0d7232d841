"""Dagster's unpublished names do what this package needs of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

import dj_dagster.orchestration
from dj_dagster.orchestration import _dagster
from dj_dagster.orchestration.runs.event_log import write_marks
from dj_dagster.orchestration.runs.marks import Mark

PACKAGE = Path(dj_dagster.orchestration.__file__).parents[1]
PYPROJECT = PACKAGE.parent / "pyproject.toml"
TAG = _dagster.DATA_VERSION_TAG


def private_imports(path: Path) -> Iterator[str]:
    """Yield the modules of Dagster that a file imports and that Dagster does not publish."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if re.match(r"dagster\w*\.(.*\.)?_", module):
            yield module


def test_one_module_alone_imports_what_dagster_does_not_publish() -> None:
    found = {path.name for path in PACKAGE.rglob("*.py") if any(private_imports(path))}
    assert found == {"_dagster.py"}


def test_each_name_is_there() -> None:
    assert all(getattr(_dagster, name) is not None for name in _dagster.__all__)


def test_the_minor_release_that_is_promised_is_the_one_that_is_tested() -> None:
    promised = re.search(r'"dagster>=(\d+\.\d+)[.\d]*,<(\d+\.\d+)"', PYPROJECT.read_text("utf-8"))
    assert promised is not None
    assert dg.__version__.startswith(f"{promised[1]}.")
    assert promised[2] == f"1.{int(promised[1].split('.')[1]) + 1}"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose events are in SQLite files."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


def test_batches_of_marks_are_read_by_dagster_as_its_own(instance: dg.DagsterInstance) -> None:
    key = dg.AssetKey(["any", "asset"])
    names = [f"key={n}" for n in range(5)]
    write_marks(instance, [Mark(key, name, planned=True) for name in names])
    assert instance.get_materialized_partitions(key) == set()
    marks = [Mark(key, name, {"n": n}, tags={TAG: str(n)}) for n, name in enumerate(names)]
    write_marks(instance, marks)
    assert instance.get_materialized_partitions(key) == set(names)
    latest = instance.get_latest_materialization_event(key)
    assert latest is not None
    assert latest.asset_materialization == dg.AssetMaterialization(
        key, partition=names[-1], metadata={"n": 4}, tags={TAG: "4"}
    )
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(key, asset_partitions=["key=2"]), limit=5
    ).records
    assert [record.partition_key for record in found] == ["key=2"]
    tagged = instance.event_log_storage.get_event_tags_for_asset(key, {TAG: "3"})
    assert tagged == [{TAG: "3"}]
    write_marks(instance, [Mark(key, "key=1", note="seen")])
    (record,) = instance.fetch_observations(key, limit=5).records
    assert record.asset_observation == dg.AssetObservation(
        key, partition="key=1", description="seen"
    )
