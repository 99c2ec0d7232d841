"""The look at the built site in a browser: ``python -m tools.site_browser build/docs``.

No page is wider than a phone, a picture that does not load is told, and the search finds something
without a network.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as TimeOut

from tests.services.browser import chromium
from tests.services.process import PATIENCE

PHONE = {"width": 390, "height": 844}
"""The size of a phone's page, in CSS pixels."""

_WIDEST = """() => [...document.querySelectorAll("body *")]
    .filter(each => each.getBoundingClientRect().right > innerWidth + 1)
    .map(each => each.tagName.toLowerCase() + (each.className ? "." + each.className : ""))[0]"""
_BROKEN = "() => [...document.images].filter(each => !each.naturalWidth).map(each => each.src)"


def problems(page: Page, folder: Path, patience: float = PATIENCE) -> Iterator[str]:
    """Yield what is wrong with the site in a folder, one line each."""
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    for file in _pages(folder):
        page.goto(file.as_uri(), wait_until="load")
        name = file.relative_to(folder)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            yield f"{name} is {width} pixels wide on a phone, by {page.evaluate(_WIDEST)}"
        yield from (f"{name} does not show {url}" for url in page.evaluate(_BROKEN))
    search = folder / "search.html"
    page.goto(f"{search.as_uri()}?q=populate")
    try:
        page.locator("#search-results li a").first.wait_for(timeout=1000 * patience)
    except TimeOut:
        yield "The search finds nothing for the word populate"


def _pages(folder: Path) -> list[Path]:
    """Return the pages; of those of the API, which are alike, every tenth."""
    found = sorted(file for file in folder.rglob("*.html") if "_static" not in file.parts)
    alike = [file for file in found if "api" in file.relative_to(folder).parts]
    return [file for file in found if file not in alike] + alike[::10]


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    with chromium() as browser:
        found = list(problems(browser.new_page(), place))
    print("\n".join(found) or "The site is good on a phone, and its search finds something.")
    sys.exit(1 if found else 0)
