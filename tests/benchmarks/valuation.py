"""What valuing training images costs, beside cleanlab.

OMP_NUM_THREADS=1 python -m tests.benchmarks.valuation

Features are those of ten overlapping clusters. Every line is a process of its own, so that its
peak memory is its own; memory is counted beyond the inputs. cleanlab values N images by N images,
namely themselves, with the K nearest only; exact values by 500 others are a different answer, of
which cleanlab has no route to. So times are given both for its own task and for ours.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from cleanlab.data_valuation import _knn_shapley_score, data_shapley_knn
from cleanlab.internal.neighbor.knn_graph import create_knn_graph_and_index

from explain.data_oob import data_oob
from explain.shapley import knn_shapley, marginal_weights, ranked_values
from models.activations import Activations, Head
from models.bank import Bank
from models.observed import Blobs, ObservedSet

VALIDATION = 500
NEIGHBOURS = 10
LARGEST_PEER = 12_000


def images(count: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) float32 and labels (N,), a tenth of them wrong."""
    middle = np.random.default_rng(99).normal(size=(10, dim)).astype(np.float32)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    features = rng.standard_normal((count, dim), np.float32)
    features *= 3
    features += middle[labels]
    wrong = rng.random(count) < 0.1
    return features, np.where(wrong, rng.integers(0, 10, count), labels)


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Seconds, and MB of peak memory beyond what there was before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "megabytes": (peak - before) / 1e3}


def exact(count: int, dim: int) -> dict[str, float]:
    """500 validation images."""
    features, labels = images(count, dim)
    asked, asked_labels = images(VALIDATION, dim, seed=1)
    knn_shapley(features[:100], labels[:100], asked[:9], asked_labels[:9])  # loads what it needs
    return measure(lambda: knn_shapley(features, labels, asked, asked_labels))


def peer(count: int, dim: int) -> dict[str, float]:
    """cleanlab's whole path."""
    features, labels = images(count, dim)
    return measure(lambda: data_shapley_knn(labels, features=features, k=NEIGHBOURS))


def cut_off(nearest: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What cleanlab computes: the K nearest only, of which the K-th is worth nothing."""
    count = len(labels)
    weights = marginal_weights(count, NEIGHBOURS)[:NEIGHBOURS] * (np.arange(NEIGHBOURS) < 9)
    each = ranked_values(labels[nearest] == labels[:, None], weights)
    return (np.bincount(nearest.ravel(), each.ravel(), count) / count + 1) / 2


def same_task(count: int, dim: int) -> dict[str, float]:
    """Our search and our recursion for cleanlab's answer."""
    features, labels = images(count, dim)
    blank = Blobs.pack([b""] * count)
    ids = np.random.default_rng(0).integers(0, 256, (count, 32), np.uint8)
    activations = Activations(np.zeros((count, 10), np.float32), features)
    observed = ObservedSet(activations, labels, ids, blank, blank)
    bank = Bank(observed, Head(np.zeros((10, dim), np.float32), np.zeros(10)))

    def work() -> None:
        found = bank.locate_own(np.arange(count)).neighbours
        assert found is not None
        cut_off(found.rows[:, :NEIGHBOURS], labels)

    return measure(work)


def same_neighbours(count: int, dim: int) -> dict[str, float]:
    """Both recursions on cleanlab's own neighbours."""
    features, labels = images(count, dim)
    graph, _ = create_knn_graph_and_index(features, n_neighbors=NEIGHBOURS)
    nearest = graph.indices.reshape(count, -1)
    ours = measure(lambda: cut_off(nearest, labels))
    theirs = measure(lambda: _knn_shapley_score(nearest, labels, NEIGHBOURS))
    expected = (_knn_shapley_score(nearest, labels, NEIGHBOURS) + 1) / 2
    difference = float(np.abs(cut_off(nearest, labels) - expected).max())
    return {
        "seconds": ours["seconds"], "megabytes": ours["megabytes"],
        "their seconds": theirs["seconds"], "difference": difference,
    }  # fmt: skip


def out_of_bag(count: int, dim: int) -> dict[str, float]:
    """100 trees."""
    features, labels = images(count, dim)
    return measure(lambda: data_oob(features, labels))


TASKS = (exact, peer, same_task, same_neighbours, out_of_bag)
NAMES = {
    exact: "exact, 500 validation images",
    peer: "cleanlab, by themselves, 10 nearest",
    same_task: "ours, the same task",
    same_neighbours: "ours, the same task, neighbours given",
    out_of_bag: "Data-OOB, 100 trees",
}
LINES = (
    *((exact, n, d) for d in (256, 512) for n in (LARGEST_PEER, 25_000, 50_000)),
    *((task, LARGEST_PEER, 512) for task in (peer, same_task, same_neighbours)),
    (out_of_bag, 42_000, 128),
)


def main() -> None:
    """Measure and print."""
    print(f"threads: {os.environ.get('OMP_NUM_THREADS', 'all')}\n")
    print("| | N | D | s | MB beyond the inputs | |\n|---|---|---|---|---|---|")
    for task, count, dim in LINES:
        command = [sys.executable, "-m", __spec__.name, task.__name__, str(count), str(dim)]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        note = (
            f"cleanlab {found['their seconds']:.2f} s, largest difference {found['difference']:.0e}"
            if "difference" in found
            else ""
        )
        print(
            f"| {NAMES[task]} | {count:,} | {dim} | {found['seconds']:.3f} | "
            f"{found['megabytes']:.0f} | {note} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        chosen = next(task for task in TASKS if task.__name__ == sys.argv[1])
        print(json.dumps(chosen(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
