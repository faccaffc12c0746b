"""The real app, started by the README's command, driven in headless Chromium."""

import csv
import io
import time

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SLOW, settled, start_app
from tests.unit.test_images import blank_png

pytestmark = pytest.mark.timeout(600)


def seconds_to_first_verdict(browser) -> float:
    start = time.monotonic()
    process, url = start_app()
    page = browser.new_page()
    try:
        while True:
            try:
                page.goto(url)
                break
            except Exception:
                assert time.monotonic() - start < 60
                time.sleep(0.1)
        page.get_by_role("button", name="Bag", exact=True).click(timeout=SLOW)
        expect(page.get_by_text("nothing it was trained on")).to_be_visible(timeout=SLOW)
        return time.monotonic() - start
    finally:
        page.close()
        process.terminate()
        process.wait(30)


def test_the_first_verdict_comes_within_15_seconds_of_the_start(browser):
    """The better of two starts: what else the machine does may spoil one."""
    seconds = seconds_to_first_verdict(browser)
    if seconds >= 15:
        seconds = min(seconds, seconds_to_first_verdict(browser))
    assert seconds < 15


def test_a_sample_from_the_strip(page):
    page.get_by_role("button", name="Trouser", exact=True).click()
    expect(page.get_by_text("Nothing unusual found")).to_be_visible()
    expect(page.get_by_text("Where it looked", exact=True)).to_be_visible()


def test_one_upload(page, test_png):
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": test_png("Sandal", 2)}
    )
    expect(page.get_by_text("Sandal", exact=True).first).to_be_visible()
    expect(page.get_by_text("28 x 28 pixels")).to_be_visible()


@pytest.fixture
def fifty(test_png):
    """48 images, a corrupt file and an oversized one."""
    files = [(f"coat-{n}.png", test_png("Coat", n)) for n in range(20)]
    files += [(f"sneaker-{n}.png", test_png("Sneaker", n)) for n in range(16)]
    files += [(f"bag-{n}.png", test_png("Bag", n)) for n in range(12)]
    files += [("corrupt.jpg", b"\xff\xd8\xff\xe0 junk"), ("huge.png", blank_png(12_000, 12_000))]
    return [{"name": n, "mimeType": "image/png", "buffer": data} for n, data in files]


def test_a_batch_of_fifty_its_map_and_its_csv(page, fifty):
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(fifty)
    expect(page.get_by_text("of these 48 images stand out")).to_be_visible(timeout=SLOW)
    expect(page.get_by_text("2 refused")).to_be_visible()
    settled(page)
    page.get_by_text("2 files could not be inspected").click()

    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert len(rows) == 50
    refused = {row["file"]: row["error"] for row in rows if row["error"]}
    assert refused.keys() == {"corrupt.jpg", "huge.png"}
    assert "144 megapixels" in refused["huge.png"]
    assert sum(row["verdict"] != "known" for row in rows if row["file"].startswith("bag")) >= 9

    table = page.get_by_test_id("stDataFrame").last
    table.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)  # the opened list above still moves it
    box = table.bounding_box()
    third = box["x"] + box["width"] / 2, box["y"] + 38 + 44 * 2.5
    page.mouse.move(third[0] + 40, third[1] + 5)  # the grid learns its place from moves
    page.mouse.move(*third, steps=5)
    page.mouse.click(*third)
    expect(page.get_by_text("3 of 48")).to_be_visible()
    settled(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_text("2 of 48")).to_be_visible()
    settled(page)
    page.get_by_text("2 of 48").click()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("3 of 48")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("2 of 48")).to_be_visible()
    settled(page)

    plot = page.locator(".js-plotly-plot .nsewdrag").last
    plot.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    box = plot.bounding_box()
    corners = np.array([[0.2, 0.05], [0.8, 0.05], [0.8, 0.95], [0.2, 0.95], [0.2, 0.06]])
    points = corners * [box["width"], box["height"]] + [box["x"], box["y"]]
    page.mouse.move(*points[0])
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(x, y, steps=8)
    page.mouse.up()
    expect(page.get_by_text("48 of yours")).to_be_visible()


def test_two_sessions_at_once(browser, url, fifty, test_png):
    pages = [browser.new_page(), browser.new_page()]
    for page in pages:
        page.set_default_timeout(SLOW)
        page.goto(url)
        expect(page.get_by_text("Or try one of these")).to_be_visible(timeout=SLOW)
    pages[0].get_by_test_id("stFileUploaderDropzoneInput").set_input_files(fifty)
    pages[1].get_by_role("button", name="Noise", exact=True).click()
    expect(pages[1].get_by_text("nothing it was trained on")).to_be_visible(timeout=SLOW)
    expect(pages[0].get_by_text("of these 48 images stand out")).to_be_visible(timeout=SLOW)
    expect(pages[1].get_by_text("of these 48 images")).to_have_count(0)
    for page in pages:
        page.close()


def test_the_switch_for_numbers_lives_in_the_address(browser, url):
    page = browser.new_page()
    page.set_default_timeout(SLOW)
    page.goto(f"{url}/?numbers=true")
    page.get_by_role("button", name="Coat", exact=True).click()
    expect(page.get_by_text("All detectors:")).to_be_visible(timeout=SLOW)
    page.close()
