"""Whether a process that holds a key still runs, without doing anything to it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from dj_dagster.workflow.liveness import Reservation, is_gone, process_mark
from tests.services.process import eventually

NOW = datetime(2026, 1, 1)


def held_by(pid: int) -> Reservation:
    return Reservation((1,), platform.node(), pid, 0, NOW, NOW)


@pytest.fixture(params=["Linux", "Windows", "Darwin"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The system that this is taken for, whose way of asking is tried."""
    monkeypatch.setattr(platform, "system", lambda: request.param)
    return request.param


@pytest.mark.usefixtures("system")
def test_a_process_that_has_ended_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = process_mark(process.pid)
    assert not held_by(process.pid).process_is_gone(NOW)
    assert not is_gone(mark)
    assert process_mark(process.pid) == mark
    assert process.stdin is not None
    process.stdin.close()
    # Not waited for yet, so that the system still has its number.
    eventually(lambda: held_by(process.pid).process_is_gone(NOW))
    assert is_gone(mark)
    process.wait()
    assert held_by(process.pid).process_is_gone(NOW)
    assert is_gone(mark)
    assert held_by(2**40).process_is_gone(NOW)


@pytest.mark.usefixtures("system")
def test_a_process_that_is_younger_than_its_reservation_is_another() -> None:
    assert not held_by(os.getpid()).process_is_gone(NOW)
    assert held_by(os.getpid()).process_is_gone(NOW + timedelta(days=1000))


def test_no_process_is_signalled_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    signalled: list[int] = []
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(os, "kill", lambda pid, _: signalled.append(pid))
    assert not held_by(os.getpid()).process_is_gone(NOW)
    assert signalled == []
