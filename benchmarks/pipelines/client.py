"""DataJoint as the programs import it: the real one, or dj_dagster in its place.

``PIPELINE_CLIENT`` in the environment says which, ``PIPELINE_URL`` the database.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

OURS = os.environ.get("PIPELINE_CLIENT", "ours") == "ours"
_REPORT = sys.stdout
# Packages print what they like; the report is ours alone.
sys.stdout = sys.stderr
warnings.simplefilter("ignore")

if OURS:
    import dj_dagster

    dj_dagster.replace_datajoint(era="0.14")

import datajoint as dj  # noqa: E402


def connect(**settings: Any) -> Any:
    """Set what connections need, and return DataJoint."""
    url = sa.make_url(os.environ["PIPELINE_URL"])
    if url.host:
        dj.config.update(
            {
                "database.host": url.host,
                "database.port": url.port,
                "database.user": url.username,
                "database.password": url.password or "",
                "database.use_tls": False,
            }
        )
    else:
        dj.config["database.url"] = str(url)
        dj.config["database.user"] = "root"
    dj.config["enable_python_native_blobs"] = True
    dj.config["safemode"] = False
    dj.config["loglevel"] = "WARNING"
    dj.config.update(settings)
    return dj


def report(**found: Any) -> None:
    """Tell the command something, as a line of JSON."""
    print(json.dumps(found, default=str), file=_REPORT, flush=True)


def modules_in(folder: Path, package: str) -> list[str]:
    """Return the names of all modules in a package's folder."""
    files = (file.relative_to(folder).with_suffix("") for file in folder.rglob("*.py"))
    names = (".".join((package, *file.parts)) for file in files)
    return sorted(name.removesuffix(".__init__") for name in names)


def import_all(names: Iterable[str]) -> None:
    """Import modules one by one and report each; twice, for some read what others declare."""
    wanted = list(names)
    for name in wanted:
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
    for name in wanted:
        step(f"import {name}", lambda name=name: importlib.import_module(name))


def step(name: str, action: Callable[[], Any]) -> Any:
    """Do something, and report whether it went well, or why not; None if it did not."""
    try:
        result = action()
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        if os.environ.get("PIPELINE_VERBOSE"):
            traceback.print_exc()
        report(step=name, error=f"{type(error).__name__}: {error} ({where})")
        return None
    report(step=name)
    return result


def make_by_dagster(schema: Any, *tables: Any, without_rows: str = "nothing") -> None:
    """Have Dagster make all that is pending in a schema; with DataJoint, `populate` does it.

    Parameters
    ----------
    tables
        Those of which all is made afterwards.
    without_rows
        A table whose `make` inserts nothing for some keys: Dagster shows these as failed.
    """
    if OURS:
        import dagster as dg

        from dj_dagster.orchestration import build_definitions
        from dj_dagster.orchestration.headless import run_until_idle

        with dg.DagsterInstance.ephemeral() as instance:
            runs = list(run_until_idle(build_definitions([schema]), instance=instance))
            failed = [
                entry.message
                for run in runs
                if run.status is not dg.DagsterRunStatus.SUCCESS
                for entry in instance.all_logs(run.run_id)
                if entry.dagster_event is not None
                and entry.dagster_event.is_step_failure
                and entry.step_key != without_rows
            ]
            assert runs, "Dagster has made nothing"
            assert not failed, "; ".join(failed)
    # A key that has failed says why.
    left = sum(table.populate()["success_count"] for table in tables)
    assert not OURS or not left, "Dagster has not made all keys"
