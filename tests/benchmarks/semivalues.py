"""Shapley values of the most hurtful groups on the embedded demo workspace, as Markdown.

OMP_NUM_THREADS=1 python -m tests.benchmarks.semivalues [most refits]

Five groups are valued exactly, as the Training set page does, and ten are sampled; both for all
calibration images and for those of the class that does worst.
"""

import sys
import time

import numpy as np

from app.locations import ASSETS
from app.slices import EVERYTHING, slice_of, slices
from app.workspace import Workspace
from explain.effects import GroupEffect, Slice, group_effects, removal_effects
from explain.influence import HeadInfluence
from explain.semivalues import MOST_REFITS, shapley_values

GROUPS = 5, 10
WORST = "Shirt"


def measure(workspace: Workspace, groups: list[GroupEffect], on: Slice, most: int) -> None:
    """One table: the groups, each alone and with its share."""
    refits = workspace.refits
    assert refits is not None
    loss = on.loss(refits.head)
    start = time.perf_counter()
    found = shapley_values(
        refits, [group.rows for group in groups], lambda head: -on.loss(head), most_refits=most
    )
    seconds = time.perf_counter() - start
    alone = [(loss - on.loss(refits.without(group.rows))) / loss for group in groups]
    print(
        f"{found.refits} refits in {seconds:.1f} s; pairs of permutations: {found.pairs}; "
        f"{found.ending}; largest standard error {found.standard_errors.max() / loss:.3%}\n"
    )
    print(
        "| Group | Images | Share | Standard error | Alone | Predicted |\n|---|---|---|---|---|---|"
    )
    for group, value, error, one in zip(
        groups, found.values, found.standard_errors, alone, strict=True
    ):
        print(
            f"| {workspace.classes[group.label]} | {len(group.rows)} | {-value / loss:+.3%} | "
            f"{error / loss:.3%} | {one:+.3%} | {-group.predicted / loss:+.3%} |"
        )
    images = sum(len(group.rows) for group in groups)
    predicted = -sum(group.predicted for group in groups)
    print(
        f"| All | {images} | {-found.together / loss:+.3%} | | {sum(alone):+.3%} | "
        f"{predicted / loss:+.3%} |",
        flush=True,
    )


def main(most: int) -> None:
    """Measure and print."""
    workspace = Workspace.open(ASSETS / "fashion")
    influence, audit = workspace.influence, workspace.audit
    assert isinstance(influence, HeadInfluence) and audit is not None
    labels = np.asarray(workspace.bank.images.labels)
    print(f"{len(labels):,} training images, {len(workspace.classes)} classes")
    for name in (EVERYTHING, WORST):
        on = slice_of(workspace, slices(workspace, {})[name])
        groups = group_effects(removal_effects(influence, on), audit.groups, labels)
        for count in GROUPS:
            print(f"\n{count} groups, {len(on):,} calibration images ({name}): ", end="")
            measure(workspace, groups[:count], on, most)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else MOST_REFITS)
