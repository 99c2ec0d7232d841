"""The ephys pipeline in a folder of its own: entering, damage, sorting, metrics, ground truth.

What needs SpikeInterface is marked and left out where the extra is not installed.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dj_dagster.errors import ChecksumError, ConfigurationError, InvalidValueError
from pipelines.ephys.spikeglx import DamagedRecordingError
from pipelines.ephys.toolbox import needed
from tests.ephys.recordings import (
    CUT,
    LOST,
    STATIC,
    demo_key,
    insert_raw,
    look,
    noise_key,
    write_run,
)


def test_a_run_is_entered_with_its_probe_and_channels(lab: Any) -> None:
    run = write_run(lab.folder, 1).parents[1]
    assert lab.ingest.is_complete(run)
    assert "Entered: x1/x1_1_g0" in look(lab)
    key = {"subject": "x1", "session_datetime": datetime(2025, 1, 1, 9)}
    session = (lab.session.EphysSession & key).fetch1()
    assert session["run_name"] == "x1_1_g0"
    insertion = (lab.session.ProbeInsertion & key).fetch1()
    assert (insertion["probe_type"], insertion["probe_serial"]) == ("NP1000", "7")
    assert (lab.folder / insertion["ap_file"]).is_file()
    electrodes = lab.sorting.electrodes_of(insertion)
    assert [row["electrode"] for row in electrodes] == list(range(16))
    assert [(row["x_um"], row["y_um"]) for row in electrodes][:3] == [(16, 0), (48, 0), (0, 20)]
    assert not lab.session.GroundTruth & key


def test_a_run_without_its_meta_is_not_complete(lab: Any) -> None:
    binary = write_run(lab.folder, 2)
    meta = binary.with_suffix(".meta")
    text = meta.read_text()
    meta.unlink()
    assert "Quiet, not complete: x1/x1_2_g0" in look(lab)
    meta.write_text(text.replace("=NP1000", "=NP9999"))
    said = look(lab)
    assert "Not readable: x1/x1_2_g0" in said
    assert "'NP9999' is not in the table Probe" in said
    meta.write_text(text.replace("userNotes=", f"userNotes={300 * 'n'}"))
    look(lab)
    session = lab.session.EphysSession & {"run_name": "x1_2_g0"}
    assert session.fetch1("session_notes") == 300 * "n"


def test_a_meta_without_its_bin_is_waited_for(lab: Any) -> None:
    binary = write_run(lab.folder, 101)
    other = binary.with_name(binary.name.replace("imec0", "imec1"))
    other.with_suffix(".meta").write_text(binary.with_suffix(".meta").read_text())
    assert "Quiet, not complete: x1/x1_101_g0" in look(lab)
    other.write_bytes(binary.read_bytes())
    look(lab)
    probes = lab.session.ProbeInsertion & {"session_datetime": noise_key(101)["session_datetime"]}
    assert probes.to_arrays("insertion_number").tolist() == [0, 1]


def test_two_files_of_a_probe_are_refused(lab: Any) -> None:
    binary = write_run(lab.folder, 102)
    for file in (binary, binary.with_suffix(".meta")):
        shutil.copy(file, file.with_name(file.name.replace("_t0", "_t1")))
    assert "several files of probe 0" in look(lab)
    assert not lab.session.EphysSession & {"run_name": "x1_102_g0"}


@pytest.mark.parametrize(
    ("day", "give"),
    [
        (103, lambda run: run),
        (107, lambda run: f"{run.parent.name}/{run.name}"),
        (108, os.path.relpath),
    ],
)
def test_a_renamed_run_is_named_and_can_be_followed(lab: Any, day: int, give: Any) -> None:
    run = write_run(lab.folder, day).parents[1]
    look(lab)
    key = noise_key(day)
    renamed = run.rename(run.with_name(f"new{day}_g0"))
    said = look(lab)
    assert f"x1/new{day}_g0 (" in said.partition("Not readable")[2]
    assert f"entered from x1/x1_{day}_g0/" in said
    with pytest.raises(InvalidValueError, match=r"There is no folder new_g0 in .*recordings"):
        lab.ingest.relocate("new_g0")
    lab.ingest.relocate(give(renamed))
    file = (lab.session.ProbeInsertion & key).fetch1("ap_file")
    assert file.startswith(f"x1/new{day}_g0/")
    assert (lab.folder / file).is_file()
    said = look(lab)
    assert f"x1/new{day}_g0" in said.partition("There already, left as they are:")[2]
    assert f"new{day}_g0" not in said.partition("Not readable")[2]


def test_a_probe_that_comes_later_joins_the_session(lab: Any) -> None:
    """The run is complete with one probe; the other one started a second before it."""
    binary = write_run(lab.folder, 104)
    look(lab)
    other = binary.with_name(binary.name.replace("imec0", "imec1"))
    shutil.copy(binary, other)
    meta = binary.with_suffix(".meta").read_text()
    started = noise_key(104)["session_datetime"]
    earlier = (started - timedelta(seconds=1)).isoformat()
    meta = meta.replace(started.isoformat(), earlier).replace("imDatPrb_sn=7", "imDatPrb_sn=8")
    other.with_suffix(".meta").write_text(meta)
    for state in ("Entered: ", "There already, "):
        assert "x1/x1_104_g0" in look(lab).partition(state)[2].partition(";")[0]
    rows = (lab.session.ProbeInsertion & 'ap_file LIKE "x1/x1_104_g0/%"').to_dicts(order_by="KEY")
    assert [(row["probe_serial"], row["session_datetime"]) for row in rows] == [
        ("7", started),
        ("8", started),
    ]
    assert len(lab.session.EphysSession & {"run_name": "x1_104_g0"}) == 1


def test_a_run_that_was_moved_or_replaced_is_not_another_session(lab: Any) -> None:
    run = write_run(lab.folder, 105).parents[1]
    look(lab)
    moved = run.rename(lab.folder / "x1" / run.name.replace("x1", "x2"))
    (lab.folder / "x2").mkdir()
    moved = moved.rename(lab.folder / "x2" / moved.name)
    said = look(lab)
    assert "x2/x2_105_g0 (" in said.partition("Not readable")[2]
    assert "probe 7 that is in the session of x1" in said
    with pytest.raises(InvalidValueError, match="move it back"):
        lab.ingest.relocate(moved)
    shutil.rmtree(lab.folder / "x2")
    write_run(lab.folder, 106).parents[1].rename(run)
    (folder,) = run.iterdir()
    folder = folder.rename(folder.with_name(folder.name.replace("_106_", "_105_")))
    for file in folder.iterdir():
        file.rename(file.with_name(file.name.replace("_106_", "_105_")))
    said = look(lab)
    assert "the files of its run began at 2025-04-16" in said
    assert not lab.session.EphysSession & {"subject": "x2"}


def test_a_damaged_recording_is_one_failed_key_with_its_reason(lab: Any) -> None:
    binary = write_run(lab.folder, 3)
    os.truncate(binary, 1000)
    look(lab)
    key = noise_key(3)
    with pytest.raises(DamagedRecordingError, match=r"has 1000 bytes; its \.meta says 102000"):
        lab.recording.RawEphys().make(key)
    assert not lab.recording.RawEphys & key


@pytest.mark.parametrize("name", ["ap.bin", "ap.meta", "ground_truth.npz"])
def test_a_file_that_was_exchanged_after_it_was_verified_is_not_read(lab: Any, name: str) -> None:
    day = 110 + len(name)
    binary = write_run(lab.folder, day)
    np.savez(binary.parents[1] / "ground_truth.npz", neuron_0=np.array([3, 5]))
    look(lab)
    insert_raw(lab, day, binary)
    key = noise_key(day)
    assert lab.quality.true_spikes(key)[0].tolist() == [3, 5]
    (file,) = binary.parents[1].rglob(f"*{name}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    read = lab.quality.true_spikes if name.endswith("npz") else lab.recording.recording_of
    with pytest.raises(ChecksumError, match=file.name), ExitStack() as stack:
        stack.enter_context(read(key))


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(ConfigurationError, match=r"needs the package spikes_9: .*\[ephys\]"):
        needed("spikes_9")


def test_a_preset_is_added_once_and_by_its_name(lab: Any) -> None:
    sets = lab.paramset.ParamSet
    lab.paramset.add_preset("kilosort4")
    lab.paramset.add_preset("kilosort4")
    assert (sets & {"sorter": "kilosort4"}).fetch1("paramset_idx") == 4
    (sets & {"sorter": "kilosort4"}).delete(prompt=False)
    with pytest.raises(KeyError, match="tridesclous2_motion"):
        lab.paramset.add_preset("kilosort99")


@pytest.mark.ephys
def test_the_true_neurons_are_found(sorted_lab: Any) -> None:
    comparison = sorted_lab.quality.GroundTruthComparison
    for number in (STATIC, LOST):
        row = (comparison & demo_key(sorted_lab, number)).fetch1()
        assert row["true_count"] == 5
        assert row["found_count"] >= 4
        assert row["mean_accuracy"] > 0.85
        found = (comparison.Neuron & row & "accuracy >= 0.8").to_dicts()
        units = sorted_lab.sorting.SpikeSorting.Unit & demo_key(sorted_lab, number)
        assert {neuron["best_unit"] for neuron in found} <= {unit["unit"] for unit in units}


@pytest.mark.ephys
def test_units_are_where_they_were_put(sorted_lab: Any) -> None:
    """The depth of a unit's largest electrode is near that of its neuron."""
    unit = (sorted_lab.sorting.SpikeSorting.Unit & demo_key(sorted_lab, STATIC)).to_dicts()[0]
    assert unit["template"].shape[1] == 16
    assert unit["amplitude_uv"] == pytest.approx(np.ptp(unit["template"], axis=0).max())
    assert unit["spike_count"] == len(unit["spike_times"])
    electrode = (sorted_lab.probe.Probe.Electrode & unit).fetch1()
    assert unit["unit_depth_um"] == electrode["y_um"]
    assert 0 < unit["spike_times"][0] < unit["spike_times"][-1] < 20


