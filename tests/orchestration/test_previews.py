"""What the metadata of a materialisation shows of large values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.orchestration import build_definitions
from tests.lab import connect
from tests.orchestration.lab import Lab
from tests.orchestration.running import key_of, run_until_quiet


@pytest.fixture
def movies(tmp_path: Path) -> Iterator[dj.Schema]:
    connection = connect(f"sqlite:///{tmp_path / 'lab.sqlite'}", tmp_path)
    schema = dj.Schema("lab", connection=connection)

    @schema
    class Movie(dj.Manual):
        definition = "movie : int32"

    @schema
    class Analysis(dj.Computed):
        definition = """
        -> Movie
        ---
        trace : <blob>
        image : <npy@>
        rows : <blob@>
        report : <attach>
        stack : <npy@>
        """

        def make(self, key: dict[str, Any]) -> None:
            report = tmp_path / "report.txt"
            report.write_text("fine")
            self.insert1(
                {
                    **key,
                    "trace": np.arange(300.0),
                    "image": np.eye(20),
                    "rows": np.eye(30),
                    "report": report,
                    "stack": np.zeros((2000, 300)),
                }
            )

    yield schema
    connection.close()


def test_results_are_pictured(movies: dj.Schema, instance: dg.DagsterInstance) -> None:
    movies["Movie"].insert1((1,))
    assert all(run_until_quiet(build_definitions([movies]), instance))
    (record,) = instance.fetch_materializations(key_of("lab/analysis"), limit=5).records
    assert record.asset_materialization is not None
    text = str(record.asset_materialization.metadata["preview"].value)
    titles, _, row = text.splitlines()
    assert titles == "| movie | trace | image | rows | report | stack |"
    cells = row.split(" | ")
    assert [cell.count("data:image/png;base64,") for cell in cells] == [0, 1, 1, 1, 0, 0]
    assert cells[1].endswith("float64 array 300, 2.4 kB")
    assert cells[2].endswith("float64 array 20 × 20, 3.2 kB")
    assert cells[4:] == ["report.txt, 4 B", "float64 array 2000 × 300, 4.8 MB |"]
    assert not Path("report.txt").exists()


def test_each_partition_of_a_run_shows_its_first_rows(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    for subject in range(8):
        any_lab.add_sessions(range(4), subject=subject)
    by_subject = {"RawData": "subject_id"}
    defs = any_lab.definitions(partition_by=by_subject, exclude=["Processed"])
    assert all(run_until_quiet(defs, instance))
    shown = shown_of(instance, any_lab.asset("raw_data"))
    assert len(shown) == 8
    for partition, metadata in shown.items():
        subject = partition.removeprefix("subject_id=")
        _, _, *rows = str(metadata["preview"].value).splitlines()
        cells = [row.strip("| ").split(" | ")[:2] for row in rows]
        assert cells == [[subject, str(number)] for number in range(3)]
    # A key's plain values are to be read without a click.
    filtered = shown_of(instance, any_lab.asset("filtered"))
    assert len(filtered) == 64
    assert {str(metadata["values"].value) for metadata in filtered.values()} == {
        "result = 1.0",
        "result = 2.0",
    }


def shown_of(
    instance: dg.DagsterInstance, name: str
) -> dict[str, Mapping[str, dg.MetadataValue[Any]]]:
    """The metadata of an asset's materialisations, by partition."""
    records = instance.fetch_materializations(key_of(name), limit=100).records
    marks = {record.partition_key or "": record.asset_materialization for record in records}
    return {partition: mark.metadata for partition, mark in marks.items() if mark is not None}
