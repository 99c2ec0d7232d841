"""Ingestion: the rows of a session from a folder of SpikeGLX."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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
        If the session was entered from other files, as of a run that has another name now, or the
        files belong to another session.
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


def relocate(run: Path | str) -> None:
    """Let the rows of a session refer to the files of its run where these are now.

    What was made of the files becomes stale, and is the same when it is made again.

    Parameters
    ----------
    run
        The run's folder, by its path in the folder of recordings, such as ``m1/run_g0``, or by
        another one.

    Raises
    ------
    InvalidValueError
        If it is not a folder in the folder of recordings, or a probe was not entered.
    """
    recordings = raw_folder(EphysSession().connection.stores)
    inside = recordings / run
    if not inside.is_relative_to(recordings) or not inside.is_dir():
        place, root = Path(run).resolve(), recordings.resolve()
        if not place.is_relative_to(root) or not place.is_dir():
            raise InvalidValueError(
                f"There is no folder {run} in {recordings}, where recordings are: name it by its "
                "path there, such as m1/run_g0."
            )
        inside = recordings / place.relative_to(root)
    rows = _rows(inside)
    with ProbeInsertion.connection.transaction:
        for row in rows[ProbeInsertion]:
            key = {name: row[name] for name in ProbeInsertion.primary_key}
            if not ProbeInsertion & key:
                raise InvalidValueError(f"{run} was not entered: there is no ProbeInsertion {key}.")
            ProbeInsertion.update1({**key, "ap_file": row["ap_file"]})
        for row in rows[GroundTruth]:
            GroundTruth.update1(row)


def _rows(run: Path) -> dict[Any, list[dict[str, Any]]]:
    binaries = sorted(run.rglob("*.ap.bin"))
    if not binaries:
        raise DamagedRecordingError(f"{run.name} has no .ap.bin file.")
    metas = [read_meta(binary.with_suffix(".meta")) for binary in binaries]
    folder = raw_folder(EphysSession().connection.stores)
    files = [binary.relative_to(folder).as_posix() for binary in binaries]
    subject = {"subject": run.parent.name}
    session = {**subject, "session_datetime": _started(run.parent.name, files, metas)}
    rows: dict[Any, list[dict[str, Any]]] = {
        Subject: [subject],
        EphysSession: [
            {**session, "run_name": run.name, "session_notes": metas[0].get("userNotes", "")}
        ],
        EphysSession.Channel: [],
        ProbeInsertion: [],
        GroundTruth: [],
    }
    for binary, file, meta in zip(binaries, files, metas, strict=True):
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
                "ap_file": file,
            }
        )
        truth = run / GROUND_TRUTH
        if truth.exists():
            path = truth.relative_to(folder).as_posix()
            rows[GroundTruth].append({**insertion, "spikes": path})
    return rows


def _started(subject: str, files: Sequence[str], metas: Sequence[Mapping[str, str]]) -> datetime:
    """Return the time of a run's session: of the one that has some of its probes, or a new one.

    SpikeGLX starts one probe after the other, and of a run that is copied probe by probe, the first
    to come may have started last.
    """
    times = [datetime.fromisoformat(meta["fileCreateTime"]) for meta in metas]
    same = [{"ap_file": file} for file in files]
    same += [
        {"probe_serial": meta["imDatPrb_sn"], "session_datetime": time}
        for meta, time in zip(metas, times, strict=True)
    ]
    found = min(times)
    for row in (ProbeInsertion & same).to_dicts(order_by="KEY"):
        place = f"the session of {row['subject']} at {row['session_datetime']}"
        if row["subject"] != subject:
            raise InvalidValueError(
                f"It has the recording of probe {row['probe_serial']} that is in {place}, entered "
                f"from {row['ap_file']}. If its folder was moved, move it back, or delete that "
                "session."
            )
        if row["session_datetime"] not in times:
            raise InvalidValueError(
                f"{row['ap_file']} was entered in {place}; the files of its run began at "
                f"{min(times)}. Give another recording a folder of another name, or delete that "
                "session."
            )
        found = row["session_datetime"]
    return found


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
