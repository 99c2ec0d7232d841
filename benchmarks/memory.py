"""How much memory work takes beside its payload. Linux only."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

MEBIBYTE = 2**20

PACKING = """
import sys
import numpy as np
from benchmarks.memory import beside
from {module} import pack, unpack

value = np.random.default_rng(1).random(32 * 2**20, dtype="f4")
if sys.argv[1] == "compressible":
    value = np.round(np.sin(np.arange(32 * 2**20, dtype="f4") / 500) * 200).astype("f4")
pack(value[:1000])
kept = []
print(beside(lambda: kept.append(pack(value))) / value.nbytes + 1)
print((beside(lambda: kept.append(unpack(kept[0]))) + len(kept[0])) / value.nbytes)
"""


def beside(work: Callable[[], object]) -> int:
    """Return the bytes of memory by which a call raises the peak over what there was before it."""
    gc.collect()
    # What is free but was not given back would hide what the call needs.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _kibibytes("VmRSS")
    work()
    return max(0, _kibibytes("VmHWM") - before) * 1024


def packing() -> Iterator[str]:
    """Yield the peak memory of packing 128 MB and unpacking it, as a multiple of the payload.

    What is packed, or unpacked, counts too.
    """
    for kind in ("random", "compressible"):
        for module in ("dj_dagster.blob", "datajoint.blob"):
            script = PACKING.format(module=module)
            command = [sys.executable, "-W", "ignore", "-c", script, kind]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            pack, unpack = map(float, done.stdout.split())
            yield f"peak memory, {kind}, {module}: {pack:.2f} to pack, {unpack:.2f} to unpack"


def _kibibytes(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0])
