"""What learning a named class costs the others: bags and ankle boots on the demo.

python -m tests.benchmarks.naming [--draws 10]

100 test images teach the class; accuracy is that of the extended last layer on its other images,
and on the test images of the known classes before and after. Seconds on one thread.
"""

import argparse
import time

import numpy as np
import torch

from app.learning import LearnedClasses, NamedImages
from app.locations import ASSETS
from app.workspace import Workspace
from models.fashion import CLASSES, UNKNOWN, read_fashion

TAUGHT = 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10)
    draws = parser.parse_args().draws
    torch.set_num_threads(1)
    workspace = Workspace.open(ASSETS / "fashion")
    pixels, labels = read_fashion("t10k")
    names = np.array(CLASSES)[labels]
    known = ~np.isin(names, list(UNKNOWN))
    features = np.asarray(workspace.inspect(pixels[:, None]).activations.features)
    truth = np.array([workspace.classes.index(name) for name in names[known]])
    print("| named | accuracy on its other images | points lost on the known | seconds |")
    print("|---|---|---|---|")
    for name in sorted(UNKNOWN):
        own, lost, seconds = [], [], []
        for seed in range(draws):
            rows = np.random.default_rng(seed).permutation(np.flatnonzero(names == name))
            start = time.perf_counter()
            taught = NamedImages(name, features[rows[:TAUGHT]])
            learned = LearnedClasses.learn(workspace, [taught])
            seconds.append(time.perf_counter() - start)
            answers = learned.logits(features[rows[TAUGHT:]]).argmax(axis=1)
            own.append((answers == len(workspace.classes)).mean())
            without = LearnedClasses((), (), learned.head)
            before, after = (
                (found.logits(features[known]).argmax(axis=1) == truth).mean()
                for found in (without, learned)
            )
            lost.append(100 * (before - after))
        print(
            f"| {name} | {np.mean(own):.3f} ({min(own):.3f} to {max(own):.3f}) | "
            f"{np.mean(lost):.2f} ({min(lost):.2f} to {max(lost):.2f}) | {np.median(seconds):.1f} |"
        )


if __name__ == "__main__":
    main()
