import numpy as np
import pytest

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
from ood.monitoring.losses import Pinball
from ood.monitoring.market import LMSR, ConstantProduct, Market
from ood.monitoring.windows import Window

GRID = np.linspace(-3, 3, 25)
LIMIT = 0.2


def make(name, shape=()):
    start, prices = np.zeros(shape), (*shape, len(GRID))
    return {
        "fixed": lambda: Fixed(shape, 0.3),
        "tracking": lambda: QuantileTracking(start, LIMIT, 0.05),
        "PID": lambda: ConformalPID(start, LIMIT, 0.05, 0.5, 0.5),
        "ACI": lambda: ACI(start, LIMIT, 0.01, 100),
        "DtACI": lambda: DtACI(start, LIMIT, 100),
        "running risk": lambda: RunningRisk(shape, GRID, LIMIT),
        "rejecting": lambda: LargestNotRejected(GRID, LIMIT, 0.1, 0.25, AGrapa(Window(prices))),
        "logarithm": lambda: IteratedLogarithm(shape, GRID, LIMIT, 0.1),
        "LMSR": lambda: Market(GRID, LMSR(prices, 0.3, 1e-3), Pinball(LIMIT)),
        "product": lambda: Market(GRID, ConstantProduct(prices, 5, 1e-3), Pinball(LIMIT)),
    }[name]()


NAMES = (
    "fixed", "tracking", "PID", "ACI", "DtACI", "running risk", "rejecting", "logarithm", "LMSR",
    "product",
)  # fmt: skip


def drive(chooser, scores, unknown, coins, audit=0.25):
    """(T, ...) thresholds before each item."""
    used = []
    for score, label, coin in zip(scores, unknown, coins, strict=True):
        used.append(np.array(chooser.threshold))
        probability = np.where(score > used[-1], 1.0, audit)
        chooser.observe(score, label, np.where(coin < probability, 1 / probability, 0.0))
    return np.array(used)


