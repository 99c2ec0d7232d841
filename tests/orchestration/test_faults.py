"""Processes and the database killed in the middle of batches; two that populate at once.

`python -m benchmarks.faults` does the same twenty times over, at random moments.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.orchestration.fault_lab import fault_lab
from tests.services.database_server import DatabaseServer
from tests.services.process import eventually

KEYS = 240

# A run after the code server: of those that the killed one started nobody sees the end.
PARTS = ("run", "database", "cancel", "code", "run", "daemon")


def test_every_key_is_made_once_whatever_is_killed(
    tmp_path: Path, own_server: DatabaseServer
) -> None:
    with fault_lab(tmp_path, own_server, batch=120, seconds=0.004) as lab:
        lab.insert(KEYS)
        # Somebody else's loop shares the work, as on another machine.
        lab.start("populate", [sys.executable, "populate.py"])
        for number, what in enumerate(PARTS, start=1):
            eventually(lambda n=number: len(lab.calls()) > 30 * n, every=0.05)
            eventually(lambda w=what: lab.kill(w), every=0.05)
        lab.await_all(KEYS)
        assert lab.check_calls() <= 2 * lab.kills.total()
