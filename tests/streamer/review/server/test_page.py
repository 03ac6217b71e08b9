"""The review page in a real browser, with a desk of its own: hands, eyes, and what must not happen."""

import time
from dataclasses import replace

import pytest

pytest.importorskip("fastapi", reason="the review's server needs the package fastapi")
pytest.importorskip("uvicorn", reason="the review's server needs the package uvicorn")

from streamer.records import AttributeValue, SlideInfo
from streamer.review.desk import Comment
from tests.streamer.review.server.fake_desk import AT, SESSION, FakeDesk, FakeFields, make_cells
from tests.streamer.review.server.live_server import TOKEN, served
from tests.streamer.review.server.page_cases import (
    CONTRASTS,
    PHONE,
    TALL,
    cursor,
    opened,
    press,
    settled,
    table,
)

pytestmark = pytest.mark.lengthy

EVIL = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"


@pytest.fixture
def desk():
    desk = FakeDesk(make_cells(60))
    yield desk
    desk.close()


@pytest.fixture
def server(desk):
    with served(desk, FakeFields()) as server:
        yield server


def named(desk, number):
    return next(cell.name for cell in desk.snapshot(SESSION).cells if cell.cell_id == number)


def test_the_token_leaves_the_address_and_the_page_can_be_loaded_again(browser, server):
    with opened(browser, server) as page:
        assert page.url == f"{server.base}/"
        page.reload()
        page.wait_for_selector("body.ready")
        assert TOKEN not in page.content()
        assert "not signed" in page.title()
        assert page.inner_text("#state") == "Not signed"


def test_without_the_token_there_is_nothing_to_see(browser, server):
    page = browser.new_context().new_page()
    for url in (server.base, f"{server.base}/?token=wrong"):
        page.goto(url)
        page.wait_for_selector("body.locked")
        assert "token" in page.inner_text("#notice")
        assert page.locator("#panes").is_hidden()
    page.context.close()


def test_hands_on_the_keys(browser, server, desk):
    """Move, select, name, confirm, take back, add a comment: no mouse."""
    with opened(browser, server) as page:
        first = cursor(page)
        press(page, "l")
        second = cursor(page)
        assert second != first
        press(page, "Enter")
        third = cursor(page)
        settled(page, server)
        assert named(desk, first) == "lymphocyte"
        assert desk.snapshot(SESSION).cells[second].word.kind == "confirmed"
        assert page.inner_text("#progress-text").startswith("2 of ")

        press(page, "]", "Shift+ArrowRight", "Shift+ArrowRight")
        several = page.locator('.tile[aria-selected="true"]')
        assert several.count() == 3
        ids = [int(tile.get_attribute("data-cell")) for tile in several.all()]
        press(page, "4")
        settled(page, server)
        assert {named(desk, number) for number in ids} == {"metamyelocyte"}
        press(page, "u")
        settled(page, server)
        assert "metamyelocyte" not in {named(desk, number) for number in ids}
        press(page, "Control+z", "Control+z")
        settled(page, server)
        assert named(desk, first) != "lymphocyte"
        assert desk.snapshot(SESSION).cells[second].word is None

        press(page, "Home", "ArrowRight", "Space", "ArrowRight", "Escape")
        assert several.count() == 0
        press(page, "c")
        page.keyboard.type("a n l: typed, not meant")
        press(page, "Control+Enter")
        settled(page, server)
        assert page.inner_text(".comment .text") == "a n l: typed, not meant"
        press(page, "?")
        assert page.locator("dialog dt kbd", has_text="u, Ctrl + Z").is_visible()
        press(page, "Escape", "Control+a")
        assert page.inner_text("#cell h2") == f"{several.count()} cells selected"
        assert third in {cell.cell_id for cell in desk.snapshot(SESSION).cells}


def test_letters_can_be_switched_off(browser, server, desk):
    with opened(browser, server) as page:
        press(page, "?")
        page.check("dialog input[type=checkbox]")
        press(page, "Escape", "l", "Enter")
        settled(page, server)
        assert [entry.kind for entry in desk.snapshot(SESSION).history] == ["confirm"]


