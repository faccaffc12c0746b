"""A batch on the map: drawn around, coloured anew, looked at below the pointer."""

import csv
import io
import re
import time

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SLOW, settled

pytestmark = pytest.mark.timeout(600)

CORNERS = ((0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.03))


def plot_area(page):
    plot = page.locator(".st-key-map-chart .nsewdrag").first
    plot.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    return plot.bounding_box()


def draw_around_all(page) -> float:
    """Seconds until the sentence is there."""
    area = plot_area(page)
    points = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in CORNERS]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    start = time.monotonic()
    page.mouse.up()
    expect(page.get_by_text(re.compile(r"[\d,]+ selected, \d+ flagged"))).to_be_visible()
    return time.monotonic() - start


def test_a_batch_is_drawn_around_coloured_and_taken_away(page, test_png):
    files = [
        {"name": f"{name} {n}.png", "mimeType": "image/png", "buffer": test_png(name, n)}
        for name in ("Bag", "Coat") for n in range(12)
    ]  # fmt: skip
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(files)
    expect(page.get_by_role("button", name="Keep the flagged ones")).to_be_visible(timeout=SLOW)
    settled(page)
    page.get_by_role("link", name="Map").click()
    expect(page.get_by_text("Draw around some dots")).to_be_visible(timeout=SLOW)
    settled(page)
    seconds = draw_around_all(page)
    sentence = page.get_by_text(re.compile(r"42,\d{3} selected, \d+ flagged, 8 classes"))
    expect(sentence).to_be_visible()
    expect(page.get_by_text(re.compile(r"24 yours\."))).to_be_visible()
    expect(page.get_by_text("Showing 36 of 42,")).to_be_visible()
    settled(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Selection, CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert sum(row["layer"] == "Yours" for row in rows) == 24 and len(rows) > 42_000
    page.get_by_text("p-value", exact=True).first.click()  # another figure, the same images
    settled(page)
    expect(page.get_by_text("p above 0.05")).to_be_visible(timeout=SLOW)
    expect(sentence).to_be_visible()
    page.get_by_text("Pictures on the map").click()
    expect(page.locator(".st-key-map-chart image").first).to_be_attached(timeout=SLOW)
    assert page.locator(".st-key-map-chart image").count() > 50
    assert seconds < 5  # of all 20,000 dots, on a machine that does other things too


def test_resting_on_a_dot_shows_its_picture(browser, url):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(SLOW)
    page.goto(f"{url}/map")
    expect(page.get_by_text("Draw around some dots")).to_be_visible(timeout=SLOW)
    settled(page)
    area = plot_area(page)
    card = page.locator("#card")
    for step in range(60):
        x = area["x"] + area["width"] * (0.3 + 0.007 * step)
        page.mouse.move(x, area["y"] + area["height"] * 0.3)
        page.wait_for_timeout(400)
        if card.is_visible():
            break
    expect(card).to_be_visible()
    expect(card).to_contain_text(re.compile(r"training images|normal but flagged"))
    assert card.locator("img").get_attribute("src").startswith("data:image/webp")
    page.close()


def test_what_is_drawn_around_becomes_a_class_and_is_taken_back(page, test_png):
    """A held-back bag is unknown, then a bag, then unknown again."""
    page.get_by_role("button", name="Bag", exact=True).click()
    expect(page.get_by_text("Unknown").first).to_be_visible(timeout=SLOW)
    expect(page.get_by_text("Named here")).to_have_count(0)
    settled(page)
    files = [
        {"name": f"{name} {n}.png", "mimeType": "image/png", "buffer": test_png(name, n)}
        for name, count in (("Bag", 50), ("Coat", 10)) for n in range(count)
    ]  # fmt: skip
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(files)
    expect(page.get_by_role("button", name="Keep the flagged ones")).to_be_visible(timeout=SLOW)
    settled(page)
    page.get_by_role("button", name="Keep the flagged ones").click()
    expect(page.get_by_text("are in the inbox. Open")).to_be_visible(timeout=SLOW)
    page.get_by_role("link", name="Map").click()
    expect(page.get_by_text("Draw around some dots")).to_be_visible(timeout=SLOW)
    settled(page)
    page.get_by_role("button", name="Groups").click()
    settled(page)
    draw_around_all(page)
    settled(page)
    name = page.get_by_label("What are they?")
    name.fill("Bag")
    name.press("Enter")
    settled(page)
    page.get_by_role("button", name=re.compile(r"^Learn these \d+ of the inbox")).click()
    expect(page.get_by_text("is learned.")).to_be_visible(timeout=SLOW)
    page.get_by_role("link", name="Inspect").click()
    page.get_by_role("button", name="Bag", exact=True).click()
    expect(page.get_by_text("Named here: Bag")).to_be_visible(timeout=SLOW)
    settled(page)
    page.get_by_role("link", name="Novelty").click()
    expect(page.get_by_text("Learned here")).to_be_visible(timeout=SLOW)
    settled(page)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Learned here")).to_have_count(0, timeout=SLOW)
    page.get_by_role("link", name="Inspect").click()
    page.get_by_role("button", name="Bag", exact=True).click()
    expect(page.get_by_text("Unknown").first).to_be_visible(timeout=SLOW)
    expect(page.get_by_text("Named here")).to_have_count(0)
