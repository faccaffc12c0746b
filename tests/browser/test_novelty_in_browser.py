"""From a flagged batch to a class that a held-back image is recognised as, and back."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SLOW, settled

pytestmark = pytest.mark.timeout(600)


def test_flagged_images_become_a_class_and_are_taken_back(page, url, test_png):
    batch = [("Bag", n) for n in range(60)]
    batch += [(name, n) for name in ("Coat", "Dress", "Sneaker") for n in range(30)]
    files = [
        {"name": f"{batch[row][0]} {batch[row][1]}.png", "mimeType": "image/png",
         "buffer": test_png(*batch[row])}
        for row in np.random.default_rng(0).permutation(len(batch))
    ]  # fmt: skip
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(files)
    expect(page.get_by_role("button", name="Keep the flagged ones")).to_be_visible(timeout=SLOW)
    settled(page)
    page.get_by_role("button", name="Keep the flagged ones").click()
    expect(page.get_by_text("are in the inbox. Open")).to_be_visible(timeout=SLOW)

    page.get_by_role("link", name="Novelty").click()
    expect(page.get_by_text("Group 1.")).to_be_visible(timeout=SLOW)
    settled(page)
    name = page.get_by_label("What is it?").first
    name.fill("Bag")
    name.press("Enter")
    settled(page)
    page.get_by_role("button", name=re.compile("^Learn these")).first.click()
    expect(page.get_by_text("Learned here")).to_be_visible(timeout=SLOW)
    settled(page)

    page.get_by_role("link", name="Inspect").click()
    page.get_by_role("button", name="Bag", exact=True).click()  # a held-back one
    expect(page.get_by_text("Named here: Bag")).to_be_visible(timeout=SLOW)
    settled(page)
    page.get_by_role("link", name="Novelty").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Learned here")).to_have_count(0, timeout=SLOW)
