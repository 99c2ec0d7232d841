"""Ephys in the browser: pictures, a verdict, a repaired file, stale metrics, grains, backfills.

The tests share one running lab with two recordings, one of them cut, and go through it in order.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from playwright.sync_api import Page, Response, expect

from pipelines.ephys.acquisition import demo_session, record
from tests.ephys.recordings import CUT, STATIC
from tests.services.dagster_dev import dagster_dev
from tests.services.dagster_runs import STATISTICS
from tests.services.process import PATIENCE, eventually
from tests.ui.conftest import REPOSITORY, Keep
from tests.ui.pages import RunningLab, launch, node, write

pytestmark = pytest.mark.ephys

WORKSPACE = """
load_from:
  - python_module:
      module_name: pipelines.ephys.definitions
      working_directory: .
      location_name: ephys
"""
VERDICT = """ops:
  enter_verdict:
    config:
      by: Ada
      accepted: true
      reason: clean units
      partitions:
        - subject={subject}/session_datetime={started}/insertion_number=0/paramset_idx=1
"""
MATERIALIZATIONS = """
query ($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) {
    ... on Asset { assetMaterializations(limit: 100) { partition runId metadataEntries { label } } }
  }
}
"""
RUNS_OF_METRICS = """
SELECT key_hash, run_id FROM "ephys_quality.~provenance" WHERE table_name = '__quality_metrics'
"""
TABLES = {
    "recording": "ephys_recording/raw_ephys",
    "sorting": "ephys_sorting/spike_sorting",
    "metrics": "ephys_quality/quality_metrics",
    "truth": "ephys_quality/ground_truth_comparison",
    "file": "ephys_delivery/n_w_b_file",
}


class EphysLab(RunningLab):
    """The running pipeline: its UI, and its folder with a copy of its modules."""

    def counts(self, table: str) -> tuple[int, int, int]:
        """Return how many partitions a table has, and how many are materialised and failed."""
        path = TABLES[table].split("/")
        answer = self.dev.graphql(STATISTICS, key={"path": path})
        found = answer["assetNodeOrError"]["partitionStats"]
        return found["numPartitions"], found["numMaterialized"], found["numFailed"]

    def made(self) -> dict[str, dict[str, str]]:
        """Return the run that made each key, by table and subject; each has one recording."""
        found: dict[str, dict[str, str]] = {}
        for table, path in TABLES.items():
            answer = self.dev.graphql(MATERIALIZATIONS, key={"path": path.split("/")})
            found[table] = {
                mark["partition"].partition("/")[0].removeprefix("subject="): mark["runId"]
                for mark in reversed(answer["assetOrError"]["assetMaterializations"])
                if "seconds_make" in {entry["label"] for entry in mark["metadataEntries"]}
            }
        return found

    def made_since(self, before: dict[str, dict[str, str]]) -> dict[str, set[str]]:
        """Return the subjects of each table whose key was made again; see `made`."""
        after = self.made()
        return {
            table: {s for s, _ in after[table].items() - before[table].items()} for table in after
        }

    def until(self, **counts: tuple[int, int, int]) -> None:
        """Wait until the partition counts of tables are as expected; see `counts`."""
        for table, expected in counts.items():
            eventually(
                lambda t=table, e=expected: self.counts(t) == e, timeout=2 * PATIENCE, every=1
            )

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the database."""
        with closing(sqlite3.connect(self.folder / ".dj" / "lab.sqlite")) as database:
            return database.execute(statement).fetchall()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EphysLab]:
    """`dagster dev` in a copy of the pipeline, with a whole recording and one that was cut."""
    folder = tmp_path_factory.mktemp("ephys")
    shutil.copytree(REPOSITORY / "pipelines", folder / "pipelines")
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    (folder / "workspace.yaml").write_text(WORKSPACE)
    for number in (STATIC, CUT):
        record(demo_session(number), folder / ".dj" / "recordings")
    # It is on its own settings, whatever the developer's are.
    with dagster_dev(folder, without=[n for n in os.environ if n.startswith("DJ_")]) as dev:
        yield EphysLab(dev, folder)


