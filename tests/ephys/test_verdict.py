"""Verdicts: what waits for them, what follows from them, and which of them last."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from dj_dagster.errors import DataJointError, InvalidValueError
from dj_dagster.orchestration.headless import run_job
from tests.ephys.recordings import (
    STATIC,
    demo_key,
    insert_raw,
    look,
    noise_key,
    write_run,
)

Trains = Sequence[Sequence[int]]

SPIKES: Trains = ([300, 900, 2000], [40, 50])


def insert_sorting(lab: Any, key: dict[str, Any], folder: Path, trains: Trains = SPIKES) -> None:
    """Insert the rows that sorting a run of noise would give."""
    arrays = [np.array(train) for train in trains]
    (folder / "log.txt").write_text("sorted")
    lab.sorting.SpikeSorting.insert1(
        {
            **key,
            "unit_count": len(arrays),
            "spike_count": sum(map(len, arrays)),
            "units_digest": lab.sorting.digest(arrays),
            "sorter_version": "0",
            "output": folder,
        },
        allow_direct_insert=True,
    )
    lab.quality.QualityMetrics.insert1({**key, "median_snr": 9.0}, allow_direct_insert=True)
    for unit, train in enumerate(arrays):
        each = {**key, "unit": unit}
        lab.sorting.SpikeSorting.Unit.insert1(
            {
                **each,
                "probe_type": "NP1000",
                "electrode": unit,
                "spike_count": len(train),
                "unit_depth_um": 0.0,
                "amplitude_uv": 90.0,
                "spike_times": train / 30000,
                "template": np.zeros((90, 16), np.float32),
            },
            allow_direct_insert=True,
        )
        lab.quality.QualityMetrics.Unit.insert1({**each, "snr": 9.0}, allow_direct_insert=True)


@pytest.fixture
def key(lab: Any, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The key of a sorting without a verdict, of a run of its own."""
    day = 5 + sum(map(ord, request.node.name)) % 20
    while lab.session.EphysSession & {"session_datetime": datetime(2025, 1, day, 9)}:
        day += 1
    binary = write_run(lab.folder, day)
    look(lab)
    insert_raw(lab, day, binary)
    key = {**noise_key(day), "paramset_idx": 1}
    insert_sorting(lab, key, tmp_path)
    return key


def goes_on(lab: Any, key: dict[str, Any]) -> bool:
    """Whether a sorting is given to what is downstream."""
    return bool(lab.delivery.NWBFile().key_source & key)


def waits(lab: Any, key: dict[str, Any]) -> bool:
    return bool(lab.verdict.waiting() & key)


def insert_file(lab: Any, key: dict[str, Any]) -> None:
    row = {**key, "unit_count": 2, "finding_count": 0, "nwb": (".nwb", b"file")}
    lab.delivery.NWBFile.insert1(row, allow_direct_insert=True)


def test_a_sorting_waits_for_a_verdict_and_a_changed_one_is_followed(
    lab: Any, key: dict[str, Any]
) -> None:
    assert (waits(lab, key), goes_on(lab, key)) == (True, False)
    assert lab.verdict.judge(key, accepted=False, by="ada", reason="noise") == 1
    assert (waits(lab, key), goes_on(lab, key)) == (False, False)
    lab.verdict.judge(key, accepted=True, by="ada")
    assert (waits(lab, key), goes_on(lab, key)) == (False, True)
    insert_file(lab, key)
    lab.verdict.judge(key, accepted=False, by="bob", reason="drifts")
    assert not lab.delivery.NWBFile & key
    verdict = (lab.verdict.Verdict & key).fetch1()
    assert (verdict["accepted"], verdict["judged_by"], verdict["verdict_reason"]) == (
        False,
        "bob",
        "drifts",
    )


def test_a_verdict_outlives_a_recompute_that_gives_the_same_units(
    lab: Any, key: dict[str, Any], tmp_path: Path
) -> None:
    lab.verdict.judge(key, accepted=True, by="ada", units={1: False})
    insert_file(lab, key)
    (lab.sorting.SpikeSorting & key).delete(prompt=False)
    assert not lab.delivery.NWBFile & key
    assert not goes_on(lab, key)
    insert_sorting(lab, key, tmp_path)
    assert (waits(lab, key), goes_on(lab, key)) == (False, True)
    assert [unit["unit"] for unit in lab.delivery.accepted_units(key)] == [0]


