"""The promises of a whole monitor: threshold moving, budgets, doubt, answers late."""

import numpy as np
from scipy.stats import binom, norm

from ood.monitoring.monitor import Monitor
from ood.monitoring.payoffs import Answer
from ood.monitoring.report import Kind
from ood.monitoring.settings import Settings, Strategy
from ood.monitoring.thresholds import State

STREAMS, ITEMS, ERROR, LIMIT = 120, 500, 0.05, 0.2
DOUBT = 0.05
CALIBRATION = np.random.default_rng(0).normal(size=2_000)
SETTINGS = {"miss_limit": LIMIT, "miss_target": 0.15, "error": ERROR, "thresholds": 40,
            "audit_floor": 0.1, "audit_ceiling": 0.5, "budget": 450}  # fmt: skip


def watch(strategy, shift, seed, delay=20):
    """A stream of two in five unknown images; answers come later, the latest first."""
    rng = np.random.default_rng(seed)
    unknown = rng.uniform(size=ITEMS) < 0.4
    scores = rng.normal(size=ITEMS) + shift * unknown
    monitor = Monitor(Settings(strategy=strategy, seed=seed, **SETTINGS), CALIBRATION)
    pending = []
    for score in scores:
        decided = monitor.decide(score)
        pending += [decided.item] if decided.asked else []
        if len(pending) >= delay:
            while pending:
                item = pending.pop()
                told = Answer.UNKNOWN if unknown[item - 1] else Answer.KNOWN
                monitor.answer(item, Answer.DO_NOT_KNOW if rng.uniform() < DOUBT else told)
    return monitor


def most(streams=STREAMS):
    """False claims that chance explains: at an error of 5% more of them in 1 of 1,000 cases."""
    return binom.isf(1e-3, streams, ERROR)


def risks(thresholds, shift):
    """(K,) true shares of unknown images accepted, and of known ones flagged."""
    return norm.cdf(thresholds - shift), norm.sf(thresholds)


def test_no_safe_threshold_is_called_violated_and_no_unsafe_one_certified():
    wrong = np.zeros(4)
    for seed in range(STREAMS):
        monitor = watch(Strategy.MARKET, 2.0, seed)
        misses, false_alarms = risks(monitor.thresholds, 2.0)
        report = monitor.report()
        for number, (risk, limit, states) in enumerate(
            [
                (misses, LIMIT, report.misses.states),
                (false_alarms, monitor.settings.false_alarm_limit, report.false_alarms.states),
            ]
        ):
            wrong[2 * number] += (states[risk <= limit] == State.VIOLATED).any()
            wrong[2 * number + 1] += (states[risk > limit] == State.CERTIFIED).any()
        assert report.settled > ITEMS / 2
    assert (wrong <= most()).all()


def test_a_fixed_threshold_at_its_limit_hardly_ever_alarms_and_far_beyond_always():
    start = np.quantile(CALIBRATION, 0.95)
    at_the_limit = start - norm.ppf(LIMIT)
    monitors = [watch(Strategy.FIXED, at_the_limit, seed) for seed in range(STREAMS)]
    alarms = [[a for a in m.alarms if a.kind is Kind.MISSES] for m in monitors]
    assert sum(map(bool, alarms)) <= most()
    broken = [watch(Strategy.FIXED, 0.5, seed) for seed in range(10)]
    assert all(any(a.kind is Kind.MISSES for a in m.alarms) for m in broken)
