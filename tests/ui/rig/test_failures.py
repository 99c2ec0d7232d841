"""Failed keys in the browser: which they are, what went wrong in each, and trying just them again.

The tests share one running lab and go through it in the order that a person would.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from playwright.sync_api import Page, Response, expect

from tests.ui.rig.rig import BROKEN, Rig

SORTINGS = {
    "animal=1/session=2/detector=2": BROKEN["Sorting 1 2 2"],
    "animal=2/session=1/detector=3": BROKEN["Sorting 2 1 3"],
}


def test_the_partition_list_shows_the_failed_keys_and_no_others(
    rig: Rig, page: Page, keep: Callable[[str], None]
) -> None:
    page.goto(f"{rig.dev.url}/assets/rig/sorting?view=overview")
    page.get_by_role("link", name="failed keys").click()
    expect(page.get_by_text("Failed (2)")).to_be_visible()
    expect(page.get_by_text("2 Partitions Selected")).to_be_visible()
    names = page.locator("span").get_by_text(re.compile("^animal=")).all_inner_texts()
    assert set(names) == set(SORTINGS)
    keep("failed_keys")


def test_the_run_shows_each_failed_key_with_its_error(rig: Rig, page: Page) -> None:
    for key, error in SORTINGS.items():
        # Which keys share a run depends on when the sensor looked.
        run_id = _open_failed_run(rig, page, "sorting", key)
        page.get_by_placeholder("Filter…").fill(key)
        expect(page.get_by_text(f"ValueError: {error}").first).to_be_visible()
        page.get_by_placeholder("Filter…").fill("type:STEP_FAILURE")
        page.get_by_text("[Show JSON]").first.click()
        for failed in rig.failed(run_id, "Sorting"):
            line = f'"rig.Sorting {failed}": "ValueError: {SORTINGS[failed]}"'
            expect(page.get_by_role("dialog").get_by_text(line).first).to_be_visible()


def test_a_run_executed_again_from_its_failure_makes_what_failed(rig: Rig, page: Page) -> None:
    before = rig.calls()
    rig.mend("Sorting 1 2 2")
    run_id = _open_failed_run(rig, page, "sorting", "animal=1/session=2/detector=2")
    failed = rig.failed(run_id, "Sorting")
    page.get_by_role("button", name="Re-execute all").locator("xpath=following::button[1]").click()
    with page.expect_response(_launches):
        page.get_by_role("menuitem", name="From failure").click()
    rig.until(quality=(30, 29, 0), sorting=(30, 29, 1))
    assert "animal=1/session=2/detector=2" in failed
    retried = [" ".join(["Sorting", *re.findall(r"\d+", key)]) for key in failed]
    assert rig.calls() - before == Counter([*retried, "Quality 1 2 2"])


def test_the_failed_key_of_a_table_heals_when_a_person_materialises_it(
    rig: Rig, page: Page
) -> None:
    before = rig.calls()
    rig.mend("Recording 1 3")
    page.goto(f"{rig.dev.url}/assets/rig/recording?view=partitions")
    expect(page.get_by_text("Failed (2)")).to_be_visible()
    page.locator("span").get_by_text("animal=1/session=3", exact=True).first.click()
    page.get_by_role("button", name="Materialize").first.click()
    with page.expect_response(_launches):
        page.get_by_role("button", name="Launch 1 run").click()
    rig.until(recording=(12, 11, 1))
    made = {name: count for name, count in (rig.calls() - before).items() if "Recording" in name}
    assert made == {"Recording 1 3": 1}
    page.reload()
    expect(page.get_by_text("Materialized (11)")).to_be_visible()
    expect(page.get_by_text("Failed (1)")).to_be_visible()


def _open_failed_run(rig: Rig, page: Page, table: str, partition: str) -> str:
    """Go from a failed partition to the run that it failed in; return the run's id."""
    page.goto(f"{rig.dev.url}/assets/rig/{table}?view=partitions")
    page.locator("span").get_by_text(partition, exact=True).first.click()
    expect(page.get_by_text("failed, and did not materialize this asset")).to_be_visible()
    page.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()
    expect(page.get_by_text("RUN_FAILURE").first).to_be_visible()
    return page.url.rpartition("/")[2].partition("?")[0]


def _launches(response: Response) -> bool:
    """Whether this answers the UI's request to launch; the page may be left only after it."""
    return "mutation Launch" in (response.request.post_data or "")
