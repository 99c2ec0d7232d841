"""Pictures and numbers of single keys, as their pages in Dagster show them.

The page of a table shows those of its last key, some with a picture of all sessions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dj_dagster.orchestration import TableProps, TableTranslator, Work, figure_metadata
from pipelines.ephys.delivery import NWBFile
from pipelines.ephys.quality import GOOD_ACCURACY, GroundTruthComparison, QualityMetrics
from pipelines.ephys.recording import RawEphys, preprocessed, raw_recording
from pipelines.ephys.sorting import SpikeSorting, electrodes_of
from pipelines.ephys.summaries import accuracy_by_sorter, verdicts

Key = dict[str, Any]

SNIPPET_S, RASTER_S = 0.05, 10.0
NEAREST = 6
"""Number of electrodes whose waveforms are drawn for a unit."""

_THRESHOLD = 6.0
"""Threshold for the peaks of a drift map, in multiples of the noise."""


class EphysTranslator(TableTranslator):
    """Shows recordings, units and metrics on the pages of their keys, and sorts two at once."""

    def get_work(self, props: TableProps) -> Work:
        """Return two processes for the sorter, which has one thread so that units are equal."""
        return Work(processes=2) if props.title == "ephys_sorting.SpikeSorting" else Work()

    def get_key_metadata(self, props: TableProps) -> Any:
        """Return the metadata of a key of the tables that have pictures."""
        return {
            "ephys_recording.RawEphys": of_recording,
            "ephys_sorting.SpikeSorting": of_sorting,
            "ephys_quality.QualityMetrics": of_metrics,
            "ephys_quality.GroundTruthComparison": of_comparison,
            "ephys_delivery.NWBFile": of_file,
        }.get(props.title)


def of_recording(key: Key) -> dict[str, Any]:
    """Return the noise, a snippet of the traces, and the depths of peaks over time."""
    row = (RawEphys & key).fetch1()
    depths = np.array([electrode["y_um"] for electrode in electrodes_of(key)])
    with raw_recording(key) as raw:
        recording = preprocessed(raw)
        snippet = recording.get_traces(end_frame=int(SNIPPET_S * row["sampling_rate"]))
        times, places = peaks(recording, depths, row["noise_uv"])
    return {
        "noise_uv": row["noise_uv"],
        "duration_s": row["recording_duration"],
        "traces": figure_metadata(_traces(snippet, row["sampling_rate"]), "filtered traces"),
        "drift_map": figure_metadata(_drift_map(times, places), "depth of peaks over time"),
    }


def of_sorting(key: Key) -> dict[str, Any]:
    """Return the number of units, their spike times, and their waveforms on the probe."""
    units = (SpikeSorting.Unit & key).to_dicts(order_by="unit_depth_um, unit")
    return {
        "units": len(units),
        "spikes": sum(unit["spike_count"] for unit in units),
        "raster": figure_metadata(_raster(units), "spikes, units ordered by depth"),
        "waveforms": figure_metadata(_waveforms(units, electrodes_of(key)), "mean waveforms"),
    }


def of_metrics(key: Key) -> dict[str, Any]:
    """Return the median and the distribution of each metric."""
    rows = (QualityMetrics.Unit & key).to_dicts()
    names = ("firing_rate", "presence_ratio", "snr", "isi_violation")
    values = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    figure = Figure(figsize=(8, 2), layout="constrained")
    for axes, (name, found) in zip(figure.subplots(1, 4), values.items(), strict=True):
        axes.hist(found, bins=10)
        axes.set(title=name)
    medians = {f"median_{name}": float(np.median(v)) for name, v in values.items() if v}
    return {**medians, "histograms": figure_metadata(figure, "metrics of the units")}


def of_comparison(key: Key) -> dict[str, Any]:
    """Return the accuracy of each true neuron, and that of all sorters over all sessions."""
    row = (GroundTruthComparison & key).fetch1()
    neurons = (GroundTruthComparison.Neuron & key).to_dicts(order_by="accuracy DESC")
    figure = Figure(figsize=(5, 2.5), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(neurons)), [neuron["accuracy"] for neuron in neurons])
    axes.axhline(GOOD_ACCURACY, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="true neuron, best first", ylabel="accuracy", ylim=(0, 1.02))
    return {
        "found": row["found_count"] / max(row["true_count"], 1),
        "mean_accuracy": row["mean_accuracy"],
        "accuracy": figure_metadata(figure, "accuracy of true neurons"),
        "by_sorter": figure_metadata(accuracy_by_sorter(), "accuracy by parameter set"),
    }


def of_file(key: Key) -> dict[str, Any]:
    """Return the size of the file and the number of findings, and the verdicts on all sortings."""
    row = (NWBFile & key).fetch1()
    return {
        "findings": row["finding_count"],
        "units": row["unit_count"],
        "bytes": row["nwb"].size,
        "verdicts": figure_metadata(verdicts(), "verdicts by parameter set"),
    }


def peaks(recording: Any, depths: Any, noise: float) -> tuple[list[float], list[float]]:
    """Return times and depths of negative peaks, in a quarter of each second."""
    rate, samples = recording.get_sampling_frequency(), recording.get_num_samples()
    times: list[float] = []
    places: list[float] = []
    for first in range(0, samples, int(rate)):
        block = recording.get_traces(
            start_frame=first, end_frame=min(samples, first + int(rate / 4))
        )
        lowest = block.min(axis=1)
        inner = lowest[1:-1]
        low = (inner < -_THRESHOLD * noise) & (inner <= lowest[:-2]) & (inner < lowest[2:])
        for sample in np.flatnonzero(low) + 1:
            weights = np.clip(-block[sample], 0, None) ** 2
            times.append((first + sample) / rate)
            places.append(float((weights * depths).sum() / weights.sum()))
    return times, places


def _traces(snippet: Any, rate: float) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    times = np.arange(len(snippet)) / rate * 1000
    axes.plot(times, snippet[:, :32] / 150 + np.arange(min(32, snippet.shape[1])), "k", lw=0.4)
    axes.set(xlabel="ms", ylabel="channel")
    return figure


def _drift_map(times: list[float], places: list[float]) -> Figure:
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(times, places, ",k")
    axes.set(xlabel="s", ylabel="depth (µm)")
    return figure


def _raster(units: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    spikes = [unit["spike_times"][unit["spike_times"] < RASTER_S] for unit in units]
    axes.eventplot(spikes or [[]], linewidths=0.6, colors="black")
    axes.set(xlabel="s", ylabel="unit, by depth")
    return figure


def _waveforms(units: list[dict[str, Any]], electrodes: list[dict[str, Any]]) -> Figure:
    """Draw each unit at the electrodes where it is largest, in their places on the probe."""
    figure = Figure(figsize=(4, 6), layout="constrained")
    axes = figure.subplots()
    for number, unit in enumerate(units):
        template = unit["template"]
        largest = np.argsort(np.ptp(template, axis=0))[::-1][:NEAREST]
        width = np.linspace(-6, 6, len(template))
        for channel in largest:
            place = electrodes[channel]
            height = template[:, channel] / 10 + place["y_um"]
            axes.plot(place["x_um"] + width, height, f"C{number % 10}", lw=0.8)
    axes.set(xlabel="µm", ylabel="depth (µm)")
    return figure
