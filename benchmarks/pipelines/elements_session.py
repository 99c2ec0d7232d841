"""Elements: all modules, and a session from its entry to units, their quality, and cells.

Sortings and segmentations are loaded, and triggered: what Kilosort and Suite2p would compute is
then written by stand-ins, which Elements call as they call the real ones.
"""

from __future__ import annotations

import datetime
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from benchmarks.pipelines.client import (
    connect,
    import_all,
    make_by_dagster,
    modules_in,
    report,
    step,
)

ROOT = Path(os.environ["PIPELINE_FOLDER"]) / "recordings"
PACKAGES = (
    "element_lab", "element_animal", "element_session", "element_event", "element_interface",
    "element_array_ephys", "element_calcium_imaging",
)  # fmt: skip

dj = connect(custom={"database.prefix": "lab_"})

WHEN = datetime.datetime(2024, 5, 1, 12, 30)
SESSION = {"subject": "müs 1", "session_datetime": WHEN}
INSERTION = {**SESSION, "insertion_number": 0}
TASK = {**INSERTION, "paramset_idx": 0}
TRIGGERED = {**INSERTION, "paramset_idx": 1}
CURATION = {**TASK, "curation_id": 1}
SCAN = {**SESSION, "scan_id": 0}


def get_ephys_root_data_dir() -> str:
    """Return where recordings are, as the Element asks."""
    return str(ROOT)


def get_imaging_root_data_dir() -> str:
    """Return where movies are, as the Element asks."""
    return str(ROOT)


def get_image_files(scan_key: dict[str, Any], file_type: str) -> list[str]:
    """Return a scan's movie, as the Element asks."""
    folder = ROOT / get_session_directory(scan_key) / f"scan{scan_key['scan_id']}"
    return sorted(str(file) for file in folder.glob(file_type))


def get_session_directory(session_key: dict[str, Any]) -> str:
    """Return a session's folder below that, as the Element asks."""
    from element_session import session_with_datetime as session

    return (session.SessionDirectory & session_key).fetch1("session_dir")


def main() -> None:
    """Do it all, step by step."""
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        folder = Path(next(iter(spec.submodule_search_locations or ())))
        import_all(modules_in(folder, package))
    shutil.rmtree(ROOT, ignore_errors=True)
    step("all schemas are activated", _activate)
    step("a subject and a session are entered", _enter)
    step("recording and LFP by populate()", _populate_recording)
    step("a sorting is loaded", _load_sorting)
    step("a sorting is triggered", _trigger_sorting)
    step("units, waveforms and quality, ours by Dagster", _make_units)
    step("a scan by populate()", _populate_scan)
    step("a segmentation is loaded, another triggered", _process_scan)
    step("motion, cells, fluorescence and activity, ours by Dagster", _make_cells)
    step("what a report is to be about", _enter_report)
    step("an event table and trials", _enter_events)
    step("queries over all of them", _query)
    step("another session is deleted with all below", _delete)


def _activate() -> None:
    global Subject, Session, Device, Equipment, Location, SkullReference, Experimenter, User
    global Project, Source, Lab, Protocol
    from element_animal import genotyping, subject, surgery
    from element_array_ephys import ephys_acute, ephys_report, probe
    from element_calcium_imaging import imaging, scan
    from element_event import trial
    from element_lab import lab, project
    from element_session import session_with_datetime as session

    here = sys.modules[__name__]
    lab.activate("lab_lab")

    @lab.schema
    class SkullReference(dj.Lookup):
        definition = """
        skull_reference : varchar(60)
        """
        contents = zip(["Bregma", "Lambda"], strict=False)

    User = Experimenter = lab.User
    Lab, Source, Protocol, Location = lab.Lab, lab.Source, lab.Protocol, lab.Location
    Device = Equipment = lab.Device
    Project, Subject, Session = project.Project, subject.Subject, session.Session
    project.activate("lab_project", linking_module=here)
    genotyping.activate("lab_genotyping", "lab_subject", linking_module=here)
    surgery.activate("lab_surgery", "lab_subject", linking_module=here)
    session.activate("lab_session", linking_module=here)
    trial.activate("lab_trial", "lab_event", linking_module=here)
    ephys_acute.activate("lab_ephys", "lab_probe", linking_module=here)
    imaging.activate("lab_imaging", "lab_scan", linking_module=here)
    del ephys_report, probe, scan


