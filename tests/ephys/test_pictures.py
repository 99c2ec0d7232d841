"""What the pages of keys show of recordings and sortings."""

from __future__ import annotations

from typing import Any

import dagster as dg
import numpy as np
import pytest

from tests.ephys.recordings import LOST, STATIC, demo_key


def checked(said: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of metadata that Dagster takes, its pictures being small ones."""
    metadata = dg.AssetMaterialization("x", metadata=said).metadata
    pictures = [value.value for value in metadata.values() if value.value.__class__ is str]
    assert pictures
    for picture in map(str, pictures):
        assert "](data:image/png;base64," in picture
        assert len(picture) < 70_000
    return {name: value for name, value in said.items() if isinstance(value, int | float)}


@pytest.mark.ephys
def test_each_table_has_its_pictures_and_numbers(sorted_lab: Any) -> None:
    pictures = sorted_lab.pictures
    recording = demo_key(sorted_lab, STATIC)
    key = {**recording, "paramset_idx": 1}
    noise = (sorted_lab.recording.RawEphys & key).fetch1("noise_uv")
    assert checked(pictures.of_recording(recording)) == {"noise_uv": noise, "duration_s": 20.0}
    units, spikes = (sorted_lab.sorting.SpikeSorting & key).fetch1("unit_count", "spike_count")
    assert checked(pictures.of_sorting(key)) == {"units": units, "spikes": spikes}
    metrics = checked(pictures.of_metrics({**demo_key(sorted_lab, LOST), "paramset_idx": 1}))
    assert metrics["median_presence_ratio"] == 1.0
    comparison = (sorted_lab.quality.GroundTruthComparison & key).fetch1()
    found = checked(pictures.of_comparison(key))
    assert found["mean_accuracy"] == comparison["mean_accuracy"]
    assert found["found"] == comparison["found_count"] / 5


@pytest.mark.ephys
def test_pages_of_tables_compare_all_sessions(sorted_lab: Any) -> None:
    key = {**demo_key(sorted_lab, STATIC), "paramset_idx": 1}
    assert "by_sorter" in sorted_lab.pictures.of_comparison(key)
    figure = sorted_lab.summaries.accuracy_by_sorter()
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1 tridesclous2\n10 neurons"]
    found, mean = (bar.get_height() for bar in axes.patches)
    rows = sorted_lab.quality.GroundTruthComparison.Neuron.to_arrays("accuracy")
    assert found == np.mean(rows >= 0.8)
    assert mean == pytest.approx(np.mean(rows))


def test_verdicts_are_counted_by_parameter_set(lab: Any) -> None:
    counts = lab.summaries.verdict_counts()
    (axes,) = lab.summaries.verdicts().axes
    widths = [int(bar.get_width()) for bar in axes.patches]
    assert widths == [row[name] for name in lab.summaries.VERDICTS for row in counts.values()]
    assert sum(widths) == len(lab.sorting.SpikeSorting())


@pytest.mark.ephys
def test_peaks_are_at_the_depths_of_the_neurons(sorted_lab: Any) -> None:
    key = demo_key(sorted_lab, STATIC)
    noise = (sorted_lab.recording.RawEphys & key).fetch1("noise_uv")
    depths = np.array([row["y_um"] for row in sorted_lab.sorting.electrodes_of(key)])
    with sorted_lab.recording.recording_of(key) as recording:
        times, places = sorted_lab.pictures.peaks(recording, depths, noise)
    assert len(times) > 50
    assert 0 <= min(times) < max(times) < 20
    units = (sorted_lab.sorting.SpikeSorting.Unit & key).to_arrays("unit_depth_um")
    nearest = [np.abs(units - place).min() for place in places]
    assert np.median(nearest) < 25
