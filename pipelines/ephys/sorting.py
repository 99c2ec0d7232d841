"""Spike sorting: the spikes of the units found, by recording and parameter set."""

from __future__ import annotations

import gc
import hashlib
import re
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dj_dagster as dj
from dj_dagster.errors import ConfigurationError
from pipelines.ephys.paramset import EXTRAS, ParamSet
from pipelines.ephys.probe import Probe
from pipelines.ephys.recording import RawEphys, recording_of
from pipelines.ephys.session import EphysSession
from pipelines.ephys.toolbox import repeatable, spikeinterface

schema = dj.Schema("ephys_sorting")

SEED = 0


@schema
class SpikeSorting(dj.Computed):
    definition = """
    # units that a sorter finds in a recording
    -> RawEphys
    -> ParamSet
    ---
    unit_count : int32
    spike_count : int32
    units_digest : char(40)          # SHA-1 of all spikes: equal for equal units
    sorter_version : varchar(32)     # of SpikeInterface
    output : <object@sortings>       # the sorter's folder
    """

    class Unit(dj.Part):
        definition = """
        # one unit
        -> master
        unit : int32
        ---
        -> Probe.Electrode           # where it is largest
        spike_count : int32
        unit_depth_um : float64      # of that electrode, up from the tip
        amplitude_uv : float64       # from peak to trough there
        spike_times : <blob>         # s from the start of the recording
        template : <blob>            # mean waveform in microvolts, samples × channels
        """

    @property
    def key_source(self) -> Any:
        """The recordings that have enough channels for the parameter set."""
        return RawEphys * ParamSet & "channel_count >= min_channels"

    def make(self, key: dict[str, Any]) -> None:
        sorter, params = (ParamSet & key).fetch1("sorter", "params")
        electrodes = electrodes_of(key)
        with recording_of(key) as recording, TemporaryDirectory() as folder:
            units = run_sorter(sorter, recording, params, Path(folder) / "sorter")
            without_times(Path(folder) / "sorter")
            trains = [units.get_unit_spike_train(unit) for unit in units.unit_ids]
            templates = mean_waveforms(units, recording)
            rate = recording.get_sampling_frequency()
            self.insert1(
                {
                    **key,
                    "unit_count": len(trains),
                    "spike_count": sum(map(len, trains)),
                    "units_digest": digest(trains),
                    "sorter_version": version("spikeinterface"),
                    "output": Path(folder) / "sorter",
                }
            )
            self.Unit.insert(
                {**key, "unit": number, **_unit(train, template, rate, electrodes)}
                for number, (train, template) in enumerate(zip(trains, templates, strict=True))
            )


def run_sorter(sorter: str, recording: Any, params: dict[str, Any], folder: Path) -> Any:
    """Return the units that a sorter finds; equal input gives equal units.

    Raises
    ------
    ConfigurationError
        If the sorter is not installed; the message names the extra that installs it.
    """
    si = spikeinterface()
    if sorter not in si.available_sorters():
        raise ConfigurationError(
            f"SpikeInterface knows no sorter {sorter!r}: correct it in ParamSet."
        )
    if sorter not in si.installed_sorters():
        extra = EXTRAS.get(sorter)
        how = f"pip install 'dj-dagster[{extra}]'" if extra else "see SpikeInterface's own guide"
        raise ConfigurationError(f"The sorter {sorter} is not installed here: {how}.")
    seeds = {"seed": SEED} if "seed" in si.get_default_sorter_params(sorter) else {}
    try:
        with repeatable(SEED):
            options = {**seeds, **params}
            return si.run_sorter(sorter, recording, folder=folder, verbose=False, **options)
    finally:
        _release_recordings()


_CLUSTERING = "spikeinterface.sortingcomponents.clustering."


def _release_recordings() -> None:
    """Let go of the recordings that SpikeInterface's clustering keeps in globals after its work.

    For the demo these are 220 MB of shared memory, which a worker process would hold while it
    waits, and leave behind at its end.
    """
    for name in ("itersplit_tools", "merging_tools"):
        module = sys.modules.get(_CLUSTERING + name)
        if module is not None:
            vars(module).pop("_ctx", None)
    gc.collect()


_OF_THE_MOMENT = ("run_times.json", "recording.pickle")
"""Files with nothing but times, or the place of the filtered recording, which is temporary."""

_TIMES = re.compile(r'"(datetime|run_time|runtime_s)": [^,\n}]+')
_FOLDER = re.compile(r'"folder_path": "[^"]*[/\\]([^"/\\]+)"')


def without_times(folder: Path) -> None:
    """Take times, and the names of temporary folders, out of a sorter's folder.

    Equal units are equal files then.
    """
    for name in _OF_THE_MOMENT:
        for file in folder.rglob(name):
            file.unlink()
    for file in folder.rglob("*.json"):
        text = file.read_text(encoding="utf-8")
        told = _FOLDER.sub(r'"folder_path": "\1"', _TIMES.sub(r'"\1": null', text))
        if told != text:
            file.write_text(told, encoding="utf-8")


def mean_waveforms(units: Any, recording: Any) -> NDArray[np.float32]:
    """Return the mean waveform of each unit in microvolts, shape (units, samples, channels)."""
    if not len(units.unit_ids):
        return np.empty((0, 0, recording.get_num_channels()), dtype=np.float32)
    si = spikeinterface()
    with repeatable(SEED):
        analyzer = si.create_sorting_analyzer(units, recording, format="memory", sparse=False)
        analyzer.compute({"random_spikes": {"seed": SEED}, "templates": {}})
    return analyzer.get_extension("templates").get_data().astype(np.float32)


def digest(trains: list[NDArray[np.int64]]) -> str:
    """Return the SHA-1 of units' spikes, given as samples."""
    found = hashlib.sha1(usedforsecurity=False)
    for train in trains:
        found.update(np.int64(len(train)).tobytes())
        found.update(np.asarray(train, dtype="<i8").tobytes())
    return found.hexdigest()


def electrodes_of(key: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the electrode and position of each channel of an insertion, in the file's order."""
    number = {"imec": key["insertion_number"]}
    session = {name: key[name] for name in EphysSession.primary_key}
    channels = (EphysSession.Channel & session & number) * Probe.Electrode
    return channels.to_dicts(order_by="channel")


def units_of(key: dict[str, Any]) -> Any:
    """Return the units of a sorting for SpikeInterface."""
    rate = (RawEphys & key).fetch1("sampling_rate")
    rows = (SpikeSorting.Unit & key).to_dicts(order_by="unit")
    trains = {row["unit"]: np.rint(row["spike_times"] * rate).astype(np.int64) for row in rows}
    return spikeinterface().NumpySorting.from_unit_dict([trains], rate)


def _unit(
    train: NDArray[np.int64],
    template: NDArray[np.float32],
    rate: float,
    electrodes: list[dict[str, Any]],
) -> dict[str, Any]:
    span = np.ptp(template, axis=0)
    peak = int(np.argmax(span))
    return {
        "probe_type": electrodes[peak]["probe_type"],
        "electrode": electrodes[peak]["electrode"],
        "spike_count": len(train),
        "unit_depth_um": electrodes[peak]["y_um"],
        "amplitude_uv": float(span[peak]),
        "spike_times": np.asarray(train) / rate,
        "template": template,
    }
