"""The definitions of ``dj-dagster demo ephys``: tables, watched folder, acquisition's buttons."""

from __future__ import annotations

from pathlib import Path

from dagster import SensorDefinition

from dj_dagster.orchestration import build_definitions, folder_sensor
from pipelines.ephys import (
    delivery,
    paramset,
    probe,
    quality,
    recording,
    session,
    sorting,
    verdict,
)
from pipelines.ephys.ingest import RUNS, is_complete, session_rows
from pipelines.ephys.judging import ask_for_verdicts, judge_sortings, judged, valid
from pipelines.ephys.pictures import EphysTranslator
from pipelines.ephys.record_jobs import record_session, repair_recordings
from pipelines.ephys.session_table import deliver_sessions, sessions
from pipelines.ephys.stores import raw_folder

SETTLE = 10.0

SCHEMAS = [
    module.schema
    for module in (
        *(probe, session, recording, paramset, sorting, quality),
        *(verdict, delivery),
    )
]


def watched_folder() -> Path:
    """Return the folder into which the acquisition copies its runs."""
    return raw_folder(session.schema.connection.stores)


def watch(settle: float = SETTLE) -> SensorDefinition:
    """Return the sensor that enters the runs of the watched folder as sessions.

    Parameters
    ----------
    settle
        Seconds for which a run's files must have been unchanged.
    """
    return folder_sensor(
        watched_folder,
        session_rows,
        name="watch_recordings",
        pattern=RUNS,
        complete=is_complete,
        settle=settle,
    )


defs = build_definitions(
    SCHEMAS,
    translator=EphysTranslator(),
    assets=[sessions],
    jobs=[record_session, repair_recordings, judge_sortings],
    sensors=[watch(), ask_for_verdicts, deliver_sessions],
    asset_checks=[judged, valid],
)
