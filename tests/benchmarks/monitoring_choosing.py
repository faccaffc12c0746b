"""Choosing a threshold while the kind of unknown images changes and changes back.

KINDRED_CIFAR10=... KINDRED_MNIST=... KINDRED_DATA=... \
    python -m tests.benchmarks.monitoring_choosing [--streams 40] [--sets fashion] [--only market]

Three phases of 1,500 unknown images each among four times as many known ones, drawn anew from real
scores for each stream. Either all labels are given, or those of flagged images and of one in five
of the others, with inverse-probability weights. The oracle knows the phase and deploys the largest
candidate whose miss rate in that phase is within the target.

The flagged share at the end of a phase is that of the last 500 images' thresholds on all scores of
the pools. Intervals: 95%, bootstrap over streams. Settings are the same for all sets and both kinds
of labels; --settings prints what others would give.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ood.monitoring.adaptive_levels import ACI, DtACI
from ood.monitoring.baselines import (
    ConformalPID,
    Fixed,
    IteratedLogarithm,
    LargestNotRejected,
    QuantileTracking,
    RunningRisk,
)
from ood.monitoring.bets import AGrapa
from ood.monitoring.choosing import Chooser
from ood.monitoring.grid import threshold_grid
from ood.monitoring.losses import Pinball
from ood.monitoring.market import LMSR, ConstantProduct, Market
from ood.monitoring.windows import Window
from tests.benchmarks.monitoring_scores import SETS, Pools, read_pools

TARGET, ERROR, AUDIT = 0.2, 0.1, 0.2
UNKNOWN_A_PHASE, KNOWN_A_PHASE = 1_500, 6_000
PHASE = UNKNOWN_A_PHASE + KNOWN_A_PHASE
PHASES = ("easy", "hard", "easy")
GRID, WINDOW, LAST = 400, 500, 500
DRAWS = 1_000
Make = Callable[[], Chooser]


@dataclass(frozen=True)
class Streams:
    """S streams of T items: scores (T, S), labels (T, S) bool, coins (T, S) uniform."""

    scores: np.ndarray
    unknown: np.ndarray
    coins: np.ndarray

    @classmethod
    def draw(cls, pools: Pools, streams: int) -> "Streams":
        rng = np.random.default_rng(0)
        phase = np.arange(PHASE) < UNKNOWN_A_PHASE
        parts, labels = [], []
        for kind in PHASES:
            unknown = rng.permuted(np.tile(phase[:, None], (1, streams)), axis=0)
            drawn = rng.choice(getattr(pools, kind), unknown.shape)
            parts.append(np.where(unknown, drawn, rng.choice(pools.known, unknown.shape)))
            labels.append(unknown)
        scores = np.concatenate(parts)
        return cls(scores, np.concatenate(labels), rng.uniform(size=scores.shape))


def run(chooser: Chooser, streams: Streams, audit: float) -> tuple[np.ndarray, float]:
    """(T, S) thresholds before each item, and the share of items that were labelled."""
    used, labelled = np.empty_like(streams.scores), 0
    rows = zip(streams.scores, streams.unknown, streams.coins, strict=True)
    for t, (score, unknown, coin) in enumerate(rows):
        used[t] = chooser.threshold
        probability = np.where(score > used[t], 1.0, audit)
        weight = np.where(coin < probability, 1 / probability, 0.0)
        labelled += (weight > 0).sum()
        chooser.observe(score, unknown, weight)
    return used, labelled / streams.scores.size


def share_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return 1 - np.searchsorted(np.sort(scores), thresholds, side="right") / len(scores)


def flagged_share(pools: Pools, kind: str, thresholds: np.ndarray) -> np.ndarray:
    """Of all images of a phase, were thresholds to stay."""
    of_unknown = share_above(getattr(pools, kind), thresholds)
    known = KNOWN_A_PHASE / PHASE
    return known * share_above(pools.known, thresholds) + (1 - known) * of_unknown


def oracle(pools: Pools, kind: str, grid: np.ndarray) -> float:
    missed = 1 - share_above(getattr(pools, kind), grid)
    return float(grid[missed <= TARGET].max())


def interval(values: np.ndarray, digits: int = 3, unit: float = 1) -> str:
    """Mean over (S,) streams, with its bootstrap interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (DRAWS, len(values))).mean(axis=1) * unit
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean() * unit:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def settled(pools: Pools, used: np.ndarray, phase: int, best: float) -> np.ndarray:
    """(S,) unknown images into a phase until the flagged share stays within one point on average.

    The average is that of 250 images; the length of the phase where it never is.
    """
    kind, block = PHASES[phase], 250
    shares = flagged_share(pools, kind, used[phase * PHASE : (phase + 1) * PHASE])
    means = shares.reshape(-1, block, used.shape[1]).mean(axis=1)
    near = np.abs(means - flagged_share(pools, kind, np.array(best))) <= 0.01
    first = np.where(near.any(axis=0), near.argmax(axis=0), len(near))
    return first * block * UNKNOWN_A_PHASE / PHASE


