"""Unpack Fashion-MNIST into the folders that the demo workspace is made of.

    python -m models.fashion --source /usr/share/datasets/fashion-mnist --out build/fashion

writes train, calibration, test (known classes), unknown, and the samples that a visitor can try.
The source folder holds the four published idx.gz files; on Debian and Ubuntu the package
dataset-fashion-mnist installs them there.

The classifier knows eight of the ten classes; *Bag* and *Ankle boot* stay unknown to it.
Fashion-MNIST: Xiao, Rasul and Vollgraf, 2017 (arXiv:1708.07747), MIT licence.
"""

import argparse
import gzip
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from tqdm import tqdm

TEST_SOURCE = Path(__file__).parents[1] / "assets" / "fashion-mnist"
CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
UNKNOWN = frozenset({"Bag", "Ankle boot"})
CALIBRATION_PER_CLASS = 750
SPLIT_SEED = 0


def read_fashion(
    split: Literal["train", "t10k"], source: Path = TEST_SOURCE
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,), uint8: 60,000 to train or 10,000 to test."""
    images = gzip.decompress((source / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((source / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels, np.frombuffer(labels, np.uint8, offset=8)


def calibration_rows(labels: np.ndarray) -> np.ndarray:
    """The rows of the training split held out for calibration: 750 of each known class, sorted."""
    rng = np.random.default_rng(SPLIT_SEED)
    known = [c for c, name in enumerate(CLASSES) if name not in UNKNOWN]
    chosen = [
        rng.choice(np.flatnonzero(labels == c), CALIBRATION_PER_CLASS, replace=False) for c in known
    ]
    return np.sort(np.concatenate(chosen))


def unpack(source: Path, out: Path) -> None:
    """Write train, calibration, test and unknown under `out`, as PNG by class; and samples."""
    pixels, labels = read_fashion("train", source)
    held_out = np.isin(np.arange(len(labels)), calibration_rows(labels))
    known = ~np.isin(labels, [CLASSES.index(name) for name in UNKNOWN])
    test_pixels, test_labels = read_fashion("t10k", source)
    test_known = ~np.isin(test_labels, [CLASSES.index(name) for name in UNKNOWN])
    for folder, images, classes, chosen in (
        ("train", pixels, labels, known & ~held_out),
        ("calibration", pixels, labels, known & held_out),
        ("test", test_pixels, test_labels, test_known),
        ("unknown", test_pixels, test_labels, ~test_known),
    ):
        for row in tqdm(np.flatnonzero(chosen), desc=folder, unit="image"):
            path = out / folder / CLASSES[classes[row]] / f"{row:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[row]).save(path)
    write_samples(out / "samples", test_pixels, test_labels)


def write_samples(out: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """The first test image of each class, and things that are no clothes at all.

    Args:
        out: folder; file names are what the app shows under each sample, after their number.
        pixels: (N, 28, 28) uint8 test images.
        labels: (N,) their classes.
    """
    first = {name: pixels[np.argmax(labels == c)] for c, name in enumerate(CLASSES)}
    digits = load_digits()
    samples = {name: image for name, image in first.items() if name not in UNKNOWN}
    samples |= {name: first[name] for name in sorted(UNKNOWN, reverse=True)}
    for digit in (3, 8):
        image = digits.images[np.argmax(digits.target == digit)] / 16 * 255
        samples[f"Digit {digit}"] = np.asarray(
            Image.fromarray(image.astype(np.uint8)).resize((28, 28), Image.Resampling.BICUBIC)
        )
    samples["Noise"] = np.random.default_rng(SPLIT_SEED).integers(0, 256, (28, 28), np.uint8)
    samples["Fallen shirt"] = np.flipud(first["Shirt"])
    out.mkdir(parents=True, exist_ok=True)
    for number, (name, image) in enumerate(samples.items(), start=1):
        Image.fromarray(image).save(out / f"{number:02d} {name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="folder of the idx.gz files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    args = parser.parse_args()
    unpack(args.source, args.out)
