"""Probes: their types, and the positions of their electrodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dj_dagster as dj

schema = dj.Schema("ephys_probe")

NEUROPIXELS_1 = "NP1000"
_PITCH_UM = 20.0
_COLUMNS_UM = ((16.0, 48.0), (0.0, 32.0))
"""The positions across the shank of the two electrodes in even rows and in odd rows."""


@schema
class Probe(dj.Lookup):
    definition = """
    # types of probes
    probe_type : varchar(32)        # part number, as the recording's .meta has it
    ---
    probe_name : varchar(64)
    """
    contents = ((NEUROPIXELS_1, "Neuropixels 1.0"),)

    class Electrode(dj.Part):
        definition = """
        # where its electrodes are
        -> master
        electrode : int16           # counted from the tip, first shank first
        ---
        shank : int16
        shank_col : int16
        shank_row : int16
        x_um : float64              # across the shank
        y_um : float64              # up from the tip
        """


def neuropixels_1_electrodes() -> Iterator[dict[str, Any]]:
    """Yield the 960 electrodes of a Neuropixels 1.0 probe, as rows.

    Examples
    --------
    >>> electrodes = list(neuropixels_1_electrodes())
    >>> len(electrodes), electrodes[2]["x_um"], electrodes[2]["y_um"]
    (960, 0.0, 20.0)
    """
    for electrode in range(960):
        row, column = divmod(electrode, 2)
        yield {
            "probe_type": NEUROPIXELS_1,
            "electrode": electrode,
            "shank": 0,
            "shank_col": column,
            "shank_row": row,
            "x_um": _COLUMNS_UM[row % 2][column],
            "y_um": row * _PITCH_UM,
        }


if not Probe.Electrode & {"probe_type": NEUROPIXELS_1}:
    Probe.Electrode.insert(neuropixels_1_electrodes(), skip_duplicates=True)