@pytest.mark.ephys
def test_metrics_tell_the_neuron_that_fell_silent(sorted_lab: Any) -> None:
    key = demo_key(sorted_lab, LOST)
    neuron = {"neuron": sorted_lab.acquisition.demo_session(LOST).plan.lost_unit}
    best = (sorted_lab.quality.GroundTruthComparison.Neuron & key & neuron).fetch1("best_unit")
    metrics = sorted_lab.quality.QualityMetrics.Unit & key
    assert (metrics & {"unit": best}).fetch1("presence_ratio") == 0.5
    others = (metrics & f"unit != {best}").to_arrays("presence_ratio")
    assert np.median(others) == 1.0
    # Of so few spikes it cannot be told, which is null and not a number.
    assert (
        set(metrics.to_arrays("amplitude_cutoff")) == {None}
        or np.isnan(metrics.to_arrays("amplitude_cutoff").astype(float)).all()
    )


@pytest.mark.ephys
def test_short_probes_are_left_out_of_motion_correction(sorted_lab: Any) -> None:
    sorting = sorted_lab.sorting.SpikeSorting
    assert set((sorting & "subject != 'x1'").to_arrays("paramset_idx")) == {1}
    assert sorting.progress("subject != 'x1'")[0] == 0
    assert (sorted_lab.paramset.ParamSet & "paramset_idx = 2").fetch1("min_channels") > 16


