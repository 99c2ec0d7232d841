"""The snippets of the README, the start, tutorials and how-to guides run, as the pages say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.docs.pages import NEEDY, REPOSITORY, pages
from tests.services.process import PATIENCE

PAGES = [str(page.relative_to(REPOSITORY)) for page in pages() if page.stem not in NEEDY]


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """What running all pages has told of each; one process, as imports take longest."""
    command = [sys.executable, "-m", "tests.docs.pages"]
    done = subprocess.run(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
    )
    found = dict[str, str]()
    page = ""
    for line in done.stdout.splitlines(keepends=True):
        name, _, rest = line.partition(": ")
        page, line = (name, rest) if name in PAGES else (page, line)
        found[page] = found.get(page, "") + line
    return found


@pytest.mark.parametrize("page", PAGES)
def test_the_snippets_of_a_page_run(told: dict[str, str], page: str) -> None:
    assert told.get(page, "was not run").strip() == "good"
