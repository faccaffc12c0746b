"""What the detectors cost beside those of pytorch-ood, and how much memory they take.

python -m tests.benchmarks.detectors [--threads 1]

Both sides are given the same features, the same settings and as many threads, and take turns.
Other programs on the machine disturb the times: look at the ratios.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from models.activations import Activations, Head
from models.bank import Bank, TuningSet
from models.observed import Blobs, ObservedSet
from ood.detectors import DETECTORS
from ood.detectors.neighbours import NNGuide, sample_rows
from ood.detectors.subspace import principal_dimensions

ROUNDS = 3
SMALL = {"training": 50_000, "asked": 10_000, "classes": 10, "dim": 512}
LARGE = {"training": 10_000, "asked": 10_000, "classes": 1_000, "dim": 2_048}
MEMORY_BAR = 500
LOGITS = {"msp", "maxlogit", "energy", "entropy", "gen", "temperature", "kl-matching"}


def observed(activations: Activations, labels: np.ndarray, seed: int) -> ObservedSet:
    n = len(labels)
    ids = np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8)
    nothing = Blobs(np.zeros(0, np.uint8), np.zeros(n + 1, np.int64))
    return ObservedSet(activations, labels.astype(np.int32), ids, nothing, nothing)


def world(training: int, asked: int, classes: int, dim: int):
    """Bank, tuning set and asked activations: clusters behind a ReLU and a head for them."""
    rng = np.random.default_rng(0)
    centres = rng.random((classes, dim), np.float32) * (rng.random((classes, dim)) < 0.3) * 2
    scales = np.geomspace(1, 0.1, dim, dtype=np.float32)
    middle = centres.mean(axis=0)
    weight = (centres - middle) * np.float32(20 / dim)
    bias = -weight @ middle + rng.normal(0, 0.1, classes).astype(np.float32)
    head = Head(weight, bias.astype(np.float32))

    def draw(n: int, seed: int) -> ObservedSet:
        labels = rng.integers(0, classes, n)
        features = rng.standard_normal((n, dim), np.float32)
        features *= scales
        features += centres[labels]
        np.maximum(features, 0, out=features)
        logits = features @ weight.T + bias
        stage = (features[:, :64].copy(),)
        return observed(Activations(logits, features, stage, stage), labels, seed)

    bank = Bank(draw(training, 1), head)
    return bank, TuningSet(draw(2_000, 2), bank), draw(asked, 3).activations


def seconds(*functions: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Median time of each, run in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in times]


def peers_of(bank: Bank, tuning: TuningSet, asked: Activations):
    """Per detector, pytorch-ood's on the same inputs: how to fit it, and how to score with it."""
    import pytorch_ood.detector as peers
    import torch

    images, held_out = bank.images, tuning.images
    z, y = torch.from_numpy(images.activations.features), torch.from_numpy(images.labels).long()
    w, b = torch.from_numpy(bank.head.weight), torch.from_numpy(bank.head.bias)
    logits = torch.from_numpy(held_out.activations.logits)
    labels = torch.from_numpy(held_out.labels).long()
    asked_z, asked_f = torch.from_numpy(asked.features), torch.from_numpy(asked.logits)
    rows = torch.from_numpy(sample_rows(len(z), NNGuide.SAMPLE))
    head = torch.nn.Linear(w.shape[1], w.shape[0])
    head.weight.data, head.bias.data = w, b
    maps, principal = z[:, :, None, None], principal_dimensions(z.shape[1])

    def behind(x):
        return head(x.flatten(1))

    def of_features(make, *given):
        return lambda: make().fit_features(*given), lambda d: d.predict_features(asked_z)

    def of_maps(make, *given):
        fit = (lambda: make().fit_feature_maps(*given)) if given else make
        return fit, lambda d: d.predict_feature_maps(asked_z[:, :, None, None])

    def of_logits(make, *given):
        fit = (lambda: make().fit_logits(*given)) if given else make
        return fit, lambda d: d.predict_logits(asked_f)

    return {
        "mds": of_features(lambda: peers.Mahalanobis(None), z, y),
        "rmds": of_features(lambda: peers.RMD(None), z, y),
        "vim": of_features(lambda: peers.ViM(None, principal, w, b), z, y),
        "fdbd": of_features(lambda: peers.fDBD(None, head), z),
        "nci": of_features(lambda: peers.NCI(None, head, 1e-4), z),
        "she": of_features(lambda: peers.SHE(None, head), z, y),
        "react": of_maps(lambda: peers.ReAct(None, behind), maps, y),
        "ash": of_maps(lambda: peers.ASH(None, behind, percentile=0.9)),
        "scale": of_maps(lambda: peers.SCALE(None, behind, percentile=0.85)),
        "dice": of_features(lambda: peers.DICE(None, w, b, 0.9), z, y),
        "nnguide, same sample": of_features(lambda: peers.NNGuide(None, head), z[rows], y[rows]),
        "nnguide": of_features(lambda: peers.NNGuide(None, head), z, y),
        "knn": of_features(lambda: peers.KNN(None, 50), z, y),
        "msp": of_logits(lambda: peers.MaxSoftmax(None)),
        "maxlogit": of_logits(lambda: peers.MaxLogit(None)),
        "energy": of_logits(lambda: peers.EnergyBased(None)),
        "entropy": of_logits(lambda: peers.Entropy(None)),
        "gen": of_logits(lambda: peers.GEN(None)),
        "temperature": of_logits(lambda: peers.TemperatureScaling(None), logits, labels),
        "kl-matching": of_logits(lambda: peers.KLMatching(None), logits),
    }


