"""Units of systemd as plain processes: started as they say, and again whenever they end."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.services.process import eventually

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = DEPLOY / "systemd"
PROJECT, ENVIRONMENT = "/srv/lab", "lab.env.example"
PROGRAMS = f"{PROJECT}/.venv/bin"
"""Where the units expect the project and its environment."""

PAUSE = 1.0
"""Seconds before a process is started again, in place of `RestartSec`."""

VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Unit:
    """A service as its file describes it."""

    name: str
    settings: Mapping[str, str]

    @property
    def commands(self) -> list[str]:
        """What is executed, one after the other."""
        found = (self.settings.get(name) for name in ("ExecStartPre", "ExecStart"))
        return [command for command in found if command]

    @property
    def variables(self) -> set[str]:
        """The names of the variables in its commands."""
        return {name for command in self.commands for name in VARIABLE.findall(command)}


def units() -> list[Unit]:
    """Return the units that are shipped."""
    return [read_unit(file) for file in sorted(UNITS.glob("*.service"))]


def read_unit(file: Path) -> Unit:
    """Return what the section `Service` of a unit says."""
    parser = configparser.ConfigParser(interpolation=None)
    # Names keep their capitals.
    parser.optionxform = str
    parser.read(file)
    return Unit(file.stem, dict(parser["Service"]))


def read_environment(file: Path) -> dict[str, str]:
    """Return the variables of an environment file."""
    lines = (line.strip() for line in file.read_text().splitlines())
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    return {name: "".join(shlex.split(value)) for name, value in pairs}


class Supervisor:
    """Runs a unit in a folder as systemd does, with the programs of this environment.

    A unit whose main process is gone loses its other processes as well.

    Attributes
    ----------
    failures
        How often a command has ended by itself, or was killed.
    log
        What its processes print.
    """

    def __init__(self, unit: Unit, folder: Path, environment: Mapping[str, str]) -> None:
        assert unit.settings["Restart"] == "always"
        assert unit.settings["WorkingDirectory"] == PROJECT
        self.log = folder / f"{unit.name}.log"
        self.failures = 0
        self._folder = folder
        ours = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        self._environment = {**ours, **environment}
        self._commands = [self._words(command) for command in unit.commands]
        self._changing = threading.Lock()
        self._stopped = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_up, name=unit.name)

    def start(self) -> None:
        """Start it for the first time."""
        self._thread.start()

    def kill(self) -> None:
        """Kill its main process, and wait until that has been noticed."""
        before = self.failures
        assert self._process is not None
        self._process.kill()
        eventually(lambda: self.failures > before, every=0.01)

    def stop(self) -> None:
        """End it for good."""
        with self._changing:
            self._stopped.set()
        if self._process is not None:
            self._process.kill()
        if self._thread.ident is not None:
            self._thread.join()

    def _words(self, command: str) -> Sequence[str]:
        programs = str(Path(sys.executable).parent)
        filled = VARIABLE.sub(lambda found: self._environment[found[1]], command)
        return shlex.split(filled.replace(PROGRAMS, programs))

    def _keep_up(self) -> None:
        while not self._stopped.is_set():
            for words in self._commands:
                if not self._ends_well(words):
                    break
            self._stopped.wait(PAUSE)

    def _ends_well(self, words: Sequence[str]) -> bool:
        with self._changing, self.log.open("ab") as log:
            if self._stopped.is_set():
                return False
            self._process = process = subprocess.Popen(
                words,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        code = process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self.failures += code != 0
        return code == 0