def test_a_verdict_on_other_units_is_asked_for_anew(
    lab: Any, key: dict[str, Any], tmp_path: Path
) -> None:
    lab.verdict.judge(key, accepted=True, by="ada")
    (lab.sorting.SpikeSorting & key).delete(prompt=False)
    insert_sorting(lab, key, tmp_path, [[300, 900, 2001], [40, 50]])
    assert (waits(lab, key), goes_on(lab, key)) == (True, False)
    assert lab.verdict.Verdict & key
    lab.verdict.judge(key, accepted=True, by="ada")
    assert (waits(lab, key), goes_on(lab, key)) == (False, True)


@pytest.mark.parametrize("sortings", [None, {}, [], "", {"subject": "nobody"}])
def test_a_verdict_on_nothing_is_refused(lab: Any, key: dict[str, Any], sortings: Any) -> None:
    with pytest.raises(InvalidValueError, match="nothing was judged"):
        lab.verdict.judge(sortings, accepted=True, by="ada")
    assert not lab.verdict.Verdict & key


@pytest.mark.parametrize(
    ("sortings", "by", "message"),
    [
        ({"subjct": "x1"}, "ada", "subjct"),
        ("paramset_idx", "ada", "'paramset_idx' compares no attribute of a sorting"),
        ("1", "ada", "'1' compares no attribute of a sorting"),
        ("1 = 1", "ada", "'1 = 1' compares no attribute of a sorting"),
        (True, "ada", "True compares no attribute of a sorting"),
        ({"subject": "x1"}, " ", "say by whom"),
    ],
)
def test_a_verdict_of_nobody_or_on_all_by_mistake_is_refused(
    lab: Any, key: dict[str, Any], sortings: Any, by: str, message: str
) -> None:
    with pytest.raises(DataJointError, match=message):
        lab.verdict.judge(sortings, accepted=True, by=by)
    assert not lab.verdict.Verdict & key


def test_a_verdict_may_be_changed_back(lab: Any, key: dict[str, Any]) -> None:
    for accepted, unit in ((True, 1), (False, 0), (True, 1)):
        lab.verdict.judge([key, key], accepted=accepted, by="ada", units={unit: False})
        assert goes_on(lab, key) is accepted
        assert (lab.verdict.Verdict.Unit & key).fetch1("unit", "unit_accepted") == (unit, False)
    assert [unit["unit"] for unit in lab.delivery.accepted_units(key)] == [0]


def test_a_verdict_on_a_unit_that_is_not_there_changes_nothing(
    lab: Any, key: dict[str, Any]
) -> None:
    lab.verdict.judge(key, accepted=False, by="ada")
    with pytest.raises(InvalidValueError, match="has no unit 7"):
        lab.verdict.judge(key, accepted=True, by="bob", units={7: False})
    assert (lab.verdict.Verdict & key).fetch1("judged_by") == "ada"


def test_a_unit_cannot_be_judged_apart_from_its_sorting(lab: Any, key: dict[str, Any]) -> None:
    """The file of the verdict on the sorting would not follow."""
    lab.verdict.judge(key, accepted=True, by="ada", units={1: False})
    units = lab.verdict.Verdict.Unit
    for change, row in ((units.insert1, {"unit": 0}), (units.update1, {"unit": 1})):
        with pytest.raises(InvalidValueError, match="entered with that on their sorting"):
            change({**key, **row, "unit_accepted": True})
    with pytest.raises(InvalidValueError, match=r"Units \[0\] would not be delivered"):
        lab.verdict.judge(key, accepted=False, by="ada", units={0: True, 1: False})
    assert [unit["unit"] for unit in lab.delivery.accepted_units(key)] == [0]


