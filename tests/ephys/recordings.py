"""Recordings for the tests of the ephys pipeline, and the rows that come of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from pipelines.ephys.spikeglx import AP, Recorded, write_recording

STATIC, LOST, CUT = 0, 1, 3
"""Sessions of the demo: as it should be, with a neuron that falls silent, with a cut file."""


def day_of(number: int) -> datetime:
    """Return the start of a run, of which there is one a day."""
    return datetime(2025, 1, 1, 9) + timedelta(days=number - 1)


def write_run(folder: Path, day: int) -> Path:
    """Write the run of a probe in which nothing was but noise; return its .ap.bin."""
    positions = np.column_stack([np.tile([16.0, 48.0, 0.0, 32.0], 4), np.arange(16) // 2 * 20.0])
    started = day_of(day)
    recorded = Recorded(f"x1_{day}", started, "NP1000", "7", positions, "(1,16)(0)")
    noise = np.random.default_rng(day).standard_normal((3000, 16))
    return write_recording(folder / "x1", recorded, AP, [10 * noise])


def noise_key(day: int) -> dict[str, Any]:
    """Return the key of that run's probe."""
    return {"subject": "x1", "session_datetime": day_of(day), "insertion_number": 0}


def insert_raw(lab: Any, day: int, binary: Path) -> None:
    """Insert the row that RawEphys would have of a run of noise."""
    path = binary.relative_to(lab.folder).as_posix()
    lab.recording.RawEphys.insert1(
        {
            **noise_key(day),
            "recording_datetime": day_of(day),
            "recording_duration": 0.1,
            "sampling_rate": 30000.0,
            "channel_count": 16,
            "noise_uv": 10.0,
            "ap_bin": path,
            "ap_meta": path.replace(".bin", ".meta"),
        },
        allow_direct_insert=True,
    )


def demo_key(lab: Any, number: int) -> dict[str, Any]:
    """Return the key of the probe of one of the demo's sessions."""
    session = lab.acquisition.demo_session(number)
    return {
        "subject": session.subject,
        "session_datetime": session.started,
        "insertion_number": 0,
    }


def look(lab: Any, times: int = 2) -> str:
    """Evaluate the folder's sensor and return what it said last."""
    sensor, cursor, said = lab.definitions.watch(settle=0), None, ""
    for _ in range(times):
        with dg.build_sensor_context(cursor=cursor) as context:
            result: Any = sensor(context)
        cursor, said = result.cursor, result.skip_reason.skip_message
    return said
