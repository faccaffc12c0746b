"""Explanations proved by refits, and the training set looked through by keyboard."""

import csv
import io
import os
import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SLOW, settled

pytestmark = pytest.mark.timeout(600)


def test_a_visitor_leaves_out_what_taught_it_and_takes_it_back(page):
    page.get_by_role("button", name="Shirt", exact=True).click()
    expect(page.get_by_text("What if it had not learned from them?")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Leave out the 6 that taught it").click()
    said = page.get_by_text(re.compile("^Without these 6 images it would"))
    expect(said).to_be_visible()
    expect(page.get_by_text("Refitted on the other 41,994 training images")).to_be_visible()
    expect(page.get_by_text("Numbers: margin")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(said).to_have_count(0)


def test_twenty_images_are_decided_by_keyboard_taken_away_and_still_there_after_reload(
    browser, url
):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(SLOW)
    reviewer = f"test-{os.getpid()}"
    page.goto(f"{url}/training?reviewer={reviewer}")
    expect(page.get_by_text("0 decided")).to_be_visible(timeout=SLOW)
    settled(page)
    page.get_by_text("Your decisions").click()  # the keys belong to the page, not to a field
    page.wait_for_timeout(1000)
    for number in range(20):
        page.keyboard.press("kxu"[number % 3])
        expect(page.get_by_text(f"{number + 1} decided")).to_be_visible(timeout=SLOW)
        settled(page)
    expect(page.get_by_text(re.compile(r"7 to remove.*7 to keep.*6 unsure"))).to_be_visible()
    expect(page.get_by_text("calibration images as labelled")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Doubtful, CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert sum(row["decision"] == "remove" for row in rows) == 7
    page.reload()
    expect(page.get_by_text("20 decided")).to_be_visible(timeout=SLOW)
    page.close()


def test_images_drawn_around_on_the_map_are_listed_and_left_out(browser, url):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(SLOW)
    page.goto(f"{url}/training?view=From+the+map&reviewer=test-map-{os.getpid()}")
    expect(page.get_by_text("Draw around some to look through all")).to_be_visible(timeout=SLOW)
    settled(page)
    area = page.locator(".nsewdrag").first.bounding_box()
    left, top = area["x"] + 0.3 * area["width"], area["y"] + 0.05 * area["height"]
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((0.5, 0.05), (0.5, 0.6), (0.3, 0.6)):
        page.mouse.move(area["x"] + x * area["width"], area["y"] + y * area["height"], steps=8)
    page.mouse.up()
    expect(page.get_by_text(re.compile(r"[\d,]+ images, 0 decided"))).to_be_visible(timeout=SLOW)
    settled(page)
    page.get_by_role("button", name="Try without these").click()
    expect(page.get_by_text(re.compile(r"^Tried: [\d,]+ left out"))).to_be_visible(timeout=SLOW)
    expect(page.get_by_test_id("stDataFrame")).to_have_count(2)
    page.get_by_role("button", name="Undo", exact=True).last.click()
    expect(page.get_by_text("Tried:")).to_have_count(0)
    page.close()
