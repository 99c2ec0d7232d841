"""Spyglass: its modules, a session from an NWB file, two pipelines and their merge tables."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.pipelines.client import (
    connect,
    import_all,
    make_by_dagster,
    modules_in,
    report,
    step,
)

BASE = Path(os.environ["PIPELINE_FOLDER"]) / "tests" / "base"
"""It is the same in each run, for rows hold paths."""

SESSION = "sess_.nwb"
LFP = {
    "nwb_file_name": SESSION,
    "lfp_electrode_group_name": "group",
    "filter_name": "LFP 0-400 Hz",
    "filter_sampling_rate": 20_000,
}
POSITION = {
    "nwb_file_name": SESSION,
    "interval_list_name": "pos 0 valid times",
    "trodes_pos_params_name": "default",
}


def main() -> None:
    """Do it all, step by step."""
    shutil.rmtree(BASE, ignore_errors=True)
    (BASE / "raw").mkdir(parents=True)
    _provide_conda(BASE.parent / "bin")
    custom = {
        "spyglass_dirs": {"base": str(BASE)}, "database.prefix": "root", "test_mode": True,
    }  # fmt: skip
    connect(custom=custom)
    spec = find_spec("spyglass")
    assert spec is not None
    import_all(modules_in(Path(next(iter(spec.submodule_search_locations or ()))), "spyglass"))
    steps = {
        "a session from an NWB file": _insert_session,
        "LFP of one interval by populate()": _populate_lfp,
        "LFP of the other, ours by Dagster": _make_rest_of_lfp,
        "position by populate()": _populate_position,
        "merge tables: restricted, joined, parents": _look_at_merges,
        "merge tables: data of an NWB file": _read_merged,
        "cautious delete of a selection and what depends on it": _delete,
    }
    for number, (name, action) in enumerate(steps.items()):
        _same_identifiers(number)
        step(name, action)


def _provide_conda(folder: Path) -> None:
    """Put a program on the path that Spyglass asks for the environment it runs in."""
    folder.mkdir(exist_ok=True)
    (folder / "conda").write_text("#!/bin/sh\necho 'name: spyglass'\n")
    (folder / "conda").chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def _same_identifiers(number: int) -> None:
    """Let files have the same names, and objects in them the same identifiers, in each run."""
    container: Any = importlib.import_module("hdmf.container")
    source = random.Random(number)
    container.uuid4 = lambda: uuid.UUID(int=source.getrandbits(128), version=4)
    random.seed(number)


def _insert_session() -> None:
    import spyglass.data_import as sgi

    from benchmarks.pipelines.spyglass_files import write_session

    file = Path(os.environ["PIPELINE_FOLDER"]) / "sess.nwb"
    if not file.exists():
        write_session(file)
    shutil.copy(file, BASE / "raw")
    sgi.insert_sessions("sess.nwb", raise_err=True)


def _populate_lfp() -> None:
    import spyglass.common as sgc
    from spyglass.lfp import LFPElectrodeGroup
    from spyglass.lfp.v1 import LFPV1, LFPSelection

    LFPElectrodeGroup.create_lfp_electrode_group(SESSION, "group", [0, 1, 2])
    sgc.FirFilterParameters().create_standard_filters()
    for name in ("01_s1", "02_r1"):
        LFPSelection.insert1({**LFP, "target_interval_list_name": name})
    LFPV1.populate({"target_interval_list_name": "01_s1"})
    assert len(LFPV1()) == 1


def _make_rest_of_lfp() -> None:
    from spyglass.lfp.v1 import LFPV1, lfp

    make_by_dagster(lfp.schema, LFPV1)
    assert len(LFPV1()) == 2


def _populate_position() -> None:
    from spyglass.position.v1 import TrodesPosParams, TrodesPosSelection, TrodesPosV1

    TrodesPosParams.insert_default()
    TrodesPosSelection.insert1(POSITION)
    TrodesPosV1.populate()
    assert len(TrodesPosV1()) == 1


def _look_at_merges() -> None:
    from spyglass.lfp.lfp_merge import LFPOutput
    from spyglass.position import PositionOutput

    of_run = {"target_interval_list_name": "02_r1"}
    assert len(LFPOutput & {"source": "LFPV1"}) == 2
    assert len(LFPOutput.merge_restrict({"nwb_file_name": SESSION})) == 2
    assert len(LFPOutput.merge_get_part(of_run)) == 1
    assert LFPOutput.merge_get_parent(of_run).fetch1("lfp_sampling_rate") == 1000
    assert LFPOutput().merge_get_parent_class("LFPV1").__name__ == "LFPV1"
    assert PositionOutput().merge_get_parent(POSITION).fetch1("nwb_file_name") == SESSION


def _read_merged() -> None:
    from spyglass.lfp.lfp_merge import LFPOutput

    found = []
    for key in LFPOutput.merge_restrict({"nwb_file_name": SESSION}).fetch("KEY", order_by="KEY"):
        frame = (LFPOutput & {"merge_id": key["merge_id"]}).fetch1_dataframe()
        found.append([*frame.shape, float(frame.to_numpy().sum())])
    report(found=found)


def _delete() -> None:
    from spyglass.lfp.lfp_merge import LFPOutput
    from spyglass.lfp.v1 import LFPSelection

    (LFPSelection & {"target_interval_list_name": "01_s1"}).delete(safemode=False)
    assert len(LFPOutput()) == 1


if __name__ == "__main__":
    main()
