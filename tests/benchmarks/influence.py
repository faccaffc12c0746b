"""Influence on the last layer against refits of it: leave-one-out, flip sets, wrong labels, times.

KINDRED_MNIST=... KINDRED_CIFAR10=... KINDRED_DATA=... python -m tests.benchmarks.influence
    [leave-one-out] [flips] [taught] [refits]

Environment as for tests.benchmarks.cifar10. Features are kept in build/influence; `taught` uses the
networks that tests.benchmarks.label_errors has trained on wrong labels. The penalty of each refit
is chosen as a workspace's is, see `explain.head.refit_like`; it is the damping too.

leave-one-out: CIFAR-10's 50,000 images (ResNet-20, 64 features), the demo's 42,000, and 10,000 of
MNIST learned by heart, whose head separates them. Of each, single images are left out in truth,
half of them those of the largest self-influence.
flips: the 40 closest decisions of the demo's calibration images.
taught: how many wrongly labelled images are shown, where a tenth of the labels is wrong.
refits: what remove-and-refit takes on the demo.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from app.locations import ASSETS
from app.workspace import Workspace
from explain.flips import flip_set
from explain.head import RefittedHead, refit_head, refit_like
from explain.influence import HeadInfluence
from explain.refits import HeadRefits
from explain.trust import Fidelity, leave_one_out_check
from models.bank import Bank, normalise_rows
from models.classifier import Classifier
from models.preprocessing import Preprocessing
from tests.benchmarks.cifar10 import DATA, read_labels, read_png
from tests.benchmarks.influence_speed import bank_of
from tests.benchmarks.label_errors import (
    IMAGES,
    PAIRS,
    TRAINING,
    VALIDATION,
    Trained,
    gray_images,
    judge,
    learn,
    mislabel,
    small_network,
    trained,
)
from tests.benchmarks.resnet20 import ResNet20

KEPT = Path("build/influence")
ASKED, LEFT_OUT, FLIPPED, TAUGHT = 50, 100, 40, 100
LARGEST = 400

Features = dict[str, np.ndarray]


def kept(name: str, make: Callable[[], Features]) -> Features:
    path = KEPT / f"{name}.npz"
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        np.savez(path, **make())
    return dict(np.load(path))


def cifar10() -> Features:
    network = ResNet20()
    network.load_state_dict(torch.load(DATA / "cifar10_resnet20.pt", weights_only=True))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    classifier = Classifier(network, Preprocessing(32, mean, std), [str(c) for c in range(10)])
    pixels = np.concatenate([read_png(f"data_batch_{n}.png") for n in range(1, 6)])
    test = read_png("test_batch.png")[:1_000]
    seen = classifier.observe(pixels)
    return {
        "train": seen.features, "labels": read_labels("train_lables.json"),
        "logits": seen.logits, "test": classifier.observe(test).features,
    }  # fmt: skip


def mnist() -> Features:
    """Of a network that was trained until it knew all labels."""
    pixels, labels = gray_images("MNIST")
    images = torch.tensor(pixels[: IMAGES + VALIDATION])
    torch.manual_seed(0)
    made = learn(small_network, images, labels[:IMAGES], 30, 0.0, lambda p: p)
    return {
        "train": made.features, "labels": labels[:IMAGES], "logits": made.logits[-1],
        "test": made.held_out,
    }  # fmt: skip


def fit(data: Features) -> tuple[HeadInfluence, HeadRefits, Bank]:
    labels = data["labels"].astype(np.int64)
    head, _ = refit_like(data["train"], labels, data["logits"])
    bank = bank_of(data["train"], data["train"][:, :10], labels, head.theta)
    influence = HeadInfluence.fit(bank, head)
    return influence, HeadRefits.of(bank, head, influence.inverse_hessian), bank


def demo() -> Workspace:
    return Workspace.open(ASSETS / "fashion")


def leave_one_out() -> None:
    workspace = demo()
    assert isinstance(workspace.influence, HeadInfluence) and workspace.refits is not None
    held_out = np.asarray(workspace.calibration.images.activations.features)
    settings = {"demo, 42,000": (workspace.influence, workspace.refits, held_out)}
    for name, make in (("CIFAR-10, 50,000", cifar10), ("MNIST, 10,000, separable", mnist)):
        data = kept(make.__name__, make)
        settings[name] = (*fit(data)[:2], data["test"])
    print(
        f"{LEFT_OUT} images left out, one at a time, x {ASKED} held-out images.\n\n"
        "| | penalty | head right on training images | by | Pearson | Spearman | slope |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, (influence, refits, test) in settings.items():
        some = np.asarray(test[:: len(test) // ASKED][:ASKED], np.float32)
        check = leave_one_out_check(influence, refits, some, LEFT_OUT)
        right = ((refits.features @ refits.head.theta.T).argmax(axis=1) == refits.labels).mean()
        for by, predicted in (("influence", check.influence), ("Newton step", check.newton)):
            found = Fidelity.of(predicted, check.actual)
            print(
                f"| {name} | {refits.head.l2:g} | {right:.2%} | {by} | {found.pearson:.4f} | "
                f"{found.spearman:.4f} | {found.slope:.3f} |", flush=True,
            )  # fmt: skip
    print()


def flips() -> None:
    workspace = demo()
    influence, refits = workspace.influence, workspace.refits
    assert isinstance(influence, HeadInfluence) and refits is not None
    features = np.asarray(workspace.calibration.images.activations.features)
    ordered = np.sort(refits.head.logits(features), axis=1)
    closest = np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")[::4][:FLIPPED]
    neighbours = workspace.calibration.activations.neighbours
    assert neighbours is not None
    unit = normalise_rows(refits.features[:, :-1])
    sizes, flipped, by_neighbours = [], 0, 0
    for row in closest:
        flip = flip_set(influence, refits, features[row], largest=LARGEST)
        if flip is None:
            continue
        extended = np.append(features[row], 1)
        sizes.append(len(flip.rows))
        flipped += int((from_scratch(refits, flip.rows).theta @ extended).argmax()) != flip.before
        alike = np.argsort(-(unit @ normalise_rows(features[row][None])[0]), kind="stable")
        gone = alike[refits.labels[alike] == flip.before][: len(flip.rows)]
        by_neighbours += int((refits.without(gone).theta @ extended).argmax()) != flip.before
    print(
        f"Flip sets of {FLIPPED} close decisions, at most {LARGEST} images: {len(sizes)} found, "
        f"{flipped} flip when refitted from scratch; as many nearest neighbours of the class left "
        f"out: {by_neighbours} flip. Sizes: {sorted(sizes)}\n", flush=True,
    )  # fmt: skip


def from_scratch(refits: HeadRefits, gone: np.ndarray) -> RefittedHead:
    """A second route: L-BFGS and Newton from zeros, on the images that stay."""
    kept = np.ones(len(refits.labels), bool)
    kept[gone] = False
    penalty = refits.head.l2 * len(kept) / kept.sum()  # everybody keeps the weight 1/N
    features = refits.features[kept, :-1]
    return refit_head(features, refits.labels[kept], len(refits.head.theta), penalty)


def taught() -> None:
    print(
        "| trained on | taught: l-RelatIF of labels not doubted | l-RelatIF of all | moved it most "
        "(influence) | nearest |\n|---|---|---|---|---|"
    )
    for name in PAIRS:
        pixels, labels = gray_images(name)
        images = torch.tensor(pixels[: IMAGES + VALIDATION])
        for kind in ("symmetric", "pair"):
            given = mislabel(labels[:IMAGES], kind, PAIRS[name])
            for mode, (epochs, decay) in TRAINING.items():
                run = partial(learn, small_network, images, given, epochs, decay, lambda p: p)
                made = trained(f"{name} {kind} {mode}", run)
                shares = wrong_shown(made, given, labels[:IMAGES])
                cells = " | ".join(f"{share:.1%}" for share in shares)
                print(f"| {name}, {kind}, {mode} | {cells} |", flush=True)
    print()


def wrong_shown(made: Trained, given: np.ndarray, true: np.ndarray) -> list[float]:
    """Share of wrongly labelled images in the lists of ten for 100 held-out images."""
    learned = {"train": made.features, "labels": given, "logits": made.logits[-1]}
    influence, refits, _ = fit(learned)
    trusted = judge(made, given)[1].suggested < 0
    wrong, unit = given != true, normalise_rows(made.features)
    lists: list[list[np.ndarray]] = [[], [], [], []]
    for own in made.held_out[:TAUGHT]:
        logits = refits.head.logits(own[None])[0]
        against, target = (int(c) for c in np.argsort(logits)[-2:])
        lists[0].append(influence.explain(own, target, against, 10, trusted).helpful)
        lists[1].append(influence.explain(own, target, against, 10).helpful)
        lists[2].append(influence.strongest(own, target, against, 10).helpful)
        lists[3].append(np.argsort(-(unit @ normalise_rows(own[None])[0]), kind="stable")[:10])
    return [float(wrong[np.concatenate(rows)].mean()) for rows in lists]


def refits() -> None:
    workspace = demo()
    assert workspace.refits is not None
    again = workspace.refits
    labels = np.asarray(again.labels)
    edits: dict[str, np.ndarray] = {
        f"{count:,} at random": np.random.default_rng(0).choice(len(labels), count, False)
        for count in (1, 6, 50, 500, 5_000)
    } | {
        f"the class {name}": np.flatnonzero(labels == c) for c, name in enumerate(workspace.classes)
    }
    again.without([0])  # what is loaded at first use
    print("| without | s |\n|---|---|")
    for name, rows in edits.items():
        start = time.perf_counter()
        again.without(rows)
        print(f"| {name} | {time.perf_counter() - start:.2f} |", flush=True)
    print()


def main() -> None:
    """Measure and print."""
    parts = {"leave-one-out": leave_one_out, "flips": flips, "taught": taught, "refits": refits}
    for part in sys.argv[1:] or parts:
        parts[part]()


if __name__ == "__main__":
    main()
