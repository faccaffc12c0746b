"""How often known images pass for a new class, and how soon a new class is confirmed.

python -m tests.benchmarks.new_class

On the embedded demo workspace, with penultimate features, two ways of clustering and a 5% bound on
false alarms. The known images are its 4,000 calibration images and the 8,000 known test images,
none of which anything was fitted on; each stream deals them anew into images that calibrate and
images that come in. Prints Markdown.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from sklearn.cluster import KMeans

from app.locations import ASSETS
from app.workspace import Workspace
from models.bank import normalise_rows
from models.fashion import CLASSES, UNKNOWN, read_fashion
from ood.conformal import ConformalCalibration
from ood.new_class import FlaggedCalibration, Proposal
from ood.new_class_monitor import NewClassMonitor
from ood.novelty import group_tight

LEVEL = 0.05
FALSE_ALARM = 0.05
STREAMS = 1_000
ITEMS = 5_000
ORDERS = 50
CALIBRATION = 4_000
LONGEST = {0.01: 30_000, 0.05: 10_000, 0.1: 5_000}

Clustering = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Images:
    """Features (N, D) of unit length, the default detector's scores (N,), class names (N,)."""

    features: np.ndarray
    scores: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: np.ndarray) -> "Images":
        """Some of them."""
        return Images(self.features[rows], self.scores[rows], self.names[rows])

    def join(self, others: "Images") -> "Images":
        """These and others."""
        return Images(
            np.concatenate([self.features, others.features]),
            np.concatenate([self.scores, others.scores]),
            np.concatenate([self.names, others.names]),
        )


def observe() -> tuple[Images, dict[str, Images]]:
    """All known images that nothing was fitted on, and those of each unknown class."""
    workspace = Workspace.open(ASSETS / "fashion")
    detector, held_out = workspace.manifest.detector, workspace.calibration.images
    pixels, labels = read_fashion("t10k")
    seen = workspace.inspect(pixels[:, None])
    names = np.array(CLASSES)[labels]
    test = Images(normalise_rows(seen.activations.features), seen.scores[detector], names)
    calibration = Images(
        normalise_rows(held_out.activations.features),
        workspace.calibration_scores[detector],
        np.array(workspace.classes)[held_out.labels],
    )
    known = ~np.isin(names, list(UNKNOWN))
    unknown = {name: test.take(np.flatnonzero(names == name)) for name in sorted(UNKNOWN)}
    return calibration.join(test.take(np.flatnonzero(known))), unknown


