"""A reader goes by the words of the page of the first pipeline, in a real `dagster dev`.

From an empty folder to a key that turns green, one that fails with its error, and green again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.docs.pages import DOCS, blocks
from tests.services.dagster_dev import DagsterDev, dagster_dev
from tests.services.dagster_runs import STATISTICS
from tests.services.process import PATIENCE, eventually
from tests.ui.pages import launch, write

PAGE = DOCS / "start" / "first-pipeline.md"
BOB = next(block.text for block in blocks(PAGE) if block.kind == "config")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DagsterDev, Path]]:
    """The folder with the files of the page, and the UI in it."""
    folder = tmp_path_factory.mktemp("first")
    for block in blocks(PAGE):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
    without = [name for name in os.environ if name.startswith("DJ_")]
    with dagster_dev(folder, without=without, arguments=["-f", "definitions.py"]) as dev:
        yield dev, folder


def test_a_key_turns_green_fails_and_turns_green_again(
    reader: tuple[DagsterDev, Path], page: Page, keep: Callable[[str], None]
) -> None:
    dev, folder = reader
    command = [sys.executable, "record.py"]
    subprocess.run(command, cwd=folder, check=True, timeout=PATIENCE)
    _await(dev, numMaterialized=1)
    page.goto(f"{dev.url}/assets/pulse/heart_rate?view=partitions")
    expect(page.get_by_text("Materialized (1)")).to_be_visible()
    expect(_key(page, "ada")).to_be_visible()

    page.goto(f"{dev.url}/locations/definitions.py/jobs/insert__pulse__recording/playground")
    write(page, BOB)
    launch(page)
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    _await(dev, numFailed=1)
    page.goto(f"{dev.url}/assets/pulse/heart_rate?view=partitions")
    expect(page.get_by_text("Failed (1)")).to_be_visible()
    _key(page, "bob").click()
    expect(page.get_by_text("failed, and did not materialize this asset")).to_be_visible()
    keep("first_failed")
    page.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()
    expect(page.get_by_text(re.compile("FileNotFoundError.*bob.txt")).first).to_be_visible()

    shutil.copy(folder / "ada.txt", folder / "bob.txt")
    page.goto(f"{dev.url}/assets/pulse/heart_rate?view=partitions")
    _key(page, "bob").click()
    page.get_by_role("button", name="Materialize").first.click()
    with page.expect_response(lambda it: "mutation Launch" in (it.request.post_data or "")):
        page.get_by_role("button", name="Launch 1 run").click()
    _await(dev, numMaterialized=2)
    page.reload()
    expect(page.get_by_text("Materialized (2)")).to_be_visible()
    keep("first_green")


def _key(page: Page, person: str) -> Locator:
    # Dagster measures names in hidden elements.
    named = page.get_by_text(f"person={person}/day=2026-11-30", exact=True)
    return named.locator("visible=true").first


def _await(dev: DagsterDev, **counts: int) -> None:
    def reached() -> bool:
        answer = dev.graphql(STATISTICS, key={"path": ["pulse", "heart_rate"]})
        return counts.items() <= answer["assetNodeOrError"]["partitionStats"].items()

    eventually(reached, every=0.5)