def row(name: str, pools: Pools, streams: Streams, grid: np.ndarray, used, labelled, taken) -> str:
    cells, off = [], []
    for phase, kind in enumerate(PHASES):
        part = slice(phase * PHASE, (phase + 1) * PHASE)
        unknown = streams.unknown[part]
        missed = (unknown & (streams.scores[part] <= used[part])).sum(axis=0) / UNKNOWN_A_PHASE
        cells.append(interval(missed))
        last = used[(phase + 1) * PHASE - LAST : (phase + 1) * PHASE]
        best = flagged_share(pools, kind, np.array(oracle(pools, kind, grid)))
        off.append((flagged_share(pools, kind, last) - best).mean(axis=0))
    ends = [interval(o, 2, 100) for o in off]
    spread = 100 * np.abs(np.array(off)).mean()
    back = np.median(settled(pools, used, 2, oracle(pools, "easy", grid)))
    back = f"{back:.0f}" if back < UNKNOWN_A_PHASE else "never"
    shown = [name, *cells, *ends, f"{spread:.2f}", back, f"{labelled:.1%}", f"{taken:.0f}"]
    return f"| {' | '.join(shown)} |"


def choosers(pools: Pools, grid: np.ndarray, streams: int, audit: float) -> dict[str, Make]:
    shape, prices = (streams,), (streams, len(grid))
    start = np.full(shape, np.quantile(pools.calibration, 0.95))
    spread = float(np.diff(np.quantile(pools.calibration, [0.05, 0.95]))[0])

    def rejecting(window: int, burn_in: int) -> Chooser:
        process = AGrapa(Window(prices, window), burn_in)
        return LargestNotRejected(grid, TARGET, ERROR, audit, process)

    return {
        "market, LMSR": lambda: Market(grid, LMSR(prices, 0.4, 0.0005), Pinball(TARGET)),
        "market, constant product": lambda: Market(
            grid, ConstantProduct(prices, 5, 0.02), Pinball(TARGET)
        ),
        "fixed, 95% of known kept": lambda: Fixed(shape, float(start[0])),
        "largest not rejected, all": lambda: rejecting(0, 100),
        "largest not rejected, 200": lambda: rejecting(200, 0),
        "largest not rejected, 50": lambda: rejecting(50, 0),
        "running risk": lambda: RunningRisk(shape, grid, TARGET),
        "quantile tracking": lambda: QuantileTracking(start, TARGET, 0.01 * spread),
        "ACI": lambda: ACI(start, TARGET, 0.005, WINDOW),
        "DtACI": lambda: DtACI(start, TARGET, WINDOW),
        "conformal PID": lambda: ConformalPID(start, TARGET, 0.01 * spread, 0.1 * spread, 0.5),
        "iterated logarithm": lambda: IteratedLogarithm(shape, grid, TARGET, ERROR),
    }


def settings(grid: np.ndarray, streams: int) -> dict[str, Make]:
    prices = (streams, len(grid))
    found: dict[str, Make] = {}
    for depth, share in ((0.1, 0.0005), (0.2, 0.0005), (0.4, 0.0005), (0.4, 0.005), (0.8, 0.0005)):
        found[f"LMSR {depth} {share}"] = lambda d=depth, s=share: Market(
            grid, LMSR(prices, d, s), Pinball(TARGET)
        )
    for depth, share in ((3, 0.02), (5, 0.02), (5, 0.002), (10, 0.02), (30, 0.02)):
        found[f"constant product {depth} {share}"] = lambda d=depth, s=share: Market(
            grid, ConstantProduct(prices, d, s), Pinball(TARGET)
        )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=40)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--only", default="", help="only names that contain this")
    parser.add_argument("--settings", action="store_true", help="other depths and shares")
    parser.add_argument("--audits", nargs="+", type=float, default=[1.0, AUDIT])
    args = parser.parse_args()
    for name in args.sets:
        pools = read_pools(name)
        grid = threshold_grid(pools.calibration, GRID)
        streams = Streams.draw(pools, args.streams)
        for audit in args.audits:
            print(f"\n### {pools.title}; {'all labels' if audit == 1 else f'audits {audit:.0%}'}\n")
            best = [oracle(pools, kind, grid) for kind in PHASES]
            facts = [
                f"{flagged_share(pools, k, np.array(b)):.1%} ({share_above(pools.known, b):.1%}, "
                f"{1 - share_above(getattr(pools, k), b):.3f})"
                for k, b in zip(PHASES, best, strict=True)
            ]
            print(f"The oracle flags, of all (of known, misses): {', '.join(facts)}.\n")
            head = [
                "chooser", *(f"miss rate {n + 1}" for n in range(3)),
                *(f"flagged {n + 1} less oracle's, points" for n in range(3)),
                "mean distance", "back after, unknown images", "labels", "microseconds an item",
            ]  # fmt: skip
            print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
            made = (
                settings(grid, args.streams)
                if args.settings
                else choosers(pools, grid, args.streams, audit)
            )
            for title, make in made.items():
                if args.only in title:
                    start = time.process_time()
                    used, labelled = run(make(), streams, audit)
                    taken = (time.process_time() - start) / used.size * 1e6
                    print(row(title, pools, streams, grid, used, labelled, taken), flush=True)


if __name__ == "__main__":
    main()
