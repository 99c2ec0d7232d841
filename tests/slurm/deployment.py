"""`dagster dev` whose runs are jobs of a Slurm cluster."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.services.dagster_dev import dagster_dev
from tests.services.dagster_runs import DagsterRuns
from tests.services.process import PATIENCE, eventually
from tests.services.slurm import SlurmCluster

HERE = Path(__file__).parent

DAGSTER_YAML = """
telemetry: {{enabled: false}}
nux: {{enabled: false}}
storage:
  sqlite: {{base_dir: {folder}/history}}
compute_logs:
  module: dagster._core.storage.local_compute_log_manager
  class: LocalComputeLogManager
  config: {{base_dir: {folder}/logs}}
run_coordinator:
  module: dagster._core.run_coordinator.queued_run_coordinator
  class: QueuedRunCoordinator
  config: {{dequeue_interval_seconds: 1}}
run_launcher:
  module: dj_dagster.slurm
  class: SlurmRunLauncher
  config:
    folder: {folder}/jobs%j
    time: "10"
    retries: 1
    poll_seconds: 2
    growth: 10
    resume_after: [NODE_FAIL, PREEMPTED, TIMEOUT, OUT_OF_MEMORY]
run_monitoring:
  enabled: true
  start_timeout_seconds: 31536000
  poll_interval_seconds: 2
  max_resume_run_attempts: 1
"""

WORKSPACE = """
load_from:
  - python_file: {{relative_path: {here}/plain_project.py, location_name: plain}}
  - python_file: {{relative_path: {folder}/tables_project.py, location_name: tables}}
  - python_module: {{module_name: pipelines.definitions, location_name: demo}}
