"""A person enters rows in the launchpad, and is told what is wrong with them."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.ui.conftest import Keep
from tests.ui.institute.institute import Institute
from tests.ui.pages import launch, write

LAUNCHPAD = "/locations/institute/jobs/insert__lab__animal/playground"
CONFIG = """ops:
  insert__lab__animal__rows:
    config:
      rows:
        - animal_id: {animal_id}
          sex: {sex}
          born: {born}
          weight: {weight}
"""


def config(animal_id: int, sex: str = "F", born: str = "2026-05-01", weight: str = "21.5") -> str:
    return CONFIG.format(animal_id=animal_id, sex=sex, born=born, weight=weight)


def test_the_editor_offers_the_attributes(institute: Institute, page: Page, keep: Keep) -> None:
    institute.open(page, "/assets/lab/animal?view=overview")
    page.get_by_role("link", name="enter rows").click()
    write(page, CONFIG.split("sex")[0].format(animal_id=7))
    page.keyboard.press("Control+Space")
    for offered in ("weight g; float32", "sex enum('F', 'M')", "born date: YYYY-MM-DD"):
        expect(page.get_by_role("option", name=offered)).to_be_visible()
    keep("entry")


def test_a_value_that_does_not_fit_is_refused_before_the_launch(
    institute: Institute, page: Page
) -> None:
    institute.open(page, LAUNCHPAD)
    write(page, config(7, sex="X", weight="heavy"))
    expect(page.get_by_text(re.compile(r"rows\[0\]:sex not in enum"))).to_be_visible()
    expect(page.get_by_text(re.compile(r"rows\[0\]:weight.*heavy"))).to_be_visible()
    expect(page.get_by_role("button", name="Launch Run")).to_be_disabled()


def test_a_value_that_the_table_refuses_is_named_in_the_run(
    institute: Institute, page: Page
) -> None:
    institute.open(page, LAUNCHPAD)
    write(page, config(7, born="yesterday"))
    launch(page)
    said = re.compile(r"lab\.animal\.born : date cannot hold 'yesterday'")
    expect(page.get_by_text(said).first).to_be_visible()
    assert institute.query('SELECT * FROM "lab.animal" WHERE animal_id = 7') == []


def test_rows_are_in_the_table_and_have_their_partitions(institute: Institute, page: Page) -> None:
    institute.open(page, LAUNCHPAD)
    write(page, config(8) + "        - {animal_id: 9, sex: M, born: 2026-05-02, weight: 22}\n")
    launch(page)
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    rows = institute.query('SELECT * FROM "lab.animal" WHERE animal_id IN (8, 9) ORDER BY 1')
    assert rows == [(8, "F", "2026-05-01", 21.5, None), (9, "M", "2026-05-02", 22.0, None)]
    institute.open(page, "/assets/lab/animal?view=partitions")
    for partition in ("animal_id=8", "animal_id=9"):
        expect(page.get_by_text(partition, exact=True).first).to_be_visible()
