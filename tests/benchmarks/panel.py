"""What all detectors together cost beside the pass of a ResNet-18 at 32 pixels.

python -m tests.benchmarks.panel [--threads 1]

The network has the stem that CIFAR papers give it (3 x 3, no pooling) and random weights; the Bank
has 50,000 training images, made of what 2,000 images leave behind, with noise: cost does not
depend on what the numbers are.
"""

import argparse
import time

import faiss
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torchvision.models import resnet18

from models.activations import Activations
from models.bank import Bank, TuningSet
from models.classifier import Classifier
from models.observed import Blobs, ObservedSet
from models.preprocessing import Preprocessing
from ood.combination import MEMBERS, Combiner
from ood.detectors import DETECTORS
from ood.panel import Panel
from tests.benchmarks.inspect import seconds

IMAGES, TRAINING = 2_000, 50_000


def cifar_resnet18() -> nn.Module:
    network = resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network


def noisy(activations: Activations, rows: np.ndarray, rng: np.random.Generator) -> Activations:
    def some(values: np.ndarray) -> np.ndarray:
        spread = 0.1 * values.std()
        return values[rows] + spread * rng.standard_normal((len(rows), values.shape[1]), np.float32)

    return Activations(
        logits=some(activations.logits),
        features=np.maximum(some(activations.features), 0),
        means=tuple(map(some, activations.means)),
        maxima=tuple(map(some, activations.maxima)),
    )


def observed(activations: Activations, seed: int) -> ObservedSet:
    n = len(activations)
    return ObservedSet(
        activations=activations,
        labels=np.arange(n, dtype=np.int32) % 10,
        ids=np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8),
        names=Blobs.pack([b""] * n),
        thumbnails=Blobs.pack([b""] * n),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    with threadpool_limits(threads):
        scaling = Preprocessing(32, (0.5,) * 3, (0.25,) * 3)
        classifier = Classifier(cifar_resnet18(), scaling, [str(c) for c in range(10)])
        pixels = rng.integers(0, 256, (IMAGES, 3, 32, 32), np.uint8)
        seen = classifier.observe(pixels)
        rows = rng.integers(0, IMAGES, TRAINING)
        bank = Bank(observed(noisy(seen, rows, rng), 1), classifier.head)
        tuning = TuningSet(observed(noisy(seen, rows[:2000], rng), 2), bank)
        start = time.perf_counter()
        detectors = {name: kind.fit(bank, tuning) for name, kind in DETECTORS.items()}
        fitted = time.perf_counter() - start
        members = {name: detectors[name].score(tuning.activations) for name in MEMBERS}
        panel = Panel(detectors, Combiner.fit(members))
        batch = pixels[:256]
        left_behind = seen.take(np.arange(256))
        forward, everything = seconds(
            lambda: classifier.observe(batch), lambda: panel.score(bank.locate(left_behind)),
            rounds=5,
        )  # fmt: skip
        costs = panel.microseconds(bank, left_behind)
    each, forward_each = everything / 256 * 1e6, forward / 256 * 1e6
    print(
        f"{threads} thread(s): pass {forward_each:,.0f} us an image; all {len(panel.infos)} "
        f"detectors together {each:,.0f} us, {each / forward_each:.1%} of it (at most 40%); "
        f"fitting them on {TRAINING:,} images {fitted:.1f} s"
    )
    for name, cost in sorted(costs.items(), key=lambda item: -item[1]):
        print(f"  {name:12s} {cost:8.1f} us")


if __name__ == "__main__":
    main()
