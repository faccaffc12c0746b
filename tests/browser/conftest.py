import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.conftest import ROOT

SLOW = 60_000


def start_app(home: Path | None = None) -> tuple[subprocess.Popen, str]:
    """The app as the README starts it, on a free port, and its address."""
    own = {} if home is None else {"KINDRED_HOME": str(home)}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "--port", str(port)], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | own,
    )  # fmt: skip
    return process, f"http://127.0.0.1:{port}"


def settled(page) -> None:
    page.wait_for_function(
        """() => document.querySelector('[data-testid=stApp]')
              ?.getAttribute('data-test-script-state') === 'notRunning'
              && !document.querySelector('[data-testid=stProgress]')"""
    )


@pytest.fixture(scope="session")
def url(chromium, tmp_path_factory):
    process, address = start_app(tmp_path_factory.mktemp("home"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health") as answer:
                if answer.read() == b"ok":
                    break
        except OSError:
            time.sleep(0.1)
    yield address
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="session")
def browser(chromium):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(SLOW)
    page.goto(url)
    expect(page.get_by_text("Or try one of these")).to_be_visible(timeout=SLOW)
    yield page
    page.close()