def ours_of(name: str, bank: Bank, tuning: TuningSet, asked: Activations):
    """How to fit ours, and how to score with it; for kNN, index and search included."""
    kind = DETECTORS[name]

    def fit():
        if name != "knn":
            return kind.fit(bank, tuning)
        fresh = Bank(bank.images, bank.head)
        fresh.locate(asked.take(np.arange(1)))  # builds the index
        return kind.fit(fresh, tuning), fresh

    def score(fitted):
        if name != "knn":
            return fitted.score(asked)
        detector, fresh = fitted
        return detector.score(fresh.locate(asked))

    return fit, score


def speed(threads: int) -> None:
    """Ours and pytorch-ood's in turn, on 50,000 x 512 features."""
    import faiss
    import torch

    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    bank, tuning, asked = world(**SMALL)
    print(f"\n{SMALL}, {threads} thread(s), median of {ROUNDS}; seconds\n")
    print("| detector | fit | theirs | score | theirs | theirs / ours | score only |")
    print("|---|---|---|---|---|---|---|")
    totals: dict[str, tuple[float, float]] = {}
    with threadpool_limits(threads):
        for name, (their_fit, their_score) in peers_of(bank, tuning, asked).items():
            fit, score = ours_of(name.partition(",")[0], bank, tuning, asked)
            ours, theirs, rounds = fit(), their_fit(), 1 if name == "knn" else ROUNDS
            with torch.no_grad():
                b, d = seconds(lambda: score(ours), lambda: their_score(theirs), rounds=rounds)  # noqa: B023
            a, c = seconds(fit, their_fit, rounds=rounds)
            totals[name] = (a + b, c + d)
            row = f"{(c + d) / (a + b):.1f} | {d / b:.1f}"
            print(f"| {name} | {a:.3f} | {c:.3f} | {b:.4f} | {d:.4f} | {row} |", flush=True)
    guided = [n for n in totals if n.startswith("nnguide")]
    features = [n for n in totals if n not in {*guided, *LOGITS, "knn"}]
    print("\n| fit and score together | theirs / ours | at least |")
    print("|---|---|---|")
    for title, names, bar in (
        ("feature detectors but kNN", [*features, "nnguide"], 5),
        ("the same, NNGuide on our sample", [*features, guided[0]], None),
        ("the same without NNGuide", features, None),
        ("Mahalanobis, fit and score", ["mds"], 8),
        ("kNN, exact", ["knn"], 2),
    ):
        ours, theirs = (sum(totals[n][side] for n in names) for side in (0, 1))
        print(f"| {title} | {theirs / ours:.1f} | {bar or ''} |")


def memory() -> None:
    """Peak memory beyond the inputs, a fresh process for each detector."""
    print(f"\n{LARGE}; the most may be {MEMORY_BAR} MB\n")
    print("| detector | MB beyond the inputs | fit and score, s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        bank, tuning, asked = world(**LARGE)
        bank.images.save(Path(folder) / "bank")
        tuning.images.save(Path(folder) / "tuning")
        observed(asked, np.zeros(len(asked)), 3).save(Path(folder) / "asked")
        np.savez(Path(folder) / "head.npz", **vars(bank.head))
        del bank, tuning, asked
        for name in DETECTORS:
            command = [sys.executable, "-m", "tests.benchmarks.detectors"]
            command += ["--memory-of", name, "--inputs", folder]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end=""
            )


def memory_of(name: str, folder: Path) -> None:
    """One detector's peak, in this process. The inputs are in memory, not mapped."""
    opened = [ObservedSet.open(folder / part) for part in ("bank", "tuning", "asked")]
    images, tuned, asked = (part.take(np.arange(len(part))) for part in opened)
    bank = Bank(images, Head(**np.load(folder / "head.npz")))
    activations, tuning = asked.activations, TuningSet(tuned, bank)
    if "neighbours" in DETECTORS[name].info.consumes:
        activations = bank.locate(activations)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak that loading left
    before = _peak()
    start = time.perf_counter()
    DETECTORS[name].fit(bank, tuning).score(activations)
    taken = time.perf_counter() - start
    print(f"| {name} | {(_peak() - before) / 1024:.0f} | {taken:.2f} |")


def _peak() -> int:
    """KiB. Not getrusage's, which a process inherits from the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, choices=(1, 2), default=1)
    parser.add_argument("--memory-of", choices=DETECTORS, help=argparse.SUPPRESS)
    parser.add_argument("--inputs", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        memory_of(arguments.memory_of, arguments.inputs)
        return
    speed(arguments.threads)
    memory()


if __name__ == "__main__":
    main()
