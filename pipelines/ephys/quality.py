"""Quality of sortings: metrics of each unit, and the agreement with the ground truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dj_dagster as dj
from pipelines.ephys.recording import RawEphys, recording_of
from pipelines.ephys.session import GroundTruth
from pipelines.ephys.sorting import SEED, units_of
from pipelines.ephys.sorting import SpikeSorting as SpikeSorting  # definitions name it
from pipelines.ephys.stores import local_copies
from pipelines.ephys.toolbox import repeatable, spikeinterface

schema = dj.Schema("ephys_quality")

GOOD_ACCURACY = 0.8
"""The least accuracy at which a neuron counts as found."""

PRESENCE_BIN_S = 5.0

_METRICS = {
    "firing_rate": "firing_rate",
    "presence_ratio": "presence_ratio",
    "snr": "snr",
    "isi_violation": "isi_violations_ratio",
    "amplitude_cutoff": "amplitude_cutoff",
}
"""The names of metrics here, and those of SpikeInterface's columns."""


@schema
class QualityMetrics(dj.Computed):
    definition = """
    # how far the units of a sorting can be trusted
    -> SpikeSorting
    ---
    median_snr=null : float64
    """

    class Unit(dj.Part):
        definition = """
        # metrics of one unit; null where one is not defined, as with too few spikes
        -> master
        -> SpikeSorting.Unit
        ---
        firing_rate=null : float64        # Hz
        presence_ratio=null : float64     # part of the recording in which it fires
        snr=null : float64                # amplitude over noise
        isi_violation=null : float64      # spikes within the refractory period, as a rate ratio
        amplitude_cutoff=null : float64   # part of the spikes that were too small to be seen
        """

    def make(self, key: dict[str, Any]) -> None:
        metrics = unit_metrics(key)
        values = [row["snr"] for row in metrics.values() if row["snr"] is not None]
        self.insert1({**key, "median_snr": float(np.median(values)) if values else None})
        self.Unit.insert({**key, "unit": unit, **row} for unit, row in metrics.items())


@schema
class GroundTruthComparison(dj.Computed):
    definition = """
    # which of the true neurons a sorting has found
    -> SpikeSorting
    -> GroundTruth
    ---
    true_count : int32
    found_count : int32               # with an accuracy of 0.8 or more
    mean_accuracy : float64
    """

    class Neuron(dj.Part):
        definition = """
        # one true neuron
        -> master
        neuron : int32
        ---
        accuracy : float64            # hits / (hits + misses + false alarms)
        recall : float64
        precision : float64
        best_unit=null : int32        # the unit that it is; null if it is none
        """

    def make(self, key: dict[str, Any]) -> None:
        neurons = list(_compared(key))
        accuracies = [neuron["accuracy"] for neuron in neurons]
        self.insert1(
            {
                **key,
                "true_count": len(neurons),
                "found_count": sum(accuracy >= GOOD_ACCURACY for accuracy in accuracies),
                "mean_accuracy": float(np.mean(accuracies)),
            }
        )
        self.Neuron.insert({**key, **neuron} for neuron in neurons)


def unit_metrics(key: dict[str, Any]) -> dict[int, dict[str, float | None]]:
    """Return the metrics of a sorting's units, by unit; None for an undefined metric."""
    units = units_of(key)
    if not len(units.unit_ids):
        return {}
    si = spikeinterface()
    wanted = {"metric_names": list(_METRICS), "skip_pc_metrics": True}
    # The default bin is longer than short recordings, in which every unit would be present.
    bins = {"metric_params": {"presence_ratio": {"bin_duration_s": PRESENCE_BIN_S}}}
    with recording_of(key) as recording, repeatable(SEED):
        analyzer = si.create_sorting_analyzer(units, recording, format="memory", sparse=True)
        analyzer.compute(
            {
                "random_spikes": {"seed": SEED},
                "noise_levels": {},
                "waveforms": {},
                "templates": {},
                "spike_amplitudes": {},
                "quality_metrics": {**wanted, **bins},
            }
        )
    found = analyzer.get_extension("quality_metrics").get_data()
    return {
        int(unit): {name: _number(row[column]) for name, column in _METRICS.items()}
        for unit, row in found.iterrows()
    }


def true_spikes(key: dict[str, Any]) -> dict[int, NDArray[np.int64]]:
    """Return the samples at which each true neuron of a simulated recording fired."""
    file = (GroundTruth & key).fetch1("spikes")
    with local_copies(file) as (path,), np.load(path) as arrays:
        return {int(name.removeprefix("neuron_")): arrays[name] for name in arrays.files}


def _compared(key: dict[str, Any]) -> Iterator[dict[str, Any]]:
    si, units = spikeinterface(), units_of(key)
    rate = (RawEphys & key).fetch1("sampling_rate")
    truth = true_spikes(key)
    if not len(units.unit_ids):
        for neuron in truth:
            yield {"neuron": neuron, "accuracy": 0.0, "recall": 0.0, "precision": 0.0}
        return
    true_units = si.NumpySorting.from_unit_dict([truth], rate)
    comparison = si.compare_sorter_to_ground_truth(true_units, units, exhaustive_gt=True)
    performance = comparison.get_performance()
    for neuron in truth:
        row, best = performance.loc[neuron], comparison.hungarian_match_12[neuron]
        numbers = {name: _number(row[name]) or 0.0 for name in ("accuracy", "recall", "precision")}
        yield {"neuron": neuron, **numbers, "best_unit": None if best in (-1, "") else int(best)}


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
