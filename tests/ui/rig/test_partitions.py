"""Partitions of two grains in the browser: side by side, filled by backfills, made again.

The tests share one running lab. A backfill starts when Dagster's daemon looks for one, every 30 s:
they are launched first, and looked at last.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from playwright.sync_api import Locator, Page, Response, expect

from tests.services.process import eventually
from tests.ui.rig.rig import Rig

CHOSEN = [(3, 2), (3, 4)]
RECOMPUTE = (
    "ops: {populate_tables: {config: "
    "{tables: [Quality], restriction: {animal: 2}, on_existing: recompute}}}"
)


def test_a_backfill_over_two_tables_of_a_grain_is_launched(rig: Rig, page: Page) -> None:
    dialog = _materialize(page, rig, "spectrum", "band")
    dialog.get_by_text("Select a partition or create one").click()
    for number, session in CHOSEN:
        option = page.locator("label, li").filter(has_text=f"animal={number}/session={session}")
        option.last.click()
    page.keyboard.press("Escape")
    expect(dialog.get_by_text("2 partitions").first).to_be_visible()
    _launch(page, dialog)


def test_a_backfill_of_what_failed_across_two_grains_is_launched(rig: Rig, page: Page) -> None:
    rig.mend("Recording 3 1")
    dialog = _materialize(page, rig, "recording", "cleaned", "sorting", "quality")
    # Dagster asks for keys of the table that the others depend on.
    expect(dialog.get_by_text("rig / recording")).to_be_visible()
    dialog.get_by_role("button", name="Failed", exact=True).click()
    _launch(page, dialog)


def test_two_grains_stand_side_by_side(rig: Rig, page: Page, keep: Callable[[str], None]) -> None:
    shown, there = dict[str, Any](), dict[str, Any]()

    def agree() -> bool:
        # Some keys may still be on their way.
        sessions = len(rig.keys("session"))
        totals = {"session": sessions, "recording": sessions}
        totals["sorting"] = 3 * len(rig.keys("__cleaned"))
        for table, total in totals.items():
            shown[table] = _row(page, rig, table)
            there[table] = (total, *rig.counts(table)[1:])
        return shown == there

    with suppress(TimeoutError):
        eventually(agree)
    assert shown == there
    keep("grains")


def test_the_finer_grain_has_several_keys_for_each_coarser_one(rig: Rig, page: Page) -> None:
    sessions = [f"animal=2/session={session}" for session in (1, 2, 3)]
    assert _listed(page, rig, "cleaned", "animal=2/") == sessions
    finer = [f"{session}/detector={n}" for session in sessions for n in (1, 2, 3)]
    assert _listed(page, rig, "sorting", "animal=2/") == finer


def test_what_is_there_is_made_again_from_the_launchpad(rig: Rig, page: Page) -> None:
    before, keys = rig.calls(), _of_animal(2, rig.keys("__quality"))
    page.goto(f"{rig.dev.url}/locations/rig/jobs/populate/playground")
    expect(page.get_by_text("on_existing").first).to_be_visible()
    page.locator(".CodeMirror").first.click()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.insert_text(RECOMPUTE)
    with page.expect_response(_launches):
        page.get_by_role("button", name="Launch Run").click()
    again = Counter(f"Quality {animal} {session} {n}" for animal, session, n in keys)
    eventually(lambda: _calls(rig, before, "Quality 2") == again)
    eventually(lambda: _of_animal(2, rig.keys("__quality")) == keys)


def test_the_backfills_have_made_their_keys_each_once(
    rig: Rig, page: Page, keep: Callable[[str], None]
) -> None:
    eventually(lambda: rig.keys("__band") == CHOSEN)
    finer = [(3, 1, detector) for detector in (1, 2, 3)]
    eventually(lambda: set(rig.keys("__quality")).issuperset(finer))
    names = [f"{table} 3 {session}" for table in ("Spectrum", "Band") for _, session in CHOSEN]
    names += [f"{table} 3 1 {n}" for table in ("Sorting", "Quality") for n in (1, 2, 3)]
    calls = rig.calls()
    assert {name: calls[name] for name in names} == dict.fromkeys(names, 1)
    assert calls["Recording 3 1"] == 2
    assert {count for name, count in calls.items() if name.startswith("Quality 2")} == {2}
    assert rig.keys("__spectrum") == CHOSEN
    page.goto(f"{rig.dev.url}/assets/rig/band?view=partitions")
    expect(page.get_by_text("Materialized (2)")).to_be_visible()
    keep("backfill")


def _row(page: Page, rig: Rig, table: str) -> tuple[int, int, int]:
    """Return a table's partitions, those materialised and those failed, as the list has them."""
    page.goto(f"{rig.dev.url}/locations/rig/asset-groups/rig/list")
    link = page.locator(f"a[href='/assets/rig/{table}']")
    row = page.locator("[class*=AssetRow_rowGrid]").filter(has=link)
    total = row.get_by_text(re.compile(r"^\d+ partitions$"))
    expect(total).to_be_visible()
    shown = [int(number) for number in re.findall(r"^\d+$", row.inner_text(), re.MULTILINE)]
    count = int(total.inner_text().split()[0])
    if not shown and "green" in (total.get_attribute("style") or ""):
        # A table whose partitions are all materialised has no numbers.
        return count, count, 0
    materialized, _, failed, *_ = [*shown, 0, 0, 0]
    return count, materialized, failed


def _of_animal(animal: int, keys: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [key for key in keys if key[0] == animal]


def _listed(page: Page, rig: Rig, table: str, text: str) -> list[str]:
    """Return the partitions of a table, of those whose names have a text."""
    page.goto(f"{rig.dev.url}/assets/rig/{table}?view=partitions")
    page.get_by_placeholder("Filter by name…").fill(text)
    names = page.locator("span").get_by_text(re.compile("^animal="))
    expect(names.first).to_be_visible()
    return list(dict.fromkeys(names.all_inner_texts()))


def _materialize(page: Page, rig: Rig, *tables: str) -> Locator:
    """Open the dialog that materialises tables together."""
    page.goto(f"{rig.dev.url}/locations/rig/asset-groups/rig/list")
    for table in tables:
        page.get_by_test_id(f"checkbox-rig/{table}").locator("xpath=..").click()
    page.get_by_role("button", name=re.compile("Materialize selected")).click()
    return page.get_by_role("dialog")


def _launch(page: Page, dialog: Locator) -> None:
    with page.expect_response(_launches) as answer:
        dialog.get_by_role("button", name=re.compile("^Launch")).click()
    assert "LaunchBackfillSuccess" in answer.value.text()


def _launches(response: Response) -> bool:
    """Whether this answers the UI's request to launch; the page may be left only after it."""
    return "mutation Launch" in (response.request.post_data or "")


def _calls(rig: Rig, before: Counter[str], begin: str) -> Counter[str]:
    new: Iterable[tuple[str, int]] = (rig.calls() - before).items()
    return Counter({name: count for name, count in new if name.startswith(begin)})
