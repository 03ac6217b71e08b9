"""A browser for the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.requirements import CHROMIUM, why_no_browser

OPTIONS = (
    "--no-sandbox",  # CI is root in a container, where Chromium's own sandbox can't be
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window.

    Until it is closed, Playwright keeps a loop running in this thread, which no other file of tests may find.
    """
    why_not = why_no_browser()
    if why_not is not None:
        pytest.skip(f"pages are tested in a browser: {why_not}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield browser
        browser.close()