def test_unsure_and_flagged_come_first(browser):
    cells = make_cells(200)
    desk = FakeDesk([replace(cells[0], class_name="blast", subclass=None), *cells[1:]])
    with served(desk, FakeFields()) as server, opened(browser, server) as page:
        heads = page.eval_on_selector_all(".head-row h2", "heads => heads.map(head => head.textContent)")
        assert heads[0] == "Unclassified"
        assert page.inner_text(".flags li").startswith("● Seen: ")
        page.click('[data-filter="look"]')
        flagged = page.locator('.tile[data-cell="0"]')
        assert "flagged" in flagged.get_attribute("aria-label")
        page.click('[data-filter="lymphocyte"]')
        sure = page.eval_on_selector_all(".tile .label b", "all => all.map(one => parseInt(one.textContent))")
        assert sure == sorted(sure)
        page.click("[data-go]")
        assert cursor(page) == 0
    desk.close()


def test_dragging_onto_a_class_names(browser, server, desk):
    with opened(browser, server) as page:
        tile = page.locator(".tile").nth(2)
        number = int(tile.get_attribute("data-cell"))
        tile.drag_to(page.locator('tr[data-class="basophil"]'))
        settled(page, server)
        assert named(desk, number) == "basophil"


def test_a_cell_that_was_missed_is_added_by_a_click(browser, server, desk):
    with opened(browser, server, size=TALL) as page:
        page.click('.tile[data-cell="7"]')  # in the middle of frame 0
        page.wait_for_selector('.field[data-cell="7"]')
        before = table(page)
        box = page.locator(".field canvas").bounding_box()
        scale = box["height"] / (3.2 * 84)  # screen pixels a frame pixel, at first
        beside = box["x"] + box["width"] / 2 + 62 * scale  # between this cell and the next
        page.mouse.click(beside, box["y"] + box["height"] / 2)
        page.wait_for_selector(".asking:not(:empty)")
        press(page, "1")
        page.wait_for_selector('#gallery[aria-activedescendant="tile-60"]')  # it goes to the cell once it is answered
        settled(page, server)
        assert table(page)["blast"] == before["blast"] + 1
        added = desk.snapshot(SESSION).cells[-1]
        assert (added.added, added.views[0].frame_id, added.views[0].box_px[3] - added.views[0].box_px[1]) == (
            True,
            0,
            84,
        )
        assert abs(added.x_px - (20 + 124 * 2 + 42 + 62)) < 3
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)  # a cell that is there is gone to
        page.wait_for_timeout(100)
        assert page.locator(".asking:not(:empty)").count() == 0


def test_without_frames_the_page_says_why(browser, desk):
    with served(desk, FakeFields("there is no recording")) as server, opened(browser, server) as page:
        page.locator(".why", has_text="there is no recording").wait_for()


def test_look_alikes_stand_side_by_side(browser, server):
    with opened(browser, server) as page:
        page.locator(".like").first.click()
        assert page.locator(".pictures figure").count() == 2
        number = page.inner_text(".pictures figure:last-child figcaption").split()[0]
        page.locator(".like").first.click()
        assert cursor(page) == int(number)


def test_signing_says_what_it_signs_and_amending_keeps_both(browser, server, desk):
    with opened(browser, server) as page:
        press(page, "l", "Control+s")
        settled(page, server)
        words = page.inner_text("dialog")
        assert "looked at by no person" in words
        assert "1 corrected" in words
        for name, count in table(page).items():
            if count:
                assert f"{name[0].upper()}{name[1:]}" in words
        page.fill("dialog input[name=reviewer]", "CD")
        press(page, "Enter")
        page.wait_for_selector(".is-signed")
        assert page.inner_text("#state") == "Signed by CD"
        assert ": signed" in page.title()
        signed = table(page)
        history = len(desk.snapshot(SESSION).history)
        press(page, "m", "Enter", "u")
        assert all(button.is_disabled() for button in page.locator("#cell .class").all())
        assert len(desk.snapshot(SESSION).history) == history
        page.click("#amend")
        page.fill("dialog textarea", "one more look")
        page.click("dialog .main")
        page.wait_for_selector(".is-unsigned")
        press(page, "a")
        settled(page, server)
        page.wait_for_selector(".amended .differs")
        columns = page.eval_on_selector_all(
            ".amended tbody tr",
            "rows => rows.map(row => [...row.cells].slice(1).map(cell => Number(cell.textContent)))",
        )
        assert [sum(column) for column in zip(*columns, strict=True)] == [sum(signed.values())] * 2
        assert any(was != now for was, now in columns)


