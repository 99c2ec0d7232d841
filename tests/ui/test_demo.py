"""What a newcomer sees in the browser: the graph, columns, partitions filling, failures, the plot.

The tests share one running demo and go through it in the order that a person would.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from playwright.sync_api import Page, Response, expect

from tests.services.process import eventually
from tests.ui.conftest import Demo

Keep = Callable[[str], None]

TABLES = {
    "stimulus_type": "lookup",
    "subject": "manual",
    "session": "manual",
    "trial": "part",
    "filter_params": "lookup",
    "raw_data": "imported",
    "processed": "computed",
    "heart_rate": "computed",
    "beat": "part",
}


def test_the_graph_shows_all_tables_with_their_tiers(demo: Demo, page: Page) -> None:
    # The graph draws what a node holds only where there is room for it.
    page.set_viewport_size({"width": 2500, "height": 1250})
    demo.open(page, "/locations/pipelines/asset-groups/lab/lineage")
    for table in TABLES:
        expect(page.get_by_text(table, exact=True).first).to_be_visible()
    for tier, tables in Counter(TABLES.values()).items():
        expect(page.get_by_text(tier, exact=True)).to_have_count(tables)


def test_a_table_shows_its_columns_with_key_types_and_origin(demo: Demo, page: Page) -> None:
    demo.open(page, "/assets/lab/session?view=overview")
    expect(page.get_by_text("one sitting of a subject").first).to_be_visible()
    for text in ("subject_id", "session_id", "session_time", "file_name"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    expect(page.get_by_text("(from lab.Subject.subject_id)")).to_be_visible()
    expect(page.get_by_text("primary key", exact=True).first).to_be_visible()
    expect(page.get_by_text("varchar(255)", exact=True).first).to_be_visible()


def test_the_button_records_a_session_that_the_sensor_has_computed(demo: Demo, page: Page) -> None:
    demo.open(page, "/locations/pipelines/jobs/record_session/playground")
    with page.expect_response(_launches):
        page.get_by_role("button", name="Launch Run").click()
    demo.until("processed", numPartitions=1, numMaterialized=1)
    demo.until("heart_rate", numPartitions=2, numMaterialized=2)


def test_partitions_go_from_missing_to_materialised(demo: Demo, page: Page, keep: Keep) -> None:
    demo.open(page, "/assets/lab/processed?view=partitions")
    expect(page.get_by_text("Materialized (1)")).to_be_visible()
    demo.record(40)
    demo.until("processed", numPartitions=41)
    with demo.held():
        page.reload()
        expect(page.get_by_text(re.compile(r"Missing \((39|40)\)"))).to_be_visible()
    demo.until("processed", numMaterialized=41)
    page.reload()
    expect(page.get_by_text("Materialized (41)")).to_be_visible()
    expect(page.get_by_text("Missing (0)")).to_be_visible()
    _select(page, "subject_id=2/session_id=7")
    expect(page.get_by_text("seconds_make").first).to_be_visible()
    keep("partitions")


def test_a_missing_raw_file_fails_its_key_alone(demo: Demo, page: Page, keep: Keep) -> None:
    demo.until("heart_rate", numMaterialized=82)
    insert = 'INSERT INTO "lab.session" VALUES (?, ?, ?, ?)'
    demo.sql(insert, 1, 60, "2026-01-01 10:00:00", "lost.csv")
    demo.sql(insert, 1, 61, "2026-01-01 11:00:00", "session_0003.csv")
    demo.until("raw_data", numPartitions=43, numMaterialized=42, numFailed=1)
    demo.until("processed", numMaterialized=42)
    demo.open(page, "/assets/lab/raw_data?view=partitions")
    expect(page.get_by_text("Failed (1)")).to_be_visible()
    _select(page, "subject_id=1/session_id=60")
    expect(page.get_by_text("failed, and did not materialize this asset")).to_be_visible()
    keep("failed")
    page.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()
    expect(page.get_by_text(re.compile("FileNotFoundError.*lost.csv")).first).to_be_visible()


def test_a_restored_file_heals_the_key_when_a_person_asks(demo: Demo, page: Page) -> None:
    folder = demo.folder / ".dj" / "recordings"
    (folder / "lost.csv").write_bytes((folder / "session_0004.csv").read_bytes())
    demo.open(page, "/assets/lab/raw_data?view=partitions")
    _select(page, "subject_id=1/session_id=60")
    page.get_by_role("button", name="Materialize").first.click()
    with page.expect_response(_launches):
        page.get_by_role("button", name="Launch 1 run").click()
    demo.until("raw_data", numMaterialized=43, numFailed=0)
    demo.until("processed", numMaterialized=43)


def test_deleted_rows_take_their_partitions_along(demo: Demo) -> None:
    demo.until("heart_rate", numMaterialized=86)
    for table in ("__heart_rate__beat", "__heart_rate", "__processed", "_raw_data", "session"):
        demo.sql(f'DELETE FROM "lab.{table}" WHERE session_id = 60')
    demo.until("session", numPartitions=42)
    demo.until("heart_rate", numPartitions=84, numMaterialized=84)


def test_the_report_shows_its_plot(demo: Demo, page: Page, keep: Keep) -> None:
    demo.open(page, "/assets/heart_rate_report?view=overview")
    with page.expect_response(_launches):
        page.get_by_role("button", name="Materialize").first.click()

    eventually(lambda: _reloaded(page, "[Show Markdown]"), every=1)
    page.get_by_text("[Show Markdown]").first.click()
    plot = page.locator("img[src^='data:image/png']").first
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.naturalWidth") > 300
    keep("report")


def test_an_ordinary_asset_writes_its_frame_into_a_manual_table(demo: Demo, page: Page) -> None:
    demo.open(page, "/assets/lab/subject?view=overview")
    with page.expect_response(_launches):
        page.get_by_role("button", name="Materialize").first.click()
    eventually(lambda: _reloaded(page, "rows_left"), every=1)
    expect(page.get_by_text("External Asset")).to_have_count(0)


def test_the_graph_of_a_filled_lab(demo: Demo, page: Page, keep: Keep) -> None:
    page.set_viewport_size({"width": 2000, "height": 1000})
    demo.open(page, "/locations/pipelines/asset-groups/lab/lineage")
    expect(page.get_by_text("100% filled").first).to_be_visible()
    expect(page.get_by_text("84 partitions").first).to_be_visible()
    keep("graph")


def _select(page: Page, partition: str) -> None:
    """Click a partition; the list draws only those in sight, so it is narrowed first."""
    page.get_by_placeholder("Filter by name…").fill(partition)
    page.locator("span").get_by_text(partition, exact=True).first.click()


def _launches(response: Response) -> bool:
    """Whether this answers the UI's request to launch; the page may be left only after it."""
    return "mutation Launch" in (response.request.post_data or "")


def _reloaded(page: Page, text: str) -> bool:
    """Whether a page has a text once it is loaded again."""
    page.reload()
    page.wait_for_timeout(2000)
    return page.get_by_text(text).count() > 0
