"""Ephys in the browser: a sorting's pictures, a verdict, a repaired recording, stale metrics.

The tests share one running lab with two recordings, one of them cut, and go through it in order.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Response, expect

from pipelines.ephys.acquisition import demo_session, record
from tests.ephys.recordings import CUT, STATIC
from tests.services.dagster_dev import DagsterDev, dagster_dev
from tests.services.process import PATIENCE, eventually
from tests.ui.conftest import REPOSITORY, STATISTICS, Keep
from tests.ui.pages import launch, node, write

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
TABLES = {
    "recording": "ephys_recording/raw_ephys",
    "sorting": "ephys_sorting/spike_sorting",
    "metrics": "ephys_quality/quality_metrics",
    "truth": "ephys_quality/ground_truth_comparison",
    "file": "ephys_delivery/n_w_b_file",
}


@dataclass(frozen=True)
class EphysLab:
    """The running pipeline: its UI, and its folder with a copy of its modules."""

    dev: DagsterDev
    folder: Path

    def open(self, page: Page, path: str) -> Page:
        """Open a page of the UI."""
        page.goto(self.dev.url + path)
        return page

    def counts(self, table: str) -> tuple[int, int, int]:
        """Return how many partitions a table has, and how many are materialised and failed."""
        path = TABLES[table].split("/")
        answer = self.dev.graphql(STATISTICS, key={"path": path})
        found = answer["assetNodeOrError"]["partitionStats"]
        return found["numPartitions"], found["numMaterialized"], found["numFailed"]

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


def _choose(page: Page, number: int) -> None:
    """Click the partition of a recording of the demo, whose name the list shortens."""
    subject = demo_session(number).subject
    page.get_by_text(re.compile(f"^subject={subject}/")).filter(visible=True).first.click()


def _launches(response: Response) -> bool:
    return "mutation Launch" in (response.request.post_data or "")
