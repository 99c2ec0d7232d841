"""How Dagster's pages bear a grain of 100,000 partitions: seconds until usable, memory.

Run it from the repository: ``uv run python -m benchmarks.browser``. The peer in the same run is an
asset written by hand with as many dynamic partitions, in the same code location. Both have SQLite
for Dagster's events; the daemon and our sensor run all the time.
"""

from __future__ import annotations

import argparse
import math
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from playwright.sync_api import BrowserContext, Page, TimeoutError, expect

import dj_dagster as dj
from dj_dagster.orchestration.runs.event_log import write_marks
from dj_dagster.orchestration.runs.marks import Mark
from tests.services.browser import chromium
from tests.services.dagster_dev import DagsterDev, dagster_dev
from tests.services.process import eventually

PIPELINE = '''
import dagster as dg
import dj_dagster as dj
from dj_dagster.orchestration import SensorSettings, build_definitions

connection = dj.Connection("sqlite:///{folder}/lab.sqlite", safemode=False)
schema = dj.Schema("scale", connection=connection)

@schema
class Item(dj.Manual):
    definition = """
    item : int32
    """

@schema
class Result(dj.Computed):
    definition = """
    -> Item
    ---
    size : int32
    """

    def make(self, key):
        self.insert1({{**key, "size": 1}})

@dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="by_hand"))
def by_hand():
    return None

defs = build_definitions(
    schema, assets=[by_hand], sensor_settings=SensorSettings(max_marks=100_000)
)
'''

WORKSPACE = """
load_from:
  - python_file: {relative_path: pipeline.py, working_directory: ., location_name: scale}
"""
SETTINGS = "telemetry: {enabled: false}\nnux: {enabled: false}\n"
STATISTICS = """
query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode { partitionStats { numMaterialized } } }
}
"""
OURS, ROWS, PEER = ("scale", "result"), ("scale", "item"), ("by_hand",)
PATIENCE = 180_000
ROUNDS = 2
PROCESSES = {
    "webserver": "dagster_webserver",
    "daemon": "dagster._daemon",
    "code server": "api grpc",
}


@dataclass
class Times:
    """Seconds by measure and asset, in the order in which they were taken."""

    seconds: dict[str, dict[tuple[str, ...], list[float]]] = field(
        default_factory=dict[str, dict[tuple[str, ...], list[float]]]
    )

    def take(self, measure: str, asset: tuple[str, ...], action: Callable[[], object]) -> None:
        """Do something and note how long it took, infinity where the page does not come back."""
        began = time.perf_counter()
        try:
            action()
            seconds = time.perf_counter() - began
        except (TimeoutError, AssertionError):
            seconds = math.inf
        self.seconds.setdefault(measure, {}).setdefault(asset, []).append(seconds)

    def show(self) -> None:
        """Print them as a table: the first time, and the quickest."""
        print(
            f"{'seconds until usable':<34}{'dj_dagster':>12}{'again':>8}"
            f"{'by hand':>10}{'again':>8}{'ratio':>8}"
        )
        for measure, found in self.seconds.items():
            ours, peer = found[OURS], found[PEER]
            print(
                f"{measure:<34}{ours[0]:>12.2f}{min(ours):>8.2f}"
                f"{peer[0]:>10.2f}{min(peer):>8.2f}{_ratio(min(ours), min(peer)):>8}"
            )


def _ratio(ours: float, peer: float) -> str:
    return f"{ours / peer:.2f}" if math.isfinite(ours) and math.isfinite(peer) else ""


def prepare(folder: Path, keys: int) -> None:
    """Fill the tables, and give Dagster the partitions of all assets with their marks."""
    (folder / "home").mkdir()
    (folder / "home" / "dagster.yaml").write_text(SETTINGS)
    (folder / "workspace.yaml").write_text(WORKSPACE)
    (folder / "pipeline.py").write_text(PIPELINE.format(folder=folder))
    connection = dj.Connection(f"sqlite:///{folder}/lab.sqlite", safemode=False)
    _fill(connection, keys)
    connection.close()
    partitions = [f"item={number}" for number in range(keys)]
    with dg.DagsterInstance.from_config(str(folder / "home")) as instance:
        for grain, *assets in (("scale.Item", OURS, ROWS), ("by_hand", PEER)):
            for start in range(0, keys, 10_000):
                instance.add_dynamic_partitions(grain, partitions[start : start + 10_000])
            for asset in assets:
                _mark(instance, dg.AssetKey(asset), grain, partitions[0])


def _mark(instance: dg.DagsterInstance, key: dg.AssetKey, grain: str, first: str) -> None:
    """Mark all partitions of a grain, by copies of the first one's mark."""
    write_marks(instance, [Mark(key, first)])
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    columns = [c.name for c in SqlEventLogStorageTable.c if c.name not in ("id", "partition")]
    listed = ", ".join(columns)
    with storage.index_connection() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO event_logs ({listed}, partition) SELECT {listed}, d.partition "
            "FROM event_logs e JOIN dynamic_partitions d ON d.partition <> e.partition "
            "WHERE e.asset_key = ? AND d.partitions_def_name = ?",
            (key.to_string(), grain),
        )


