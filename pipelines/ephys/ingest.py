"""Ingestion: the rows of a session from a folder of SpikeGLX."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from dj_dagster.errors import InvalidValueError
from pipelines.ephys.acquisition import GROUND_TRUTH
from pipelines.ephys.probe import Probe
from pipelines.ephys.session import EphysSession, GroundTruth, ProbeInsertion, Subject
from pipelines.ephys.spikeglx import DamagedRecordingError, channel_electrodes, read_meta
from pipelines.ephys.stores import raw_folder

RUNS = "*/*_g[0-9]*"
"""The pattern of runs in the folder of recordings, which has a folder for each animal."""


def is_complete(run: Path) -> bool:
    """Whether all files of a run are there: a ``.meta`` for each ``.bin``, and the reverse.

    SpikeGLX writes the ``.meta`` last, but whoever copies a run may bring it first.
    """
    binaries, metas = (
        {file.with_suffix("") for file in run.rglob(f"*.{end}")} for end in ("bin", "meta")
    )
    return bool(binaries) and binaries == metas


def session_rows(run: Path) -> dict[Any, list[dict[str, Any]]]:
    """Return the rows of a run's session by table, in the order in which they can be inserted.

    Raises
    ------
    DamagedRecordingError
        If a ``.meta`` is incomplete, or the probe is not one of those in `Probe`.
    InvalidValueError
        If the session was entered from other files, as of a run that has another name now.
    """
    rows = _rows(run)
    for row in rows[ProbeInsertion]:
        key = {name: row[name] for name in ProbeInsertion.primary_key}
        for file in (ProbeInsertion & key).to_arrays("ap_file"):
            if file != row["ap_file"]:
                raise InvalidValueError(
                    f"It has probe {key['insertion_number']} of the session of {key['subject']} at "
                    f"{key['session_datetime']}, which was entered from {file}. If the folder was "
                    "renamed, rename it back, or call pipelines.ephys.ingest.relocate with it."
                )
    return rows


def relocate(run: Path) -> None:
    """Let the rows of a session refer to the files of its run where these are now.

    What was made of the files becomes stale, and is the same when it is made again.
    """
    rows = _rows(run)
    with ProbeInsertion.connection.transaction:
        for row in rows[ProbeInsertion]:
            key = {name: row[name] for name in ProbeInsertion.primary_key}
            ProbeInsertion.update1({**key, "ap_file": row["ap_file"]})
        for row in rows[GroundTruth]:
            GroundTruth.update1(row)


def _rows(run: Path) -> dict[Any, list[dict[str, Any]]]:
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
        number = _probe_number(binary)
        insertion = {**session, "insertion_number": number}
        if insertion in ({k: row[k] for k in insertion} for row in rows[ProbeInsertion]):
            raise DamagedRecordingError(
                f"{run.name} has several files of probe {number}, such as {binary.name}: keep one "
                "gate and trigger in a run's folder."
            )
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


def _probe_number(binary: Path) -> int:
    found = re.search(r"\.imec(\d+)\.ap\.bin$", binary.name)
    if found is None:
        raise DamagedRecordingError(
            f"{binary.name} does not say which probe it is of: its name should end in "
            ".imec0.ap.bin, or .imec1.ap.bin."
        )
    return int(found[1])


def _probe_type(meta: Mapping[str, str]) -> str:
    part = meta.get("imDatPrb_pn", "")
    if not Probe & {"probe_type": part}:
        raise DamagedRecordingError(
            f"The probe {part!r} is not in the table Probe: insert it there, with its electrodes."
        )
    return part
