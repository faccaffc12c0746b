"""New classes among flagged images: Fashion-MNIST with one or two classes hidden.

python -m tests.benchmarks.novelty [--splits 8 7-9]

For each split a small network is trained without the hidden classes (15,000 images, under a minute)
and kept with what it left behind in build/novelty. Test images of all classes are flagged at 5% by
Mahalanobis over layers, calibrated on held-out known images; the flagged ones are clustered. The
layer is chosen on training images only.

Over the flagged images, one in no cluster counts as wrong in ACC and as one cluster in NMI and ARI;
true k is the number of classes that have 5% of them. Over all images, what is not flagged or in no
cluster has its predicted class, and true k is 10. ACC has one assignment over all points (v2 of
Vaze et al., CVPR 2022). F1 is that of the best cluster for each hidden class, mean over them.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import nn

from models.activations import Activations, Head
from models.bank import Bank, CalibrationSet, TuningSet
from models.classifier import Classifier
from models.fashion import CLASSES, read_fashion
from models.preprocessing import Preprocessing
from models.train import train
from ood.clusters import cluster_by_density, cluster_by_means
from ood.conformal import ConformalCalibration
from ood.detectors import LayeredMahalanobis
from ood.layer_choice import choose_layer
from tests.benchmarks.detectors import observed

CACHE = Path(__file__).parents[2] / "build" / "novelty"
FASHION = Path("/usr/share/datasets/fashion-mnist")
SCALING = Preprocessing(28, (0.286,), (0.353,))
TRAINING, TUNING, CALIBRATION, EPOCHS = 15_000, 2_000, 6_000, 8
LEVEL, COUNTED = 0.05, 0.05
SPLITS = (*((c,) for c in range(10)), (8, 9), (7, 9), (0, 8), (1, 5), (2, 3))


@dataclass(frozen=True)
class Split:
    """What a network that has never seen the hidden classes left behind.

    Attributes:
        hidden: classes.
        training, held_out, test: activations.
        labels: (n,) of the training images, numbered among the known classes.
        true: (m,) of the test images, all ten classes.
    """

    hidden: tuple[int, ...]
    head: Head
    training: Activations
    held_out: Activations
    test: Activations
    labels: np.ndarray
    true: np.ndarray

    @property
    def known(self) -> np.ndarray:
        return np.delete(np.arange(10), self.hidden)


def network(classes: int) -> nn.Sequential:
    """224,000 parameters, 64 features, stages of 16, 32 and 64 channels."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 16), nn.MaxPool2d(2), *block(16, 32), nn.MaxPool2d(2), *block(32, 64),
        nn.Flatten(), nn.Linear(64 * 49, 64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip


def prepare(hidden: tuple[int, ...]) -> Split:
    """From the cache, or trained now."""
    path = CACHE / f"{'-'.join(map(str, hidden))}.npz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        learn(hidden, path)
    kept = np.load(path)

    def activations(name: str) -> Activations:
        stages = (
            tuple(kept[f"{name}-{kind}-{n}"] for n in range(3)) for kind in ("means", "maxima")
        )
        return Activations(kept[f"{name}-logits"], kept[f"{name}-features"], *stages)

    return Split(
        hidden, Head(kept["weight"], kept["bias"]),
        *(activations(name) for name in ("training", "held_out", "test")),
        kept["labels"], kept["true"],
    )  # fmt: skip


def learn(hidden: tuple[int, ...], path: Path) -> None:
    """Train without the hidden classes, observe, and keep weights and activations."""
    pixels, labels = read_fashion("train", FASHION)
    test, true = read_fashion("t10k", FASHION)
    known = np.delete(np.arange(10), hidden)
    rows = np.flatnonzero(np.isin(labels, known))
    learned, held_out = np.split(rows[: TRAINING + TUNING + CALIBRATION], [TRAINING])
    numbered = np.searchsorted(known, labels[learned])
    torch.manual_seed(0)
    start = time.perf_counter()
    net = network(len(known))
    train(
        net, torch.tensor(pixels[learned][:, None]), torch.tensor(numbered), SCALING,
        epochs=EPOCHS, flip=True, device=torch.device("cpu"),
    )  # fmt: skip
    save_file(
        {k: t.contiguous() for k, t in net.state_dict().items()}, path.with_suffix(".safetensors")
    )
    classifier = Classifier(net, SCALING, [CLASSES[c] for c in known], torch.device("cpu"))
    kept = {"labels": numbered, "true": true.astype(int)}
    kept |= {"weight": classifier.head.weight, "bias": classifier.head.bias}
    for name, images in (
        ("training", pixels[learned]), ("held_out", pixels[held_out]), ("test", test)
    ):  # fmt: skip
        seen = classifier.observe(images[:, None])
        kept |= {f"{name}-logits": seen.logits, f"{name}-features": seen.features}
        for number, (means, maxima) in enumerate(zip(seen.means, seen.maxima, strict=True)):
            kept |= {f"{name}-means-{number}": means, f"{name}-maxima-{number}": maxima}
    np.savez(path, **kept)
    print(f"trained and observed in {time.perf_counter() - start:.0f} s", flush=True)


@dataclass(frozen=True)
class Scored:
    """Outlier scores: (CALIBRATION,) of held-out known images, and (m,) of the test images."""

    calibration: np.ndarray
    test: np.ndarray

    @property
    def flagged(self) -> np.ndarray:
        """(m,) bool: the test images whose p-value is at most 5%."""
        return ConformalCalibration(np.sort(self.calibration)).p_values(self.test) <= LEVEL


def score(split: Split) -> Scored:
    """Mahalanobis over layers, fitted on training and tuning images."""
    bank = Bank(observed(split.training, split.labels, 0), split.head)

    def held_out(rows: np.ndarray, seed: int):
        return observed(split.held_out.take(rows), np.zeros(len(rows)), seed)

    tuning = TuningSet(held_out(np.arange(TUNING), 1), bank)
    calibration = CalibrationSet(held_out(np.arange(TUNING, TUNING + CALIBRATION), 2), bank)
    detector = LayeredMahalanobis.fit(bank, tuning)
    return Scored(detector.score(calibration.activations), detector.score(bank.locate(split.test)))


def accuracy(true: np.ndarray, found: np.ndarray) -> float:
    """Share of images in the class that their cluster is assigned to; -1 is in none."""
    table = np.zeros((found.max(initial=0) + 1, 10), int)
    np.add.at(table, (found[found >= 0], true[found >= 0]), 1)
    return table[linear_sum_assignment(-table)].sum() / len(true)


def best_f1(true: np.ndarray, found: np.ndarray, hidden: tuple[int, ...]) -> float:
    """Of the best cluster for each hidden class, mean over classes; misses count."""
    sizes = np.bincount(found[found >= 0], minlength=1)
    best = []
    for c in hidden:
        common = np.bincount(found[(found >= 0) & (true == c)], minlength=len(sizes))
        best.append((2 * common / np.maximum(1, sizes + (true == c).sum())).max())
    return float(np.mean(best))


def cells(split: Split, flags: np.ndarray, found: np.ndarray, seconds: float) -> list[str]:
    """Of a row: measures over the flagged images, then over all."""
    true = split.true[flags]
    everything = split.known[split.test.logits.argmax(axis=1)]
    everything[np.flatnonzero(flags)[found >= 0]] = 10 + found[found >= 0]
    numbers = np.unique(everything, return_inverse=True)[1]
    k = found.max(initial=-1) + 1
    counted = (np.bincount(true) >= COUNTED * len(true)).sum()
    measures = [
        (accuracy(t, f), normalized_mutual_info_score(t, f), adjusted_rand_score(t, f))
        for t, f in ((true, found), (split.true, numbers))
    ]
    return [
        *(f"{m:.2f}" for m in measures[0]), f"{k} ({k - counted:+d})",
        f"{best_f1(true, found, split.hidden):.2f}", f"{(found < 0).mean():.0%}",
        *(f"{m:.3f}" for m in measures[1]), f"{k - len(split.hidden):+d}", f"{seconds:.1f}",
    ]  # fmt: skip


def compare(split: Split) -> None:
    """Print a table of one split."""
    flags = score(split).flagged
    novel = np.isin(split.true, split.hidden)
    counts = np.bincount(split.true[flags], minlength=10)
    start = time.perf_counter()
    choice = choose_layer(split.training, split.labels, split.head)
    print(
        f"### Hidden: {', '.join(CLASSES[c] for c in split.hidden)}\n\n"
        f"{flags.sum()} flagged: {flags[novel].mean():.0%} of the hidden classes, "
        f"{flags[~novel].mean():.1%} of the known; by class {counts.tolist()}. Layer chosen in "
        f"{time.perf_counter() - start:.1f} s.\n"
    )
    head = [
        "features", "hidden found", "clusters by", "ACC", "NMI", "ARI", "k (error)", "F1",
        "in none", "ACC of all", "NMI", "ARI", "k error", "s",
    ]  # fmt: skip
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")

    def row(name: str, hidden: str, method: str, cluster) -> None:
        start = time.perf_counter()
        found = cluster()
        shown = cells(split, flags, found, time.perf_counter() - start)
        print(f"| {' | '.join([name, hidden, method, *shown])} |", flush=True)

    unlabelled = split.test.take(np.flatnonzero(flags))
    for number, layer in enumerate(choice.layers):
        name = "penultimate" if layer.stage < 0 else f"stage {layer.stage + 1}"
        name = f"**{name}, chosen**" if number == choice.best else name
        found = f"{np.nanmean(choice.scores[number]):.2f}"
        features = layer.features(unlabelled)
        row(name, found, "k-means, k estimated", lambda f=features: cluster_by_means(f).labels)
        row(name, found, "HDBSCAN", lambda f=features: cluster_by_density(f).labels)
    raw, k = unlabelled.features, int((counts >= COUNTED * counts.sum()).sum())
    plain = KMeans(k, n_init=10, random_state=0)
    row("penultimate, raw", "", "plain k-means, k given", lambda: plain.fit_predict(raw))
    row("penultimate, raw", "", "plain HDBSCAN", lambda: HDBSCAN(copy=True).fit_predict(raw))
    print()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["-".join(map(str, hidden)) for hidden in SPLITS]
    parser.add_argument("--splits", nargs="+", default=names, help="such as 8 or 7-9")
    torch.set_num_threads(1)
    for name in parser.parse_args().splits:
        compare(prepare(tuple(map(int, name.split("-")))))


if __name__ == "__main__":
    main()