def k_means(features: np.ndarray) -> np.ndarray:
    """A cluster for every 20 images, at most 12."""
    clusters = int(np.clip(len(features) // 20, 1, 12))
    return KMeans(clusters, n_init=1, random_state=0).fit_predict(features)


def small_k_means(features: np.ndarray) -> np.ndarray:
    """A cluster for every 8 images: many tight balls, to tempt the test."""
    return KMeans(-(-len(features) // 8), n_init=1, random_state=0).fit_predict(features)


CLUSTERINGS: dict[str, Clustering] = {
    "k-means": k_means,
    "k-means, small": small_k_means,
    "HDBSCAN": group_tight,
}


def watch(calibration: Images, stream: Images, cluster: Clustering) -> tuple:
    """The monitor at the end of a stream, and (F,) rows of the stream that are flagged."""
    threshold = ConformalCalibration(np.sort(calibration.scores)).threshold(LEVEL)
    flagged = np.flatnonzero(stream.scores > threshold)
    monitor = NewClassMonitor.start(
        FlaggedCalibration.of(calibration.features, calibration.scores > threshold),
        cluster,
        FALSE_ALARM,
    )
    # Every draw counts as an image of its own, even where one is drawn twice.
    ids = [str(row) for row in flagged]
    return monitor.extend(ids, stream.features[flagged], flagged + 1, len(stream)), flagged


def confirmed(monitor: NewClassMonitor) -> list[Proposal]:
    """The confirmed proposals, the first first."""
    found = [p for p in monitor.proposals if p.confirmed_at is not None]
    return sorted(found, key=lambda p: p.confirmed_at)


def double_dipping(monitor: NewClassMonitor, flagged: np.ndarray) -> bool:
    """The control: the images that a ball was made of count as evidence too."""
    return any(
        replace(p, since=0, items=0, hits=0, confirmed_at=None)
        .follow(monitor.features, flagged + 1, monitor.inspected)
        .confirmed_at
        is not None
        for p in monitor.proposals
    )


def deal(rng: np.random.Generator, known: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that calibrate, and of a stream exchangeable with them."""
    order = rng.permutation(known)
    return order[:CALIBRATION], order[CALIBRATION : CALIBRATION + ITEMS]


def redraw(rng: np.random.Generator, _: int) -> tuple[np.ndarray, np.ndarray]:
    """Half of the workspace's calibration images, and a stream drawn again and again from half.

    Not exchangeable: a ball made of images that come again is sure to be hit again.
    """
    order = rng.permutation(CALIBRATION)
    return order[: CALIBRATION // 2], rng.choice(order[CALIBRATION // 2 :], ITEMS)


DRAWS = {"dealt from 12,000": deal, "drawn again from 2,000": redraw}


def false_alarms(known: Images, how: str, cluster: Clustering) -> str:
    """The cells for streams of known images only."""
    rng = np.random.default_rng(0)
    alarms, wrong, proposals = [], [], []
    for _ in range(STREAMS):
        calibration, stream = DRAWS[how](rng, len(known))
        monitor, flagged = watch(known.take(calibration), known.take(stream), cluster)
        alarms.append(bool(confirmed(monitor)))
        wrong.append(double_dipping(monitor, flagged))
        proposals.append(len(monitor.proposals))
    most = FALSE_ALARM + 2 * np.sqrt(FALSE_ALARM * (1 - FALSE_ALARM) / STREAMS)
    return (
        f"{np.median(proposals):.0f} | {np.mean(alarms):.1%} | {most:.1%} "
        f"| {'yes' if np.mean(alarms) <= most else '**no**'} | {np.mean(wrong):.1%}"
    )


def first_right(
    monitor: NewClassMonitor, flagged: np.ndarray, new: np.ndarray
) -> tuple[float, float, int]:
    """Novel items seen until a ball mostly of them is confirmed, its purity, and wrong balls."""
    wrong = 0
    for proposal in confirmed(monitor):
        seen = flagged < proposal.confirmed_at
        inside = flagged[seen][proposal.ball.holds(monitor.features[seen])]
        if new[inside].mean() > 0.5:
            return new[: proposal.confirmed_at].sum(), new[inside].mean(), wrong
        wrong += 1
    return np.inf, np.nan, wrong


def delays(
    known: Images, unknown: Images, share: float, cluster: Clustering, orders: int = ORDERS
) -> str:
    """The cells for one unknown class at one prevalence."""
    rng, items = np.random.default_rng(1), LONGEST[share]
    found = []
    for _ in range(orders):
        order = rng.permutation(len(known))
        calibration, others = order[:CALIBRATION], order[CALIBRATION:]
        # Known images come again where there are too few of them.
        stream = known.take(rng.choice(others, items, replace=items > len(others)))
        new = np.flatnonzero(rng.uniform(size=items) < share)
        drawn = unknown.take(rng.permutation(len(unknown))[: len(new)])
        stream.features[new], stream.scores[new] = drawn.features, drawn.scores
        stream.names[new] = drawn.names
        monitor, flagged = watch(known.take(calibration), stream, cluster)
        found.append(first_right(monitor, flagged, stream.names == unknown.names[0]))
    delay, purity, wrong = np.array(found).T
    quartiles = np.quantile(delay, [0.5, 0.25, 0.75], method="inverted_cdf")
    median, low, high = (f"{q:.0f}" if np.isfinite(q) else "never" for q in quartiles)
    pure = f"{np.nanmedian(purity):.2f}" if np.isfinite(delay).any() else ""
    return (
        f"{np.isfinite(delay).mean():.0%} | {median} ({low} to {high}) | {pure} "
        f"| {(wrong > 0).mean():.0%}"
    )


def main() -> None:
    """Measure and print."""
    start = time.perf_counter()
    known, unknown = observe()
    print(f"{STREAMS:,} streams of {ITEMS:,} known images:\n")
    print("| known images | clustering | proposals | false alarms | at most | held | control |")
    print("|---|---|---|---|---|---|---|")
    for how in DRAWS:
        for name, cluster in CLUSTERINGS.items():
            print(f"| {how} | {name} | {false_alarms(known, how, cluster)} |", flush=True)
    print(f"\n{ORDERS} orders; delay in items of the new class, median (quartiles):\n")
    print("| class | share | clustering | confirmed | delay | purity | known ball first |")
    print("|---|---|---|---|---|---|---|")
    for class_name, images in unknown.items():
        for share in LONGEST:
            for name, cluster in CLUSTERINGS.items():
                cells = delays(known, images, share, cluster)
                print(f"| {class_name} | {share:.0%} | {name} | {cells} |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
