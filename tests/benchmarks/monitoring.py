"""False alarms and delays of every betting strategy, beside rules without a guarantee.

python -m tests.benchmarks.monitoring type-one [--streams 10000] [--items 5000]
python -m tests.benchmarks.monitoring thresholds [--streams 2000] [--items 5000]
python -m tests.benchmarks.monitoring delay [--streams 500]

Limit and error are 0.1. Prints Markdown tables. In `type-one` and `thresholds` bold figures are
above the error by more than two standard errors; `delay` gives the median number of items between
change and alarm with a 95% bootstrap interval, among streams without an alarm before the change.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from ood.monitoring.bets import (
    AGrapa,
    EmpiricalBernstein,
    FixedBet,
    Kelly,
    Lbow,
    OnlineNewtonStep,
)
from ood.monitoring.mixtures import BetaMixture, Start, StartMixture
from ood.monitoring.payoffs import Claim, Risk
from ood.monitoring.portfolio import WindowPortfolio
from ood.monitoring.processes import Process
from ood.monitoring.thresholds import closure
from ood.monitoring.windows import Adwin, Window
from tests.benchmarks.monitoring_streams import (
    FULL_LABELS,
    LIMIT,
    PeekingTest,
    RunningRisk,
    Shape,
    Steps,
    audited,
    losses_at,
)

ERROR = 0.1
SAFE = np.linspace(LIMIT / 25, LIMIT, 25)
AFTER = 3_000


class ClosedForm(BetaMixture):
    """Evaluated once for each pair of counts that some stream has, of which there are few."""

    @property
    def log_wealth(self) -> np.ndarray:
        pairs, where = np.unique(self.losses + 1j * self.items, return_inverse=True)
        few = BetaMixture(pairs.shape, self.limit)
        few.losses, few.items = pairs.real, pairs.imag
        return few.log_wealth[where].reshape(self.losses.shape)


BASELINES: dict[str, Callable[[Shape], Process]] = {
    "fixed, 10% of the largest bet": lambda shape: FixedBet(shape, 0.1),
    "aGRAPA, all, burn-in 100 (Timans et al.)": lambda shape: AGrapa(Window(shape), 100),
    "aGRAPA, last 200": lambda shape: AGrapa(Window(shape, 200)),
    "aGRAPA, last 50": lambda shape: AGrapa(Window(shape, 50)),
    "aGRAPA, ADWIN": lambda shape: AGrapa(Adwin(shape)),
    "LBOW, all": lambda shape: Lbow(Window(shape)),
    "ONS": OnlineNewtonStep,
    "Kelly with KT": Kelly,
    "empirical Bernstein": lambda shape: EmpiricalBernstein(shape, ERROR),
    "universal, grid": lambda shape: StartMixture(shape, Start.FIRST),
}
CLOSED_FORM: dict[str, Callable[[Shape], Process]] = {
    "universal, closed form": lambda shape: ClosedForm(shape, LIMIT)
}
OURS: dict[str, Callable[[Shape], Process]] = {
    "start mixture, constant": lambda shape: StartMixture(shape, Start.CONSTANT),
    "start mixture, heavy-tailed": lambda shape: StartMixture(shape, Start.HEAVY),
    "start + windows": WindowPortfolio,
}
CONTROLS = {
    "control: running risk, 25 violations": RunningRisk,
    "control: z-test, peeking": PeekingTest,
}


# --- running all strategies over the same streams, in step


def first_alarms(processes: dict[str, Process], steps: Steps) -> dict[str, np.ndarray]:
    """By strategy, (S, K): after how many items the wealth first reached 1 / error, or inf."""
    found = {name: np.full(process.log_wealth.shape, np.inf) for name, process in processes.items()}
    for t, (paid, bound) in enumerate(steps, 1):
        for name, process in processes.items():
            process.update(paid, bound)
            at = process.log_wealth >= np.log(1 / ERROR)
            np.minimum(found[name], np.where(at, t, np.inf), out=found[name])
    return found


def table(header: list[str], rows: dict[str, list[str]]) -> None:
    print("| " + " | ".join(["", *header]) + " |\n|" + "---|" * (len(header) + 1))
    for name, cells in rows.items():
        print("| " + " | ".join([name, *cells]) + " |")


def rate(alarmed: np.ndarray) -> str:
    worst = ERROR + 2 * np.sqrt(ERROR * (1 - ERROR) / len(alarmed))
    text = f"{alarmed.mean():.3f}"
    return f"**{text}**" if alarmed.mean() > worst else text


def type_one(streams: int, items: int) -> None:
    """Every strategy, one threshold, its risk exactly at the limit or below it."""
    shape = (streams, 1)
    columns = FULL_LABELS | audited(np.array([LIMIT]))
    made = BASELINES | CLOSED_FORM | OURS | CONTROLS
    rows: dict[str, list[str]] = {name: [] for name in made}
    for number, (column, steps) in enumerate(columns.items()):
        binary = column in ("at the limit", "dips and bursts")
        chosen = {k: make(shape) for k, make in made.items() if binary or k not in CLOSED_FORM}
        found = first_alarms(chosen, steps(np.random.default_rng(number), shape, items))
        for name, cells in rows.items():
            cells.append(rate(np.isfinite(found[name][:, 0])) if name in found else "-")
    print(f"\nP(any alarm), {streams:,} streams of {items:,} items; the error is {ERROR}.\n")
    table(list(columns), rows)
    controls = {
        f"Simple Jumper, fixed calibration set of {size}": [rate(fixed_set(size, streams, items))]
        for size in (100, 1_000)
    }
    print("\nControl: nothing changes, and ranks are taken among one calibration set.\n")
    table(["P(any alarm)"], controls)


def fixed_set(size: int, streams: int, items: int) -> np.ndarray:
    """(S,) bool: a conformal martingale whose calibration set does not grow with the stream."""
    rng = np.random.default_rng(0)
    calibration = np.sort(rng.uniform(size=(streams, size)))
    shares, alarmed = np.full((3, streams), 1 / 3), np.zeros(streams, bool)
    bets = np.array([-1.0, 0.0, 1.0])[:, None]
    row = np.arange(streams)
    # Scores of one stream add its row to them, so that one search serves all streams.
    offset = (calibration + 2 * row[:, None]).ravel()
    for _ in range(items):
        below = np.searchsorted(offset, rng.uniform(size=streams) + 2 * row) - row * size
        p = (size - below + rng.uniform(size=streams)) / (size + 1)
        shares = 0.99 * shares + 0.01 / 3 * shares.sum(axis=0)
        shares *= 1 + bets * (p - 0.5)
        alarmed |= shares.sum(axis=0) >= 1 / ERROR
    return alarmed


def any_of_many(streams: int, items: int) -> None:
    """25 thresholds, all safe, the last exactly at the limit: whether any is called violated."""
    shape = (streams, len(SAFE))
    cells: dict[str, list[str]] = {name: [] for name in BASELINES | OURS}
    columns = {name: steps for name, steps in audited(SAFE).items() if "delay" in name}
    for number, (column, steps) in enumerate(columns.items()):
        risk = Risk.FALSE_ALARM if "false" in column else Risk.MISS
        processes = {name: make(shape) for name, make in (BASELINES | OURS).items()}
        found = first_alarms(processes, steps(np.random.default_rng(number), shape, items))
        for name, alarms in found.items():
            reached = np.isfinite(alarms)
            closed = closure(reached, risk, Claim.VIOLATION)
            cells[name].append(f"{rate(reached.any(axis=1))} / {rate(closed.any(axis=1))}")
    print(
        f"\nP(any of 25 safe thresholds called violated), {streams:,} streams of {items:,} items:"
    )
    print("each threshold by itself / by closure from the far end.\n")
    table(list(columns), cells)


# --- delay


def divergence(risk: float) -> float:
    return float(risk * np.log(risk / LIMIT) + (1 - risk) * np.log((1 - risk) / (1 - LIMIT)))


def changes() -> dict[str, tuple[int, np.ndarray, str]]:
    """By name: the items before the risk exceeds the limit, risks of all items, and the floor."""
    made = {}
    for before in (0, 500, 1_500, 5_000):
        for risk in (0.15, 0.2, 0.3):
            floor = f"{np.log(1 / ERROR) / divergence(risk):.0f}"
            made[f"{before:,} / {risk}"] = before, np.r_[np.full(before, 0.05), risk], floor
    for length in (1_000, 3_000):
        ramp = np.r_[np.full(1_500, 0.05), np.linspace(0.05, 0.3, length)]
        made[f"1,500 / to 0.3 in {length:,}"] = int(np.argmax(ramp > LIMIT)), ramp, "-"
    return made


def median_delay(alarms: np.ndarray, before: int) -> tuple[float, str]:
    kept = alarms[alarms > before] - before
    kept[kept > AFTER] = np.inf
    if len(kept) == 0:
        return np.inf, "-"
    rng = np.random.default_rng(0)
    medians = np.median(kept[rng.integers(len(kept), size=(1_000, len(kept)))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975], method="nearest")
    shown = [f"{x:.0f}" if np.isfinite(x) else f">{AFTER:,}" for x in (np.median(kept), low, high)]
    return float(np.median(kept)), f"{shown[0]} ({shown[1]} to {shown[2]})"


def delay(streams: int) -> None:
    """Median delays, and how many times the best strategy's delay in each cell ours is."""
    made = BASELINES | CLOSED_FORM | OURS | CONTROLS
    columns = changes()
    # All changes at once, one where thresholds would be; the last risk stays.
    items = 5_000 + AFTER
    risks = np.stack([np.pad(r, (0, items - len(r)), "edge") for _, r, _ in columns.values()], 1)
    shape = (streams, len(columns))
    steps = losses_at(np.random.default_rng(0), shape, iter(risks))
    found = first_alarms({name: make(shape) for name, make in made.items()}, steps)
    rows: dict[str, list[str]] = {"floor ln(1 / error) / KL": [c[2] for c in columns.values()]}
    rows |= {name: [] for name in made}
    ratios: dict[str, list[str]] = {name: [] for name in OURS}
    for column, (before, _, _) in enumerate(columns.values()):
        medians = {}
        for name, alarms in found.items():
            medians[name], shown = median_delay(alarms[:, column], before)
            early = (alarms[:, column] <= before).mean()
            rows[name].append(shown + (f", {early:.0%} before" if early > 0.01 else ""))
        best = min(BASELINES | CLOSED_FORM, key=medians.__getitem__)
        for name, cells in ratios.items():
            times = medians[name] / medians[best]
            cells.append(f"**{times:.2f}**" if times > 3 else f"{times:.2f}")
    print(
        f"\nMedian delay in items, {streams:,} streams; items before the change / risk after it.\n"
    )
    table(list(columns), rows)
    print("\nTimes the delay of the best baseline with a guarantee, chosen in hindsight (bar 3).\n")
    table(list(columns), ratios)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["type-one", "thresholds", "delay"])
    parser.add_argument("--streams", type=int)
    parser.add_argument("--items", type=int, default=5_000)
    given = parser.parse_args()
    start = time.process_time()
    if given.what == "type-one":
        type_one(given.streams or 10_000, given.items)
    elif given.what == "thresholds":
        any_of_many(given.streams or 2_000, given.items)
    else:
        delay(given.streams or 500)
    print(f"\n{time.process_time() - start:.0f} CPU seconds")
