"""Buttons of the acquisition in the UI: recording, and copying cut files again."""

import dagster as dg

from pipelines.ephys.acquisition import record_next, recordings_folder, repair


class RecordConfig(dg.Config):
    """The number of sessions to record."""

    sessions: int = 1


@dg.op(description="Record the next sessions, as the acquisition computer would.")
def record_files(context: dg.OpExecutionContext, config: RecordConfig) -> None:
    """Write the files of the next sessions; the folder's sensor sees them."""
    for session in record_next(config.sessions, recordings_folder()):
        context.log.info(f"recorded {session.run} of {session.subject}")


@dg.op(description="Copy recordings that were cut again, whole.")
def repair_files(context: dg.OpExecutionContext) -> None:
    """Write files again that are shorter than they should be."""
    for session in repair(recordings_folder()):
        context.log.info(f"copied {session.run} of {session.subject} again")


@dg.job(
    description="Record the next session: a folder of SpikeGLX appears, and its sensor sees it."
)
def record_session() -> None:
    """Record the next session."""
    record_files()


@dg.job(description="Copy files that were cut on their way again; then materialise their key.")
def repair_recordings() -> None:
    """Copy files that were cut again."""
    repair_files()
