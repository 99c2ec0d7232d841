"""Recordings of Neuropixels probes in SpikeGLX's format: writing, reading and verifying them.

A recording is a pair of files. The ``.bin`` has 16-bit integers, sample by sample, with a column
for each channel and a last one for the synchronisation pulse. The ``.meta`` has lines ``key=value``
that describe the columns, and give the size and SHA-1 of the ``.bin``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

RANGE_V = 0.6
LEVELS = 512
"""Steps of the converter from zero to the end of its range."""

ALL_CHANNELS = 384
SHANK_ELECTRODES = 1280
"""Electrodes of each shank of the probes that have several."""

SYNC = 64
"""Value of the synchronisation pulse: bit 6 of its column."""

_BLOCK = 2**20


class DamagedRecordingError(ValueError):
    """A recording whose bytes are not those that its ``.meta`` describes."""


@dataclass(frozen=True)
class Band:
    """One of the two signals that the probe records at each electrode.

    Attributes
    ----------
    name
        ``ap`` for action potentials, ``lf`` for the slow field.
    rate_hz
        Samples a second.
    gain
        Amplification before the converter.
    """

    name: str
    rate_hz: float
    gain: int

    @property
    def uv_per_bit(self) -> float:
        """Microvolts that one step of the converter stands for."""
        return RANGE_V / LEVELS / self.gain * 1e6


AP = Band("ap", 30000.0, 500)
LF = Band("lf", 2500.0, 250)


@dataclass(frozen=True)
class Recorded:
    """The facts of a recording that the ``.meta`` holds.

    Attributes
    ----------
    run
        Name of the run, from which the names of files and folders are built.
    started
        The time at which the recording began.
    probe_part
        Part number of the probe.
    serial
        Serial number of the probe.
    positions_um
        Positions of the recorded electrodes, across the shank and up from its tip, shape
        (channels, 2).
    adc_table
        The channels that the converters sample at the same moment, as SpikeGLX writes them.
    notes
        The experimenter's notes.
    """

    run: str
    started: datetime
    probe_part: str
    serial: str
    positions_um: NDArray[np.float64]
    adc_table: str
    notes: str = ""

    @property
    def channels(self) -> int:
        """The number of saved channels."""
        return len(self.positions_um)

    def file(self, folder: Path, band: Band, kind: str) -> Path:
        """Return the path of one of the files, below the folder that holds all runs."""
        run = f"{self.run}_g0"
        return folder / run / f"{run}_imec0" / f"{self.run}_g0_t0.imec0.{band.name}.{kind}"


def write_recording(
    folder: Path, recorded: Recorded, band: Band, blocks: Iterable[NDArray[np.floating]]
) -> Path:
    """Write a recording as the acquisition does: the ``.bin`` block by block, then the ``.meta``.

    Parameters
    ----------
    folder
        The folder of all runs.
    blocks
        The signals in microvolts, shape (samples, channels), one after the other.

    Returns
    -------
    Path
        The ``.bin`` file.
    """
    path = recorded.file(folder, band, "bin")
    path.parent.mkdir(parents=True, exist_ok=True)
    samples, digest = 0, hashlib.sha1(usedforsecurity=False)
    with path.open("wb") as file:
        for block in blocks:
            data = _counts(block, band, samples).tobytes()
            samples += len(block)
            digest.update(data)
            file.write(data)
    meta = path.with_suffix(".meta")
    fields = _meta(recorded, band, path.name, path.stat().st_size, digest.hexdigest())
    meta.write_text("".join(f"{key}={value}\n" for key, value in fields), encoding="utf-8")
    return path


def meta_text(path: Path) -> str:
    """Return the text of a ``.meta`` file, in which old versions write notes as Windows does."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def read_meta(path: Path) -> dict[str, str]:
    """Return the values of a ``.meta`` file by key; a ``~`` before a key is left out.

    Raises
    ------
    DamagedRecordingError
        If a line is not ``key=value``, or a key is missing that every recording has.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(meta_text(path).splitlines(), start=1):
        if not line:
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise DamagedRecordingError(
                f"{path}, line {number}: expected key=value, found {line!r}."
            )
        found[key.removeprefix("~")] = value
    needed = (
        *("nSavedChans", "imSampRate", "fileSizeBytes", "fileSHA1", "fileCreateTime"),
        *("imDatPrb_sn", "snsSaveChanSubset", "imroTbl"),
    )
    if missing := [key for key in needed if key not in found]:
        raise DamagedRecordingError(f"{path} has no line {missing[0]}=: it was not written whole.")
    return found


def verify(binary: Path, meta: Mapping[str, str]) -> None:
    """Compare a ``.bin`` file with the size and the SHA-1 in its ``.meta``.

    Programs that read SpikeGLX do not compare them: they take a file that was cut for a shorter
    recording.

    Raises
    ------
    DamagedRecordingError
        Naming the file and what differs.
    """
    size, expected = binary.stat().st_size, int(meta["fileSizeBytes"])
    if size != expected:
        raise DamagedRecordingError(
            f"{binary.name} has {size} bytes; its .meta says {expected}. Copy it again from the "
            "acquisition computer."
        )
    with binary.open("rb") as file:
        found = _sha1(file)
    if found != meta["fileSHA1"].upper():
        raise DamagedRecordingError(
            f"{binary.name} has the SHA-1 {found}; its .meta says {meta['fileSHA1']}. Copy it "
            "again from the acquisition computer."
        )


def channel_electrodes(meta: Mapping[str, str]) -> list[int]:
    """Return the number of the electrode of each saved channel of an ``.ap`` recording.

    Electrodes are counted from the tip; with several shanks, those of the first shank come first.

    Raises
    ------
    DamagedRecordingError
        If the ``.meta`` lacks them, or has a table of electrodes in a form that is unknown here.
    """
    try:
        header, *entries = _entries(meta["imroTbl"])
        part = meta.get("imDatPrb_pn")
        electrodes = {int(entry[0]): _electrode(header, entry, part) for entry in entries}
        chosen = _numbers(meta["snsSaveChanSubset"], all_of=electrodes)
        found = [electrodes[channel] for channel in chosen if channel < int(header[1])]
        saved = int(meta.get("snsApLfSy", str(len(found))).partition(",")[0])
    except (KeyError, ValueError, IndexError) as error:
        raise DamagedRecordingError(
            f"The .meta does not say which electrodes were recorded: {error!r}."
        ) from error
    if len(found) != saved:
        raise DamagedRecordingError(
            f"The .meta names {len(found)} channels in snsSaveChanSubset, and {saved} in snsApLfSy."
        )
    return found


_FORMS = {
    6: ("0", "1020", "1030", "1100", "1120", "1121", "1122", "1123", "1200", "1300"),
    4: ("21", "2003", "3010"),
    5: ("24", "2013", "2020", "3020", "3022"),
}
"""Types of tables of electrodes, which their headers begin with, by the length of their entries."""


def _electrode(header: Sequence[str], entry: Sequence[str], part: str | None) -> int:
    """Return the electrode that an entry of ``~imroTbl`` is of.

    Since 2026, SpikeGLX writes the part number of the probe into the header, not a type.
    """
    if len(header) == 2 and header[0] in (*_FORMS.get(len(entry), ()), part):
        match [int(value) for value in entry]:
            case [channel, bank, _, _, _, _]:
                return bank * ALL_CHANNELS + channel
            case [_, _, _, electrode]:
                return electrode
            case [_, shank, _, _, electrode]:
                return shank * SHANK_ELECTRODES + electrode
            case _:
                pass
    form = f"({','.join(header)})({' '.join(entry)})"
    raise ValueError(f"~imroTbl={form} has a form that is unknown here")


def _counts(block: NDArray[np.floating], band: Band, first: int) -> NDArray[np.int16]:
    """Return a block as numbers of the converter, with a synchronisation pulse every second."""
    counts = np.clip(np.rint(block / band.uv_per_bit), -LEVELS, LEVELS - 1)
    times = np.arange(first, first + len(block)) / band.rate_hz
    pulse = np.where(times % 1.0 < 0.5, SYNC, 0)
    return np.column_stack([counts, pulse]).astype("<i2")


def _sha1(file: BinaryIO) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest().upper()


def _meta(
    recorded: Recorded, band: Band, name: str, size: int, sha1: str
) -> Iterator[tuple[str, object]]:
    count, slow = recorded.channels, band.name == "lf"
    first = ALL_CHANNELS if slow else 0
    yield "acqApLfSy", f"{ALL_CHANNELS},{ALL_CHANNELS},1"
    yield "appVersion", "20230905"
    yield "fileCreateTime", recorded.started.isoformat(timespec="seconds")
    yield "fileName", f"D:/data/{recorded.run}_g0/{name}"
    yield "fileSHA1", sha1.upper()
    yield "fileSizeBytes", size
    yield "fileTimeSecs", size / 2 / (count + 1) / band.rate_hz
    yield "firstSample", 0
    yield "gateMode", "Immediate"
    yield "imAiRangeMax", RANGE_V
    yield "imAiRangeMin", -RANGE_V
    yield "imCalibrated", "true"
    yield "imChan0apGain", AP.gain
    yield "imChan0lfGain", LF.gain
    yield "imDatApi", "3.62.1"
    yield "imDatPrb_pn", recorded.probe_part
    yield "imDatPrb_port", 1
    yield "imDatPrb_slot", 2
    yield "imDatPrb_sn", recorded.serial
    yield "imDatPrb_type", 0
    yield "imLEDEnable", "false"
    yield "imMaxInt", LEVELS
    yield "imSampRate", int(band.rate_hz)
    yield "nDataDirs", 1
    yield "nSavedChans", count + 1
    yield "snsApLfSy", f"0,{count},1" if slow else f"{count},0,1"
    yield "snsSaveChanSubset", f"{first}:{first + count - 1},{2 * ALL_CHANNELS}"
    yield "syncSourceIdx", 0
    yield "syncSourcePeriod", 1.0
    yield "trigMode", "Immediate"
    yield "typeImEnabled", 1
    yield "typeNiEnabled", 0
    yield "typeObEnabled", 0
    yield "typeThis", "imec"
    yield "userNotes", recorded.notes
    yield from _tables(recorded, band, first)


def _tables(recorded: Recorded, band: Band, first: int) -> Iterator[tuple[str, str]]:
    channels = range(recorded.channels)
    settings = [f"{c} 0 0 {AP.gain} {LF.gain} 1" for c in range(ALL_CHANNELS)]
    yield "~imroTbl", _listed([f"0,{ALL_CHANNELS}", *settings])
    yield "~muxTbl", recorded.adc_table
    kind = band.name.upper()
    names = [f"{kind}{c};{first + c}:{c}" for c in channels]
    sync = f"SY0;{2 * ALL_CHANNELS}:{recorded.channels}"
    yield "~snsChanMap", _listed([f"{ALL_CHANNELS},{ALL_CHANNELS},1", *names, sync])
    # SpikeGLX measures across the shank from its edge, 11 µm left of the first column.
    places = [f"0:{x + 11:g}:{y:g}:1" for x, y in recorded.positions_um]
    yield "~snsGeomMap", _listed([f"{recorded.probe_part},1,0,70", *places])
    yield "~snsShankMap", _listed(["1,2,480", *(f"0:{c % 2}:{c // 2}:1" for c in channels)])


def _listed(items: Sequence[str]) -> str:
    return "".join(f"({item})" for item in items)


def _entries(table: str) -> list[list[str]]:
    return [item.replace(",", " ").split() for item in table.strip("()").split(")(")]


def _numbers(ranges: str, *, all_of: Iterable[int]) -> list[int]:
    """Return the numbers of a text such as ``0:15,768``, or ``all``."""
    if ranges == "all":
        return list(all_of)
    found: list[int] = []
    for piece in ranges.split(","):
        first, _, last = piece.partition(":")
        found.extend(range(int(first), int(last or first) + 1))
    return found
