"""What the inbox costs with very many images: adding, opening, reading, deleting.

python -m tests.benchmarks.inbox [--items 100000] [--folder FOLDER]

Made features (128) and stages (32 and 64 channels), thumbnails of Fashion-MNIST test images, each
under a digest of its own; one image in twenty is flagged, 1,000 flagged images a pass. The database
is made anew in a temporary folder, in FOLDER where one is given: the disk counts. Reading is the
median of five: a new inbox opened each time, the file in the system's cache.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from app.inbox import Inbox
from app.inbox_contents import Flagged
from models.fashion import read_fashion
from models.images import thumbnail_webp

WORKSPACE = "fashion 0123"
PASS, ONE_IN = 1_000, 20
FEATURES, STAGES = 128, (32, 64)
SHOWN = 48


def seconds(do: Callable[[], object], runs: int = 5) -> float:
    """Median."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        do()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def flagged(number: int, pictures: list[bytes]) -> Flagged:
    chance = np.random.default_rng(number)
    names = [f"batch-{number}/{row}.png" for row in range(PASS)]
    return Flagged(
        positions=np.arange(PASS) * ONE_IN,
        sha256=[hashlib.sha256(name.encode()).hexdigest() for name in names],
        names=names,
        pictures=[pictures[(number * PASS + row) % len(pictures)] for row in range(PASS)],
        p_values=chance.uniform(0, 1 / ONE_IN, PASS),
        predicted=chance.integers(8, size=PASS),
        features=chance.normal(size=(PASS, FEATURES)).astype(np.float32),
        means=tuple(chance.normal(size=(PASS, width)).astype(np.float32) for width in STAGES),
    )


def add(inbox: Inbox, items: int) -> list[float]:
    """Seconds of each pass, decoding apart."""
    pixels, _ = read_fashion("t10k")
    pictures = [thumbnail_webp(Image.fromarray(image).convert("RGB"), 64) for image in pixels]
    times = []
    for number in range(items // PASS):
        batch = flagged(number, pictures)
        start = time.perf_counter()
        inbox.add(WORKSPACE, str(number), level=1 / ONE_IN, inspected=PASS * ONE_IN, flagged=batch)
        times.append(time.perf_counter() - start)
    return times


def measure(folder: Path, items: int) -> dict[str, str]:
    """What is measured, and how much."""
    path = folder / "inbox.sqlite"
    inbox = Inbox.open(f"sqlite:///{path}")
    added = add(inbox, items)
    inbox.engine.dispose()  # so that the log is in the file
    size = path.stat().st_size / 2**20
    read = seconds(lambda: Inbox.open(f"sqlite:///{path}").stream(WORKSPACE))
    stream = inbox.stream(WORKSPACE)
    chosen = np.random.default_rng(0).permutation(stream.ids)
    return {
        f"adding a pass of {PASS:,}, median": f"{np.median(added) * 1e3:.0f} ms",
        "adding a pass, slowest": f"{max(added) * 1e3:.0f} ms",
        f"adding {len(stream):,} images": f"{sum(added):.1f} s",
        "file": f"{size:.0f} MB ({size * 2**20 / len(stream):,.0f} bytes an image)",
        "opening and reading the stream": f"{read:.2f} s",
        "counts": f"{seconds(lambda: inbox.counts(WORKSPACE)) * 1e3:.0f} ms",
        f"{SHOWN} pictures": f"{seconds(lambda: inbox.pictures(chosen[:SHOWN])) * 1e3:.1f} ms",
        "10,000 pictures": f"{seconds(lambda: inbox.pictures(chosen[:10_000])):.2f} s",
        "dismissing 1,000": f"{seconds(lambda: inbox.dismiss(chosen[:1_000])) * 1e3:.0f} ms",
        "deleting 1": f"{seconds(lambda: inbox.delete(chosen[:1]), 1) * 1e3:.0f} ms",
        "deleting 1,000": f"{seconds(lambda: inbox.delete(chosen[1:1_001]), 1) * 1e3:.0f} ms",
        "deleting all": f"{seconds(lambda: inbox.delete_workspace(WORKSPACE), 1):.1f} s",
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print("| what | cost |\n|---|---|")
        for what, cost in measure(Path(folder), arguments.items).items():
            print(f"| {what} | {cost} |")


if __name__ == "__main__":
    main()
