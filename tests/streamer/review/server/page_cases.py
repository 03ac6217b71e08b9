"""The page as a person has it, and what the tests ask of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from tests.streamer.review.server.live_server import Served

WIDE = {"width": 1280, "height": 860}
TALL = {"width": 1280, "height": 2600}
"""All of sixty cells at once."""
PHONE = {"width": 390, "height": 844}

CONTRASTS = """
() => {
  const channel = (value) => { const x = value / 255; return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parts = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, alpha = 1] = parts(getComputedStyle(at).backgroundColor);
      if (alpha > 0) layers.push([r, g, b, alpha]);
      if (alpha === 1) break;
    }
    const over = (under, [r, g, b, alpha]) => [r, g, b].map((value, at) => alpha * value + (1 - alpha) * under[at]);
    return layers.reverse().reduce(over, [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest(":disabled")) continue;  // WCAG 1.4.3 leaves out what is inactive
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const [one, other] = [luminance(parts(style.color)), luminance(ground(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found.push({ text: node.textContent.trim().slice(0, 40), ratio, least: large ? 3 : 4.5 });
  }
  return found;
}
"""
"""Contrast of every text that can be seen (WCAG 2.2, 1.4.3), and what it has to be at least."""


@contextlib.contextmanager
def opened(
    browser: Any, server: Served, *, size: Any = None, dark: bool = False, url: str | None = None
) -> Iterator[Any]:
    """A page that has loaded its slide; AssertionError for whatever the browser complains of."""
    context = browser.new_context(viewport=size or WIDE, color_scheme="dark" if dark else "light")
    page = context.new_page()
    page.set_default_timeout(120_000)  # of a machine that does other things too
    faults: list[str] = []
    page.faults = faults
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: faults.append(request.url) if not is_own(request.url, server) else None)
    try:
        page.goto(url or server.page)
        page.wait_for_selector("body.ready, body.locked")
        assert not faults
        yield page
        assert not faults
    finally:
        context.close()


def is_own(url: str, server: Served) -> bool:
    return url.startswith((f"{server.base}/", f"blob:{server.base}/"))


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def table(page: Any) -> dict[str, int]:
    """Cells by class, as the differential of the page has them."""
    rows = page.eval_on_selector_all(
        "tr[data-class]", "rows => rows.map(row => [row.dataset.class, Number(row.cells[1].textContent)])"
    )
    return dict(rows)


def cursor(page: Any) -> int:
    """The cell at the cursor."""
    active = page.get_attribute("#gallery", "aria-activedescendant")
    return int(active.removeprefix("tile-"))


def settled(page: Any, server: Served) -> None:
    """Wait until the page shows what the server has, once it has sent all that was pressed."""
    until = time.monotonic() + 60
    while True:
        page.wait_for_selector("body:not(.sending)")
        wanted, shown = server.get("slide")["version"], int(page.get_attribute("body", "data-version"))
        if shown == wanted:
            return
        assert time.monotonic() < until, f"the page shows version {shown}, the server has {wanted}"
        time.sleep(0.02)