def items(t, streams=(), seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    shape = (t, *streams)
    return rng.normal(mean, size=shape), rng.uniform(size=shape) < 0.7, rng.uniform(size=shape)


# --- what all have in common


@pytest.mark.parametrize("name", NAMES)
def test_streams_do_not_know_of_each_other(name):
    scores, unknown, coins = items(150, (3,))
    together = drive(make(name, (3,)), scores, unknown, coins)
    for s in range(3):
        alone = drive(make(name), scores[:, s], unknown[:, s], coins[:, s])
        np.testing.assert_allclose(together[:, s], alone, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_one_goes_on_bit_for_bit(name):
    scores, unknown, coins = items(200, seed=1)
    whole = drive(make(name), scores, unknown, coins)
    first, second = make(name), make(name)
    drive(first, scores[:90], unknown[:90], coins[:90])
    second.restore(first.state())
    rest = drive(second, scores[90:], unknown[90:], coins[90:])
    np.testing.assert_array_equal(whole[90:], rest)


@pytest.mark.parametrize("name", NAMES)
def test_known_and_unlabelled_items_change_nothing(name):
    chooser = make(name, (2,))
    drive(chooser, *items(60, (2,), seed=2))
    before = chooser.state()
    yes, no = np.array([True, True]), np.array([False, False])
    chooser.observe(np.array([-1.0, 9.0]), yes, np.zeros(2))
    chooser.observe(np.array([-1.0, 9.0]), no, np.array([1.0, 4.0]))
    for key, value in chooser.state().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("name", ["tracking", "PID", "ACI", "DtACI", "LMSR", "product"])
@pytest.mark.parametrize("audit", [1.0, 0.25])
def test_those_that_follow_come_near_the_target(name, audit):
    scores, unknown, coins = items(900, (20,), seed=3, mean=0.7)
    used = drive(make(name, (20,)), scores, unknown, coins, audit)
    assert (scores <= used)[300:].mean() == pytest.approx(LIMIT, abs=0.05)


# --- one by one


@pytest.mark.parametrize("order", ["chance", "rising", "adversary"])
def test_aci_is_off_by_at_most_its_bound(order):
    """Gibbs and Candès, proposition 4.1, for any sequence."""
    rng, rate, t = np.random.default_rng(4), 0.02, 1_000
    chooser, missed = ACI(np.array(0.0), LIMIT, rate, 50), 0
    for k in range(t):
        now = float(chooser.threshold)
        score = {"chance": rng.normal(), "rising": k / 9}.get(order, np.clip(now, -5, 5) - 0.01)
        missed += score <= now
        chooser.observe(np.array(score), np.array(True), np.array(1.0))
    assert abs(missed / t - LIMIT) <= (max(LIMIT, 1 - LIMIT) + rate) / (rate * t) + 20 / t


@pytest.mark.parametrize("step", [0.01, 0.3])
def test_quantile_tracking_is_off_by_at_most_its_bound(step):
    """Angelopoulos, Candès and Tibshirani, proposition 1: errors move the threshold."""
    scores = np.clip(np.random.default_rng(5).normal(size=2_000), -2, 2)
    chooser = QuantileTracking(np.array(0.0), LIMIT, step)
    used = drive(chooser, scores, np.ones(2_000, bool), np.zeros(2_000), 1.0)
    missed = (scores <= used).mean()
    assert chooser.threshold == pytest.approx(-step * 2_000 * (missed - LIMIT), abs=1e-9)
    assert abs(missed - LIMIT) <= (2 + step) / (step * 2_000)


def test_pid_without_a_gain_is_quantile_tracking_and_saturates_with_one():
    scores, unknown, coins = items(300, seed=6)
    plain = drive(make("tracking"), scores, unknown, coins)
    pid = ConformalPID(np.array(0.0), LIMIT, 0.05, 0.5, 1e15)
    np.testing.assert_allclose(drive(pid, scores, unknown, coins), plain)
    steep = ConformalPID(np.array(0.0), LIMIT, 0.0, 0.1, 0.05)
    for _ in range(20):
        steep.observe(np.array(-9.0), np.array(True), np.array(1.0))
    assert steep.threshold == -np.inf


def test_dtaci_trusts_the_fast_experts_while_things_change():
    slow, fast = DtACI(np.zeros(()), LIMIT, 200), DtACI(np.zeros(()), LIMIT, 200)
    rng = np.random.default_rng(7)
    for k in range(1_200):
        for chooser, mean in ((slow, 0.0), (fast, 2.0 * (k // 100 % 2))):
            chooser.observe(np.array(rng.normal(mean)), np.array(True), np.array(1.0))
    rates = [np.sum(c._trust * c.RATES) for c in (slow, fast)]
    assert rates[1] > 1.1 * rates[0]
    assert fast._trust.sum() == pytest.approx(1)


def test_running_risk_by_counting():
    scores, unknown, coins = items(400, seed=8)
    used = drive(make("running risk"), scores, unknown, coins)
    weights = np.where(coins < np.where(scores > used, 1, 0.25), np.where(scores > used, 1, 4), 0)
    weights = np.where(unknown, weights, 0)
    missed = (weights[:, None] * (scores[:, None] <= GRID)).cumsum(axis=0)
    above = (missed > LIMIT * weights.cumsum()[:, None]) & (weights > 0)[:, None]
    for t in range(1, 400):
        kept = GRID[above[:t].sum(axis=0) < 25]
        assert used[t] == (kept.max() if len(kept) else GRID[0])


def test_the_largest_not_rejected_never_rises_and_drops_safe_ones_seldom():
    scores, unknown, coins = items(1_000, (300,), seed=9)
    chooser = make("rejecting", (300,))
    used = drive(chooser, scores, unknown, coins)
    assert (np.diff(used, axis=0) <= 0).all()
    safe = GRID[GRID <= -0.8416].max()
    assert (used[-1] < safe).mean() <= 0.1 + 2 * np.sqrt(0.09 / 300)
    assert np.median(used[-1]) < 0


def test_the_iterated_logarithm_by_its_formula():
    scores, unknown, coins = items(800, seed=10, mean=1.0)
    chooser = make("logarithm")
    assert chooser.threshold == GRID[0]
    used = drive(chooser, scores, unknown, coins)
    weights = np.where(coins < np.where(scores > used, 1, 0.25), np.where(scores > used, 1, 4), 0)
    weights = np.where(unknown, weights, 0)
    n, c = (weights > 0).sum(), np.square(weights).sum() / (weights > 0).sum()
    bound = 0.5 * np.sqrt(c / n * (np.log(np.log(4.75 * c * n)) + np.log(10)))
    rates = (weights[:, None] * (scores[:, None] <= GRID)).sum(axis=0) / weights.sum()
    assert chooser.threshold == GRID[rates + bound <= LIMIT].max()
