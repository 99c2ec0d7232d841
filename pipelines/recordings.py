"""The demo's raw recordings: people's pulses, cut into sessions.

The HeartPy package ships three recordings of optical pulse sensors (photoplethysmograms): 25 s at
100 Hz, 682 s at 100.4 Hz and 128 s at 117 Hz, in the units of an analogue-to-digital converter. A
session is a window of 20 s of one of them; consecutive sessions begin 5 s apart, so that two
neighbours share signal, but all sessions differ. They are real data: in sessions 134 and 135 the
sensor is not yet in place, so that HeartPy does not find a pulse there.

>>> session_count()
156
>>> recordings()[2].source, round(recordings()[2].sampling_rate_hz, 3)
('data2.csv', 116.988)
"""

from __future__ import annotations

import csv
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WINDOW_S = 20.0
STEP_S = 5.0
HEADER = ["time_s", "signal"]


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording as HeartPy ships it.

    Attributes
    ----------
    source
        Name of the file in HeartPy's data folder.
    sampling_rate_hz
        Samples a second, from the recording's own clock where it has one.
    signal
        Shape (samples,), float64, read-only; units of the converter, 0 to 1023.
    """

    source: str
    sampling_rate_hz: float
    signal: NDArray[np.float64]

    @property
    def duration_s(self) -> float:
        """Seconds from the first sample to the end of the last."""
        return len(self.signal) / self.sampling_rate_hz

    @property
    def sessions(self) -> int:
        """The number of sessions in the recording."""
        return max(0, math.floor((self.duration_s - WINDOW_S) / STEP_S) + 1)


@dataclass(frozen=True)
class RecordedSession:
    """Facts of a session that was written to a file.

    Attributes
    ----------
    path
        The CSV file.
    source
        Name of the recording that the session is a part of.
    sampling_rate_hz
        Samples a second.
    start_s
        Seconds from the start of the recording to that of the session.
    samples
        Number of samples.
    """

    path: Path
    source: str
    sampling_rate_hz: float
    start_s: float
    samples: int


@cache
def recordings() -> tuple[Recording, ...]:
    """Return the three recordings, in the order in which sessions are taken from them."""
    # Found through the package's metadata, because importing heartpy takes seconds and warns.
    folder = Path(str(distribution("heartpy").locate_file("heartpy/data")))
    return (
        _untimed(folder / "data.csv"),
        _dated(folder / "data3.csv"),
        _timed(folder / "data2.csv"),
    )


def session_count() -> int:
    """Return the number of sessions; they are numbered from 0."""
    return sum(recording.sessions for recording in recordings())


def write_session(number: int, folder: Path) -> RecordedSession:
    """Write session `number` to `folder`, as an acquisition system would, and return its facts.

    The file is `session_NNNN.csv` with the columns `time_s` (from 0) and `signal`. It appears whole
    or not at all; writing a session again gives the same bytes.

    Parameters
    ----------
    number
        From 0 to `session_count() - 1`.
    folder
        The folder to write to; it is made if missing.

    Raises
    ------
    IndexError
        If the number is out of range.
    """
    recording, start_s = _locate(number)
    rate = recording.sampling_rate_hz
    first = round(start_s * rate)
    signal = recording.signal[first : first + math.floor(WINDOW_S * rate)]
    path = folder / f"session_{number:04d}.csv"
    _write_whole(path, _csv(signal, rate))
    return RecordedSession(path, recording.source, rate, start_s, len(signal))


def read_recording(path: Path | str) -> tuple[NDArray[np.float64], float]:
    """Return the signal, shape (samples,), and the sampling rate in Hz of a session's file.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If its content is not a session; the message names file and line.
    """
    path = Path(path)
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        header = next(lines, None)
        if header != HEADER:
            raise _malformed(path, 1, f"expected the header {','.join(HEADER)!r}, found {header}")
        table = np.array(list(_samples(path, lines)), dtype=np.float64).reshape(-1, 2)
    if len(table) < 2:
        raise _malformed(path, len(table) + 2, "a session has at least two samples")
    time_s, signal = table.T
    if not (steps := np.diff(time_s) > 0).all():
        raise _malformed(path, int(np.argmin(steps)) + 3, "time does not move on")
    return signal.copy(), float((len(time_s) - 1) / (time_s[-1] - time_s[0]))


def _samples(path: Path, lines: Iterator[list[str]]) -> Iterator[tuple[float, float]]:
    for number, fields in enumerate(lines, start=2):
        try:
            time_s, value = map(float, fields)
        except ValueError:
            raise _malformed(path, number, f"expected two numbers, found {fields}") from None
        if not (math.isfinite(time_s) and math.isfinite(value)):
            raise _malformed(path, number, f"expected two finite numbers, found {fields}")
        yield time_s, value


def _malformed(path: Path, line: int, reason: str) -> ValueError:
    return ValueError(f"{path}, line {line}: {reason}")


def _locate(number: int) -> tuple[Recording, float]:
    earlier = 0
    for recording in recordings():
        if 0 <= number - earlier < recording.sessions:
            return recording, (number - earlier) * STEP_S
        earlier += recording.sessions
    raise IndexError(
        f"there is no session {number}: the recordings give sessions 0 to {earlier - 1}"
    )


def _csv(signal: NDArray[np.float64], rate: float) -> str:
    rows = (f"{index / rate:.6f},{value:g}" for index, value in enumerate(signal))
    return "\n".join([",".join(HEADER), *rows, ""])


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A rename within a folder replaces at once, so that readers never see half a file.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _untimed(path: Path) -> Recording:
    """Read a bare column of samples, which HeartPy documents as taken at 100 Hz."""
    return _recording(path, np.loadtxt(path), 100.0)


def _timed(path: Path) -> Recording:
    """Read `timer` (milliseconds) and `hr`."""
    timer_ms, signal = np.loadtxt(path, delimiter=",", skiprows=1, unpack=True)
    return _recording(path, signal, _rate(timer_ms / 1000))


def _dated(path: Path) -> Recording:
    """Read `datetime` and `hr`.

    That clock ticks every 16 ms, coarser than the samples, so that only its total is used.
    """
    dates, values = np.loadtxt(path, delimiter=",", skiprows=1, dtype="U26", unpack=True)
    elapsed = dates.astype("datetime64[us]").astype(np.int64) / 1e6
    return _recording(path, values.astype(np.float64), _rate(elapsed))


def _rate(time_s: NDArray[np.float64]) -> float:
    return float((len(time_s) - 1) / (time_s[-1] - time_s[0]))


def _recording(path: Path, signal: NDArray[np.float64], rate: float) -> Recording:
    # All callers of the cache share it.
    signal.flags.writeable = False
    return Recording(path.name, rate, signal)
