"""Influence against refits on the embedded demo workspace: leave-one-out, flip sets, times.

python -m tests.benchmarks.influence
"""

import time

import numpy as np

from app.locations import ASSETS
from app.workspace import Workspace
from explain.flips import flip_set
from explain.trust import leave_one_out_check

ASKED, LEFT_OUT, FLIPPED = 50, 100, 40
LARGEST = 400


def main() -> None:
    """Measure and print."""
    workspace = Workspace.open(ASSETS / "fashion")
    influence, refits = workspace.influence, workspace.refits
    assert influence is not None and refits is not None
    features = np.asarray(workspace.calibration.images.activations.features)
    some = features[:: len(features) // ASKED][:ASKED]
    check = leave_one_out_check(influence, refits, some, LEFT_OUT)
    print(
        f"leave-one-out, {LEFT_OUT} training images x {ASKED} held-out images: Pearson "
        f"{check.pearson:.4f}, Spearman {check.spearman:.4f}, slope {check.slope:.3f}"
    )
    times = []
    for count in (1, 6, 50, 500):
        start = time.perf_counter()
        refits.without(np.arange(count) * 80)
        times.append(f"{count}: {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    refits.without(np.flatnonzero(refits.labels == 0))
    times.append(f"a whole class: {time.perf_counter() - start:.2f} s")
    print(f"refit of {len(refits.labels):,} images without " + ", ".join(times))

    logits = refits.head.logits(features)
    ordered = np.sort(logits, axis=1)
    closest = np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")[:FLIPPED]
    found = flipped = by_neighbours = 0
    sizes = []
    neighbours = workspace.calibration.activations.neighbours
    assert neighbours is not None
    for row in closest:
        flip = flip_set(influence, refits, features[row], largest=LARGEST)
        if flip is None:
            continue
        found += 1
        sizes.append(len(flip.rows))
        extended = np.append(features[row], 1)
        flipped += int((refits.without(flip.rows).theta @ extended).argmax()) != flip.before
        alike = neighbours.rows[row][refits.labels[neighbours.rows[row]] == flip.before]
        if len(alike) >= len(flip.rows):
            gone = alike[: len(flip.rows)]
            by_neighbours += int((refits.without(gone).theta @ extended).argmax()) != flip.before
    print(
        f"flip sets of the {FLIPPED} closest decisions, at most {LARGEST} images: {found} found, "
        f"{flipped} of them flip when refitted again; sizes {sorted(sizes)}; as many nearest "
        f"neighbours of the class: {by_neighbours} flip (where there are as many among 50)"
    )


if __name__ == "__main__":
    main()
