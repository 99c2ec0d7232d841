"""Parameter sets: the sorters, and their settings, that recordings are sorted with."""

from __future__ import annotations

from typing import Any

import dj_dagster as dj

schema = dj.Schema("ephys_paramset")

EXTRAS = {"tridesclous2": "ephys", "spykingcircus2": "ephys", "kilosort4": "kilosort"}
"""The extra of dj-dagster that installs each sorter."""

_PRESETS: dict[str, dict[str, Any]] = {
    "tridesclous2": {
        "paramset_idx": 1,
        "sorter": "tridesclous2",
        "paramset_desc": "Tridesclous2, for probes that do not move",
        "min_channels": 4,
        "params": {},
    },
    "tridesclous2_motion": {
        "paramset_idx": 2,
        "sorter": "tridesclous2",
        "paramset_desc": "Tridesclous2 with the motion of the probe corrected",
        "min_channels": 32,
        "params": {"apply_motion_correction": True, "motion_correction_preset": "kilosort_like"},
    },
    "spykingcircus2": {
        "paramset_idx": 3,
        "sorter": "spykingcircus2",
        "paramset_desc": "Spyking Circus 2, for probes that do not move",
        "min_channels": 4,
        "params": {"apply_motion_correction": False},
    },
    "kilosort4": {
        "paramset_idx": 4,
        "sorter": "kilosort4",
        "paramset_desc": "Kilosort4, on CUDA where there is a GPU",
        "min_channels": 16,
        "params": {},
    },
}


@schema
class ParamSet(dj.Lookup):
    definition = """
    # ways to sort; each recording with channels enough is sorted in each of them
    paramset_idx : int16
    ---
    sorter : varchar(32)             # its name in SpikeInterface
    paramset_desc : varchar(128)
    min_channels : int16             # recordings with fewer channels are left out
    params : json                    # what is different from the sorter's defaults
    """
    contents = (_PRESETS["tridesclous2"], _PRESETS["tridesclous2_motion"])


def add_preset(name: str) -> None:
    """Insert a preset, by which recordings are then sorted too: ``add_preset("spykingcircus2")``.

    Raises
    ------
    KeyError
        If the preset is unknown; the message names the presets.
    """
    if name not in _PRESETS:
        raise KeyError(f"There is no preset {name!r}; there are {', '.join(_PRESETS)}.")
    ParamSet.insert1(_PRESETS[name], skip_duplicates=True)
