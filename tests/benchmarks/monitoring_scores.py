"""Real scores for streams: a known pool, and outliers that are easy and hard to tell from it.

KINDRED_CIFAR10, KINDRED_MNIST and KINDRED_DATA as in tests/benchmarks/cifar10.py. What was scored
once is kept in build/monitoring.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from app.locations import ASSETS
from app.workspace import Workspace
from models.classifier import Classifier
from models.fashion import CLASSES, UNKNOWN, read_fashion
from models.preprocessing import Preprocessing
from ood.detectors import Energy

CACHE = Path(__file__).parents[2] / "build" / "monitoring"


@dataclass(frozen=True)
class Pools:
    """Scores of independent images.

    Attributes:
        title: what they are, for a heading.
        calibration: (n,) of held-out known images.
        known: (m,) of other known images.
        easy, hard: of two kinds of unknown ones.
    """

    title: str
    calibration: np.ndarray
    known: np.ndarray
    easy: np.ndarray
    hard: np.ndarray


def digits() -> np.ndarray:
    """(10000, 28, 28) uint8."""
    raw = (Path(os.environ["KINDRED_MNIST"]) / "t10k-images-idx3-ubyte").read_bytes()
    return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)


def cifar_scores() -> dict[str, np.ndarray]:
    """The energy score of a ResNet-20; half of the test images calibrate."""
    from tests.benchmarks.cifar10 import DATA, as_colour, read_png
    from tests.benchmarks.resnet20 import ResNet20

    network = ResNet20()
    network.load_state_dict(torch.load(DATA / "cifar10_resnet20.pt", weights_only=True))
    scaling = Preprocessing(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    classifier = Classifier(network, scaling, [str(c) for c in range(10)])
    test = read_png("test_batch.png")[np.random.default_rng(0).permutation(10_000)]
    textures = np.load(DATA / "dtd10_textures_32.npz")["x"].transpose(0, 3, 1, 2)
    pixels = {
        "calibration": test[:5_000], "known": test[5_000:], "easy": as_colour(digits()),
        "hard": np.ascontiguousarray(textures),
    }  # fmt: skip
    return {name: Energy().score(classifier.observe(p)) for name, p in pixels.items()}


def fashion_scores() -> dict[str, np.ndarray]:
    """The demo's default detector."""
    workspace = Workspace.open(ASSETS / "fashion")
    pixels, labels = read_fashion("t10k")
    names, detector = np.array(CLASSES)[labels], workspace.manifest.detector
    scores = workspace.inspect(pixels[:, None]).scores[detector]
    return {
        "calibration": workspace.calibration_scores[detector],
        "known": scores[~np.isin(names, list(UNKNOWN))],
        "easy": scores[names == "Bag"],
        "hard": scores[names == "Ankle boot"],
    }


SETS = {
    "cifar10": ("CIFAR-10, ResNet-20, energy: MNIST, textures, MNIST", cifar_scores),
    "fashion": ("the demo, its default detector: bags, ankle boots, bags", fashion_scores),
}


def read_pools(name: str) -> Pools:
    """Of a set by name; seconds to minutes the first time."""
    title, score = SETS[name]
    path = CACHE / f"{name}_scores.npz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        np.savez(path, **score())
    with np.load(path) as kept:
        return Pools(title, **{key: kept[key].astype(float) for key in kept.files})
