"""A person changes `make` and reloads: the table says that its rows are stale, until made again."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.services.process import eventually
from tests.ui.conftest import Keep
from tests.ui.pages import launch, node, write
from tests.ui.rig.rig import Rig

AGAIN = """ops:
  populate_tables:
    config:
      tables: [rig.Quality]
      on_existing: recompute
"""


def test_a_changed_make_shows_and_its_rows_are_made_again(rig: Rig, page: Page, keep: Keep) -> None:
    before = rig.values("__quality")
    rig.edit("2 * (Sorting", "4 * (Sorting")
    rig.open(page, "/assets")
    page.get_by_role("button", name="Reload definitions").click()
    _await_check(rig, "FAILED")

    rig.open(page, "/assets/rig/quality?view=lineage")
    warning = node(page, "quality").get_by_role("img", name="warning_outline")
    expect(warning.first).to_be_visible()
    rig.open(page, "/assets/rig/quality?view=partitions")
    page.get_by_text("animal=2/session=2/detector=1", exact=True).first.click()
    expect(page.get_by_text("Unsynced")).to_be_visible()
    rig.open(page, "/assets/rig/quality?view=checks&checkDetail=current")
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    expect(page.get_by_text("made by make as it is now").first).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="stale").first).to_be_visible()
    keep("stale")

    rig.open(page, "/locations/rig/jobs/populate/playground")
    write(page, AGAIN)
    launch(page)
    _await_check(rig, "SUCCEEDED")
    assert rig.values("__quality") == {key: 2 * value for key, value in before.items()}
    rig.open(page, "/assets/rig/quality?view=checks&checkDetail=current")
    expect(page.get_by_text("Passed", exact=True).first).to_be_visible()


CHECK = """
query ($key: AssetKeyInput!) {
  assetCheckExecutions(assetKey: $key, checkName: "current", limit: 1) { status }
}
"""


def _await_check(rig: Rig, status: str) -> None:
    def last() -> list[str]:
        answer = rig.dev.graphql(CHECK, key={"path": ["rig", "quality"]})
        return [each["status"] for each in answer["assetCheckExecutions"]]

    eventually(lambda: last() == [status], every=0.5)
