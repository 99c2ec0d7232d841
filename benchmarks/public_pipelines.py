"""Pipelines of others on dj_dagster, beside DataJoint 0.14: what passes, why not, equal rows.

Run it from the repository: ``uv run python -m benchmarks.public_pipelines spyglass``. The packages
come from PyPI into an environment of their own by uv; nothing of them is kept. A package that is
not there is named by ``--source NAME=CHECKOUT``. The same program then runs three times: with
DataJoint 0.14.10 and with dj_dagster in its place, each on a private MariaDB whose databases are
latin1, and with dj_dagster on SQLite. What the first two have left on their servers is compared
row by row.

``--folder`` names a folder for the environment, which is used again if it is there. The exit
status is 1 if a step fails with dj_dagster on MariaDB that passes with DataJoint, or rows differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.pipelines.rows import Comparison, Left, Varying, compare, flat, read
from tests.services.database_server import database_server
from tests.services.mariadb import MariaDBServer
from tests.services.old_datajoint import install

ROOT = Path(__file__).parents[1]
PASSWORD = "password"
OF_DATAJOINT = (
    "deepdiff", "faker", "ipython", "matplotlib", "minio", "networkx", "pydot", "pyparsing", "tqdm",
)  # fmt: skip
"""What DataJoint 0.14 needs beside it; it comes from a folder of its own."""
CLIENTS = ("datajoint", "ours", "ours on SQLite")


@dataclass(frozen=True)
class Pipeline:
    """Packages, and the program that uses them.

    Attributes
    ----------
    program
        A module of `benchmarks.pipelines`.
    packages
        What is installed, as pip spells it.
    sources
        Packages that PyPI has not; `--source` says where they are.
    without
        What packages ask for that is not installed: PyPI has it not, or no module imports it.
    varying
        The columns that no two runs have alike.
    sqlite
        Whether the program is run on SQLite too.
    arguments
        Of the program.
    shared_only
        Whether tables count only that both have declared: DataJoint 0.14 cannot import all.
    """

    program: str
    packages: tuple[str, ...]
    sources: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    varying: Varying = field(default_factory=dict)
    sqlite: bool = True
    arguments: tuple[str, ...] = ()
    shared_only: bool = False


ELEMENTS = (
    "element-lab==0.3.0", "element-animal==0.1.8", "element-session==0.1.6", "element-event==0.2.3",
    "element-interface==0.6.1", "element-array-ephys==0.2.11", "element-calcium-imaging==0.7.8",
)  # fmt: skip

PIPELINES = {
    "spyglass": Pipeline(
        "spyglass_session",
        ("spyglass-neuro==0.6.0", "kachery-cloud", "kachery", "kachery-client", "dandi"),
        # NWB files hold when they were written.
        varying={"*.~external_*": ("contents_hash",)},
    ),
    "elements": Pipeline(
        "elements_session",
        ELEMENTS,
        # When a file was made, which cannot be set.
        varying={
            "lab_ephys._clustering": ("clustering_time",),
            "lab_ephys.curation": ("curation_time",),
            "lab_imaging.__processing": ("processing_time",),
            "lab_imaging.curation": ("curation_time",),
        },
    ),
    "workflows": Pipeline(
        "imports",
        ELEMENTS,
        ("workflow-array-ephys", "workflow-calcium-imaging"),
        ("sbxreader", "scanreader", "suite2p", "neuroconv", "element-electrode-localization"),
        arguments=("workflow_array_ephys", "workflow_calcium_imaging"),
    ),
    "ibl": Pipeline(
        "imports",
        # Later versions lack what it imports.
        (
            "ibl-pipeline==0.2.4",
            "ibllib<2",
            "scipy==1.12.*",
            "pyarrow<21",
            "plotly<6",
            "setuptools<81",
        ),
        arguments=("ibl_pipeline",),
        shared_only=True,
    ),
    "worker": Pipeline(
        "worker_run",
        (),
        ("datajoint-utilities",),
        varying={
            "worker_own.worker_log": ("process_timestamp", "pid"),
            "worker_own.error_log": ("error_timestamp", "key_hash", "key", "error_stack", "pid"),
            "worker_own.registered_worker": ("registration_time", "worker_config_uuid"),
            "worker_own.registered_worker__process": ("key_source_sql", "process_config_uuid"),
            "*.~jobs": ("error_stack", "pid", "connection_id"),
        },
        sqlite=False,
    ),
}


@dataclass
class Ran:
    """What a program has told."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    found: list[Any] = field(default_factory=list)


def environment(pipeline: Pipeline, folder: Path, sources: Mapping[str, Path]) -> Path:
    """Return the Python of an environment with the packages, but for DataJoint."""
    python = folder / "environment" / "bin" / "python"
    if not python.exists():
        uv = os.environ.get("UV") or shutil.which("uv") or sys.exit("uv is not installed.")
        wanted = [*pipeline.packages, *(str(sources[name]) for name in pipeline.sources)]
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        without = folder / "without.txt"
        left_out = ("datajoint", *pipeline.without)
        without.write_text("".join(f"{name} ; sys_platform == 'none'\n" for name in left_out))
        subprocess.run([uv, "venv", "-q", "--python", version, python.parents[1]], check=True)
        install = [uv, "pip", "install", "-q", "--python", python, "--override", without]
        install += ["--only-binary", "numpy", "--only-binary", "scipy"]
        subprocess.run([*install, "-e", f"{ROOT}[mysql]", *OF_DATAJOINT, *wanted], check=True)
    return python


