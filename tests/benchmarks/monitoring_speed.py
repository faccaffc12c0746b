"""How many items a second are tested at 1,000 thresholds, and in how much memory.

OMP_NUM_THREADS=1 python -m tests.benchmarks.monitoring_speed [--items 40000] [--thresholds 1000]

Both risks, violation and certificate, start mixture with heavy tails, closure, states and dates.
Streams are made: normal scores, 30% of the items unknown, a change half way (unknown ones come
nearer, then all thresholds' states move). "All labelled" is the hardest case; the other one has
10% audits and labels what is flagged at the 95% threshold. Times are of this process alone.
"""

import argparse
import time
import tracemalloc

import numpy as np

from ood.monitoring.payoffs import Answer, AnsweredItems, Risk
from ood.monitoring.thresholds import TestedThresholds


def stream(rng: np.random.Generator, size: int, audit: float) -> AnsweredItems:
    unknown = rng.uniform(size=size) < 0.3
    shift = np.where(np.arange(size) < size / 2, 3.0, 1.5)
    scores = rng.normal(size=size) + unknown * shift
    deployed = np.full(size, 1.645)
    asked = (scores > deployed) | (rng.uniform(size=size) < audit)
    answers = np.where(asked, np.where(unknown, Answer.UNKNOWN, Answer.KNOWN), Answer.NOT_ASKED)
    return AnsweredItems(scores, answers, deployed, np.full(size, audit))


def both(count: int) -> list[TestedThresholds]:
    thresholds = np.quantile(np.random.default_rng(1).normal(size=20_000), np.linspace(0, 1, count))
    return [TestedThresholds(risk, thresholds, 0.1, 0.1) for risk in Risk]


def seconds(items: AnsweredItems, count: int, block: int) -> float:
    tests = both(count)
    begin = time.process_time()
    for low in range(0, len(items), block):
        for tested in tests:
            tested.update(items[low : low + block])
    return time.process_time() - begin


def peak(items: AnsweredItems, count: int) -> tuple[int, int]:
    tests = both(count)
    tracemalloc.start()
    for low in range(0, len(items), 100):
        for tested in tests:
            tested.update(items[low : low + 100])
    state = sum(array.nbytes for tested in tests for array in tested.state().values())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most, state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--thresholds", type=int, default=1_000)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| labels | labels an item | block | items a second |\n|---|---|---|---|")
    for name, audit in (("all", 1.0), ("flagged and 10% audits", 0.1)):
        items = stream(rng, given.items, audit)
        share = (items.answers != Answer.NOT_ASKED).mean()
        for block in (1, 100):
            rate = len(items) / seconds(items, given.thresholds, block)
            print(f"| {name} | {share:.2f} | {block} | {rate:,.0f} |")
    print("\n| items | peak of memory taken, MB | saved state, MB |\n|---|---|---|")
    for size in (given.items // 4, given.items // 2, given.items):
        most, state = peak(stream(rng, size, 1.0), given.thresholds)
        print(f"| {size:,} | {most / 1e6:.2f} | {state / 1e6:.2f} |")


if __name__ == "__main__":
    main()