def test_a_recording_is_sorted_and_a_cut_one_is_a_failed_key(
    lab: EphysLab, page: Page, keep: Keep
) -> None:
    lab.until(recording=(2, 1, 1), truth=(1, 1, 0), metrics=(1, 1, 0))
    lab.open(page, f"/assets/{TABLES['recording']}?view=partitions")
    expect(page.get_by_text("Failed (1)")).to_be_visible()
    _choose(page, CUT)
    expect(page.get_by_text("failed, and did not materialize this asset")).to_be_visible()
    page.set_viewport_size({"width": 2000, "height": 1000})
    lab.open(page, "/asset-groups")
    for schema in ("ephys_recording", "ephys_sorting", "ephys_verdict", "ephys_delivery"):
        expect(node(page, schema)).to_be_visible()
    keep("ephys_graph")


def test_a_sorting_shows_its_pictures(lab: EphysLab, page: Page, keep: Keep) -> None:
    page.set_viewport_size({"width": 1400, "height": 1000})
    lab.open(page, f"/assets/{TABLES['sorting']}?view=partitions")
    _choose(page, STATIC)
    for picture in ("raster", "waveforms"):
        expect(page.get_by_text(picture, exact=True).first).to_be_visible()
    pictures = page.locator("img[src^='data:image']")
    shown = page.get_by_text("[Show Markdown]")
    expect(pictures.or_(shown).first).to_be_visible()
    if not pictures.count():
        shown.first.click()
    expect(pictures.first).to_be_visible()
    assert pictures.first.evaluate("image => image.naturalWidth") > 200
    keep("ephys_sorting")


def test_a_sorting_waits_for_a_verdict_and_is_delivered_after_it(
    lab: EphysLab, page: Page, keep: Keep
) -> None:
    assert lab.counts("file") == (1, 0, 0)
    lab.open(page, f"/assets/{TABLES['sorting']}?view=checks&checkDetail=judged")
    expect(page.get_by_text("1 sortings wait for a verdict.").first).to_be_visible()
    lab.open(page, "/locations/ephys/jobs/judge_sortings/playground")
    session = demo_session(STATIC)
    write(page, VERDICT.format(subject=session.subject, started=session.started.isoformat()))
    keep("ephys_verdict")
    launch(page)
    lab.until(file=(1, 1, 0))
    assert lab.rows('SELECT accepted, judged_by FROM "ephys_verdict.verdict"') == [(1, "Ada")]
    sessions = lab.folder / ".dj" / "deliveries" / "sessions.parquet"
    eventually(sessions.exists)


def test_a_recording_is_repaired_and_its_key_made(lab: EphysLab, page: Page) -> None:
    lab.open(page, "/locations/ephys/jobs/repair_recordings/playground")
    launch(page)
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    lab.open(page, f"/assets/{TABLES['recording']}?view=partitions")
    _choose(page, CUT)
    page.get_by_role("button", name="Materialize").first.click()
    with page.expect_response(_launches):
        page.get_by_role("button", name="Launch 1 run").click()
    lab.until(recording=(2, 2, 0), metrics=(2, 2, 0), truth=(2, 2, 0))


def test_metrics_of_a_changed_make_show_as_stale(lab: EphysLab, page: Page, keep: Keep) -> None:
    path = lab.folder / "pipelines" / "ephys" / "quality.py"
    text = path.read_text()
    assert "PRESENCE_BIN_S = 5.0" in text
    path.write_text(text.replace("PRESENCE_BIN_S = 5.0", "PRESENCE_BIN_S = 4.0"))
    lab.open(page, "/assets")
    page.get_by_role("button", name="Reload definitions").click()

    def is_stale() -> bool:
        lab.open(page, f"/assets/{TABLES['metrics']}?view=checks&checkDetail=current")
        page.wait_for_timeout(2000)
        return page.get_by_text("made by make as it is now").count() > 0

    eventually(is_stale, every=1)
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    keep("ephys_stale")


def test_the_stale_metrics_of_a_key_are_made_again_with_what_hangs_on_them(
    lab: EphysLab, page: Page
) -> None:
    before, verdicts = lab.made(), lab.rows('SELECT * FROM "ephys_verdict.verdict"')
    lab.open(page, f"/assets/{TABLES['metrics']}?view=partitions")
    _choose(page, STATIC)
    page.get_by_role("button", name="Materialize").first.click()
    with page.expect_response(_launches):
        page.get_by_role("button", name="Launch 1 run").click()
    again = {demo_session(STATIC).subject}
    eventually(lambda: lab.made_since(before)["file"] == again, timeout=2 * PATIENCE, every=1)
    assert lab.made_since(before) == {
        "recording": set(),
        "sorting": set(),
        "metrics": again,
        "truth": set(),
        "file": again,
    }
    assert lab.rows('SELECT * FROM "ephys_verdict.verdict"') == verdicts
    lab.until(file=(2, 1, 0), metrics=(2, 2, 0))


