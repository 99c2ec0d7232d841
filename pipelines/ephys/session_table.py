"""The table of sessions as a Parquet file, with what was sorted and delivered of each."""

import hashlib
from io import BytesIO
from typing import Any

import dagster as dg

from dj_dagster.orchestration import asset_key
from pipelines.ephys.delivery import NWBFile
from pipelines.ephys.session import EphysSession, ProbeInsertion, Subject
from pipelines.ephys.sorting import SpikeSorting
from pipelines.ephys.stores import DELIVERIES
from pipelines.ephys.toolbox import needed

# Dagster reads annotations as objects, so that they are not postponed here.

PATH = "sessions.parquet"
"""The file's path in the store `deliveries`."""


def session_rows() -> Any:
    """Return a query of the sessions with the numbers of probes, sortings and NWB files of each."""
    sessions = (EphysSession * Subject).aggr(
        ProbeInsertion, ..., probes="COUNT(insertion_number)", exclude_nonmatching=False
    )
    sessions = sessions.aggr(
        SpikeSorting, ..., sortings="COUNT(paramset_idx)", exclude_nonmatching=False
    )
    return sessions.aggr(
        NWBFile,
        ...,
        nwb_files="COUNT(paramset_idx)",
        accepted_units="COALESCE(SUM(unit_count), 0)",
        findings="COALESCE(SUM(finding_count), 0)",
        exclude_nonmatching=False,
    )


@dg.asset(
    key=["ephys_delivery", "sessions"],
    deps=[asset_key(EphysSession), asset_key(NWBFile)],
    group_name="ephys_delivery",
    description="All sessions as a Parquet file, with what was delivered of each.",
    kinds={"parquet"},
)
def sessions() -> dg.MaterializeResult[Any]:
    """Write the table of sessions anew."""
    needed("pyarrow")
    frame = session_rows().to_pandas().reset_index()
    file = BytesIO()
    frame.to_parquet(file, index=False)
    store = EphysSession.connection.stores.get(DELIVERIES)
    store.put(PATH, file.getvalue())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(frame),
            "bytes": len(file.getvalue()),
            "path": dg.MetadataValue.path(f"{store.url()}/{PATH}"),
            "preview": dg.MetadataValue.md(frame.tail(10).to_html(index=False)),
        }
    )


@dg.sensor(
    target=[sessions],
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Writes the table of sessions anew once its rows have changed.",
)
def deliver_sessions(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Request a run once the rows are not those of the last one: files go, too."""
    rows = session_rows().to_dicts(order_by="KEY")
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()
    if digest == context.cursor:
        return dg.SkipReason("The table of sessions has its rows.")
    return dg.SensorResult([dg.RunRequest()], cursor=digest)
