"""A recording of SpikeGLX with sixteen channels and its sorting by Kilosort, as Elements load them.

The values come from a seeded generator: they mean nothing, and are the same in each run.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

CHANNELS = 16
RATE = 30_000
SECONDS = 2
UNITS = 4
SPIKES = 200
_WRITTEN = 1_714_566_600
"""When the files say they were written, in seconds of the epoch."""


def write_recording(folder: Path) -> None:
    """Write binary files of both bands, with their meta files."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(2)
    for band, rate in (("ap", RATE), ("lf", RATE // 12)):
        shape = (rate * SECONDS, CHANNELS + 1)
        data = random.integers(-300, 300, shape).astype(np.int16)
        data.tofile(folder / f"rec_g0_t0.imec0.{band}.bin")
        settings = {
            "imAiRangeMax": 0.6, "imAiRangeMin": -0.6, "imSampRate": rate, "imDatPrb_sn": 714000838,
            "imDatPrb_type": 0, "imDatPrb_pn": "NP1010", "typeImEnabled": 1,
            "nSavedChans": CHANNELS + 1, "fileSizeBytes": data.nbytes, "fileTimeSecs": SECONDS,
            "fileCreateTime": "2024-05-01T12:30:00", "snsSaveChanSubset": f"0:{CHANNELS}",
            "snsApLfSy": f"{CHANNELS},0,1" if band == "ap" else f"0,{CHANNELS},1",
            "~imroTbl": "(0,384)" + _each("({0} 0 0 500 250 1)", 384),
            "~snsChanMap": f"(384,384,1){_each(f'({band.upper()}{{0}};{{0}}:{{0}})', CHANNELS)}"
            f"(SY0;384:{CHANNELS})",
            "~snsShankMap": "(1,2,480)"
            + "".join(f"(0:{n % 2}:{n // 2}:1)" for n in range(CHANNELS)),
        }  # fmt: skip
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        (folder / f"rec_g0_t0.imec0.{band}.meta").write_text(lines)


def _each(pattern: str, count: int) -> str:
    return "".join(pattern.format(n) for n in range(count))


def write_sorting(folder: Path) -> None:
    """Write what Kilosort and phy leave."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(3)
    times = np.sort(random.integers(100, RATE * SECONDS - 100, SPIKES)).astype(np.uint64)
    clusters = np.arange(SPIKES, dtype=np.int32) % UNITS
    arrays = {
        "amplitudes": random.random((SPIKES, 1)),
        "channel_map": np.arange(CHANNELS).reshape(-1, 1),
        "channel_positions": np.column_stack(
            [np.arange(CHANNELS) % 2 * 32.0, np.arange(CHANNELS) // 2 * 20.0]
        ),
        "pc_features": random.random((SPIKES, 3, 4)).astype(np.float32),
        "pc_feature_ind": random.integers(0, CHANNELS, (UNITS, 4)),
        "similar_templates": np.eye(UNITS),
        "spike_templates": clusters.astype(np.uint32),
        "spike_times": times.reshape(-1, 1),
        "template_features": random.random((SPIKES, 2)),
        "template_feature_ind": random.integers(0, UNITS, (UNITS, 2)),
        "templates": random.normal(size=(UNITS, 20, CHANNELS)).astype(np.float32),
        "templates_ind": np.tile(np.arange(CHANNELS), (UNITS, 1)),
        "whitening_mat": np.eye(CHANNELS),
        "whitening_mat_inv": np.eye(CHANNELS),
        "spike_clusters": clusters,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "params.py").write_text(f"n_channels_dat = {CHANNELS}\nsample_rate = {RATE}.0\n")
    labels = ["good", "mua", "good", "noise"]
    rows = "".join(f"{unit}\t{label}\n" for unit, label in enumerate(labels))
    (folder / "cluster_group.tsv").write_text(f"cluster_id\tgroup\n{rows}")
    _write_metrics(folder, random)
    for file in folder.iterdir():
        os.utime(file, (_WRITTEN, _WRITTEN))


def _write_metrics(folder: Path, random: np.random.Generator) -> None:
    names = (
        "firing_rate", "snr", "presence_ratio", "isi_viol", "number_violation", "amplitude_cutoff",
        "isolation_distance", "l_ratio", "d_prime", "nn_hit_rate", "nn_miss_rate",
        "silhouette_score", "max_drift", "cumulative_drift", "contamination_rate", "amplitude",
        "duration", "halfwidth", "pt_ratio", "repolarization_slope", "recovery_slope", "spread",
        "velocity_above", "velocity_below",
    )  # fmt: skip
    lines = [",".join(("cluster_id", *names))]
    for unit in range(UNITS):
        values = dict(zip(names, random.random(len(names)).round(4), strict=True))
        values["number_violation"] = unit
        lines.append(",".join(map(str, (unit, *values.values()))))
    (folder / "metrics.csv").write_text("\n".join(lines))
    np.save(folder / "mean_waveforms.npy", random.normal(size=(UNITS, CHANNELS, 82)))