def test_a_backfill_of_all_metrics_makes_those_that_are_stale(
    lab: EphysLab, page: Page, keep: Keep
) -> None:
    before = set(lab.rows(RUNS_OF_METRICS))
    lab.open(page, f"/assets/{TABLES['metrics']}?view=partitions")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="All", exact=True).click()
    keep("ephys_backfill_dialog")
    with page.expect_response(_launches) as answer:
        dialog.get_by_role("button", name=re.compile("^Launch")).click()
    assert "LaunchBackfillSuccess" in answer.value.text()
    backfill = answer.value.json()["data"]["launchPartitionBackfill"]["backfillId"]
    eventually(lambda: _check(lab) == ["SUCCEEDED"], timeout=2 * PATIENCE, every=1)
    eventually(lambda: _backfill(lab, backfill) == "COMPLETED_SUCCESS", timeout=2 * PATIENCE)
    lab.open(page, f"/runs/b/{backfill}")
    expect(page.get_by_text("100% completed").first).to_be_visible()
    keep("ephys_backfill")
    (new,) = set(lab.rows(RUNS_OF_METRICS)) - before
    assert new[1] == lab.made()["metrics"][demo_session(CUT).subject]
    lab.open(page, f"/assets/{TABLES['metrics']}?view=checks&checkDetail=current")
    expect(page.get_by_text("Passed", exact=True).first).to_be_visible()


def test_recordings_and_sortings_are_two_grains(lab: EphysLab, page: Page, keep: Keep) -> None:
    """Each recording is sorted by a second set, so that one partition stands beside two."""
    command = "from pipelines.ephys.paramset import add_preset; add_preset('spykingcircus2')"
    env = {name: value for name, value in os.environ.items() if not name.startswith("DJ_")}
    subprocess.run([sys.executable, "-c", command], cwd=lab.folder, env=env, check=True)
    lab.until(sorting=(4, 4, 0), metrics=(4, 4, 0), truth=(4, 4, 0))
    assert lab.counts("recording") == (2, 2, 0)
    for table, sets in ("recording", [""]), ("sorting", ["/paramset_idx=1", "/paramset_idx=3"]):
        lab.open(page, f"/assets/{TABLES[table]}?view=partitions")
        for number in (STATIC, CUT):
            session = demo_session(number)
            start = f"subject={session.subject}/session_datetime={session.started.isoformat()}"
            for end in sets:
                name = f"{start}/insertion_number=0{end}"
                expect(page.get_by_title(name, exact=True).first).to_be_attached()
    keep("ephys_grains")
    for table, count in ("recording", 2), ("sorting", 4):
        group = TABLES[table].partition("/")[0]
        lab.open(page, f"/locations/ephys/asset-groups/{group}/list")
        row = page.locator("[class*=AssetRow_rowGrid]").filter(
            has=page.locator(f"a[href='/assets/{TABLES[table]}']")
        )
        expect(row.get_by_text(f"{count} partitions", exact=True)).to_be_visible()


CHECK = """
query ($key: AssetKeyInput!) {
  assetCheckExecutions(assetKey: $key, checkName: "current", limit: 1) { status }
}
"""


def _check(lab: EphysLab) -> list[str]:
    """Return the last status of the check `current` of the metrics."""
    answer = lab.dev.graphql(CHECK, key={"path": TABLES["metrics"].split("/")})
    return [each["status"] for each in answer["assetCheckExecutions"]]


BACKFILL = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}
"""


def _backfill(lab: EphysLab, backfill: str) -> str:
    return lab.dev.graphql(BACKFILL, id=backfill)["partitionBackfillOrError"]["status"]


def _choose(page: Page, number: int) -> None:
    """Click the partition of a recording of the demo, whose name the list shortens."""
    subject = demo_session(number).subject
    page.get_by_text(re.compile(f"^subject={subject}/")).filter(visible=True).first.click()


def _launches(response: Response) -> bool:
    return "mutation Launch" in (response.request.post_data or "")
