"""A scan of PrairieView and its segmentation by Suite2p, as Elements load them.

The values come from a seeded generator: they mean nothing, and are the same in each run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

FRAMES = 40
PIXELS = 64
CELLS = 5
BLOCKS = 4

_STATE = """<?xml version="1.0" encoding="utf-8"?>
<PVScan version="5.4.64.500" date="5/1/2024 12:31:00 PM" notes="">
  <PVStateShard>
    <PVStateValue key="framePeriod" value="0.0625" />
    <PVStateValue key="scanLinePeriod" value="6.25E-05" />
    <PVStateValue key="pixelsPerLine" value="{pixels}" />
    <PVStateValue key="micronsPerPixel"><IndexedValue index="XAxis" value="1.5" /></PVStateValue>
    <PVStateValue key="currentScanCenter">
      <IndexedValue index="XAxis" value="1.25" /><IndexedValue index="YAxis" value="-2.5" />
    </PVStateValue>
    <PVStateValue key="positionCurrent">
      <SubindexedValues index="ZAxis"><SubindexedValue subindex="0" value="-120.5" />
      </SubindexedValues>
    </PVStateValue>
  </PVStateShard>
  <Sequence type="TSeries Timed Element" cycle="1" time="12:31:00.1234567" bidirectionalZ="False">
{frames}
  </Sequence>
</PVScan>
"""
_FRAME = """    <Frame relativeTime="{time}" absoluteTime="{time}" index="{number}">
      <File channel="1" channelName="Ch1" page="1" filename="scan_{number:06d}.ome.tif" />
    </Frame>"""


def write_scan(folder: Path) -> None:
    """Write a description of all frames, and a file that stands for them, of which none is read."""
    folder.mkdir(parents=True)
    frames = (_FRAME.format(time=number / 16, number=number) for number in range(1, FRAMES + 1))
    text = _STATE.format(pixels=PIXELS, frames="\n".join(frames))
    (folder / "scan.xml").write_text(text)
    (folder / "scan_000001.ome.tif").write_bytes(b"II*\0")


def write_segmentation(folder: Path) -> None:
    """Write what Suite2p leaves of one plane."""
    plane = folder / "plane0"
    plane.mkdir(parents=True)
    random = np.random.default_rng(4)
    traces = random.random((CELLS, FRAMES)).astype(np.float32)
    likely = random.random(CELLS)
    cells: list[dict[str, Any]] = [
        {
            "npix": 6, "med": [int(number), int(number) + 2],
            "xpix": random.integers(0, PIXELS, 6), "ypix": random.integers(0, PIXELS, 6),
            "lam": random.random(6).astype(np.float32),
        }
        for number in range(CELLS)
    ]  # fmt: skip
    arrays: dict[str, Any] = {
        "F": traces, "Fneu": traces / 2, "spks": np.maximum(traces - 0.5, 0),
        "iscell": np.column_stack([np.arange(CELLS) % 2 == 0, likely]),
        "stat": np.array(cells, dtype=object), "ops": np.array(_options(random), dtype=object),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(plane / f"{name}.npy", array, allow_pickle=True)


def _options(random: np.random.Generator) -> dict[str, Any]:
    image = random.random((PIXELS, PIXELS)).astype(np.float32)
    corner = [0, PIXELS // 2]
    return {
        "align_by_chan": 1, "functional_chan": 1, "nonrigid": True, "block_size": [32, 32],
        "nblocks": [2, 2], "refImg": image, "meanImg": image * 2, "max_proj": image * 3,
        "Vcorr": image / 2, "badframes": random.random(FRAMES) > 0.9,
        "xoff": random.integers(-3, 4, FRAMES), "yoff": random.integers(-3, 4, FRAMES),
        "xoff1": random.random((FRAMES, BLOCKS)), "yoff1": random.random((FRAMES, BLOCKS)),
        "xblock": [np.array([x, x + 32]) for x in corner for _ in corner],
        "yblock": [np.array([y, y + 32]) for _ in corner for y in corner],
    }  # fmt: skip
