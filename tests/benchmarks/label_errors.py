"""Wrong labels found: injected into MNIST and Fashion-MNIST, and people's own on CIFAR-10.

KINDRED_MNIST=... KINDRED_CIFAR10=... KINDRED_DATA=... python -m tests.benchmarks.label_errors

Every network is trained on the wrong labels; what it left behind is kept in build/label_errors, so
that a second run only counts. The score to judge by is `LabelIssues.suspicion`. Its constants were
chosen on rows 30,000 to 41,999 of MNIST and Fashion-MNIST with another seed, and looked at once on
CIFAR-10N's random_label1; none of that is in the tables. `cleanlab` is the best of its three scores
in each row, on the same out-of-sample probabilities; knowing which is best takes the true labels.
"""

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from explain.cross_validation import head_cross_validation
from explain.data_oob import data_oob
from explain.label_issues import LabelIssues, label_issues
from explain.shapley import knn_shapley
from models.activations import Activations, Head
from models.bank import Bank
from models.fashion import read_fashion
from models.observed import Blobs, ObservedSet
from models.train import augment
from tests.benchmarks.cifar10 import DATA, MNIST, read_png

CACHE = Path(__file__).parents[2] / "build" / "label_errors"
FASHION = Path("/usr/share/datasets/fashion-mnist")
IMAGES, VALIDATION, NOISE = 10_000, 500, 0.1
PAIRS = {
    "MNIST": (6, 7, 7, 5, 9, 3, 0, 1, 3, 4),
    "Fashion-MNIST": (6, 3, 4, 0, 2, 7, 0, 5, 6, 7),  # T-shirt for shirt, coat for pullover ...
}
TRAINING = {"fitted": (10, 1e-3), "memorised": (30, 0.0)}  # epochs, weight decay
CIFAR_EPOCHS = 8
BATCH = 128
CLEANLAB = ("normalized_margin", "self_confidence", "confidence_weighted_entropy")


@dataclass(frozen=True)
class Trained:
    """What a network left behind of N images that it learned, and of V that it did not.

    Attributes:
        features: (N, D).
        logits: (E, N, C), after each epoch.
        held_out: (V, D), features.
    """

    features: np.ndarray
    logits: np.ndarray
    held_out: np.ndarray