@pytest.mark.parametrize("size", [None, PHONE], ids=["1280", "390"])
def test_what_the_laboratory_said_of_the_slide(browser, size):
    said = SlideInfo(name="S-17", accession="A-2026-4711", operator="MK", wbc=6.2, fields={"ward": "7 <b>"})
    desk = FakeDesk(make_cells(60), about=said)
    with served(desk, FakeFields()) as server, opened(browser, server, size=size) as page:
        assert page.inner_text("#slide-name") == "S-17"
        assert page.title().startswith("S-17: not signed")
        if size:
            page.click('.tabs [data-pane="result"]')
        words = page.inner_text("#result")
        assert all(text in words for text in ("A-2026-4711", "MK", "7 <b>", "slide7", "10⁹/L", "6.2"))
        row = page.locator('tr[data-class="lymphocyte"]').inner_text().split()
        count, percent, absolute = int(row[1]), float(row[2]), float(row[3])
        assert abs(absolute - 6.2 * percent / 100) < 0.006
        assert table(page)["lymphocyte"] == count
        assert page.eval_on_selector("#result", "box => box.scrollWidth - box.clientWidth") <= 0
    desk.close()


def test_what_changed_while_the_summary_was_read_is_not_signed_unseen(browser, server, desk):
    with opened(browser, server) as page:
        press(page, "Control+s")
        page.wait_for_selector("dialog[open]")
        seen = page.inner_text("dialog")
        server.post("cells/class", cell_ids=[3, 4, 5], **{"class": "blast", "reviewer": "CD"})
        settled(page, server)  # the page has heard of it, the summary has not
        press(page, "Enter")
        page.wait_for_selector("#notice:not([hidden])")
        assert "has changed" in page.inner_text("#notice")
        assert page.inner_text("#state") == "Not signed: in review"
        press(page, "Control+s")
        page.wait_for_selector("dialog[open]")
        assert "3 corrected" in page.inner_text("dialog")
        assert "3 corrected" not in seen
        press(page, "Enter")
        page.wait_for_selector(".is-signed")
        page.faults[:] = [one for one in page.faults if "409" not in one]  # the browser's own line on what was refused
    assert [cell.name for cell in desk.snapshot(SESSION).cells[3:6]] == ["blast"] * 3


def test_the_summary_waits_for_what_was_said(browser, server, desk):
    """A slow line: what was pressed right before is in the summary."""
    with opened(browser, server) as page:
        page.route("**/api/v1/cells/class*", lambda route: (time.sleep(0.4), route.continue_()))
        press(page, "l", "m", "Control+s")
        page.wait_for_selector("dialog[open]")
        assert "2 corrected" in page.inner_text("dialog")
        rows = page.eval_on_selector_all(
            "dialog .summary tr",
            "rows => rows.map(row => [row.cells[0].textContent, Number(row.cells[1].textContent)])",
        )
        shares = desk.snapshot(SESSION).differential.classes
        assert {name.lower(): count for name, count in rows if name.lower() in shares} == {
            name: share.count for name, share in shares.items() if share.count
        }


def test_a_slide_that_is_not_to_be_used_is_signed_with_a_reason_only(browser):
    desk = FakeDesk(make_cells(20), verdict="do not use")
    with served(desk, FakeFields()) as server, opened(browser, server) as page:
        press(page, "Control+s")
        page.click("dialog .main")
        assert page.locator("dialog").is_visible()
        page.fill("dialog textarea", "the stain is known")
        page.click("dialog .main")
        page.wait_for_selector(".is-signed")
        assert desk.snapshot(SESSION).signatures[0].despite == "the stain is known"
    desk.close()


def test_nothing_that_was_written_becomes_markup(browser):
    cells = make_cells(12)
    evil = replace(
        cells[0],
        class_name=EVIL,
        attributes={EVIL: AttributeValue(EVIL, 0.9)},
        unclassified_reason=EVIL,
        comments=(Comment("AB", AT, EVIL, 0),),
    )
    desk = FakeDesk([evil, *cells[1:]], source=EVIL)
    desk.comment(SESSION, EVIL, "AB")
    with served(desk, FakeFields(why_not=EVIL)) as server, opened(browser, server) as page:
        page.click('.tile[data-cell="0"]')
        page.wait_for_timeout(400)
        press(page, "Control+s")
        assert page.locator("dialog b").first.inner_text() == EVIL
        assert page.locator("#slide-name").inner_text() == EVIL
        assert not page.title().startswith("hacked")
        assert page.evaluate("document.querySelectorAll('script, img[onerror]').length") == 1
    desk.close()


