"""The table of sessions as Parquet: a row for each session, with what was delivered of it."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import dagster as dg
import pandas as pd

from tests.ephys.recordings import look, write_run


def test_the_sessions_are_a_parquet_file(lab: Any) -> None:
    write_run(lab.folder, 27)
    look(lab)
    table = lab.session_table
    result = dg.materialize([table.sessions])
    (mark,) = result.asset_materializations_for_node("ephys_delivery__sessions")
    store = lab.session.schema.connection.stores.get("deliveries")
    frame = pd.read_parquet(BytesIO(store.get(table.PATH)))
    assert len(frame) == len(lab.session.EphysSession()) == mark.metadata["dagster/row_count"].value
    (row,) = frame[frame["run_name"] == "x1_27_g0"].to_dict("records")
    assert row["species"] == "Mus musculus"
    assert {name: row[name] for name in ("probes", "sortings", "nwb_files", "findings")} == {
        "probes": 1,
        "sortings": 0,
        "nwb_files": 0,
        "findings": 0,
    }


def test_the_table_follows_what_goes(lab: Any) -> None:
    write_run(lab.folder, 28)
    look(lab)

    def asked(cursor: str | None) -> str | None:
        """Return the sensor's cursor if it requests a run."""
        found = lab.session_table.deliver_sessions(dg.build_sensor_context(cursor=cursor))
        return found.cursor if isinstance(found, dg.SensorResult) and found.run_requests else None

    before = asked(None)
    assert before is not None
    assert asked(before) is None
    (lab.session.EphysSession & {"run_name": "x1_28_g0"}).delete(prompt=False)
    assert asked(before) not in (None, before)


def test_own_assets_and_checks_are_on_tables_that_there_are(lab: Any) -> None:
    defs = lab.definitions.defs
    graph = defs.resolve_asset_graph()
    table = lab.session_table
    sources = graph.get(table.sessions.key).parent_keys
    assert {graph.get(key).partitions_def.name for key in sources} == {
        "ephys_session.EphysSession",
        "ephys_verdict.Verdict",
    }
    checked = {key.asset_key for key in graph.asset_check_keys if key.name in ("judged", "valid")}
    assert len(checked) == 2
    assert all(graph.get(key).is_materializable for key in checked)
    assert defs.get_sensor_def("deliver_sessions").default_status is dg.DefaultSensorStatus.RUNNING
