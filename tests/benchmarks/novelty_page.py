"""The Novelty page over an inbox of very many images, in a browser.

python -m tests.benchmarks.novelty_page [--items 100000] [--chromium /usr/bin/chromium]

The flagged Fashion-MNIST test images of the demo, drawn again and again with a tenth of noise on
their features, each under a digest of its own; 1,000 a pass. A session opens the app, goes to the
page, and waits: for what is in the inbox, for the bar of progress, for the groups. Then again, as
a second user would.
"""

import argparse
import hashlib
import os
import shutil
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from app.inbox import Inbox, identity
from app.inbox_contents import Flagged
from app.locations import ASSETS
from app.workspace import Workspace
from models.fashion import read_fashion
from models.images import thumbnail_webp
from tests.browser.conftest import start_app

PASS, ONE_IN, NOISE, LEVEL = 1_000, 15, 0.1, 0.05
PATIENCE = 180_000


def fill(home: Path, items: int) -> None:
    """An inbox of the demo."""
    workspace = Workspace.open(ASSETS / "fashion")
    pixels, _ = read_fashion("t10k")
    seen = workspace.inspect(pixels[:, None])
    p_values = seen.p_values[workspace.manifest.detector]
    flagged = np.flatnonzero(p_values <= LEVEL)
    pictures = {
        int(row): thumbnail_webp(Image.fromarray(pixels[row]).convert("RGB"), 64) for row in flagged
    }
    inbox = Inbox.open(f"sqlite:///{home / 'inbox.sqlite'}")
    rng = np.random.default_rng(0)
    for number in range(items // PASS):
        rows = rng.choice(flagged, PASS)
        names = [f"{number}-{place}.png" for place in range(PASS)]
        noise = 1 + NOISE * rng.normal(size=(PASS, seen.activations.features.shape[1]))
        one = Flagged(
            positions=np.arange(PASS) * ONE_IN,
            sha256=[hashlib.sha256(name.encode()).hexdigest() for name in names],
            names=names,
            pictures=[pictures[int(row)] for row in rows],
            p_values=p_values[rows],
            predicted=seen.predicted[rows],
            features=(seen.activations.features[rows] * noise).astype(np.float32),
            means=workspace.novelty_layer.kept(seen.activations.take(rows)),
        )
        inbox.add(
            identity(workspace), str(number), level=LEVEL, inspected=PASS * ONE_IN, flagged=one
        )


def visit(page: Page, url: str) -> dict[str, float]:
    """Seconds from the click on *Novelty*."""
    page.goto(url)
    expect(page.get_by_text("Or try one of these")).to_be_visible(timeout=PATIENCE)
    start, seconds = time.perf_counter(), {}
    page.get_by_role("link", name="Novelty").click()
    for what, text in (
        ("title", "Is it something new?"),
        ("what is in the inbox", "neither named nor dismissed"),
        ("first group", "Group 1."),
    ):
        expect(page.get_by_text(text).first).to_be_visible(timeout=PATIENCE)
        seconds[what] = time.perf_counter() - start
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        fill(Path(folder), arguments.items)
        process, url = start_app(Path(folder))
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{url}/_stcore/health")
                    break
                except OSError:
                    time.sleep(0.2)
            browser = playwright.chromium.launch(
                executable_path=arguments.chromium, args=["--no-sandbox"]
            )
            print("| visit | title | what is in the inbox | first group |\n|---|---|---|---|")
            for who in ("first", "second user", "third user"):
                page = browser.new_page(viewport={"width": 1440, "height": 1000})
                seconds = visit(page, url)
                print(f"| {who} | {' | '.join(f'{s:.1f} s' for s in seconds.values())} |")
                page.close()
        finally:
            process.terminate()
    print(f"\n{arguments.items:,} images, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
