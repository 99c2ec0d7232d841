"""Dagster's daemon and the database's sessions end while jobs of Slurm work.

`python -m benchmarks.faults --engine slurm` breaks all parts twenty times over, at random moments.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.engines.faults import SlurmFaults
from tests.engines.keys import check_commits, check_makes, keep_commits
from tests.engines.lab import SlurmEngine, engine_lab
from tests.services.process import eventually
from tests.services.slurm import SlurmCluster

KEYS = 80


def test_each_key_is_made_once_though_daemon_and_sessions_end(
    tmp_path: Path, slurm_cluster: SlurmCluster
) -> None:
    chosen = random.Random(1)
    with engine_lab(SlurmEngine(slurm_cluster), tmp_path, chosen, batch=40) as lab:
        keep_commits(lab.lab)
        lab.lab.insert(KEYS)
        faults = SlurmFaults(lab, chosen).all()
        for name in ("daemon killed", "sessions ended", "daemon killed"):
            eventually(faults[name], every=0.05)
        lab.lab.await_all(KEYS)
        eventually(lambda: not lab.unfinished() and not lab.engine.left())
        check_commits(lab.lab, KEYS)
        assert check_makes(lab.lab, stopped=()) < KEYS
