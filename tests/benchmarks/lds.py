"""Linear datamodeling score of influences, beside captum's and kronfluence's on the same network.

KINDRED_MNIST=... python -m tests.benchmarks.lds     (about 20 minutes on two cores)

Peers: pip install -r tests/benchmarks/requirements.txt.

KINDRED_MNIST: the folder of MNIST's idx files. A small CNN is trained on 5,000 of its images, and
400 times on half of them: 100 random halves, four seeds each, whose logits are kept in build/lds
(delete it after a change of the training). The score of an image in question is
Spearman's correlation, over the halves, of its margin (logit of the class that the full network
predicts minus that of its runner-up, mean of the seeds) with the sum of the influences of the
images that were left out (Park et al., ICML 2023, definition 2.3). Each method's damping or penalty
is the best of its grid on 50 other test images.
"""

import copy
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn

from explain.head import RefittedHead, refit_head, refit_like
from explain.influence import HeadInfluence
from explain.network import NetworkInfluence
from models.bank import Bank, normalise_rows
from models.classifier import Classifier
from models.observed import Blobs, ObservedSet
from tests.benchmarks.lds_network import CLASSES, QUERIES, SCALING, SUBSETS, TUNING, Setting
from tests.benchmarks.lds_peers import DAMPINGS, kronfluence, tracin

PENALTIES = ("1e-3", "1e-2", "3e-2", "1e-1", "3e-1")
EKFAC = "kronfluence EK-FAC, all layers"
HEAD = "last layer, exact, refitted"
WHOLE = "whole network"

Scores = dict[str, np.ndarray]


def nearest_neighbours(setting: Setting) -> Scores:
    """Cosine similarity; and the same where labels are the predicted class or the runner-up."""
    features = normalise_rows(setting.last.observe(setting.pixels).features)
    queries = normalise_rows(setting.last.observe(setting.queries).features)
    similarity = queries @ features.T
    for_it, against_it = (setting.labels == setting.pairs[:, [side]] for side in (0, 1))
    return {
        "kNN, cosine": -similarity,
        "kNN, cosine, signed by label": -similarity * (for_it.astype(int) - against_it),
    }


def refit(setting: Setting, network: nn.Module, l2: str) -> tuple[Classifier, Bank, RefittedHead]:
    """A checkpoint, what it makes of the training images, and its head refitted on that."""
    classifier = Classifier(copy.deepcopy(network), SCALING, CLASSES)
    n = len(setting.labels)
    images = ObservedSet(
        classifier.observe(setting.pixels), setting.labels.astype(np.int32),
        np.zeros((n, 32), np.uint8), Blobs.pack([b""] * n), Blobs.pack([b""] * n),
    )  # fmt: skip
    head = refit_head(images.activations.features, setting.labels, len(CLASSES), float(l2))
    return classifier, Bank(images, classifier.head), head


def refitted(setting: Setting, network: nn.Module, l2: str) -> nn.Module:
    """A copy of the checkpoint with that head in place, for the peer to work on."""
    network = copy.deepcopy(network)
    theta = torch.tensor(refit(setting, network, l2)[2].theta, dtype=torch.float32)
    network[-1].weight.data, network[-1].bias.data = theta[:, :-1].clone(), theta[:, -1].clone()
    return network


def head_level(setting: Setting, network: nn.Module, l2: str) -> np.ndarray:
    """Exact influence on the refitted last layer."""
    classifier, bank, head = refit(setting, network, l2)
    influence = HeadInfluence.fit(bank, head)
    features = classifier.observe(setting.queries).features
    return np.stack(
        [influence.on_margin(z, *pair) for z, pair in zip(features, setting.pairs, strict=True)]
    )


