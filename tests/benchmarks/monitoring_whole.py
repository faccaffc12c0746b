"""Whole monitors on the streams of `monitoring_choosing`: choosing, testing and auditing together.

KINDRED_CIFAR10=... KINDRED_MNIST=... KINDRED_DATA=... \
    python -m tests.benchmarks.monitoring_whole [--streams 20] [--sets fashion]

The market aims at a miss rate of 20% and promises 25%; the operator answers at once, at most 400
questions in 1,000 images. Columns as in `monitoring_choosing`; then alarms about misses and about
false alarms (limit 25% of known images) a stream, and in how many streams the threshold deployed
at the end of each phase was certified.
"""

import argparse
import time

import numpy as np

from ood.monitoring.grid import threshold_grid
from ood.monitoring.monitor import Monitor
from ood.monitoring.payoffs import Answer
from ood.monitoring.report import Kind
from ood.monitoring.settings import Settings, Strategy
from ood.monitoring.thresholds import State
from tests.benchmarks.monitoring_choosing import GRID, PHASE, PHASES, TARGET, Streams, row
from tests.benchmarks.monitoring_scores import SETS, Pools, read_pools

LIMIT, ERROR = 0.25, 0.1
SHOWN = (Strategy.MARKET, Strategy.CERTIFIED, Strategy.FIXED, Strategy.NOT_REJECTED)


def watch(
    strategy: Strategy, pools: Pools, scores: np.ndarray, unknown: np.ndarray, seed: int
) -> tuple[np.ndarray, Monitor, list[bool]]:
    """(T,) thresholds, the monitor, and whether the deployed one is certified as phases end."""
    settings = Settings(
        strategy=strategy, miss_target=TARGET, miss_limit=LIMIT, false_alarm_limit=LIMIT,
        error=ERROR, thresholds=GRID, audit_floor=0.1, audit_ceiling=0.3, budget=400, seed=seed,
    )  # fmt: skip
    monitor = Monitor(settings, pools.calibration)
    used, certified = np.empty(len(scores)), []
    for t, (score, is_unknown) in enumerate(zip(scores.tolist(), unknown.tolist(), strict=True)):
        decided = monitor.decide(score)
        used[t] = decided.threshold
        if decided.asked:
            monitor.answer(decided.item, Answer.UNKNOWN if is_unknown else Answer.KNOWN)
        if (t + 1) % PHASE == 0:
            certified.append(monitor.report().misses.state is State.CERTIFIED)
    return used, monitor, certified


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    arguments = parser.parse_args()
    for name in arguments.sets:
        pools = read_pools(name)
        streams = Streams.draw(pools, arguments.streams)
        grid = threshold_grid(pools.calibration, GRID)
        print(f"### {pools.title}\n")
        head = ["strategy", *(f"missed, phase {n + 1}" for n in range(len(PHASES))),
                *(f"flagged less oracle, {n + 1}" for n in range(len(PHASES))), "mean size",
                "back after", "labelled", "us", "alarms", "certified at the ends"]  # fmt: skip
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
        for strategy in SHOWN:
            start = time.perf_counter()
            runs = [
                watch(strategy, pools, streams.scores[:, s], streams.unknown[:, s], s)
                for s in range(arguments.streams)
            ]
            taken = (time.perf_counter() - start) / streams.scores.size * 1e6
            used = np.column_stack([thresholds for thresholds, _, _ in runs])
            asked = np.mean([monitor.asked / monitor.items for _, monitor, _ in runs])
            shown = row(strategy, pools, streams, grid, used, asked, taken)
            alarms = [
                np.mean([sum(a.kind is kind for a in m.alarms) for _, m, _ in runs])
                for kind in (Kind.MISSES, Kind.FALSE_ALARMS)
            ]
            ends = np.mean([ends for _, _, ends in runs], axis=0)
            print(
                f"{shown} {alarms[0]:.1f}, {alarms[1]:.1f} | "
                f"{', '.join(f'{end:.0%}' for end in ends)} |",
                flush=True,
            )
        print()


if __name__ == "__main__":
    main()