def small_network() -> nn.Sequential:
    """106,000 parameters, 64 features."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def colour_network(width: int = 24) -> nn.Sequential:
    """250,000 parameters, 128 features."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride, pool in (
        (3, width, 5, 2, 1), (width, 2 * width, 3, 1, 2), (2 * width, 4 * width, 3, 1, 2),
    ):  # fmt: skip
        layers += [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(pool),
        ]  # fmt: skip
    layers += [nn.Flatten(), nn.Linear(64 * width, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*layers)


def learn(
    build: Callable[[], nn.Sequential], pixels: Tensor, labels: np.ndarray, epochs: int,
    decay: float, vary: Callable[[Tensor], Tensor],
) -> Trained:  # fmt: skip
    """SGD with a one-cycle schedule on the first N images; the rest are held out."""
    network = build().to(memory_format=torch.channels_last)
    mean, std = pixels.float().mean((0, 2, 3), keepdim=True), pixels.float().std()
    target, batches = torch.tensor(labels), len(labels) // BATCH
    optimiser = torch.optim.SGD(
        network.parameters(), 0.1, momentum=0.9, weight_decay=decay, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=epochs * batches)

    def inputs(images: Tensor) -> Tensor:
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    logits = []
    for _ in range(epochs):
        network.train()
        for rows in torch.randperm(len(labels))[: batches * BATCH].view(batches, BATCH):
            with torch.autocast("cpu", torch.bfloat16):
                answer = network(inputs(vary(pixels[rows])))
                loss = nn.functional.cross_entropy(answer, target[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        network.eval()
        with torch.inference_mode():
            features = torch.cat([network[:-1](inputs(p)) for p in pixels.split(1_000)])
            logits.append(network[-1](features[: len(labels)]).half().numpy())
    learned, held_out = features.numpy()[: len(labels)], features.numpy()[len(labels) :]
    return Trained(learned, np.stack(logits), held_out)


def trained(name: str, learn_it: Callable[[], Trained]) -> Trained:
    """From the cache, or learned now."""
    path = CACHE / f"{name.replace(' ', '-')}.npz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        start = time.perf_counter()
        made = learn_it()
        np.savez(path, **vars(made))
        print(f"trained {name} in {time.perf_counter() - start:.0f} s", flush=True)
    return Trained(**np.load(path))


def gray_images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """60,000 images (N, 1, 28, 28) and labels (N,)."""
    if name == "Fashion-MNIST":
        pixels, labels = read_fashion("train", FASHION)
    else:
        raw = (MNIST / "train-images-idx3-ubyte").read_bytes()
        pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
        labels = np.frombuffer((MNIST / "train-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    return pixels[:, None], labels.astype(np.int64)


def mislabel(labels: np.ndarray, kind: str, partner: tuple[int, ...]) -> np.ndarray:
    """A tenth of them: to any other class, or to the class it is mistaken for."""
    rng = np.random.default_rng(0)
    wrong = rng.choice(len(labels), int(NOISE * len(labels)), replace=False)
    mistaken = labels.copy()
    mistaken[wrong] = (
        np.asarray(partner)[labels[wrong]]
        if kind == "pair"
        else (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    )
    return mistaken


def judge(made: Trained, labels: np.ndarray) -> tuple[np.ndarray, LabelIssues, float]:
    """Out-of-sample probabilities, all scores, and the seconds that both took."""
    start = time.perf_counter()
    probabilities = head_cross_validation(made.features, labels, 10)
    n = len(labels)
    images = ObservedSet(
        activations=Activations(made.logits[-1], made.features),
        labels=labels.astype(np.int32),
        ids=np.random.default_rng(0).integers(0, 256, (n, 32), np.uint8),
        names=Blobs.pack([b""] * n),
        thumbnails=Blobs.pack([b""] * n),
    )
    bank = Bank(images, Head(np.zeros((10, made.features.shape[1])), np.zeros(10)))
    neighbours = bank.locate_own(np.arange(n)).neighbours
    found = label_issues(probabilities, labels, neighbours, made.logits)
    return probabilities, found, time.perf_counter() - start


def compare(
    made: Trained, given: np.ndarray, true: np.ndarray, others: dict[str, np.ndarray]
) -> list[str]:
    """Cells of a row: average precision, then precision at the noise rate for CIFAR-10N."""
    wrong = given != true
    probabilities, found, seconds = judge(made, given)
    peer = {
        score: -get_label_quality_scores(given, probabilities.astype(np.float64), method=score)
        for score in CLEANLAB
    }
    in_sample = np.float64(made.logits[-1])
    in_sample -= np.log(np.exp(in_sample).sum(axis=1, keepdims=True))
    scores = {
        "suspicion": found.suspicion, **peer, "disagreement": found.disagreement,
        "AUM": found.area_under_margin, "loss": -in_sample[np.arange(len(given)), given], **others,
    }  # fmt: skip
    precision = {name: average_precision_score(wrong, score) for name, score in scores.items()}
    best = max(precision[score] for score in CLEANLAB)
    at_rate = {
        name: wrong[np.argsort(-score, kind="stable")[: wrong.sum()]].mean()
        for name, score in scores.items()
    }
    flagged = find_label_issues(given, probabilities.astype(np.float64), n_jobs=1)
    right = found.suggested[found.flagged & wrong] == true[found.flagged & wrong]
    return [
        f"{(made.logits[-1].argmax(axis=1) == given).mean():.1%}",
        f"**{precision.pop('suspicion'):.3f}**", f"{best:.3f}",
        *(f"{value:.3f}" for value in precision.values()),
        f"{at_rate['suspicion']:.3f} ({max(at_rate[score] for score in CLEANLAB):.3f})",
        *(
            f"{wrong[chosen].mean():.2f} / {chosen[wrong].mean():.2f}"
            for chosen in (found.flagged, flagged)
        ),
        f"{right.mean():.2f}", f"{seconds:.1f}",
    ]  # fmt: skip


def table(rows: dict[str, list[str]], others: tuple[str, ...]) -> None:
    """Print Markdown."""
    head = [
        "trained on", "labels learned", "suspicion", "best of cleanlab", "its margin",
        "its self-confidence", "its entropy", "kNN disagreement", "AUM", "loss in sample", *others,
        "P at noise rate (cleanlab)", "flagged P / R", "cleanlab's P / R", "suggested right", "s",
    ]  # fmt: skip
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print()


def injected(name: str) -> dict[str, list[str]]:
    """Two kinds of noise, fitted and memorised."""
    pixels, labels = gray_images(name)
    images = torch.tensor(pixels[: IMAGES + VALIDATION])
    true, validation = np.split(labels[: IMAGES + VALIDATION], [IMAGES])
    rows = {}
    for kind in ("symmetric", "pair"):
        given = mislabel(true, kind, PAIRS[name])
        for mode, (epochs, decay) in TRAINING.items():
            made = trained(
                f"{name} {kind} {mode}",
                partial(learn, small_network, images, given, epochs, decay, lambda p: p),
            )
            values = knn_shapley(made.features, given, made.held_out, validation)
            outside = data_oob(made.features, given, bags=60).values
            others = {"KNN-Shapley": -values, "Data-OOB": -outside}
            rows[f"{name}, {kind}, {mode}"] = compare(made, given, true, others)
    return rows


def people() -> dict[str, list[str]]:
    """CIFAR-10N (Wei et al., ICLR 2022): aggregate and worst labels."""
    pixels = torch.tensor(np.concatenate([read_png(f"data_batch_{n}.png") for n in range(1, 6)]))
    labels = np.load(DATA / "cifar10n.npz")
    true = labels["clean_label"].astype(np.int64)
    vary = partial(augment, flip=True)
    rows = {}
    for key in ("aggre_label", "worse_label"):
        given = labels[key].astype(np.int64)
        made = trained(
            f"CIFAR-10N {key}",
            partial(learn, colour_network, pixels, given, CIFAR_EPOCHS, 5e-4, vary),
        )
        rows[f"CIFAR-10N, {key}, {(given != true).mean():.1%} wrong"] = compare(
            made, given, true, {}
        )
    return rows


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    print(f"threads: {torch.get_num_threads()}; {os.uname().machine}\n")
    table({**injected("MNIST"), **injected("Fashion-MNIST")}, ("KNN-Shapley", "Data-OOB"))
    table(people(), ())


if __name__ == "__main__":
    main()
