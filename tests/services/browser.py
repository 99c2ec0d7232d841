"""Headless Chromium, as the distribution packages it, driven by Playwright."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator

from playwright.sync_api import Browser, sync_playwright

from tests.services.process import ServiceMissingError

INSTALL = "apt-get install -y --no-install-recommends chromium fonts-dejavu-core"
NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def chromium() -> Generator[Browser]:
    """Run a browser.

    Raises
    ------
    ServiceMissingError
        If no Chromium is on the PATH.
    """
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise ServiceMissingError(f"no chromium here; install it with: {INSTALL}")
    # Chromium's own sandbox refuses to run as root, which CI often is; the pages are ours.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