def test_two_people_at_once_lose_nothing(browser, server, desk):
    with opened(browser, server, size=TALL) as page, opened(browser, server, size=TALL) as other:
        other.evaluate("sessionStorage.setItem('leukostream-reviewer', 'CD')")
        other.reload()
        other.wait_for_selector("body.ready")
        other.click('.tile[data-cell="5"]')
        page.click('.tile[data-cell="9"]')
        press(page, "m")
        other.wait_for_selector('.tile.reviewed[data-cell="9"]')
        press(other, "e")
        settled(page, server)
        settled(other, server)
        assert table(page) == table(other)
        assert (named(desk, 9), named(desk, 5)) == ("monocyte", "eosinophil")
        press(other, "u")  # takes back CD's own last word, not the newest one
        settled(other, server)
        settled(page, server)
        assert (named(desk, 9), desk.snapshot(SESSION).cells[5].word) == ("monocyte", None)


def test_a_refusal_is_shown_and_the_page_is_as_the_server_says(browser, server, desk):
    """Somebody signs while a key is pressed."""
    with opened(browser, server) as page:
        page.route("**/api/v1/events*", lambda route: route.abort())  # it has not heard of the signature
        page.reload()
        page.wait_for_selector("body.ready")
        number = cursor(page)
        before = named(desk, number)
        desk.sign(SESSION, "CD")
        press(page, "l")
        page.wait_for_selector(".is-signed")
        assert "signed slide" in page.inner_text("#notice")
        assert named(desk, number) == before
        faults = ("409", "ERR_FAILED")  # the browser's own lines on what was refused and cut off
        page.faults[:] = [one for one in page.faults if not any(fault in one for fault in faults)]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [None, PHONE], ids=["1280", "390"])
def test_every_text_can_be_read(browser, server, dark, size):
    """WCAG AA: 4.5 to 1, large text 3 to 1. On a narrow screen nothing is wider than it."""
    server.post("cells/class", cell_ids=[1, 2], **{"class": "blast"})
    server.post("comments", text="a comment", cell_id=1)
    server.post("sign")
    server.post("amend", reason="one more look")
    with opened(browser, server, dark=dark, size=size) as page:
        panes = ("result", "cells", "cell") if size else ("all",)
        found = []
        for pane in panes:
            if size:
                page.click(f'.tabs [data-pane="{pane}"]')
                assert page.evaluate("document.documentElement.scrollWidth") <= 390
                overflow = "box => box.scrollWidth - box.clientWidth"
                assert page.eval_on_selector(f"#{pane}", overflow) <= 0
            found += page.evaluate(CONTRASTS)
        press(page, "Control+s")
        found += page.evaluate(CONTRASTS)
        assert len(found) > 100
        assert [one for one in found if one["ratio"] < one["least"]] == []


def test_a_thumb_on_a_phone(browser, server, desk):
    with opened(browser, server, size=PHONE) as page:
        assert "Ready for review" in page.inner_text("#verdict-line")
        tile = page.locator(".tile").nth(1)
        number = int(tile.get_attribute("data-cell"))
        tile.click()
        page.locator("#dock .class", has_text="basophil").click()
        settled(page, server)
        assert named(desk, number) == "basophil"


def test_ten_thousand_cells_scroll_as_a_hundred_do(browser):
    """Only what can be seen is there, and no task holds the page for long."""
    desk = FakeDesk(make_cells(10_000))
    with served(desk, FakeFields()) as server, opened(browser, server) as page:
        found = page.evaluate(SCROLL)
        assert found["tiles"] < 150
        assert found["height"] > 100_000
        assert found["frames"] >= 50
        assert found["longest"] < 250, found  # ms; of a machine that does other things too
        press(page, "End")
        assert cursor(page) in {cell.cell_id for cell in desk.snapshot(SESSION).cells if cell.partial}
        press(page, "Home", "l")
        settled(page, server)
        assert len(desk.snapshot(SESSION).history) == 1
    desk.close()


SCROLL = """
async () => {
  const box = document.querySelector("#gallery");
  let longest = 0;
  new PerformanceObserver((list) => {
    for (const one of list.getEntries()) longest = Math.max(longest, one.duration);
  }).observe({ type: "longtask" });
  let frames = 0, tiles = 0;
  for (; frames < 60; frames += 1) {
    box.scrollTop += 700;
    await new Promise(requestAnimationFrame);
    tiles = Math.max(tiles, document.querySelectorAll(".tile").length);
  }
  await new Promise((done) => setTimeout(done, 100));
  return { tiles, frames, longest, height: box.scrollHeight };
}
"""
