"""Whether a process that holds a key still runs, without doing anything to it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime

import pytest

from dj_dagster.workflow.liveness import Reservation

NOW = datetime(2026, 1, 1)


def held_by(pid: int) -> Reservation:
    return Reservation((1,), platform.node(), pid, 0, NOW, NOW)


def test_a_process_that_has_ended_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert held_by(process.pid).process_is_gone(NOW)
    assert not held_by(os.getpid()).process_is_gone(NOW)


def test_no_process_is_signalled_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    signalled: list[int] = []
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(os, "kill", lambda pid, _: signalled.append(pid))
    assert not held_by(os.getpid()).process_is_gone(NOW)
    assert signalled == []
