"""Ingestion: the rows of a session from a folder of SpikeGLX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.ephys.acquisition import GROUND_TRUTH
from pipelines.ephys.probe import Probe
from pipelines.ephys.session import EphysSession, GroundTruth, ProbeInsertion, Subject
from pipelines.ephys.spikeglx import DamagedRecordingError, channel_electrodes, read_meta
from pipelines.ephys.stores import raw_folder

RUNS = "*/*_g[0-9]*"
"""The pattern of runs in the folder of recordings, which has a folder for each animal."""


def is_complete(run: Path) -> bool:
    """Whether all files of a run are written; each ``.meta`` is written after its ``.bin``."""
    binaries = list(run.rglob("*.bin"))
    return bool(binaries) and all(binary.with_suffix(".meta").exists() for binary in binaries)


def session_rows(run: Path) -> dict[Any, list[dict[str, Any]]]:
    """Return the rows of a run's session by table, in the order in which they can be inserted.

    Raises
    ------
    DamagedRecordingError
        If a ``.meta`` is incomplete, or the probe is not one of those in `Probe`.
    """
    binaries = sorted(run.rglob("*.ap.bin"))
    if not binaries:
        raise DamagedRecordingError(f"{run.name} has no .ap.bin file.")
    metas = [read_meta(binary.with_suffix(".meta")) for binary in binaries]
    subject = {"subject": run.parent.name}
    started = min(datetime.fromisoformat(meta["fileCreateTime"]) for meta in metas)
    session = {**subject, "session_datetime": started}
    rows: dict[Any, list[dict[str, Any]]] = {
        Subject: [subject],
        EphysSession: [
            {**session, "run_name": run.name, "session_notes": metas[0].get("userNotes", "")}
        ],
        EphysSession.Channel: [],
        ProbeInsertion: [],
        GroundTruth: [],
    }
    folder = raw_folder(EphysSession().connection.stores)
    for binary, meta in zip(binaries, metas, strict=True):
        number = int(binary.name.split(".imec")[1].split(".")[0])
        insertion = {**session, "insertion_number": number}
        rows[EphysSession.Channel].extend(_channels(session, number, meta))
        rows[ProbeInsertion].append(
            {
                **insertion,
                "probe_type": _probe_type(meta),
                "probe_serial": meta["imDatPrb_sn"],
                "ap_file": binary.relative_to(folder).as_posix(),
            }
        )
        truth = run / GROUND_TRUTH
        if truth.exists():
            path = truth.relative_to(folder).as_posix()
            rows[GroundTruth].append({**insertion, "spikes": path})
    return rows


def _channels(
    session: Mapping[str, Any], number: int, meta: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    for channel, electrode in enumerate(channel_electrodes(meta)):
        place = {"probe_type": _probe_type(meta), "electrode": electrode}
        yield {**session, "imec": number, "channel": channel, **place}


def _probe_type(meta: Mapping[str, str]) -> str:
    part = meta.get("imDatPrb_pn", "")
    if not Probe & {"probe_type": part}:
        raise DamagedRecordingError(
            f"The probe {part!r} is not in the table Probe: insert it there, with its electrodes."
        )
    return part
