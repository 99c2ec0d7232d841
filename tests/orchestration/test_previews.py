"""What the metadata of a materialisation shows of large values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from matplotlib.figure import Figure

import dj_dagster as dj
from dj_dagster.orchestration import (
    TableProps,
    TableTranslator,
    build_definitions,
    figure_metadata,
)
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
    lines = [metadata["preview"] for metadata in filtered.values()]
    assert all(isinstance(line, dg.TextMetadataValue) for line in lines)
    assert {str(line.value) for line in lines} == {"result = 1.0", "result = 2.0"}


def shown_of(
    instance: dg.DagsterInstance, name: str
) -> dict[str, Mapping[str, dg.MetadataValue[Any]]]:
    """The metadata of an asset's materialisations, by partition."""
    records = instance.fetch_materializations(key_of(name), limit=100).records
    marks = {record.partition_key or "": record.asset_materialization for record in records}
    return {partition: mark.metadata for partition, mark in marks.items() if mark is not None}


class Described(TableTranslator):
    """Says something of keys of two tables, and fails for one key."""

    def get_key_metadata(self, props: TableProps) -> Any:
        if props.title == "lab.RawData":
            return self.described
        return (lambda key: {"odd": object()}) if props.title == "lab.Processed" else None

    @staticmethod
    def described(key: dict[str, Any]) -> dict[str, Any]:
        if key["session_id"] == 1:
            raise ValueError("nothing to see")
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2])
        return {"number": key["session_id"] * 10, "plot": figure_metadata(figure, "a line")}


def test_a_key_says_what_the_user_has_to_say_of_it(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions(range(3))
    assert all(run_until_quiet(lab.definitions(translator=Described()), instance))

    def marks(table: str) -> dict[str, Mapping[str, Any]]:
        found = instance.fetch_materializations(key_of(f"lab/{table}"), limit=50).records
        each = [record.asset_materialization for record in found]
        return {str(mark.partition): mark.metadata for mark in each if mark is not None}

    raw = marks("raw_data")
    numbers = [mark["number"].value if "number" in mark else None for mark in raw.values()]
    assert sorted(raw) == [f"subject_id=1/session_id={n}" for n in range(3)]
    assert sorted(numbers, key=str) == [0, 20, None]
    plots = [mark["plot"].value for mark in raw.values() if "plot" in mark]
    assert [plot[:34] for plot in plots] == ["![a line](data:image/png;base64,iV"] * 2
    # What is refused, or fails, takes nothing else away.
    assert all("preview" in mark for mark in raw.values())
    assert [mark for mark in marks("processed").values() if "odd" in mark] == []
    assert len(marks("processed")) == 3


def test_a_large_figure_is_drawn_smaller() -> None:
    figure = Figure(figsize=(8, 8))
    figure.subplots().imshow(np.random.default_rng(0).random((400, 400)))
    large, small = (figure_metadata(figure, most_bytes=most).value for most in (10**7, 10**5))
    assert len(small) < len(large) / 3