def test_a_sorters_folder_is_left_without_times(lab: Any, tmp_path: Path) -> None:
    inner = tmp_path / "analyzer"
    inner.mkdir()
    (tmp_path / "log.json").write_text(
        '{"datetime": "2026-11-29T21:22:44", "run_time": 7.01,\n "sorter_version": "1.0"}'
    )
    (inner / "recording.json").write_text('{"folder_path": "../../tmphqiy45r9/filtered", "n": 1}')
    (inner / "recording.pickle").write_bytes(b"tmphqiy45r9")
    (inner / "run_times.json").write_text('{"detect": 0.1}')
    lab.sorting.without_times(tmp_path)
    assert files_in(tmp_path) == {
        "log.json": b'{"datetime": null, "run_time": null,\n "sorter_version": "1.0"}',
        "analyzer/recording.json": b'{"folder_path": "filtered", "n": 1}',
    }


def files_in(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.mark.ephys
def test_sorting_again_gives_the_same_units(sorted_lab: Any, tmp_path: Path) -> None:
    key = demo_key(sorted_lab, STATIC)
    wanted = (sorted_lab.sorting.SpikeSorting & key).fetch1("units_digest")
    # Whoever draws random numbers meanwhile, and from whatever they begin.
    np.random.seed(123)
    with sorted_lab.recording.recording_of(key) as recording:
        units = sorted_lab.sorting.run_sorter("tridesclous2", recording, {}, tmp_path / "again")
    sorted_lab.sorting.without_times(tmp_path / "again")
    trains = [units.get_unit_spike_train(unit) for unit in units.unit_ids]
    assert sorted_lab.sorting.digest(trains) == wanted
    output = (sorted_lab.sorting.SpikeSorting & key).fetch1("output")
    stored = files_in(output.verified_path(tmp_path / "stored"))
    assert len(stored) > 50
    assert files_in(tmp_path / "again") == stored
    # What it fixed is free again.
    assert np.random.default_rng().integers(2**62) != np.random.default_rng().integers(2**62)


@pytest.mark.ephys
def test_spyking_circus_2_is_a_parameter_set(sorted_lab: Any) -> None:
    """It runs without torch, and finds the neurons of a probe that does not move."""
    sets, key = sorted_lab.paramset.ParamSet, demo_key(sorted_lab, STATIC)
    sorted_lab.paramset.add_preset("spykingcircus2")
    chosen = {**key, "paramset_idx": 3}
    for table in (sorted_lab.sorting.SpikeSorting, sorted_lab.quality.GroundTruthComparison):
        table.populate(chosen)
    row = (sorted_lab.quality.GroundTruthComparison & chosen).fetch1()
    assert row["found_count"] >= 4
    assert row["mean_accuracy"] > 0.85
    assert sorted_lab.summaries.verdict_counts()["3 spykingcircus2"]["waiting"] == 1
    (sets & {"paramset_idx": 3}).delete(prompt=False)


@pytest.mark.ephys
def test_a_cut_file_is_repaired_and_its_key_made(sorted_lab: Any) -> None:
    raw = sorted_lab.recording.RawEphys
    key = demo_key(sorted_lab, CUT)
    (job,) = (raw().jobs.errors & key).to_dicts()
    assert job["error_message"].startswith("DamagedRecordingError: m2_20260307_g0_t0.imec0.ap.bin")
    assert [s.number for s in sorted_lab.acquisition.repair(sorted_lab.folder)] == [CUT]
    assert list(sorted_lab.acquisition.repair(sorted_lab.folder)) == []
    (folder,) = sorted_lab.acquisition.demo_session(CUT).folder(sorted_lab.folder).glob("*_imec0")
    (meta,) = folder.glob("*.ap.meta")
    # As Windows writes it; and beside it a recording that cannot be read.
    meta.write_bytes(meta.read_bytes().replace(b"userNotes=", b"userNotes=\xb5m "))
    others = [folder / f"other_g0_t0.imec1.ap.{end}" for end in ("bin", "meta")]
    for other in others:
        other.write_text("")
    raw.populate(key)
    for other in others:
        other.unlink()
    row = (raw & key).fetch1()
    assert (row["recording_duration"], row["channel_count"]) == (20.0, 16)
    assert 2 < row["noise_uv"] < 8
    assert row["ap_bin"].verify()


@pytest.mark.ephys
@pytest.mark.parametrize(
    ("sorter", "message"),
    [
        (
            "kilosort4",
            r"sorter kilosort4 is not installed here: pip install 'dj-dagster\[kilosort\]",
        ),
        ("kilosort", "sorter kilosort is not installed here: see SpikeInterface"),
        ("tridesclou", "knows no sorter 'tridesclou': correct it in ParamSet"),
    ],
)
def test_a_sorter_that_is_absent_is_named(
    lab: Any, sorter: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        lab.sorting.run_sorter(sorter, None, {}, tmp_path / "none")


@pytest.mark.ephys
def test_electrodes_are_where_the_maker_says(lab: Any) -> None:
    tools = import_module("probeinterface.neuropixels_tools")
    probe = tools.build_neuropixels_probe("NP1000")
    rows = (lab.probe.Probe.Electrode & {"probe_type": "NP1000"}).to_dicts(order_by="electrode")
    positions = np.array([(row["x_um"], row["y_um"]) for row in rows])
    assert np.array_equal(positions, probe.contact_positions)


@pytest.mark.ephys
def test_spikeinterface_reads_what_was_written(sorted_lab: Any) -> None:
    session = sorted_lab.acquisition.demo_session(STATIC)
    folder = next(session.folder(sorted_lab.folder).glob("*_imec0"))
    si = sorted_lab.toolbox.spikeinterface()
    streams = {name: si.read_spikeglx(folder, stream_id=name) for name in ("imec0.ap", "imec0.lf")}
    ap, lf = streams["imec0.ap"], streams["imec0.lf"]
    assert (ap.get_num_channels(), ap.get_sampling_frequency()) == (16, 30000.0)
    assert set(ap.get_channel_gains()) == {2.34375}
    assert (lf.get_num_samples(), set(lf.get_channel_gains())) == (50000, {4.6875})
    rows = sorted_lab.sorting.electrodes_of(demo_key(sorted_lab, STATIC))
    assert ap.get_channel_locations().tolist() == [[row["x_um"], row["y_um"]] for row in rows]
    # Two channels each are sampled at the same moment, a thirteenth of a sample later.
    assert np.allclose(ap.get_property("inter_sample_shift")[:6] * 13, [0, 0, 1, 1, 2, 2])


@pytest.mark.ephys
def test_recording_again_gives_the_same_bytes(sorted_lab: Any, tmp_path: Path) -> None:
    session = sorted_lab.acquisition.demo_session(LOST)
    again = sorted_lab.acquisition.record(session, tmp_path)
    for file in (path for path in again.rglob("*") if path.suffix in (".bin", ".meta")):
        first = session.folder(sorted_lab.folder) / file.relative_to(again)
        assert file.read_bytes() == first.read_bytes()


@pytest.mark.ephys
@pytest.mark.large
def test_a_probe_that_moves_needs_its_motion_corrected(sorted_lab: Any) -> None:
    session = sorted_lab.acquisition.demo_session(2)
    sorted_lab.acquisition.record(session, sorted_lab.folder)
    look(sorted_lab)
    key = demo_key(sorted_lab, 2)
    sorted_lab.recording.RawEphys.populate(key)
    sorted_lab.sorting.SpikeSorting.populate(key)
    sorted_lab.quality.GroundTruthComparison.populate(key)
    rows = (sorted_lab.quality.GroundTruthComparison & key).to_dicts(order_by="paramset_idx")
    plain, corrected = (row["found_count"] / row["true_count"] for row in rows)
    assert plain < 0.6 < 0.9 <= corrected
