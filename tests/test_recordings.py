"""The demo's recordings: sessions are real, distinct, repeatable, and read back as written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.recordings import (
    STEP_S,
    WINDOW_S,
    read_recording,
    recordings,
    session_count,
    write_session,
)


def test_every_session_is_another(tmp_path: Path) -> None:
    written = [write_session(number, tmp_path) for number in range(session_count())]
    assert len(written) >= 120
    assert len({session.path for session in written}) == len(written)
    assert len({session.path.read_bytes() for session in written}) == len(written)
    assert {session.source for session in written} == {"data.csv", "data2.csv", "data3.csv"}


@pytest.mark.parametrize("number", [0, 1, 133, 134, session_count() - 1])
def test_a_session_reads_back_as_the_window_it_is(number: int, tmp_path: Path) -> None:
    session = write_session(number, tmp_path / "raw" / "today")
    recording = next(each for each in recordings() if each.source == session.source)
    signal, rate = read_recording(session.path)
    first = round(session.start_s * recording.sampling_rate_hz)
    np.testing.assert_array_equal(signal, recording.signal[first : first + session.samples])
    assert len(signal) == session.samples
    assert rate == pytest.approx(session.sampling_rate_hz, rel=1e-5)
    assert session.samples / rate == pytest.approx(WINDOW_S, abs=0.02)


def test_sessions_of_a_recording_move_along_it(tmp_path: Path) -> None:
    starts = [write_session(number, tmp_path).start_s for number in (1, 2, 3)]
    assert starts == [0, STEP_S, 2 * STEP_S]


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    once = write_session(7, tmp_path).path.read_bytes()
    assert write_session(7, tmp_path).path.read_bytes() == once
    assert [path.name for path in tmp_path.iterdir()] == ["session_0007.csv"]


@pytest.mark.parametrize("number", [-1, session_count()])
def test_an_unknown_session_is_refused(number: int, tmp_path: Path) -> None:
    with pytest.raises(IndexError, match=rf"no session {number}: .* sessions 0 to \d+$"):
        write_session(number, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_recordings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        recordings()[0].signal[0] = 0


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        read_recording(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "expected the header 'time_s,signal'"),
        ("time,signal\n0,1\n", 1, "expected the header"),
        ("time_s,signal\n", 2, "at least two samples"),
        ("time_s,signal\n0,1\n", 3, "at least two samples"),
        ("time_s,signal\n0,1\n1,2,3\n", 3, "expected two numbers"),
        ("time_s,signal\n0,1\n1,high\n2,3\n", 3, "expected two numbers, found ['1', 'high']"),
        ("time_s,signal\n0,1\n1,nan\n", 3, "expected two finite numbers"),
        ("time_s,signal\n0,1\n1,2\n1,2\n", 4, "time does not move on"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(
    text: str, line: int, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.csv, line") as refusal:
        read_recording(path)
    assert f"line {line}: " in str(refusal.value)
    assert reason in str(refusal.value)


def test_heartpy_is_not_imported_to_find_its_files() -> None:
    script = (
        "import sys, pipelines.recordings as r; r.recordings(); sys.exit('heartpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
