"""Acquisition: recording a session is a button in the UI, the job `record_session`."""

from datetime import datetime
from typing import Any

import dagster as dg

from pipelines.lab import RECORDINGS, Session, StimulusType, Subject
from pipelines.recordings import STEP_S, WINDOW_S, recordings, session_count, write_session


class RecordConfig(dg.Config):
    """The number of sessions to record."""

    sessions: int = 1


def subject_rows() -> list[dict[str, Any]]:
    """Return one subject for each of HeartPy's recordings."""
    return [
        {"subject_id": number, "recording": recording.source}
        for number, recording in enumerate(recordings(), start=1)
    ]


def record_sessions(sessions: int = 1) -> list[dict[str, Any]]:
    """Record the next sessions: write their raw files, then insert their rows.

    Returns
    -------
    list of dict
        The rows inserted into `Session`.

    Raises
    ------
    IndexError
        When all recordings are used up; nothing is inserted then.
    """
    done = Session.to_arrays("session_id")
    first = int(max(done, default=-1)) + 1
    if first + sessions > session_count():
        raise IndexError(
            f"The recordings give {session_count()} sessions and {first} are recorded: "
            f"{sessions} more cannot be. Delete some: (Session & 'session_id >= 100').delete()."
        )
    subjects = {row["recording"]: row["subject_id"] for row in subject_rows()}
    rows: list[dict[str, Any]] = []
    for number in range(first, first + sessions):
        recorded = write_session(number, RECORDINGS)
        rows.append(
            {
                "subject_id": subjects[recorded.source],
                "session_id": number,
                "session_time": datetime.now(),
                "file_name": recorded.path.name,
            }
        )
    with Session.connection.transaction():
        Subject.insert(subject_rows(), skip_duplicates=True)
        Session.insert(rows)
        Session.Trial.insert(trial for row in rows for trial in _trials(row))
    return rows


@dg.op(description="Record the next sessions, as the acquisition computer would.")
def record(context: dg.OpExecutionContext, config: RecordConfig) -> None:
    """Insert the rows of the next sessions; the sensor sees them."""
    for row in record_sessions(config.sessions):
        context.log.info(f"recorded session {row['session_id']} of subject {row['subject_id']}")


@dg.job(description="Record the next session: press «Launch Run» and watch the tables fill.")
def record_session() -> None:
    """Record the next session."""
    record()


def _trials(session: dict[str, Any]) -> list[dict[str, Any]]:
    stimuli = StimulusType.to_arrays("stimulus_type", order_by="KEY")
    key = {name: session[name] for name in ("subject_id", "session_id")}
    return [
        {
            **key,
            "trial": trial,
            "stimulus_type": stimuli[(session["session_id"] + trial) % len(stimuli)],
            "start_s": trial * STEP_S,
            "stop_s": (trial + 1) * STEP_S,
        }
        for trial in range(round(WINDOW_S / STEP_S))
    ]