"""

TABLES = '''
import os, time
from pathlib import Path
import dj_dagster as dj
from dj_dagster.orchestration import (
    SensorSettings, TableSettings, TableTranslator, build_definitions
)
from tests.slurm.plain_project import note

schema = dj.Schema("shop")

@schema
class Item(dj.Manual):
    definition = """
    item : int32
    """

@schema
class Measured(dj.Computed):
    definition = """
    -> Item
    ---
    node : varchar(16)
    """

    def make(self, key):
        note("make", key["item"], os.environ["SLURMD_NODENAME"], os.environ["SLURM_JOB_ID"])
        while (Path(os.environ["SLURM_TEST_NOTES"]).parent / f"hold{key['item']}").exists():
            time.sleep(0.05)
        time.sleep(0.05)
        self.insert1({**key, "node": os.environ["SLURMD_NODENAME"]})

@schema
class Plate(dj.Manual):
    definition = """
    plate : int32
    """

@schema
class Counted(dj.Computed):
    definition = """
    -> Plate
    ---
    job : varchar(16)
    """

    def make(self, key):
        note("count", key["plate"], os.environ["SLURM_JOB_ID"])
        while not (Path(os.environ["SLURM_TEST_NOTES"]).parent / "spread").exists():
            time.sleep(0.05)
        self.insert1({**key, "job": os.environ["SLURM_JOB_ID"]})

@schema
class Well(dj.Manual):
    definition = """
    well : int32
    """

@schema
class Imaged(dj.Computed):
    definition = """
    -> Well
    ---
    node : varchar(16)
    """

    def make(self, key):
        note("image", key["well"], os.environ["SLURMD_NODENAME"])
        self.insert1({**key, "node": os.environ["SLURMD_NODENAME"]})

class Translator(TableTranslator):
    def get_op_tags(self, props):
        wide = {"dj-slurm/array": "2"} if props.title == "shop.Counted" else {}
        return {"dj-slurm/cpus": "2", "dj-slurm/time": "7", **wide}

defs = build_definitions(
    schema,
    translator=Translator(),
    sensor_settings=SensorSettings(
        interval=2, batch_size=20, tables={"shop.Imaged": TableSettings(batch_size=1000)}
    ),
)
'''


@dataclass(frozen=True)
class Deployment(DagsterRuns):
    """Dagster, the cluster that it sends runs to, and the notes that runs take.

    Attributes
    ----------
    env
        The environment of Dagster and of commands beside it.
    """

    cluster: SlurmCluster
    folder: Path
    env: Mapping[str, str]

    def wait_for_file(
        self, gate: Path, job: str = "waiting", megabytes: int = 0, **tags: str
    ) -> str:
        """Launch a run that works until a file is there, and uses some memory."""
        config = {"ops": {"wait": {"config": {"gate": str(gate), "megabytes": megabytes}}}}
        return self.launch(job, config, {f"dj-slurm/{key}": tags[key] for key in tags})

    def insert(self, items: Iterable[int], table: str = "item") -> None:
        """Insert rows, as a client that knows nothing of us."""
        path = self.folder / "lab.sqlite"
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as database, database:
            rows = [(item,) for item in items]
            database.executemany(f'INSERT INTO "shop.{table}" VALUES (?)', rows)

    def rows(self, table: str = "measured") -> dict[int, str]:
        """Return the node on which each item was made, or the job by which each plate was."""
        with closing(sqlite3.connect(self.folder / "lab.sqlite", timeout=PATIENCE)) as database:
            return dict(database.execute(f'SELECT * FROM "shop.__{table}"').fetchall())

    def doctor(self, setup: str = "") -> dict[str, tuple[str, str]]:
        """Return what the command finds from a node: states and texts, by what it looks at.

        Parameters
        ----------
        setup
            Lines of shell by which the node's environment differs.
        """
        place = self.folder / "doctor"
        place.mkdir(exist_ok=True)
        text = DAGSTER_YAML.format(folder=self.folder)
        lines = text.replace(
            "    poll_seconds", f"    setup: {json.dumps(setup)}\n    poll_seconds"
        )
        (place / "dagster.yaml").write_text(lines)
        command = [str(Path(sys.executable).with_name("dj-dagster")), "doctor", "--launcher"]
        done = subprocess.run(
            [*command, "--json", "-m", "tables_project", "--tag", "dj-slurm/partition=urgent"],
            cwd=place,
            env={**self.env, "PYTHONPATH": f"{self.env['PYTHONPATH']}:{self.folder}"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.stdout, done.stderr
        there = [each for each in json.loads(done.stdout) if each["what"].startswith("run: ")]
        return {each["what"][5:]: (each["state"], each["found"]) for each in there}

    def job(self, run: str) -> str:
        """Return the number of a run's job, once there is one."""
        return eventually(lambda: self.tags(run).get("dj-slurm/job_id"), every=0.5)

    def notes(self, *words: object) -> list[list[str]]:
        """Return the notes that begin with some words."""
        path = self.folder / "notes"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        start = [str(word) for word in words]
        return [line for line in lines if line[: len(start)] == start]


@contextlib.contextmanager
def running_deployment(folder: Path, cluster: SlurmCluster) -> Generator[Deployment]:
    """Run `dagster dev` in an empty folder until the block ends."""
    (folder / "dagster.yaml").write_text(DAGSTER_YAML.format(folder=folder))
    (folder / "workspace.yaml").write_text(WORKSPACE.format(here=HERE, folder=folder))
    (folder / "tables_project.py").write_text(TABLES)
    store = {"protocol": "file", "location": f"{folder}/store"}
    env = {
        **cluster.env,
        "SLURM_TEST_NOTES": str(folder / "notes"),
        "PYTHONPATH": str(HERE.parents[1]),
        "DJ_DATABASE_URL": f"sqlite:///{folder}/lab.sqlite",
        # The nodes are on this machine.
        "DJ_DATABASE_SHARED": "true",
        "DJ_STORES": json.dumps({"default": "local", "local": {**store, "shared": True}}),
    }
    ours = [name for name in os.environ if name.startswith("DJ_")]
    with dagster_dev(folder, env=env, without=ours) as dev:
        rest = {name: value for name, value in os.environ.items() if name not in ours}
        yield Deployment(dev, cluster, folder, {**rest, **env})
