import numpy as np
import pytest
from scipy.optimize import minimize

from ood.monitoring.grid import threshold_grid
from ood.monitoring.losses import Costs, Pinball
from ood.monitoring.market import LMSR, ConstantProduct, Market

K = 7


def fresh(kind, share=0.0, shape=(K,), depth=0.7):
    return kind(shape, depth, share)


# --- losses


@pytest.mark.parametrize("target", [0.1, 0.37, 0.8])
def test_pinball_is_least_at_the_largest_threshold_within_the_target(target):
    rng = np.random.default_rng(0)
    for _ in range(50):
        thresholds = np.unique(rng.integers(0, 30, 9)).astype(float)
        scores = rng.normal(15, 8, 101)
        losses = Pinball(target)(thresholds, scores, np.ones(101, bool))
        rates = (scores[:, None] <= thresholds).mean(axis=0)
        within = np.flatnonzero(rates <= target)
        assert losses.mean(axis=0).argmin() == (within.max() if len(within) else 0)
        np.testing.assert_allclose(
            np.diff(losses.mean(axis=0)) * len(thresholds) * max(target, 1 - target),
            rates[1:] - target,
            atol=1e-12,
        )


def test_pinball_is_between_0_and_1_and_known_items_cost_nothing():
    thresholds = np.arange(5.0)
    for target in (0.01, 0.5, 0.99):
        for score in (-9.0, 0.0, 2.0, 2.5, 4.0, 99.0):
            loss = Pinball(target)(thresholds, np.array(score), np.array(True))
            assert loss.min() >= 0
            assert loss.max() <= 1
            assert not Pinball(target)(thresholds, np.array(score), np.array(False)).any()


def test_costs_of_the_four_outcomes():
    costs = Costs(miss=10, false_alarm=2, label=0.5)
    found = costs(np.array([1.0]), np.array([0, 1, 2, 0, 1, 2]), np.array([True] * 3 + [False] * 3))
    np.testing.assert_allclose(found[:, 0] * 10, [10, 10, 0.5, 0, 0, 2.5])
    assert Costs(1, 5, 5)(np.zeros(1), np.ones(1), np.zeros(1, bool)).max() == 1


# --- makers


def test_lmsr_is_hedge_with_fixed_share():
    rng = np.random.default_rng(1)
    maker, weights = LMSR((K,), 0.3, 0.02), np.full(K, 1 / K)
    for _ in range(200):
        losses = rng.uniform(0, 3, K)
        maker.update(losses)
        weights = weights * np.exp(-losses / 0.3)
        weights = 0.98 * weights / weights.sum() + 0.02 / K
        np.testing.assert_allclose(maker.prices, weights, rtol=1e-10)


@pytest.mark.parametrize("harm", ["chance", "one", "one after another"])
def test_the_makers_loss_is_bounded(harm):
    """Brute force: what the maker is paid for each trade, and what it owes to the winner."""
    rng = np.random.default_rng(2)
    bounds = {LMSR: 0.7 * np.log(K), ConstantProduct: 0.7}
    for kind, bound in bounds.items():
        maker, paid, sold = fresh(kind), 0.0, np.zeros(K)
        for t in range(300):
            losses = rng.uniform(size=K)
            if harm != "chance":
                losses = np.ones(K)
                losses[0 if harm == "one" else t % K] = 0.1
            before = np.exp(maker.log_reserves) if kind is ConstantProduct else maker.prices
            maker.update(losses)
            if kind is LMSR:
                paid += 0.7 * np.log(before @ np.exp(-losses / 0.7))
            else:  # money makes as much of every share: reserves grow by it and by what is sold
                paid += np.mean(np.exp(maker.log_reserves) - before - losses)
            sold -= losses
        assert sold.max() - paid <= bound + 1e-9
        if harm == "one":
            assert sold.max() - paid >= bound - 1e-3  # and the bound is what it can come to


def test_the_constant_product_stays_and_prices_are_one_over_reserves():
    rng = np.random.default_rng(3)
    for share in (0.0, 0.05):
        maker = ConstantProduct((4, K), 0.7, share)
        for _ in range(100):
            maker.update(rng.uniform(0, 5, (4, K)))
            reserves = np.exp(maker.log_reserves)
            np.testing.assert_allclose(np.log(reserves).mean(axis=1), np.log(0.7))
            inverse = 1 / reserves
            np.testing.assert_allclose(maker.prices, inverse / inverse.sum(axis=1)[:, None])


