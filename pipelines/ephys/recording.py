"""Raw recordings, read from the files of SpikeGLX after these were verified."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import dj_dagster as dj
from pipelines.ephys.session import ProbeInsertion
from pipelines.ephys.spikeglx import meta_text, read_meta, verify
from pipelines.ephys.stores import RAW, local_copies
from pipelines.ephys.toolbox import repeatable, spikeinterface

schema = dj.Schema("ephys_recording")


@schema
class RawEphys(dj.Imported):
    definition = """
    # a verified recording of one probe
    -> ProbeInsertion
    ---
    recording_datetime : datetime
    recording_duration : float64     # s
    sampling_rate : float64          # Hz
    channel_count : int16
    noise_uv : float64               # median over the channels, in the band of action potentials
    ap_bin : <filepath@raw>          # size and SHA-1 are those that the .meta has
    ap_meta : <filepath@raw>
    """

    def make(self, key: dict[str, Any]) -> None:
        binary = (ProbeInsertion & key).fetch1("ap_file")
        meta = binary.removesuffix(".bin") + ".meta"
        store = self.connection.stores.get(RAW)
        files = [dj.ObjectRef(path, store) for path in (meta, binary)]
        with local_copies(*files) as (meta_file, binary_file):
            said = read_meta(meta_file)
            verify(binary_file, said)
            with read_ap(binary_file) as recording:
                row = {
                    "recording_datetime": datetime.fromisoformat(said["fileCreateTime"]),
                    "recording_duration": recording.get_total_duration(),
                    "sampling_rate": recording.get_sampling_frequency(),
                    "channel_count": recording.get_num_channels(),
                    "noise_uv": _noise(recording),
                }
            self.insert1({**key, **row, "ap_bin": binary, "ap_meta": meta})


@contextmanager
def raw_recording(key: dict[str, Any]) -> Generator[Any]:
    """Yield the recording of a key of RawEphys, for SpikeInterface.

    Raises
    ------
    MissingExternalFile, ChecksumError
        If its files are missing, or are not those that were verified when the key was made.
    """
    meta, binary = (RawEphys & key).fetch1("ap_meta", "ap_bin")
    with local_copies(meta, binary) as (_, binary_file), read_ap(binary_file) as recording:
        yield recording


@contextmanager
def recording_of(key: dict[str, Any]) -> Generator[Any]:
    """Yield the filtered recording of a key of RawEphys, for SpikeInterface.

    It is filtered once, into a file, as sorters and metrics read it several times.
    """
    with raw_recording(key) as recording, TemporaryDirectory() as folder:
        yield preprocessed(recording).save(folder=Path(folder) / "filtered")


@contextmanager
def read_ap(binary: Path) -> Generator[Any]:
    """Yield the recording of an ``.ap.bin`` file, whose ``.meta`` is beside it.

    Raises
    ------
    ValueError
        If these are not files of SpikeGLX.
    """
    stream = ".".join(binary.name.removesuffix(".bin").split(".")[-2:])
    with TemporaryDirectory() as folder:
        # SpikeInterface reads all recordings of a folder, and takes each .meta for UTF-8.
        alone = Path(folder) / binary.name
        alone.symlink_to(binary.absolute())
        meta = meta_text(binary.with_suffix(".meta"))
        alone.with_suffix(".meta").write_text(meta, encoding="utf-8")
        yield spikeinterface().read_spikeglx(folder, stream_id=stream)


def preprocessed(recording: Any) -> Any:
    """Return a recording for sorters: samples aligned, band-passed, common noise removed."""
    si = spikeinterface()
    aligned = si.phase_shift(recording)
    filtered = si.bandpass_filter(aligned, freq_min=300.0, freq_max=6000.0, dtype="float32")
    return si.common_reference(filtered, reference="global", operator="median")


def _noise(recording: Any) -> float:
    with repeatable():
        levels = spikeinterface().get_noise_levels(preprocessed(recording), return_in_uV=True)
    return float(np.median(levels))
