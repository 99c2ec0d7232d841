"""The table of sessions as Parquet: a row for each session, with what was delivered of it."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import dagster as dg
import pandas as pd

from tests.ephys.recordings import look, write_run


def test_the_sessions_are_a_parquet_file(lab: Any) -> None:
    write_run(lab.folder, 8)
    look(lab)
    table = lab.session_table
    result = dg.materialize([table.sessions])
    (mark,) = result.asset_materializations_for_node("ephys_delivery__sessions")
    store = lab.session.schema.connection.stores.get("deliveries")
    frame = pd.read_parquet(BytesIO(store.get(table.PATH)))
    assert len(frame) == len(lab.session.EphysSession()) == mark.metadata["dagster/row_count"].value
    (row,) = frame[frame["run_name"] == "x1_8_g0"].to_dict("records")
    assert row["species"] == "Mus musculus"
    assert {name: row[name] for name in ("probes", "sortings", "nwb_files", "findings")} == {
        "probes": 1,
        "sortings": 0,
        "nwb_files": 0,
        "findings": 0,
    }


def test_the_table_of_sessions_is_written_when_files_are_added(lab: Any) -> None:
    defs = lab.definitions.defs
    asset = defs.get_assets_def(dg.AssetKey(["ephys_delivery", "sessions"]))
    assert {key.to_user_string() for key in asset.dependency_keys} == {
        "ephys_session/ephys_session",
        "ephys_delivery/nwb_file",
    }
    assert defs.get_sensor_def("deliver_sessions").default_status is dg.DefaultSensorStatus.RUNNING