def _enter() -> None:
    from element_animal import subject
    from element_lab import lab
    from element_session import session_with_datetime as session

    lab.Lab.insert1(("mine", "My lab", "Street 1", "UTC+1"))
    lab.User.insert([("ann", "ann@lab.org", "", ""), ("bob", "", "", "")])
    subject.Subject.insert1(
        {"subject": SESSION["subject"], "sex": "F", "subject_birth_date": "2024-01-31"}
    )
    session.Session.insert1(SESSION)
    session.SessionDirectory.insert1({**SESSION, "session_dir": "mus1/one"})
    session.SessionExperimenter.insert1({**SESSION, "user": "ann"})


def _populate_recording() -> None:
    from element_array_ephys import ephys_acute as ephys
    from element_array_ephys import probe

    from benchmarks.pipelines.element_files import write_recording

    write_recording(ROOT / "mus1" / "one" / "rec_g0_imec0")
    assert "neuropixels 1.0 - 3B" in probe.ProbeType.fetch("probe_type")
    ephys.ProbeInsertion.auto_generate_entries(SESSION)
    ephys.InsertionLocation.insert1(
        {**INSERTION, "skull_reference": "Bregma", "ap_location": 1.25, "ml_location": -0.5,
         "depth": -3000, "theta": None}
    )  # fmt: skip
    ephys.EphysRecording.populate()
    ephys.LFP.populate()
    assert len(ephys.LFP.Electrode()) > 0


def _load_sorting() -> None:
    from element_array_ephys import ephys_acute as ephys

    from benchmarks.pipelines.element_files import write_sorting

    write_sorting(ROOT / "mus1" / "one" / "kilosort2_0")
    ephys.ClusteringParamSet.insert_new_params(
        "kilosort2", "defaults", {"fs": 30000, "fshigh": 150.5, "Th": [10, 4], "x": None}, 0
    )
    ephys.ClusteringTask.insert1(
        {**TASK, "task_mode": "load", "clustering_output_dir": "mus1/one/kilosort2_0"}
    )
    ephys.Clustering.populate(reserve_jobs=True)
    ephys.Curation().create1_from_clustering_task(TASK)


def _trigger_sorting() -> None:
    from element_array_ephys import ephys_acute as ephys
    from element_array_ephys import readers

    from benchmarks.pipelines.element_files import write_sorting

    class Pipeline:
        """Stands for Kilosort."""

        def __init__(self, ks_output_dir: Path, params: dict[str, Any], **others: Any) -> None:
            self._folder = Path(ks_output_dir)
            assert params["Th"] == [9, 4]
            assert params["channel_ind"] is not None
            assert others["KS2ver"] == "2.0"

        def run_modules(self) -> None:
            """Write a sorting."""
            write_sorting(self._folder)

    stand_in: Any = SimpleNamespace(SGLXKilosortPipeline=Pipeline)
    sys.modules["element_array_ephys.readers.kilosort_triggering"] = stand_in
    vars(readers)["kilosort_triggering"] = stand_in
    (ROOT / "mus1" / "one" / "kilosort2_1").mkdir()
    ephys.ClusteringParamSet.insert_new_params(
        "kilosort2", "triggered", {"fs": 30000, "Th": [9, 4]}, 1
    )
    ephys.ClusteringTask.insert1(
        {**TRIGGERED, "task_mode": "trigger", "clustering_output_dir": "mus1/one/kilosort2_1"}
    )
    ephys.Clustering.populate(reserve_jobs=True)
    ephys.Curation().create1_from_clustering_task(TRIGGERED)


def _make_units() -> None:
    from element_array_ephys import ephys_acute as ephys

    tables = (ephys.CuratedClustering, ephys.WaveformSet, ephys.QualityMetrics)
    make_by_dagster(ephys.schema, *tables)
    assert len(ephys.CuratedClustering.Unit()) == 8
    assert len(ephys.WaveformSet.Waveform()) == 128
    assert len(ephys.QualityMetrics.Waveform()) == 8


def _populate_scan() -> None:
    from element_calcium_imaging import scan

    from benchmarks.pipelines.element_movies import write_scan

    write_scan(ROOT / "mus1" / "one" / "scan0")
    scan.Scan.insert1({**SCAN, "acq_software": "PrairieView", "scan_notes": "grün"})
    scan.ScanInfo.populate()
    assert (scan.ScanInfo & SCAN).fetch1("nframes") == 40


