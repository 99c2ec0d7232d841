"""Two tables whose runs are measured by `benchmarks.machines`: each key notes when it is made."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import dj_dagster as dj
from dj_dagster.orchestration import SensorSettings, build_definitions

CALLS = Path(os.environ["MACHINES_CALLS"])

schema = dj.Schema("many_machines")


@schema
class Item(dj.Manual):  # noqa: D101
    definition = "item : int32"


@schema
class Measured(dj.Computed):  # noqa: D101
    definition = """
    -> Item
    ---
    place : varchar(16)  # node of Slurm, or worker of Celery
    made : float64       # seconds since 1970
    """

    def make(self, key: dict[str, Any]) -> None:
        """Note the call, in a file that counts calls whose row is not written."""
        with CALLS.open("ab", buffering=0) as file:
            file.write(f"{key['item']}\n".encode())
        env = os.environ
        place = env.get("SLURMD_NODENAME") or env.get("CELERY_TEST_WORKER") or "here"
        self.insert1({**key, "place": place, "made": time.time()})


settings = SensorSettings(interval=1, batch_size=int(os.environ["MACHINES_BATCH"]))
defs = build_definitions(schema, sensor_settings=settings)