def whole_network(setting: Setting, network: nn.Module, l2: str, own: bool = False) -> np.ndarray:
    """Influence on all layers, at the refitted head or at the network's own."""
    classifier, _, head = refit(setting, network, l2)
    if own:
        theta = np.hstack([classifier.head.weight, classifier.head.bias[:, None]])
        head = RefittedHead(theta.astype(float), float(l2), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        influence = NetworkInfluence.fit(
            classifier, head, setting.pixels.__getitem__, setting.labels, Path(folder)
        )
        fitted = perf_counter()
        found = [
            influence.on_margin(pixels, *pair)
            for pixels, pair in zip(setting.queries, setting.pairs, strict=True)
        ]
        each = (perf_counter() - fitted) / len(found)
        n, size = influence.directions.shape
    print(f"whole network, l2 {l2}: {n} x {size}, fit {fitted - start:.1f} s, {each * 1e3:.1f} ms "
          "a query, forward and backward pass included", file=sys.stderr)  # fmt: skip
    return np.stack(found)


class Table:
    """Rows in Markdown, each method at the setting that is best on the tuning queries."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.reported: dict[str, np.ndarray] = {}
        print("| method | chosen | LDS, tuning | LDS | s.e. |")
        print("|---|---|---|---|---|")

    def add(self, name: str, by_setting: Scores) -> str:
        """Print a row; returns the setting that was chosen."""
        found = {s: self.setting.scores_of(influences) for s, influences in by_setting.items()}
        best = max(found, key=lambda s: found[s][QUERIES:].mean())
        reported, tuning = np.split(found[best], [QUERIES])
        self.reported[name] = reported
        error = reported.std(ddof=1) / len(reported) ** 0.5
        print(
            f"| {name} | {best} | {tuning.mean():.3f} | {reported.mean():.3f} | {error:.3f} |",
            flush=True,
        )
        return best

    def compare(self, name: str, peer: str, bar: str) -> None:
        """One line: two methods on the same queries."""
        ours, theirs = self.reported[name], self.reported[peer]
        difference = ours - theirs
        error = difference.std(ddof=1) / len(difference) ** 0.5
        print(
            f"- {name}: {difference.mean():+.3f} (s.e. {error:.3f}), "
            f"{ours.mean() / theirs.mean():.2f} times {peer}; bar {bar}"
        )


def main() -> None:
    """Measure and print."""
    setting = Setting()
    checkpoints, last = setting.checkpoints, setting.checkpoints[-1]
    right = (setting.query_logits.argmax(axis=1) == setting.query_labels).mean()
    single, together = setting.reliability()
    print(
        f"{SUBSETS} halves x {len(setting.by_seed)} seeds, {QUERIES} queries, "
        f"{TUNING} others for tuning; {right:.1%} of them right. Reliability of one seed "
        f"{single:.3f}, of their mean {together:.3f}: **ceiling {together**0.5:.3f}**.\n"
    )
    table = Table(setting)
    for name, influences in (nearest_neighbours(setting) | tracin(setting)).items():
        table.add(name, {"-": influences})
    damping = table.add(EKFAC, kronfluence(setting, last, DAMPINGS))
    table.add(
        f"{EKFAC}, 3 checkpoints",
        {damping: sum(kronfluence(setting, c, [damping])[damping] for c in checkpoints)},
    )
    head = {l2: head_level(setting, last, l2) for l2 in PENALTIES}
    l2 = table.add(HEAD, head)
    table.add(f"{HEAD}, 3 checkpoints", {l2: sum(head_level(setting, c, l2) for c in checkpoints)})
    seen = setting.last.observe(setting.pixels)
    ruled = f"{refit_like(seen.features, setting.labels, seen.logits)[0].l2:g}"
    table.add(f"{HEAD}, by the rule of a workspace", {ruled: head_level(setting, last, ruled)})
    own = {l2: whole_network(setting, last, l2, own=True) for l2 in PENALTIES}
    table.add("whole network, at its own last layer", own)
    whole = {l2: whole_network(setting, last, l2) for l2 in PENALTIES}
    l2 = table.add(WHOLE, whole)
    others = [whole_network(setting, c, l2) for c in checkpoints[:-1]]
    table.add(f"{WHOLE}, 3 checkpoints", {l2: whole[l2] + sum(others)})
    table.add(
        f"{EKFAC}, on the network with the refitted last layer",
        kronfluence(setting, refitted(setting, last, l2), DAMPINGS),
    )
    print()
    table.compare(HEAD, EKFAC, "at least -0.01")
    table.compare(WHOLE, EKFAC, "at least +0.01")
    for tracin_row in (name for name in table.reported if "TracInCPFast" in name):
        for name in (HEAD, f"{HEAD}, 3 checkpoints", WHOLE):
            table.compare(name, tracin_row, "at least 1.5 times")


if __name__ == "__main__":
    main()