def _process_scan() -> None:
    from element_calcium_imaging import imaging

    from benchmarks.pipelines.element_movies import write_segmentation

    def run_s2p(ops: dict[str, Any], db: dict[str, Any]) -> None:
        assert ops["tau"] == 0.7
        assert db["data_path"]
        write_segmentation(Path(ops["save_path0"]) / "suite2p")

    sys.modules["suite2p"] = cast("Any", SimpleNamespace(run_s2p=run_s2p))
    write_segmentation(ROOT / "mus1" / "one" / "suite2p_0" / "suite2p")
    for number, mode in enumerate(("load", "trigger")):
        imaging.ProcessingParamSet.insert_new_params(
            "suite2p", number, mode, {"tau": 0.7, "number": number, "diameter": [12, 12]}
        )
        imaging.ProcessingTask.insert1(
            {**SCAN, "paramset_idx": number, "task_mode": mode,
             "processing_output_dir": f"mus1/one/suite2p_{number}"}
        )  # fmt: skip
    (ROOT / "mus1" / "one" / "suite2p_1").mkdir()
    imaging.Processing.populate()
    for key in imaging.Processing.fetch("KEY", order_by="paramset_idx"):
        imaging.Curation().create1_from_processing_task(key)


def _make_cells() -> None:
    from element_calcium_imaging import imaging

    tables = (imaging.MotionCorrection, imaging.Segmentation, imaging.Fluorescence,
              imaging.Activity, imaging.ProcessingQualityMetrics)  # fmt: skip
    # Masks that Suite2p has found are not classified by CaImAn.
    make_by_dagster(imaging.schema, *tables, without_rows="lab_imaging__mask_classification")
    imaging.schema.jobs.delete()
    assert len(imaging.MotionCorrection.Block()) == 8
    assert len(imaging.Segmentation.Mask()) == 10
    assert len(imaging.MaskClassification.MaskType()) == 6
    assert len(imaging.Fluorescence.Trace()) == len(imaging.Activity.Trace()) == 10


def _enter_report() -> None:
    from element_array_ephys import ephys_report

    ephys_report.QualityMetricCutoffs.insert_new_cutoffs(cutoffs_id=2, presence_ratio_minimum=0.1)
    ephys_report.QualityMetricSet.insert1({**CURATION, "cutoffs_id": 2})


def _enter_events() -> None:
    from element_event import event, trial

    event.BehaviorRecording.insert1({**SESSION, "recording_duration": 3.5})
    event.EventType.insert([["go", ""], ["stop", "the end"]])
    event.Event.insert(
        [
            {**SESSION, "event_type": kind, "event_start_time": start}
            for kind, start in (("go", 1), ("stop", 2.5), ("go", 4.25))
        ],
        allow_direct_insert=True,
    )
    trial.Trial.insert(
        [{**SESSION, "trial_id": n, "trial_start_time": n, "trial_stop_time": n + 1}
         for n in (1, 2)],
        allow_direct_insert=True,
    )  # fmt: skip


def _query() -> None:
    from element_array_ephys import ephys_acute as ephys
    from element_event import event

    units = ephys.CuratedClustering.Unit & 'cluster_quality_label = "good"'
    report(found=units.fetch("spike_count", order_by="unit").tolist())
    counts = ephys.CuratedClustering.aggr(ephys.CuratedClustering.Unit, n="count(*)", s="sum(unit)")
    report(found=[[int(row["n"]), int(row["s"])] for row in counts.fetch(as_dict=True)])
    report(found=(dj.U("event_type") & event.Event).fetch("event_type").tolist())
    gaps = dj.U("event_type").aggr(event.Event, first="min(event_start_time)")
    report(found=gaps.fetch("first", order_by="event_type").astype(float).tolist())
    metrics = ephys.QualityMetrics.Cluster.fetch("firing_rate", "snr", order_by="unit")
    report(found=[[float(value) for value in column] for column in metrics])
    report(found=[str(v) for v in ephys.InsertionLocation.fetch1("ap_location", "depth", "theta")])


def _delete() -> None:
    from element_event import event
    from element_session import session_with_datetime as session

    other = {"subject": SESSION["subject"], "session_datetime": "2024-05-02 09:00:00"}
    session.Session.insert1(other)
    session.SessionExperimenter.insert1({**other, "user": "bob"})
    event.BehaviorRecording.insert1({**other, "recording_duration": None})
    assert (session.Session & other).delete() == 1
    assert len(session.Session()) == len(session.SessionExperimenter()) == 1


if __name__ == "__main__":
    main()
