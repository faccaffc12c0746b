"""The Detectors page and the map of odd places, in headless Chromium."""

import csv
import io

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SLOW, settled

pytestmark = pytest.mark.timeout(600)


def test_a_flagged_image_shows_where_and_why(page):
    page.get_by_role("button", name="Bag", exact=True).click()
    expect(page.get_by_text("Why it is unknown")).to_be_visible()
    expect(page.get_by_text("detectors flag it")).to_be_visible()
    for caption in ("This image", "The boxed place", "The most similar", "Where that is:"):
        expect(page.get_by_text(caption).first).to_be_visible()
    settled(page)
    pictures = page.get_by_role("img", name="The boxed place")
    expect(pictures.first).to_be_visible()
    assert pictures.first.evaluate("image => image.naturalWidth") > 0
    for tab, said in (
        ("Distance to classes", "far from every class"),
        ("Features and evidence", "How little speaks for any class"),
        ("Layers and channels", "Each layer is compared with"),
        ("Nearest images", "training images most like it"),
    ):
        page.get_by_role("tab", name=tab).click()
        shown = page.get_by_role("tabpanel").filter(visible=True)
        expect(shown).to_contain_text(said)


@pytest.fixture
def detectors(page):
    page.get_by_role("link", name="Detectors").click()
    expect(page.get_by_text("It was chosen on outliers")).to_be_visible(timeout=SLOW)
    expect(page.get_by_text("Who agrees with whom")).to_be_visible(timeout=SLOW)
    settled(page)
    return page


def test_detectors_are_compared_and_taken_away(detectors):
    page = detectors
    expect(page.get_by_text("Unknown class: Ankle boot")).to_be_visible()
    page.get_by_text("Bag", exact=True).click()
    expect(page.get_by_text("Unknown class: Bag")).to_be_visible()
    settled(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    decides = next(row for row in rows if row["detector"] == "fisher")
    assert len(rows) >= 29 and float(decides["auroc"]) > 0.97
    assert {row["ood"] for row in rows} == {"unknown-Bag"}


def test_ones_own_images_are_compared(detectors, test_png):
    page = detectors
    page.get_by_text("Your own", exact=True).click()
    expect(page.get_by_text("Bring images of things")).to_be_visible()
    files = [
        {"name": f"bag-{n}.png", "mimeType": "image/png", "buffer": test_png("Bag", n)}
        for n in range(12)
    ]
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(files)
    expect(page.get_by_text("Only 12 images")).to_be_visible()
    expect(page.get_by_text("(12 images)")).to_be_visible()
