"""Delivery: accepted sortings as files in the format NWB, with the findings of validators."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid5

import numpy as np

import dj_dagster as dj
from pipelines.ephys.quality import QualityMetrics
from pipelines.ephys.recording import RawEphys
from pipelines.ephys.session import EphysSession, ProbeInsertion, Subject
from pipelines.ephys.sorting import SpikeSorting, electrodes_of
from pipelines.ephys.toolbox import needed
from pipelines.ephys.verdict import Verdict, judged

schema = dj.Schema("ephys_delivery")

EXTRA = "nwb"

_IDS = UUID("6f0d2b53-6c0b-4c0e-9f9a-3b8c5a3d1e77")
"""The namespace of the ids of files' objects."""


@schema
class NWBFile(dj.Computed):
    definition = """
    # the accepted units of a sorting, as a file for archives
    -> QualityMetrics
    -> Verdict
    ---
    unit_count : int32
    finding_count : int32
    nwb : <object@deliveries>
    """

    class Finding(dj.Part):
        definition = """
        # what pynwb and nwbinspector find in the file
        -> master
        finding : int16
        ---
        importance : varchar(32)
        check_name : varchar(64)
        message : varchar(1000)
        """

    @property
    def key_source(self) -> Any:
        """The sortings whose present units are accepted."""
        return QualityMetrics.proj() & (judged() & "accepted").proj()

    def make(self, key: dict[str, Any]) -> None:
        digest = (SpikeSorting & key).fetch1("units_digest")
        with repeatable_ids(f"{key} {digest}"):
            content = nwb_content(key)
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"{content.identifier}.nwb"
            with needed("pynwb", EXTRA).NWBHDF5IO(path, "w") as file:
                file.write(content)
            findings = list(nwb_findings(path))
            self.insert1(
                {
                    **key,
                    "unit_count": len(content.units) if content.units is not None else 0,
                    "finding_count": len(findings),
                    "nwb": path,
                }
            )
        self.Finding.insert(
            {**key, "finding": number, **finding} for number, finding in enumerate(findings)
        )


@contextmanager
def repeatable_ids(name: str) -> Generator[None]:
    """Give the objects of a file that are made inside the block ids that follow from a name.

    Otherwise they are random, and a file that is made again of equal rows differs.
    """
    containers = needed("hdmf.container", EXTRA)
    random, numbers = containers.uuid4, count()
    containers.uuid4 = lambda: uuid5(_IDS, f"{name} {next(numbers)}")
    try:
        yield
    finally:
        containers.uuid4 = random


def nwb_content(key: dict[str, Any]) -> Any:
    """Return the session, the probe and the accepted units of a sorting, as pynwb has them."""
    pynwb = needed("pynwb", EXTRA)
    insertion = (ProbeInsertion * EphysSession * Subject & key).fetch1()
    verdict = (Verdict & key).fetch1()
    sorter = (SpikeSorting & key).fetch1("sorter_version")
    started = insertion["session_datetime"].replace(tzinfo=UTC)
    number = insertion["insertion_number"]
    content = pynwb.NWBFile(
        session_description=insertion["session_notes"] or f"run {insertion['run_name']}",
        identifier=f"{insertion['run_name']}_imec{number}_set{key['paramset_idx']}",
        session_start_time=started,
        # Not the time of writing, by which equal results would be different files.
        file_create_date=started,
        session_id=insertion["run_name"],
        keywords=["Neuropixels", "spike sorting"],
        notes=f"Accepted by {verdict['judged_by']}. {verdict['verdict_reason']}".strip(),
        source_script=f"SpikeInterface {sorter}",
        source_script_file_name="pipelines/ephys/sorting.py",
    )
    content.subject = pynwb.file.Subject(
        subject_id=insertion["subject"], species=insertion["species"], sex=insertion["sex"]
    )
    _add_electrodes(content, key, insertion)
    _add_units(content, key)
    return content


def accepted_units(key: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the units of a sorting that its verdict accepts, with their metrics."""
    otherwise = (Verdict.Unit & key).to_dicts()
    refused = [each["unit"] for each in otherwise if not each["unit_accepted"]]
    rows = (SpikeSorting.Unit * QualityMetrics.Unit & key).to_dicts(order_by="unit")
    return [row for row in rows if row["unit"] not in refused]


def nwb_findings(path: Path) -> Iterator[dict[str, str]]:
    """Yield the errors of a file, and the suggestions to improve it."""
    for error in needed("pynwb", EXTRA).validate(path=str(path)):
        yield _finding("PYNWB_VALIDATION", getattr(error, "name", "schema"), str(error))
    for found in needed("nwbinspector", EXTRA).inspect_nwbfile(nwbfile_path=str(path)):
        yield _finding(found.importance.name, found.check_function_name, found.message)


def _finding(importance: str, check: str, message: str) -> dict[str, str]:
    return {"importance": importance, "check_name": check[:64], "message": message[:1000]}


def _add_electrodes(content: Any, key: dict[str, Any], insertion: dict[str, Any]) -> None:
    name = f"imec{insertion['insertion_number']}"
    device = content.create_device(
        name=name,
        description=f"{insertion['probe_type']}, serial number {insertion['probe_serial']}",
    )
    electrodes = electrodes_of(key)
    groups = {
        shank: content.create_electrode_group(
            name=f"shank{shank}_of_{name}",
            description="the electrodes that were recorded, counted from the tip",
            location="unknown",
            device=device,
        )
        for shank in sorted({electrode["shank"] for electrode in electrodes})
    }
    for electrode in electrodes:
        content.add_electrode(
            group=groups[electrode["shank"]],
            location="unknown",
            rel_x=electrode["x_um"],
            rel_y=electrode["y_um"],
        )


_COLUMNS = {
    "firing_rate": "spikes a second",
    "presence_ratio": "part of the recording in which it fires",
    "snr": "amplitude over noise",
    "isi_violation": "spikes within the refractory period, as a ratio of rates",
}


def _add_units(content: Any, key: dict[str, Any]) -> None:
    rate, duration = (RawEphys & key).fetch1("sampling_rate", "recording_duration")
    places = [electrode["electrode"] for electrode in electrodes_of(key)]
    for name, description in _COLUMNS.items():
        content.add_unit_column(name=name, description=description)
    for row in accepted_units(key):
        content.add_unit(
            id=row["unit"],
            spike_times=row["spike_times"],
            obs_intervals=np.array([[0.0, duration]]),
            electrodes=[places.index(row["electrode"])],
            waveform_mean=row["template"][:, [places.index(row["electrode"])]] * 1e-6,
            **{name: np.nan if row[name] is None else row[name] for name in _COLUMNS},
        )
    if content.units is not None:
        content.units.waveform_rate = rate
        content.units.resolution = 1 / rate
