"""A lab in the browser, and what a person does on Dagster's pages, in a few words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Locator, Page, Response

from tests.services.dagster_dev import DagsterDev


@dataclass(frozen=True)
class RunningLab:
    """A lab in `dagster dev`: its UI, and the folder in which it runs."""

    dev: DagsterDev
    folder: Path

    def open(self, page: Page, path: str) -> Page:
        """Open a page of the UI."""
        page.goto(self.dev.url + path)
        return page


def node(page: Page, name: str) -> Locator:
    """Return a table, or a schema that is closed, in a graph."""
    return page.locator("foreignObject").filter(has=page.get_by_text(name, exact=True))


def write(page: Page, config: str) -> None:
    """Write a config into the open launchpad, in the place of what is there."""
    editor = page.locator(".CodeMirror").first
    editor.click()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.press("Delete")
    page.keyboard.insert_text(config)


def launch(page: Page) -> None:
    """Press the launchpad's button; the page may be left only once that is answered."""
    with page.expect_response(_launches):
        page.get_by_role("button", name="Launch Run").click()


def _launches(response: Response) -> bool:
    return "mutation Launch" in (response.request.post_data or "")
