"""Machines of other names on this one: their processes take each other for those of elsewhere.

A worker of another machine can't be looked for in `/proc`; only its lease says whether it lives.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence


def on_host(name: str | None, command: Sequence[str]) -> list[str]:
    """Return a command that runs another one on a machine of that name, on this one without."""
    if name is None:
        return [*command]
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name, *command]


@functools.cache
def hosts_are_possible() -> bool:
    """Tell whether this process may give others such names: on Linux, and as root."""
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run(on_host("elsewhere", ["hostname"]), capture_output=True, text=True)
    return done.stdout.strip() == "elsewhere"