def _fill(connection: dj.Connection, keys: int) -> None:
    schema = dj.Schema("scale", connection=connection)

    @schema
    class Item(dj.Manual):
        definition = "item : int32"

    @schema
    class Result(dj.Computed):
        definition = """
        -> Item
        ---
        size : int32
        """

    Item.insert((number,) for number in range(keys))
    name = Result().full_table_name
    parent = Item().full_table_name
    connection.query(f"INSERT INTO {name} (item, size) SELECT item, 1 FROM {parent}")


def browse(page: Page, dev: DagsterDev, keys: int, asset: tuple[str, ...], times: Times) -> None:
    """Open what a person would, and note how long each takes."""
    place = f"{dev.url}/assets/{'/'.join(asset)}"
    last = f"item={keys - 1}"
    row = page.locator("[class*=AssetRow_rowGrid]").filter(
        has=page.locator(f"a[href='/assets/{'/'.join(asset)}']")
    )
    counted = re.compile(rf"^{keys:,} partitions$|^{keys} partitions$")

    def shown(text: str | re.Pattern[str]) -> None:
        expect(page.get_by_text(text).first).to_be_visible(timeout=PATIENCE)

    def catalog() -> None:
        page.goto(f"{dev.url}/locations/scale/asset-groups/{_group(asset)}/list")
        expect(row.get_by_text(counted)).to_be_visible(timeout=PATIENCE)

    def overview() -> None:
        page.goto(f"{place}?view=overview")
        shown(re.compile(r"^Latest materialization"))

    def listed() -> None:
        page.goto(f"{place}?view=partitions")
        shown(re.compile(rf"^Materialized \(({keys:,}|{keys})\)"))
        shown("item=0")

    def narrowed() -> None:
        page.get_by_placeholder("Filter by name…").fill(last)
        page.locator("span").get_by_text(last, exact=True).first.click(timeout=PATIENCE)
        expect(page.get_by_role("button", name=re.compile("View all"))).to_be_enabled(
            timeout=PATIENCE
        )

    launch = page.get_by_role("dialog").get_by_role("button", name=re.compile("^Launch"))

    def dialog() -> None:
        page.goto(f"{place}?view=overview")
        page.get_by_role("button", name="Materialize").first.click()
        shown("Select a partition or create one")

    def chosen() -> None:
        page.get_by_text("Select a partition or create one").click()
        page.get_by_placeholder("Filter partitions").fill(last)
        page.locator("label, li").filter(has_text=last).last.click()
        page.keyboard.press("Escape")
        expect(launch).to_be_enabled(timeout=PATIENCE)

    def chosen_all() -> None:
        page.get_by_role("dialog").get_by_role("button", name="All", exact=True).click()
        shown(re.compile(rf"({keys:,}|{keys}) partitions"))
        expect(launch).to_be_enabled(timeout=PATIENCE)

    times.take("catalog", asset, catalog)
    times.take("asset page", asset, overview)
    times.take("partitions tab", asset, listed)
    times.take("one partition, by name", asset, narrowed)
    times.take("backfill dialog", asset, dialog)
    times.take("one partition in it, by name", asset, chosen)
    times.take("all partitions in it", asset, chosen_all)


def _group(asset: tuple[str, ...]) -> str:
    return asset[0] if len(asset) > 1 else "default"


def memory(dev: DagsterDev) -> dict[str, int]:
    """Return the megabytes of each process of a `dagster dev`."""
    found = dict.fromkeys(PROCESSES, 0)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().replace("\0", " ")
            group = int((process / "stat").read_text().rpartition(")")[2].split()[3])
            resident = re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())
        except OSError:
            continue
        for name, word in PROCESSES.items():
            if group == dev.pid and word in words and resident:
                found[name] = max(found[name], int(resident[1]) // 1024)
    return found


def scale(keys: int) -> None:
    """Print the seconds of the pages and the memory of the processes."""
    times = Times()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, keys)
        with dagster_dev(folder, env={"DAGSTER_HOME": str(folder / "home")}) as dev:
            before = memory(dev)
            eventually(lambda: _materialized(dev) == keys, timeout=300, every=1)
            with chromium() as browser:
                # One who comes back: the scripts have been loaded before.
                context = browser.new_context(viewport={"width": 1440, "height": 900})
                _visit(context, f"{dev.url}/jobs")
                for asset in (OURS, PEER) * ROUNDS:
                    page = context.new_page()
                    page.set_default_timeout(PATIENCE)
                    browse(page, dev, keys, asset, times)
                    page.close()
            after = memory(dev)
    times.show()
    print(f"{'memory, MB':<38}{'at start':>12}{'at end':>10}")
    for process, megabytes in after.items():
        print(f"{process:<38}{before[process]:>12}{megabytes:>10}")


def _materialized(dev: DagsterDev) -> int:
    answer = dev.graphql(STATISTICS, key={"path": list(OURS)})["assetNodeOrError"]
    return answer.get("partitionStats", {}).get("numMaterialized", 0)


def _visit(context: BrowserContext, url: str) -> None:
    page = context.new_page()
    page.goto(url, wait_until="networkidle")
    page.close()


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=100_000)
    scale(parser.parse_args().partitions)


if __name__ == "__main__":
    main()
