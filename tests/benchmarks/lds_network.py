"""The small network of the linear datamodeling score, retrained on many halves of its images."""

import copy
import os
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn
from tqdm import tqdm

from models.classifier import Classifier
from models.preprocessing import Preprocessing

MNIST = Path(os.environ["KINDRED_MNIST"])
CACHE = Path("build/lds")
IMAGES, QUERIES, TUNING = 5_000, 100, 50
SUBSETS, SEEDS = 100, 4
SCALING = Preprocessing(28, (0.1307,), (0.3081,))
CLASSES = [str(digit) for digit in range(10)]
EPOCHS, BATCH, RATE, DECAY = 8, 64, 0.1, 1e-3


def read_mnist(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, 1, 28, 28) uint8 and (N,) int64."""
    pixels = np.frombuffer((MNIST / f"{name}-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    labels = np.frombuffer((MNIST / f"{name}-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    return pixels.reshape(-1, 1, 28, 28), labels.astype(np.int64)


def images() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Training images and queries, the first 100 reported, the other 50 for tuning."""
    rng = np.random.default_rng(0)
    found = []
    for name, count in (("train", IMAGES), ("t10k", QUERIES + TUNING)):
        pixels, labels = read_mnist(name)
        rows = rng.permutation(len(pixels))[:count]
        found.append((pixels[rows], labels[rows]))
    return found[0], found[1]


def subset(number: int) -> np.ndarray:
    """(N / 2,) rows, which retraining keeps."""
    return np.random.default_rng(1_000 + number).permutation(IMAGES)[: IMAGES // 2]


def build() -> nn.Sequential:
    """105,866 parameters. Pooling before the rectifier is the same function and half the time."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(1568, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def train(inputs: torch.Tensor, labels: torch.Tensor, seed: int) -> list[nn.Module]:
    """The network after each third of training; the last is the trained one."""
    torch.manual_seed(seed)
    network = build().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), RATE, momentum=0.9, weight_decay=DECAY)
    batches = len(inputs) // BATCH
    total = EPOCHS * batches
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=total)
    marks = {round(total * part / 3) for part in range(1, 4)}
    kept = []
    for step in range(1, total + 1):
        if step % batches == 1:
            order = torch.randperm(len(inputs))[: batches * BATCH].view(batches, BATCH)
        rows = order[(step - 1) % batches]
        loss = nn.functional.cross_entropy(network(inputs[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step in marks:
            checkpoint = build()
            checkpoint.load_state_dict(network.state_dict())
            kept.append(checkpoint.eval())
    return kept


def _retrain(job: tuple[int, int]) -> None:
    number, seed = job
    path = CACHE / f"logits-{number:03}-{seed}.npy"
    if path.exists():
        return
    torch.set_num_threads(1)
    (pixels, labels), (queries, _) = images()
    rows = subset(number)
    inputs = SCALING.normalise(torch.tensor(pixels[rows]))
    network = train(inputs, torch.tensor(labels[rows]), 100 * seed + number + 1)[-1]
    with torch.inference_mode():
        logits = network(SCALING.normalise(torch.tensor(queries))).numpy()
    partial = path.with_suffix(".part.npy")
    np.save(partial, logits)
    os.replace(partial, path)


def retrained_logits() -> np.ndarray:
    """(SUBSETS, SEEDS, QUERIES + TUNING, 10), two trainings at a time; resumes from CACHE."""
    CACHE.mkdir(parents=True, exist_ok=True)
    jobs = [(number, seed) for seed in range(SEEDS) for number in range(SUBSETS)]
    with get_context("spawn").Pool(2) as pool:
        for _ in tqdm(pool.imap_unordered(_retrain, jobs), total=len(jobs), desc="retrain"):
            pass
    logits = [
        np.load(CACHE / f"logits-{number:03}-{seed}.npy")
        for number in range(SUBSETS)
        for seed in range(SEEDS)
    ]
    return np.stack(logits).reshape(SUBSETS, SEEDS, QUERIES + TUNING, 10)


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each column of (J, Q) with the same column of the other: (Q,)."""
    ranks = [rankdata(x, axis=0) for x in (a, b)]
    a, b = (x - x.mean(axis=0) for x in ranks)
    return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


class Setting:
    """The full network at three checkpoints, the queries, and what retraining did to them."""

    def __init__(self) -> None:
        (self.pixels, self.labels), (self.queries, self.query_labels) = images()
        self.inputs = SCALING.normalise(torch.tensor(self.pixels))
        self.query_inputs = SCALING.normalise(torch.tensor(self.queries))
        self.checkpoints = train(self.inputs, torch.tensor(self.labels), 0)
        self.last = Classifier(copy.deepcopy(self.checkpoints[-1]), SCALING, CLASSES)
        self.query_logits = self.last.observe(self.queries).logits
        ranked = np.argsort(-self.query_logits, axis=1)
        self.pairs = np.ascontiguousarray(ranked[:, :2])
        logits = retrained_logits()
        everyone = np.arange(len(self.queries))
        margins = logits[..., everyone, self.pairs[:, 0]] - logits[..., everyone, self.pairs[:, 1]]
        self.by_seed = margins.transpose(1, 0, 2)  # (seeds, J, Q)
        self.left_out = np.ones((SUBSETS, len(self.labels)), np.float32)
        for number in range(SUBSETS):
            self.left_out[number, subset(number)] = 0

    def scores_of(self, influences: np.ndarray) -> np.ndarray:
        """(Q, N) predicted effects of leaving out to (Q,) scores."""
        return spearman(self.left_out @ influences.T.astype(float), self.by_seed.mean(axis=0))

    def reliability(self) -> tuple[float, float]:
        """Of one seed, and of the mean of all by split halves and Spearman-Brown's formula."""
        seeds = range(len(self.by_seed))
        single = [spearman(self.by_seed[a], self.by_seed[b]) for a, b in combinations(seeds, 2)]
        halves = []
        for half in combinations(seeds, len(seeds) // 2):
            other = [seed for seed in seeds if seed not in half]
            means = (self.by_seed[list(part)].mean(axis=0) for part in (half, other))
            halves.append(spearman(*means)[:QUERIES].mean())
        r = float(np.mean(halves))
        return float(np.mean(np.stack(single)[:, :QUERIES])), 2 * r / (1 + r)