def test_the_constant_product_is_the_leader_regularised_by_the_geometric_mean():
    rng = np.random.default_rng(4)
    maker, total = fresh(ConstantProduct, depth=2.0), np.zeros(K)
    for _ in range(5):
        losses = rng.uniform(size=K)
        maker.update(losses)
        total += losses

    def objective(x):
        prices = np.exp(x) / np.exp(x).sum()
        return prices @ total - K * 2.0 * np.exp(np.log(prices).mean())

    best = minimize(objective, np.zeros(K), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(maker.prices, np.exp(best) / np.exp(best).sum(), rtol=1e-4)


@pytest.mark.parametrize("kind", [LMSR, ConstantProduct])
def test_prices_stay_positive_and_add_up_to_1_however_large_the_losses(kind):
    maker = kind((300,), 0.01, 1e-3)
    for worst in (1e-12, 1.0, 1e6):
        for _ in range(50):
            maker.update(np.linspace(0, worst, 300))
        assert np.isfinite(maker.prices).all()
        assert maker.prices.min() > 1e-3 / 300 * 0.999
        assert maker.prices.sum() == pytest.approx(1)
        assert maker.prices.argmax() == 0


@pytest.mark.parametrize("kind", [LMSR, ConstantProduct])
def test_streams_do_not_know_of_each_other(kind):
    rng = np.random.default_rng(5)
    together, alone = kind((3, K), 0.7, 0.01), [kind((K,), 0.7, 0.01) for _ in range(3)]
    for _ in range(60):
        losses = rng.uniform(size=(3, K)) * (rng.uniform(size=3) < 0.5)[:, None]
        together.update(losses)
        for maker, own in zip(alone, losses, strict=True):
            maker.update(own)
    np.testing.assert_allclose(together.prices, [maker.prices for maker in alone], rtol=1e-12)


@pytest.mark.parametrize("kind", [LMSR, ConstantProduct])
def test_an_item_that_does_not_matter_changes_nothing(kind):
    maker = fresh(kind, share=0.1)
    maker.update(np.arange(K) / K)
    before = maker.state()
    maker.update(np.zeros(K))
    for name, value in maker.state().items():
        np.testing.assert_array_equal(value, before[name])


# --- choosing


@pytest.mark.parametrize(("kind", "depth"), [(LMSR, 0.3), (ConstantProduct, 5)])
@pytest.mark.parametrize("audit", [1.0, 0.2])
def test_it_finds_the_target_and_a_changed_one(kind, depth, audit):
    rng = np.random.default_rng(6)
    thresholds, streams = np.linspace(-3, 3, 41), 4
    market = Market(thresholds, kind((streams, 41), depth, 5e-3), Pinball(0.3))
    for mean in (0.0, 2.0, 0.0):
        chosen = []
        for _ in range(800):
            scores = rng.normal(mean, size=streams)
            probability = np.where(scores > market.threshold, 1.0, audit)
            asked = rng.uniform(size=streams) < probability
            market.observe(scores, np.ones(streams, bool), asked / probability)
            chosen.append(market.threshold.mean())
        assert np.mean(chosen[-300:]) == pytest.approx(mean - 0.524, abs=0.2)


@pytest.mark.parametrize("kind", [LMSR, ConstantProduct])
def test_a_stored_market_goes_on_bit_for_bit(kind):
    rng = np.random.default_rng(7)
    thresholds, items = np.arange(float(K)), rng.uniform(0, K, 80)
    first, second = (Market(thresholds, kind((K,), 0.5, 0.01), Pinball(0.2)) for _ in range(2))
    for score in items[:40]:
        first.observe(np.array(score), np.array(True), np.array(1.0))
    second.restore(first.state())
    for score in items[40:]:
        for market in (first, second):
            market.observe(np.array(score), np.array(True), np.array(5.0))
    np.testing.assert_array_equal(first.prices, second.prices)
    assert first.threshold == second.threshold


def test_the_state_of_something_else_is_refused():
    with pytest.raises(ValueError, match="LMSR needs"):
        LMSR((K,), 1.0, 0.0).restore(ConstantProduct((K,), 1.0, 0.0).state())


# --- the grid


def test_the_grid_is_dense_where_few_known_images_are_flagged():
    scores = np.random.default_rng(8).normal(size=5_000)
    grid = threshold_grid(scores, 200)
    assert 150 < len(grid) <= 200
    assert (np.diff(grid) > 0).all()
    assert grid[0] < scores.min()
    assert scores.max() in grid
    assert 5 < (grid > scores.max()).sum() < 20
    flagged = (scores[:, None] > grid).mean(axis=0)
    for share, apart in ((0.002, 0.0004), (0.01, 0.0008), (0.1, 0.0025), (0.2, 0.0035)):
        assert np.abs(flagged - share).min() <= apart
    top = grid[(grid >= np.quantile(scores, 0.98)) & (grid <= scores.max())]
    assert np.diff(top).max() <= (scores.max() - np.quantile(scores, 0.98)) / 29 * 1.001


@pytest.mark.parametrize("scores", [np.zeros(50), np.array([1.5]), np.repeat([1e9, 2e9], 5)])
def test_a_grid_of_few_different_scores(scores):
    grid = threshold_grid(scores, 20)
    assert (np.diff(grid) > 0).all()
    assert grid[0] < scores.min()
    assert grid[-1] > scores.max()
    assert np.isin(np.unique(scores), grid).all()


@pytest.mark.parametrize("scores", [np.empty(0), np.array([1.0, np.nan])])
def test_a_grid_of_nothing_is_refused(scores):
    with pytest.raises(ValueError, match="at least one score"):
        threshold_grid(scores, 20)