@contextlib.contextmanager
def latin1_server() -> Generator[str]:
    """Run a server whose new databases are latin1, with a password as DataJoint wants one."""
    with database_server(MariaDBServer) as server:
        engine = sa.create_engine(server.url)
        with engine.begin() as session:
            user, _, host = (
                session.exec_driver_sql("SELECT CURRENT_USER()").scalar_one().partition("@")
            )
            session.exec_driver_sql("SET GLOBAL character_set_server = 'latin1'")
            session.exec_driver_sql("SET GLOBAL collation_server = 'latin1_swedish_ci'")
            session.exec_driver_sql(f"ALTER USER '{user}'@'{host}' IDENTIFIED BY '{PASSWORD}'")
        engine.dispose()
        url = sa.make_url(server.url).set(password=PASSWORD)
        yield url.render_as_string(hide_password=False)


def run(pipeline: Pipeline, python: Path, client: str, url: str, folder: Path, old: Path) -> Ran:
    """Run the program, and return what it told."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DJ_")}
    paths = [ROOT, *([old] if client == "datajoint" else [])]
    variables = {
        **clean,
        "PYTHONPATH": os.pathsep.join(map(str, reversed(paths))),
        "PIPELINE_CLIENT": "datajoint" if client == "datajoint" else "ours",
        "PIPELINE_URL": url,
        "PIPELINE_FOLDER": str(folder),
        "DJ_SUPPORT_FILEPATH_MANAGEMENT": "TRUE",
        "HOME": str(folder),
        "MPLBACKEND": "agg",
    }
    command = [python, "-m", f"benchmarks.pipelines.{pipeline.program}"]
    command += pipeline.arguments
    log = folder / f"{client.replace(' ', '_')}.log"
    with log.open("w") as errors:
        done = subprocess.run(
            command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    ran = Ran()
    for line in done.stdout.splitlines():
        told = json.loads(line)
        if "found" in told:
            ran.found.append(told["found"])
        elif "error" in told:
            ran.failed[told["step"]] = told["error"]
        else:
            ran.passed.append(told["step"])
    if done.returncode:
        ran.failed["the program itself"] = log.read_text()[-1500:]
    return ran


def show(client: str, ran: Ran, before: Ran | None) -> list[str]:
    """Print what a program has told; return the steps that passed with DataJoint only."""
    imports = [name for name in ran.passed if name.startswith("import ")]
    failed = [name for name in ran.failed if name.startswith("import ")]
    steps = [name for name in ran.passed if name not in imports]
    print(f"{client}: {len(imports)} of {len(imports) + len(failed)} modules import; "
          f"{len(steps)} of {len(steps) + len(ran.failed) - len(failed)} steps pass")  # fmt: skip
    lost = [name for name in ran.failed if before is not None and name in before.passed]
    for name, reason in ran.failed.items():
        mark = "HERE ONLY " if name in lost else ""
        shown = reason if name == "the program itself" else reason.partition("\n")[0]
        print(f"   {mark}{name}: {shown}")
    if before is not None and ran.found != before.found:
        for here, there in zip(ran.found, before.found, strict=False):
            if here != there:
                print(f"   HERE ONLY other values: {here} in place of {there}")
        lost.append("values")
    return lost


def main() -> None:
    """Print what became of a pipeline."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pipeline", choices=PIPELINES)
    parser.add_argument("--source", action="append", default=[], metavar="NAME=CHECKOUT")
    parser.add_argument("--folder", type=Path, help="for the environment, to use it again")
    given = parser.parse_args()
    pipeline = PIPELINES[given.pipeline]
    sources = {name: Path(path) for name, _, path in (one.partition("=") for one in given.source)}
    missing = [name for name in pipeline.sources if name not in sources]
    if missing:
        parser.error(f"PyPI has no {', '.join(missing)}: pass --source {missing[0]}=CHECKOUT.")
    with contextlib.ExitStack() as stack:
        place = given.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="public"))
        folder = Path(place).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        sys.exit(0 if run_all(pipeline, folder, sources).is_equal else 1)


@dataclass
class Outcome:
    """What became of a pipeline.

    Attributes
    ----------
    ran
        By client.
    lost
        The steps that fail with dj_dagster on MariaDB and pass with DataJoint.
    """

    ran: dict[str, Ran]
    lost: list[str]
    comparison: Comparison

    @property
    def is_equal(self) -> bool:
        """Whether dj_dagster does all that DataJoint does, and leaves the same."""
        differences = self.comparison.differences or self.comparison.declared_otherwise
        return not (self.lost or differences)


def run_all(pipeline: Pipeline, folder: Path, sources: Mapping[str, Path]) -> Outcome:
    """Run a pipeline with all clients and show it."""
    python, old = environment(pipeline, folder, sources), folder / "datajoint"
    if not old.exists():
        install(old)
    left: dict[str, Mapping[str, Left]] = {}
    ran: dict[str, Ran] = {}
    lost: list[str] = []
    for client in CLIENTS[: 3 if pipeline.sqlite else 2]:
        with contextlib.ExitStack() as stack:
            file = folder / "lab.sqlite"
            file.unlink(missing_ok=True)
            on_sqlite = client.endswith("SQLite")
            url = f"sqlite:///{file}" if on_sqlite else stack.enter_context(latin1_server())
            ran[client] = run(pipeline, python, client, url, folder, old)
            missing = show(client, ran[client], ran.get("datajoint"))
            if not on_sqlite:
                left[client] = read(url, pipeline.varying)
                lost += missing
    theirs, ours = left["datajoint"], left["ours"]
    if pipeline.shared_only:
        ours = {name: found for name, found in ours.items() if name in theirs}
    comparison = compare(theirs, ours)
    print(*flat(comparison), sep="\n")
    return Outcome(ran, lost, comparison)


if __name__ == "__main__":
    main()
