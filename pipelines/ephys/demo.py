"""The ephys demo without a browser: sessions recorded, entered, sorted, compared with the truth."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click
from dagster import DagsterInstance, build_sensor_context

from dj_dagster.orchestration import asset_key, encode_key
from dj_dagster.orchestration.headless import run_assets, run_until_idle
from pipelines.ephys import definitions
from pipelines.ephys.acquisition import begin_recording, record_next
from pipelines.ephys.delivery import NWBFile
from pipelines.ephys.quality import GroundTruthComparison, QualityMetrics
from pipelines.ephys.recording import RawEphys
from pipelines.ephys.session import ProbeInsertion
from pipelines.ephys.session_table import sessions as session_table
from pipelines.ephys.sorting import SpikeSorting
from pipelines.ephys.spikeglx import DamagedRecordingError
from pipelines.ephys.verdict import judge, judged, waiting
from pipelines.instance import history

GOOD_PART = 0.9
"""The fraction of the true neurons that a sorting has to find to be accepted."""


def run_headless(sessions: int) -> bool:
    """Record sessions, have them entered and sorted, and print a line for each sorting.

    Returns
    -------
    bool
        Whether everything is done, except for recordings with damaged files, which wait for a
        person.
    """
    began, began_cpu = time.monotonic(), _cpu()
    folder = definitions.watched_folder()
    for session in record_next(sessions, folder):
        click.echo(f"recorded {session.run}")
    with history() as instance:
        _enter_all(instance)
        _run(instance)
        judge_by_truth()
        _run(instance)
        # With a daemon, `deliver_sessions` asks for it.
        run_assets(definitions.defs, [session_table.key], instance=instance)
        print_sortings(_seconds(instance))
    failures = list(_failures())
    for title, key, message in failures:
        click.echo(f"failed: {title} {key}: {message}")
    pending = sum(table.progress()[0] for table in _MADE) - len(failures)
    click.echo(
        f"{pending} keys pending, {len(failures)} failed; {time.monotonic() - began:.0f} s, "
        f"{_cpu() - began_cpu:.0f} s of the processor."
    )
    damaged = DamagedRecordingError.__name__
    return not pending and all(damaged in message for _, _, message in failures)


def before_ui(sessions: int) -> None:
    """Start the recording of sessions, which goes on while Dagster starts and runs."""
    begin_recording(sessions)


_MADE = (RawEphys(), SpikeSorting(), QualityMetrics(), GroundTruthComparison(), NWBFile())


def judge_by_truth() -> None:
    """Accept a sorting if most true neurons were found, which is only known in a simulation."""
    for row in (GroundTruthComparison & waiting().proj()).to_dicts(order_by="KEY"):
        good = row["found_count"] >= GOOD_PART * row["true_count"]
        key = {name: row[name] for name in SpikeSorting.primary_key}
        reason = f"{row['found_count']} of {row['true_count']} true neurons found"
        judge(key, accepted=good, by="demo", reason=reason)


def _run(instance: DagsterInstance) -> None:
    for _ in run_until_idle(definitions.defs, instance=instance):
        pass


def print_sortings(seconds: Mapping[str, float]) -> None:
    """Print a line for each sorting, and the number of true neurons that the best ones found.

    Parameters
    ----------
    seconds
        The time that the tables of each sorting took, by partition.
    """
    click.echo(
        f"{'insertion':<30}{'set':>4}{'units':>7}{'found':>8}{'accuracy':>10}{'snr':>7}"
        f"{'seconds':>9}  {'verdict':<10}{'NWB findings':>12}"
    )
    files = {_partition(row): row["finding_count"] for row in NWBFile().to_dicts()}
    verdicts = {_partition(row): row["accepted"] for row in judged().to_dicts()}
    best: dict[tuple[Any, ...], tuple[int, int]] = {}
    for row in (SpikeSorting * QualityMetrics * GroundTruthComparison).to_dicts(order_by="KEY"):
        insertion = tuple(row[name] for name in ProbeInsertion.primary_key)
        found, true = row["found_count"], row["true_count"]
        best[insertion] = max(best.get(insertion, (0, true)), (found, true))
        title = f"{row['subject']} {row['session_datetime']:%Y-%m-%d} {row['insertion_number']}"
        click.echo(
            f"{title:<30}{row['paramset_idx']:>4}{row['unit_count']:>7}{found:>5}/{true:<2}"
            f"{row['mean_accuracy']:>10.3f}{row['median_snr'] or 0:>7.1f}"
            f"{seconds.get(_partition(row), 0):>9.1f}  {_said(verdicts.get(_partition(row))):<10}"
            f"{files.get(_partition(row), ''):>12}"
        )
    found, true = (sum(pair[place] for pair in best.values()) for place in (0, 1))
    click.echo(f"{found} of {true} true neurons are found in the best sortings of their recordings")


def _enter_all(instance: DagsterInstance) -> None:
    """Evaluate the folder's sensor as the daemon would, until it finds nothing new."""
    sensor, cursor, before = definitions.watch(settle=0), None, ""
    while cursor != before:
        before = cursor
        with build_sensor_context(instance=instance, cursor=cursor) as context:
            result: Any = sensor(context)
        cursor = result.cursor


def _seconds(instance: DagsterInstance) -> dict[str, float]:
    """Return the seconds that the tables of each sorting took, by partition."""
    found: dict[str, float] = {}
    for table in (SpikeSorting, QualityMetrics):
        for record in instance.fetch_materializations(asset_key(table), limit=1000).records:
            mark = record.asset_materialization
            if mark is not None and mark.partition and "seconds_make" in mark.metadata:
                value: Any = mark.metadata["seconds_make"].value
                seconds = float(value)
                found[mark.partition] = found.get(mark.partition, 0) + seconds
    return found


def _said(accepted: bool | None) -> str:
    return "waits" if accepted is None else "accepted" if accepted else "rejected"


def _partition(row: Mapping[str, Any]) -> str:
    attributes = SpikeSorting().heading.attributes
    return encode_key([attributes[name] for name in SpikeSorting.primary_key], row)


def _failures() -> Iterator[tuple[str, dict[str, str], str]]:
    for table in _MADE:
        for job in table.jobs.errors.to_dicts():
            key = {name: str(job[name]) for name in table.primary_key}
            yield table.class_name, key, job["error_message"]


def _cpu() -> float:
    """Return the seconds of processor time used by this process and those that it started."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
