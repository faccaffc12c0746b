import time

import numpy as np
import pytest
from scipy.stats import betabinom, binom

from ood.conformal import ConformalCalibration
from ood.simultaneous import FalseDiscoveryEnvelope, _tails


def violated(envelope, p_values, outliers: int) -> bool:
    """Whether some level, chosen with the truth in view, has more false ones than the bound."""
    known = np.sort(p_values[outliers:])
    return any(
        number > envelope.bound(p_values, level) for number, level in enumerate(known, start=1)
    )


@pytest.mark.parametrize(("m", "n"), [(1, 9), (50, 99), (300, 1000)])
def test_tails_of_the_urn_are_scipys(m, n):
    ranks = np.unique(np.geomspace(1, n, 7).astype(int))
    expected = [betabinom.sf(np.arange(m + 1) - 1, m, k, n + 1 - k) for k in ranks]
    np.testing.assert_allclose(_tails(m, ranks, n), expected, atol=1e-11)


@pytest.mark.parametrize(("m", "n"), [(20, 50), (200, 1000), (1000, 500)])
def test_the_envelope_holds_for_fresh_batches(m, n):
    """Counts from sorted uniform numbers, not from the urn that made the envelope."""
    envelope = FalseDiscoveryEnvelope.simulate(m, n)
    assert (np.diff(envelope.bounds) >= 0).all()
    rng = np.random.default_rng(m)
    draws = 2_000
    held = 0
    for _ in range(draws):
        calibration, images = np.sort(rng.uniform(size=n)), np.sort(rng.uniform(size=m))
        counts = np.searchsorted(images, calibration[envelope.ranks - 1])
        held += bool((counts <= envelope.bounds).all())
    low, high = binom.ppf([0.001, 0.999], draws, [0.95, 0.975])
    assert low <= held <= high  # not by being loose


@pytest.mark.parametrize("outliers", [0, 5, 20])
def test_the_bound_holds_at_the_worst_level(outliers):
    m, n, draws = 100, 500, 500
    envelope = FalseDiscoveryEnvelope.simulate(m, n)
    rng = np.random.default_rng(outliers)
    failed = 0
    for _ in range(draws):
        fitted = ConformalCalibration(np.sort(rng.normal(size=n)))
        scores = rng.normal(size=m)
        scores[:outliers] += 3
        failed += violated(envelope, fitted.p_values(scores), outliers)
    assert failed <= binom.ppf(0.999, draws, 0.05)


def test_bounds_for_one_level_at_a_time_fail_at_the_worst_level():
    """The positive control: 95% at each rank is not 95% at all of them."""
    m, n, draws = 100, 500, 300
    ranks = FalseDiscoveryEnvelope.simulate(m, n).ranks
    single = FalseDiscoveryEnvelope(ranks, betabinom.ppf(0.95, m, ranks, n + 1 - ranks), m, n)
    rng = np.random.default_rng(7)
    failed = sum(
        violated(
            single,
            ConformalCalibration(np.sort(rng.normal(size=n))).p_values(rng.normal(size=m)),
            0,
        )
        for _ in range(draws)
    )
    assert failed > binom.ppf(0.999, draws, 0.05)


def test_the_bound_is_the_smallest_over_all_ranks():
    envelope = FalseDiscoveryEnvelope.simulate(40, 99)
    rng = np.random.default_rng(5)
    ranks = np.concatenate([np.ones(12, int), rng.integers(1, 101, 28)])
    for level in (0.001, 0.01, 0.05, 0.3, 1.0):
        inside = ranks[ranks <= level * 100 + 1e-9]
        options = [
            sum(inside > g) + b for g, b in zip(envelope.ranks, envelope.bounds, strict=True)
        ]
        assert envelope.bound(ranks / 100, level) == min([len(inside), *options])
    assert envelope.bound(ranks / 100, 0.01) < 12  # says something


def test_degenerate_batches():
    envelope = FalseDiscoveryEnvelope.simulate(10, 99)
    assert envelope.bound(np.empty(0), 0.05) == 0
    assert envelope.bound(np.ones(10), 0.05) == 0
    assert envelope.bound(np.full(10, 0.01), 0.001) == 0
    assert FalseDiscoveryEnvelope.simulate(0, 99).bound(np.empty(0), 0.5) == 0
    assert FalseDiscoveryEnvelope.simulate(1, 1).bound(np.array([0.5]), 0.5) == 1
    with pytest.raises(ValueError, match="11 p-values, but the envelope is for 10"):
        envelope.bound(np.ones(11), 0.05)


def test_it_is_fast_and_cached():
    start = time.process_time()
    envelope = FalseDiscoveryEnvelope.simulate(1_000, 4_000)
    assert time.process_time() - start < 1
    assert FalseDiscoveryEnvelope.simulate(1_000, 4_000) is envelope
