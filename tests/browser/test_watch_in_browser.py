"""A scenario plays by itself to an alarm; then a person answers by keys, and answers stay."""

import re
from contextlib import suppress

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SLOW, settled

pytestmark = pytest.mark.timeout(600)


def number(page, label):
    metric = page.get_by_test_id("stMetric").filter(has_text=label)
    return int(metric.get_by_test_id("stMetricValue").inner_text().replace(",", ""))


def press(page, key, then):
    """A key that comes with a new picture is meant for the last one, and does not count."""
    badge = page.locator(".stMarkdownBadge", has_text="waiting")
    for _ in range(5):
        page.wait_for_timeout(1_000)
        page.keyboard.press(key)
        with suppress(AssertionError):
            expect(badge).to_have_text(then, timeout=10_000)
            break
    expect(badge).to_have_text(then)
    settled(page)


def test_a_scenario_plays_to_an_alarm_and_is_answered_by_keys(page, url):
    page.get_by_role("link", name="Watch").click()
    expect(page.get_by_text("Start to watch")).to_be_visible(timeout=SLOW)
    settled(page)
    page.get_by_role("combobox", name="What happens").click()
    page.get_by_role("option", name=re.compile("^Ankle boots")).click()
    expect(page.get_by_text("one image in four is an ankle boot").first).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible(timeout=SLOW)
    expect(page.get_by_text("Alarm.").first).to_be_visible(timeout=SLOW)

    page.get_by_text("Answer for me").click()
    page.wait_for_timeout(3_000)  # questions gather while nobody answers
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible(timeout=SLOW)
    page.wait_for_timeout(3_000)  # a tick that was under way ends
    settled(page)
    waiting, answered = number(page, "Waiting"), number(page, "Answered")
    assert waiting > 3
    for count, key in enumerate("kud", start=1):
        press(page, key, f"{waiting - count:,} waiting")
    assert number(page, "Answered") == answered + 3

    page.reload()
    expect(page.get_by_role("button", name="Play")).to_be_visible(timeout=SLOW)
    settled(page)
    assert "Ankle" in page.url and number(page, "Answered") == answered + 3
    with page.expect_download() as download:
        page.get_by_text("The record, and running it again").click()
        page.get_by_role("button", name="The whole record, Parquet").click()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(
        {"name": "watch.parquet", "mimeType": "application/octet-stream",
         "buffer": download.value.path().read_bytes()}
    )  # fmt: skip
    expect(page.get_by_text("The same numbers, bit for bit")).to_be_visible(timeout=SLOW)
