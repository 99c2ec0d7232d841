"""The acquisition computer, simulated: it writes sessions into the watched folder.

``python -m pipelines.ephys.acquisition 6`` records the next six sessions. Among each six, two have
a probe that moves, one a neuron that falls silent half-way, and one a file that was cut while it
was copied; ``--repair`` copies such files again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np

import dj_dagster as dj
from pipelines.ephys.simulation import PROBE_PART, Plan, Simulation, simulate
from pipelines.ephys.spikeglx import AP, LF, Recorded, read_meta, write_recording
from pipelines.ephys.stores import raw_folder, use_default_stores

GROUND_TRUTH = "ground_truth.npz"

_FIRST_DAY = datetime(2026, 3, 4, 10, 30)
_CYCLE = 6
_LOST, _CUT, _DRIFTING = 1, 3, (2, 5)


@dataclass(frozen=True)
class DemoSession:
    """A session that can be recorded.

    Attributes
    ----------
    plan
        The recording to simulate.
    cut
        Whether the copy of its file lacks the end.
    """

    number: int
    plan: Plan
    cut: bool = False

    @property
    def subject(self) -> str:
        """The subject: one of two animals, in turns."""
        return f"m{self.number % 2 + 1}"

    @property
    def started(self) -> datetime:
        """The time of the recording, one day after that of the session before."""
        return _FIRST_DAY + timedelta(days=self.number)

    @property
    def run(self) -> str:
        """Name of the run."""
        return f"{self.subject}_{self.started:%Y%m%d}"

    def folder(self, recordings: Path) -> Path:
        """Return the folder of the run's files, below the folder of all recordings."""
        return recordings / self.subject / f"{self.run}_g0"


def demo_session(number: int) -> DemoSession:
    """Return a session by its number, from 0; each has a different recording."""
    cycle, kind = divmod(number, _CYCLE)
    if kind in _DRIFTING:
        seed = cycle * len(_DRIFTING) + _DRIFTING.index(kind)
        return DemoSession(number, Plan(seed, channels=48, seconds=40.0, units=12, drift_um=15.0))
    lost = 2 if kind == _LOST else None
    return DemoSession(number, Plan(number, lost_unit=lost), cut=kind == _CUT)


def record(session: DemoSession, recordings: Path) -> Path:
    """Write a session's files and return its folder."""
    simulation = simulate(session.plan)
    recorded = _recorded(session, simulation)
    place = recordings / session.subject
    folder = session.folder(recordings)
    folder.mkdir(parents=True, exist_ok=True)
    trains: dict[str, Any] = {
        f"neuron_{number}": train for number, train in simulation.spikes.items()
    }
    np.savez(folder / GROUND_TRUTH, **trains)
    write_recording(place, recorded, LF, simulation.lf_blocks())
    binary = write_recording(place, recorded, AP, simulation.ap_blocks())
    if session.cut:
        os.truncate(binary, binary.stat().st_size * 2 // 3)
    return folder


def record_next(sessions: int, recordings: Path) -> Iterator[DemoSession]:
    """Record the next sessions that do not have a folder yet, and yield each when it is done."""
    number = 0
    for _ in range(sessions):
        while demo_session(number).folder(recordings).exists():
            number += 1
        session = demo_session(number)
        record(session, recordings)
        yield session


def begin_recording(sessions: int) -> None:
    """Start a process that records up to this number of sessions, and do not wait for it."""
    number = 0
    while demo_session(number).folder(recordings_folder()).exists():
        number += 1
    if sessions > number:
        command = [sys.executable, "-m", "pipelines.ephys.acquisition", str(sessions - number)]
        place = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH")]))
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})


def repair(recordings: Path) -> Iterator[DemoSession]:
    """Copy files once more that are shorter than their ``.meta`` says, and yield their sessions."""
    for meta in sorted(recordings.rglob("*.ap.meta")):
        said = read_meta(meta)
        if meta.with_suffix(".bin").stat().st_size == int(said["fileSizeBytes"]):
            continue
        started = datetime.fromisoformat(said["fileCreateTime"])
        session = replace(demo_session((started - _FIRST_DAY).days), cut=False)
        if session.folder(recordings) in meta.parents:
            record(session, recordings)
            yield session


def _recorded(session: DemoSession, simulation: Simulation) -> Recorded:
    return Recorded(
        run=session.run,
        started=session.started,
        probe_part=PROBE_PART,
        serial=f"2000{session.number % 2 + 1:04d}",
        positions_um=simulation.positions_um,
        adc_table=simulation.adc_table,
        notes=f"simulated, seed {session.plan.seed}",
    )


def recordings_folder() -> Path:
    """Return the folder of all recordings."""
    use_default_stores()
    return raw_folder(dj.conn().stores)


@click.command()
@click.argument("sessions", default=0)
@click.option("--repair", "cut", is_flag=True, help="Copy files that were cut again.")
def main(sessions: int, cut: bool) -> None:
    """Record SESSIONS more sessions."""
    for session in record_next(sessions, recordings_folder()):
        click.echo(f"recorded {session.run}")
    for session in repair(recordings_folder()) if cut else ():
        click.echo(f"copied {session.run} again")


if __name__ == "__main__":
    main()
