"""Files of SpikeGLX: what is written is described and verified."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from pipelines.ephys.spikeglx import (
    AP,
    LF,
    SYNC,
    DamagedRecordingError,
    Recorded,
    channel_electrodes,
    read_meta,
    verify,
    write_recording,
)

POSITIONS = np.column_stack([np.tile([16.0, 48.0, 0.0, 32.0], 2), np.repeat(np.arange(4) * 20, 2)])
RECORDED = Recorded("m1", datetime(2026, 3, 4, 10, 30), "NP1000", "20000001", POSITIONS, "(1,8)")


def write(folder: Path, seconds: float = 1.5) -> Path:
    rng = np.random.default_rng(0)
    samples = int(seconds * AP.rate_hz)
    blocks = np.array_split(20 * rng.standard_normal((samples, 8)), 3)
    return write_recording(folder, RECORDED, AP, blocks)


def test_files_lie_and_are_sized_as_spikeglx_leaves_them(tmp_path: Path) -> None:
    binary = write(tmp_path)
    assert binary.relative_to(tmp_path).as_posix() == "m1_g0/m1_g0_imec0/m1_g0_t0.imec0.ap.bin"
    counts = np.fromfile(binary, "<i2").reshape(-1, 9)
    assert counts.shape == (45000, 9)
    meta = read_meta(binary.with_suffix(".meta"))
    assert int(meta["fileSizeBytes"]) == counts.nbytes
    assert float(meta["fileTimeSecs"]) == 1.5
    # A pulse of half a second in each second.
    pulse = np.zeros(45000)
    pulse[:15000] = pulse[30000:] = SYNC
    assert np.array_equal(counts[:, 8], pulse)
    assert abs(np.std(counts[:, :8]) * AP.uv_per_bit - 20) < 0.5


def test_what_the_converter_cannot_hold_is_cut_off(tmp_path: Path) -> None:
    binary = write_recording(tmp_path, RECORDED, LF, [np.array([[1e6, -1e6, 0, 4.6875] * 2])])
    assert np.fromfile(binary, "<i2").tolist() == [511, -512, 0, 1, 511, -512, 0, 1, SYNC]


def test_each_channel_is_at_its_electrode(tmp_path: Path) -> None:
    meta = read_meta(write(tmp_path).with_suffix(".meta"))
    assert channel_electrodes(meta) == list(range(8))
    banks = "".join(f"({channel} 1 0 500 250 1)" for channel in range(384))
    saved = {"snsSaveChanSubset": "2:3,5,768", "snsApLfSy": "3,0,1"}
    second = {**meta, **saved, "imroTbl": f"(0,384){banks}"}
    assert channel_electrodes(second) == [386, 387, 389]
    with pytest.raises(DamagedRecordingError, match="which electrodes"):
        channel_electrodes({**meta, "imroTbl": "(0,384)(x)"})


@pytest.mark.parametrize(
    ("table", "electrodes"),
    [
        ("(0,3)(0 2 0 500 250 1)(1 0 0 500 250 1)(2 1 0 500 250 1)", [768, 1, 386]),
        ("(NP2014,3)(0 0 1 0 384)(1 3 0 0 1)(2 1 3 0 1279)", [384, 3841, 2559]),
        ("(24,3)(0 0 0 0 0)(1 1 0 0 1)(2 3 0 0 5)", [0, 1281, 3845]),
        ("(2003,3)(0 1 0 0)(1 2 0 511)(2 4 0 900)", [0, 511, 900]),
    ],
)
def test_the_electrodes_of_other_probes_are_read(table: str, electrodes: list[int]) -> None:
    meta = {"imDatPrb_pn": "NP2014", "snsApLfSy": "3,0,1", "imroTbl": table}
    for subset in ("all", "0:2,3"):
        assert channel_electrodes({**meta, "snsSaveChanSubset": subset}) == electrodes
    with pytest.raises(DamagedRecordingError, match="2 channels in snsSaveChanSubset, and 3 in"):
        channel_electrodes({**meta, "snsSaveChanSubset": "0:1,3"})


@pytest.mark.parametrize(
    "table",
    ["(9999,3)(0 0 0 0 0)", "(NP9,3)(0 0 0 0 0)", "(1110,2,0,500,250,1)(0 0 0)", "(24,3)(0 0)"],
)
def test_an_unknown_table_of_electrodes_is_refused(table: str) -> None:
    meta = {"imDatPrb_pn": "NP1110", "snsSaveChanSubset": "all", "imroTbl": table}
    with pytest.raises(DamagedRecordingError, match=r"~imroTbl=.* has a form that is unknown"):
        channel_electrodes(meta)


def test_notes_that_windows_wrote_are_read(tmp_path: Path) -> None:
    path = write(tmp_path).with_suffix(".meta")
    path.write_bytes(path.read_bytes().replace(b"userNotes=", b"userNotes=5 \xb5m") + b"\r\n")
    assert read_meta(path)["userNotes"] == "5 µm"


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one"), write(tmp_path / "other")
    assert one.read_bytes() == other.read_bytes()
    assert one.with_suffix(".meta").read_bytes() == other.with_suffix(".meta").read_bytes()
    verify(one, read_meta(one.with_suffix(".meta")))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-18])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"imec0\.ap\.bin has \d+ bytes; its \.meta says \d+"),
        (flip, r"imec0\.ap\.bin has the SHA-1 [0-9A-F]{40}; its \.meta says [0-9A-F]{40}"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    binary = write(tmp_path)
    damage(binary)
    with pytest.raises(DamagedRecordingError, match=message):
        verify(binary, read_meta(binary.with_suffix(".meta")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nSavedChans=9\nimSampRate", r"line 2: expected key=value"),
        ("nSavedChans=9\n", r"no line imSampRate="),
        ("", r"no line nSavedChans="),
    ],
)
def test_a_meta_that_is_not_whole_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "half.meta"
    path.write_text(text)
    with pytest.raises(DamagedRecordingError, match=rf"half\.meta.*{message}"):
        read_meta(path)
