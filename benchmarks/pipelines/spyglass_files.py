"""A session's NWB file as Spyglass expects one: a probe of four contacts, ten seconds of noise."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pynwb
from ndx_franklab_novela import (
    CameraDevice,
    DataAcqDevice,
    NwbElectrodeGroup,
    Probe,
    Shank,
    ShanksElectrode,
)

RATE = 20_000
SECONDS = 10
CONTACTS = 4
START = datetime(2024, 5, 1, 12, tzinfo=UTC)


def write_session(path: Path) -> None:
    """Write the file."""
    file = pynwb.NWBFile(
        session_description="A rat on a track",
        identifier="sess",
        session_start_time=START,
        timestamps_reference_time=datetime.fromtimestamp(0, UTC),
        session_id="20240501",
        lab="Müller Lab",
        institution="University of Zürich",
        experimenter=["Ann Lee", "Bo Ek"],
        experiment_description="Running",
    )
    file.subject = pynwb.file.Subject(
        subject_id="rat é", species="Rattus norvegicus", sex="F", genotype="wt", description="a rat"
    )
    _add_devices(file)
    times = START.timestamp() + np.arange(RATE * SECONDS) / RATE
    _add_recording(file, times)
    _add_epochs(file, times)
    _add_behaviour(file, times)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)


def _add_devices(file: pynwb.NWBFile) -> None:
    file.add_device(
        DataAcqDevice(
            name="dataacq_device0", system="SpikeGadgets", amplifier="Intan", adc_circuit="Intan"
        )
    )
    model = pynwb.device.DeviceModel(name="model", manufacturer="maker")
    file.add_device_model(model)
    file.add_device(
        CameraDevice(
            name="camera_device 1",
            meters_per_pixel=0.002,
            camera_name="overhead",
            lens="wide",
            model=model,
        )
    )


def _add_recording(file: pynwb.NWBFile, times: np.ndarray) -> None:
    probe = Probe(
        name="probe 0",
        id=0,
        probe_type="tetrode_12.5",
        units="um",
        probe_description="four contacts",
        contact_side_numbering=False,
        contact_size=12.5,
    )
    shank = Shank(name="0")
    for contact in range(CONTACTS):
        shank.add_shanks_electrode(
            ShanksElectrode(name=str(contact), rel_x=float(contact), rel_y=0.0, rel_z=0.0)
        )
    probe.add_shank(shank)
    file.add_device(probe)
    group = NwbElectrodeGroup(
        name="0",
        description="four contacts",
        location="CA1",
        device=probe,
        targeted_location="CA1",
        targeted_x=0.0,
        targeted_y=0.0,
        targeted_z=0.0,
        units="mm",
    )
    file.add_electrode_group(group)
    for column in ("probe_shank", "probe_electrode", "bad_channel", "ref_elect_id"):
        file.add_electrode_column(column, column)
    for contact in range(CONTACTS):
        file.add_electrode(
            location="CA1",
            group=group,
            group_name="0",
            x=0.1,
            y=float(contact),
            z=0.0,
            imp=1.5,
            filtering="none",
            probe_shank=0,
            probe_electrode=contact,
            bad_channel=contact == 3,
            ref_elect_id=0,
        )
    region = file.create_electrode_table_region(list(range(CONTACTS)), "all")
    noise = np.random.default_rng(1).integers(-500, 500, (len(times), CONTACTS)).astype(np.int16)
    file.add_acquisition(
        pynwb.ecephys.ElectricalSeries(
            name="e-series",
            data=noise,
            electrodes=region,
            timestamps=times,
            conversion=1e-6,
            description="recording",
            comments="none",
        )
    )


def _add_epochs(file: pynwb.NWBFile, times: np.ndarray) -> None:
    middle = times[len(times) // 2]
    file.add_epoch(start_time=times[0], stop_time=middle, tags=["01_s1"])
    file.add_epoch(start_time=middle, stop_time=times[-1], tags=["02_r1"])
    tasks = file.create_processing_module("tasks", "the tasks of the session")
    for number, name in enumerate(("sleep", "run"), start=1):
        table: Any = pynwb.core.DynamicTable(name=f"task_{number - 1}", description=name)
        for column in (
            "task_name",
            "task_description",
            "task_environment",
            "camera_id",
            "task_epochs",
        ):
            table.add_column(name=column, description=column)
        table.add_row(
            task_name=name,
            task_description=f"to {name}",
            task_environment="box",
            camera_id=[1],
            task_epochs=[number],
        )
        tasks.add(table)


def _add_behaviour(file: pynwb.NWBFile, times: np.ndarray) -> None:
    behaviour = file.create_processing_module("behavior", "behaviour")
    events = pynwb.behavior.BehavioralEvents(name="behavioral_events")
    events.add_timeseries(
        pynwb.TimeSeries(
            name="Poke",
            data=np.array([0, 1, 0, 1]),
            unit="n.a.",
            description="Din1",
            timestamps=times[[10, 20000, 30000, 40000]],
        )
    )
    behaviour.add(events)
    position = pynwb.behavior.Position(name="position")
    for number, part in enumerate(np.array_split(times[::667], 2)):
        place = np.column_stack([np.cos(part), np.sin(part), np.cos(part) + 0.1, np.sin(part)])
        position.create_spatial_series(
            name=f"series_{number}",
            data=place,
            timestamps=part,
            conversion=0.002,
            description="xloc, yloc, xloc2, yloc2",
            reference_frame="upper left",
        )
    behaviour.add(position)
    counts = file.create_processing_module("sample_count", "sample counts")
    counts.add(
        pynwb.TimeSeries(
            name="sample_count",
            data=np.arange(len(times)),
            unit="int64",
            timestamps=times,
            description="acquisition system sample count",
        )
    )
