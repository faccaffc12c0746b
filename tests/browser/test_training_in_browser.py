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