def test_a_verdict_is_entered_by_a_job(lab: Any, key: dict[str, Any]) -> None:
    defs = lab.definitions.defs
    partition = "/".join(
        [
            "subject=x1",
            f"session_datetime={key['session_datetime'].isoformat()}",
            "insertion_number=0",
            "paramset_idx=1",
        ]
    )
    verdict = {"by": "ada", "accepted": True, "reason": "clean", "refused_units": [1]}
    with dg.DagsterInstance.ephemeral() as instance:
        for config, success in (
            ({**verdict, "partitions": [partition]}, True),
            (verdict, False),
            ({**verdict, "partitions": [partition], "accepted_units": [1]}, False),
            ({**verdict, "where": "subject = 'nobody'"}, False),
            ({**verdict, "where": "paramset_idx"}, False),
        ):
            ops = {"ops": {"enter_verdict": {"config": config}}}
            run = run_job(defs, "judge_sortings", instance=instance, run_config=ops)
            assert run.is_success is success
    assert goes_on(lab, key)
    assert (lab.verdict.Verdict.Unit & key).fetch1("unit", "unit_accepted") == (1, False)


def test_what_waits_is_shown_when_it_changes(
    lab: Any, key: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.instance_for_test() as instance:

        def ask(cursor: str | None) -> Any:
            with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
                return lab.judging.ask_for_verdicts(context)

        first = ask(None)
        shown, _ = first.asset_events
        assert not shown.passed
        assert shown.asset_key == dg.AssetKey(["ephys_sorting", "spike_sorting"])
        assert key["session_datetime"].isoformat() in shown.metadata["sortings"].md_str
        assert not ask(first.cursor).asset_events
        # Dagster shows a check as not evaluated once its asset has a newer mark.
        instance.report_runless_asset_event(dg.AssetMaterialization(shown.asset_key))
        monkeypatch.setattr(lab.judging, "OVER", 3600.0)
        at_once = ask(first.cursor)
        assert [each.passed for each in at_once.asset_events] == [False, True]
        assert not ask(at_once.cursor).asset_events
        # Within the second of the mark it does so too.
        monkeypatch.setattr(lab.judging, "OVER", 0.0)
        again = ask(at_once.cursor)
        assert [each.passed for each in again.asset_events] == [False, True]
        assert not ask(again.cursor).asset_events
        lab.verdict.judge("subject = 'x1'", accepted=True, by="ada")
        after, _ = ask(again.cursor).asset_events
        assert key["session_datetime"].isoformat() not in after.metadata["sortings"].md_str


@pytest.mark.ephys
def test_an_accepted_sorting_is_a_file_that_validators_read(sorted_lab: Any) -> None:
    import pynwb

    key = {**demo_key(sorted_lab, STATIC), "paramset_idx": 1}
    sorted_lab.verdict.judge(key, accepted=True, by="ada", units={2: False})
    sorted_lab.delivery.NWBFile.populate(key)
    row = (sorted_lab.delivery.NWBFile & key).fetch1()
    units = (sorted_lab.sorting.SpikeSorting.Unit & key).to_dicts(order_by="unit")
    assert row["unit_count"] == len(units) - 1
    with pynwb.NWBHDF5IO(Path(row["nwb"]), "r") as file:
        content = file.read()
        assert content.subject.subject_id == "m1"
        assert list(content.units.id) == [unit["unit"] for unit in units if unit["unit"] != 2]
        assert np.array_equal(content.units["spike_times"][0], units[0]["spike_times"])
        assert content.units["presence_ratio"][0] == 1.0
        assert len(content.electrodes) == 16
    findings = (sorted_lab.delivery.NWBFile.Finding & key).to_dicts()
    assert len(findings) == row["finding_count"]
    # Made again it is the same file.
    content = Path(row["nwb"]).read_bytes()
    (sorted_lab.delivery.NWBFile & key).delete(prompt=False)
    sorted_lab.delivery.NWBFile.populate(key)
    assert Path((sorted_lab.delivery.NWBFile & key).fetch1("nwb")).read_bytes() == content
    # All that is missing is what nobody entered.
    serious = {f["check_name"] for f in findings if not f["importance"].startswith("BEST")}
    assert serious <= {"check_subject_age"}
