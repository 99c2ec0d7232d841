"""The whole demo without a browser: record, let the sensor start runs, make the report."""

from __future__ import annotations

import click
from dagster import AssetKey

from dj_dagster.orchestration.headless import run_assets, run_job, run_until_idle
from dj_dagster.workflow.computed import AutoPopulate
from pipelines import lab
from pipelines.definitions import defs
from pipelines.instance import history


def run_headless(sessions: int) -> bool:
    """Record and process sessions, print a line for each table; True if all went well.

    The history is kept where `dagster dev`, started in this folder, keeps it, so that the UI shows
    it later.
    """
    with history() as instance:
        config = {"ops": {"record": {"config": {"sessions": sessions}}}}
        runs = [run_job(defs, "record_session", instance=instance, run_config=config)]
        runs += run_until_idle(defs, instance=instance)
        runs.append(run_assets(defs, [AssetKey("heart_rate_report")], instance=instance))
    failed = sum(not run.is_success for run in runs)
    pending = _print_progress()
    _print_errors()
    click.echo(f"{len(runs)} runs, {failed} failed; {pending} keys pending.")
    return not failed and not pending


def _print_progress() -> int:
    """Print a line for each table and return the number of keys pending in all."""
    click.echo(f"{'table':<22}{'tier':<10}{'rows':>6}  {'done':>11}  {'failed':>6}")
    pending = 0
    for table_class in lab.schema.tables.values():
        for table in (table_class(), *(part() for part in table_class.part_classes())):
            progress = _progress(table) if isinstance(table, AutoPopulate) else ("", "", 0)
            pending += progress[2]
            done, failed, _ = progress
            tier = table.tier.name.lower()
            line = f"{table.class_name:<22}{tier:<10}{len(table):>6}  {done:>11}  {failed:>6}"
            click.echo(line.rstrip())
    return pending


def _print_errors() -> None:
    for table_class in lab.schema.tables.values():
        if issubclass(table_class, AutoPopulate):
            table = table_class()
            for job in table.jobs.errors.to_dicts():
                key = {name: job[name] for name in table.primary_key}
                click.echo(f"failed: {table.class_name} {key}: {job['error_message']}")


def _progress(table: AutoPopulate) -> tuple[str, str, int]:
    remaining, total = table.progress()
    failed = len(table.jobs.errors.to_dicts())
    return f"{total - remaining} of {total}", str(failed), remaining
