"""A person changes `make` and reloads: the table says that its rows are stale, until made again."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.services.process import eventually
from tests.ui.conftest import Keep
from tests.ui.institute import Institute
from tests.ui.pages import launch, node, write

AGAIN = """ops:
  populate_tables:
    config:
      tables: [lab.Growth]
      on_existing: recompute
"""


def test_a_changed_make_shows_and_its_rows_are_made_again(
    institute: Institute, page: Page, keep: Keep
) -> None:
    for animal in (101, 102, 103):
        row = (animal, "F", "2026-01-01", 20.0)
        institute.query('INSERT INTO "lab.animal" VALUES (?, ?, ?, ?, NULL)', *row)
    eventually(lambda: institute.expected(101, 102, 103) == [40.0] * 3)

    institute.edit("2.0 * weight", "2.5 * weight")
    institute.open(page, "/assets")
    page.get_by_role("button", name="Reload definitions").click()
    _await_check(institute, "FAILED")

    institute.open(page, "/assets/lab/growth?view=lineage")
    warning = node(page, "growth").get_by_role("img", name="warning_outline")
    expect(warning.first).to_be_visible()
    institute.open(page, "/assets/lab/growth?view=partitions")
    page.get_by_text("animal_id=101", exact=True).first.click()
    expect(page.get_by_text("Unsynced")).to_be_visible()
    institute.open(page, "/assets/lab/growth?view=checks&checkDetail=current")
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    expect(page.get_by_text("made by make as it is now").first).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="stale").first).to_be_visible()
    keep("stale")

    institute.open(page, "/locations/institute/jobs/populate/playground")
    write(page, AGAIN)
    launch(page)
    _await_check(institute, "SUCCEEDED")
    assert institute.expected(101, 102, 103) == [50.0] * 3
    institute.open(page, "/assets/lab/growth?view=checks&checkDetail=current")
    expect(page.get_by_text("Passed", exact=True).first).to_be_visible()


CHECK = """
query ($key: AssetKeyInput!) {
  assetCheckExecutions(assetKey: $key, checkName: "current", limit: 1) { status }
}
"""


def _await_check(institute: Institute, status: str) -> None:
    def last() -> list[str]:
        answer = institute.dev.graphql(CHECK, key={"path": ["lab", "growth"]})
        return [each["status"] for each in answer["assetCheckExecutions"]]

    eventually(lambda: last() == [status], every=0.5)
