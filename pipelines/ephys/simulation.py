"""Simulated recordings with ground truth: the spikes of each neuron are known.

All random numbers are drawn from a seed: the same plan gives the same samples on each machine and
in each process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.ephys.spikeglx import AP, LF
from pipelines.ephys.toolbox import needed, repeatable, spikeinterface

PROBE_PART = "NP1000"
ADC_SLOTS = 13
"""Number of moments within a sample at which a converter takes its channels in turn."""

_HUM_UV, _HUM_HZ = 10.0, 50.0
_COMMON_UV, _COMMON_HZ = 8.0, 8000.0
_THETA_UV, _THETA_HZ, _WANDER_UV, _SLOW_NOISE_UV = 150.0, 7.0, 80.0, 8.0


@dataclass(frozen=True)
class Plan:
    """A recording to simulate.

    Attributes
    ----------
    channels
        Number of channels of a Neuropixels 1.0 probe, counted from its tip.
    drift_um
        The distance that the tissue moves, up and down within 40 s, from a fifth of the recording
        on.
    lost_unit
        A neuron that falls silent half-way, or None.
    """

    seed: int
    channels: int = 16
    seconds: float = 20.0
    units: int = 5
    drift_um: float = 0.0
    lost_unit: int | None = None


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulated recording; its samples are computed when they are asked for.

    Attributes
    ----------
    plan
        The plan that it was made from.
    positions_um
        Positions of the channels, shape (channels, 2).
    adc_table
        The channels that are sampled at the same moment, as SpikeGLX writes them.
    spikes
        The samples at which each neuron fired.
    """

    plan: Plan
    positions_um: NDArray[np.float64]
    adc_table: str
    spikes: dict[int, NDArray[np.int64]]
    _recording: Any
    _shifts: NDArray[np.float64]

    def ap_blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the action potentials in microvolts, a second at a time."""
        samples, step = self._recording.get_num_samples(), int(AP.rate_hz)
        common = _common_mode(self.plan.seed + 1, samples, self._shifts)
        slots = np.unique(self._shifts, return_inverse=True)[1]
        for first in range(0, samples, step):
            last = min(first + step, samples)
            signal = self._recording.get_traces(start_frame=first, end_frame=last)
            yield signal + common[slots, first:last].T

    def lf_blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the slow field in microvolts: a rhythm that fades along the probe, and noise."""
        rng = np.random.default_rng(self.plan.seed + 7)
        samples, depth = int(self.plan.seconds * LF.rate_hz), self.positions_um[:, 1]
        times = np.arange(samples) / LF.rate_hz
        rhythm = _THETA_UV * np.sin(2 * np.pi * _THETA_HZ * times)
        wander = _scaled(np.cumsum(rng.standard_normal(samples)), _WANDER_UV)
        field = np.outer(rhythm, np.cos(np.pi * depth / 600.0)) + wander[:, None]
        noise = _SLOW_NOISE_UV * rng.standard_normal(field.shape)
        yield (field + noise).astype(np.float32)


def simulate(plan: Plan) -> Simulation:
    """Return the recording that a plan describes."""
    si = spikeinterface()
    probe = _probe(plan.channels)
    with repeatable(plan.seed):
        truth = _trains(si, plan)
        static, drifting, _ = si.generate_drifting_recording(
            duration=plan.seconds,
            probe=probe,
            sorting=truth,
            generate_unit_locations_kwargs=_LOCATIONS,
            generate_displacement_vector_kwargs=_displacement(plan),
            generate_noise_kwargs={"noise_levels": (6.0, 9.0), "spatial_decay": 25.0},
            seed=plan.seed,
        )
    table = str(probe.annotations["adc_sampling_table"])
    shifts = _adc_shifts(table, plan.channels)
    # The converters take the channels one after the other; readers shift them back.
    recording = si.phase_shift(drifting if plan.drift_um else static, inter_sample_shift=-shifts)
    return Simulation(
        plan,
        np.asarray(probe.contact_positions, dtype=np.float64),
        table,
        {number: truth.get_unit_spike_train(unit) for number, unit in enumerate(truth.unit_ids)},
        recording,
        shifts,
    )


_LOCATIONS = {
    "margin_um": 0.0,
    "minimum_z": 5.0,
    "maximum_z": 25.0,
    "minimum_distance": 20.0,
    "distance_strict": False,
    "max_iteration": 200,
}
"""Settings for neurons near enough to the probe to be distinguished from each other."""


def _displacement(plan: Plan) -> dict[str, Any]:
    motion = {
        "drift_mode": "zigzag",
        "non_rigid_gradient": None,
        "t_start_drift": plan.seconds / 5,
        "t_end_drift": None,
        "period_s": 40,
    }
    return {
        "displacement_sampling_frequency": 5.0,
        "drift_start_um": [0, plan.drift_um],
        "drift_stop_um": [0, -plan.drift_um],
        "drift_step_um": 1,
        "motion_list": [motion],
    }


def _probe(channels: int) -> Any:
    probe = needed("probeinterface.neuropixels_tools").build_neuropixels_probe(PROBE_PART)
    table = probe.annotations["adc_sampling_table"]
    probe = probe.get_slice(np.arange(channels))
    probe.annotate(adc_sampling_table=table)
    probe.set_device_channel_indices(np.arange(channels))
    return probe


def _trains(si: Any, plan: Plan) -> Any:
    """Return the spikes of each neuron, which fires 5 to 15 times a second."""
    sorting = si.generate_sorting(
        num_units=plan.units,
        sampling_frequency=AP.rate_hz,
        durations=[plan.seconds],
        firing_rates=(5.0, 15.0),
        refractory_period_ms=3.0,
        seed=plan.seed,
    )
    if plan.lost_unit is None:
        return sorting
    half = plan.seconds * AP.rate_hz / 2
    trains = {unit: sorting.get_unit_spike_train(unit) for unit in sorting.unit_ids}
    lost = sorting.unit_ids[plan.lost_unit]
    trains[lost] = trains[lost][trains[lost] < half]
    return si.NumpySorting.from_unit_dict([trains], AP.rate_hz)


def _adc_shifts(table: str, channels: int) -> NDArray[np.float64]:
    """Return the delay of each channel after the first, in samples, by SpikeGLX's table."""
    shifts = np.zeros(channels)
    for slot, group in enumerate(table.strip("()").split(")(")[1:]):
        members = [int(channel) for channel in group.split()]
        shifts[[channel for channel in members if channel < channels]] = slot / ADC_SLOTS
    return shifts


def _common_mode(seed: int, samples: int, shifts: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the noise that all channels share, at the moments at which they are sampled.

    Shape (moments, samples), with a row for each shift, in ascending order.
    """
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples)
    spectrum[frequencies * AP.rate_hz > _COMMON_HZ] = 0
    level = _COMMON_UV / np.std(np.fft.irfft(spectrum, samples))
    found = np.empty((len(np.unique(shifts)), samples), dtype=np.float32)
    for row, shift in enumerate(np.unique(shifts)):
        noise = np.fft.irfft(spectrum * np.exp(2j * np.pi * frequencies * shift), samples)
        phase = 2 * np.pi * _HUM_HZ * (np.arange(samples) + shift) / AP.rate_hz
        found[row] = level * noise + _HUM_UV * np.sin(phase)
    return found


def _scaled(values: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    values = values - values.mean()
    return values * (level / values.std())
