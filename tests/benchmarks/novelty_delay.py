"""How many images of hidden classes pass until they are confirmed as new: Fashion-MNIST by splits.

python -m tests.benchmarks.novelty_delay [--splits 8 7-9]

The networks, splits and detector of `tests.benchmarks.novelty`; penultimate features, which the
layer choice takes on all of them. Streams, delay and purity as in `tests.benchmarks.new_class`, 20
orders each: at 10% 5,000 images, at 5% 10,000, at 1% 30,000. Prints Markdown.
"""

import argparse

import numpy as np
import torch

from models.bank import normalise_rows
from models.fashion import CLASSES
from ood.novelty import group_tight
from tests.benchmarks.new_class import LONGEST, Images, delays, k_means
from tests.benchmarks.novelty import SPLITS, TUNING, Split, prepare, score

ORDERS = 20
HIDDEN = "hidden"


def images(split: Split) -> tuple[Images, Images]:
    """Known images that nothing was fitted on, and those of the hidden classes, as one."""
    scored = score(split)
    held_out = normalise_rows(split.held_out.features[TUNING:])
    test = normalise_rows(split.test.features)
    new = np.isin(split.true, split.hidden)
    known = Images(
        np.concatenate([held_out, test[~new]]),
        np.concatenate([scored.calibration, scored.test[~new]]),
        np.full(len(held_out) + (~new).sum(), "known", "U6"),
    )
    return known, Images(test[new], scored.test[new], np.full(new.sum(), HIDDEN))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["-".join(map(str, hidden)) for hidden in SPLITS]
    parser.add_argument("--splits", nargs="+", default=names, help="such as 8 or 7-9")
    torch.set_num_threads(1)
    print("| hidden | share | groups by | proven | delay | purity | known ball first |")
    print("|---|---|---|---|---|---|---|")
    for name in parser.parse_args().splits:
        split = prepare(tuple(map(int, name.split("-"))))
        known, unknown = images(split)
        hidden = ", ".join(CLASSES[c] for c in split.hidden)
        for share in sorted(LONGEST, reverse=True):
            for how, cluster in (("HDBSCAN", group_tight), ("k-means", k_means)):
                cells = delays(known, unknown, share, cluster, ORDERS)
                print(f"| {hidden} | {share:.0%} | {how} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
