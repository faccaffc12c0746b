import numpy as np
import pytest
from scipy.stats import kstest

from ood.monitoring.audit import Audits
from ood.monitoring.coins import coin


def test_coins_are_uniform_independent_and_the_same_in_every_run():
    assert coin(0, 0) == coin(0, 0) != coin(1, 0)
    for seed in (0, 1, 2**63, -5):
        u = np.array([coin(seed, n) for n in range(20_000)])
        assert u.min() >= 0
        assert u.max() < 1
        assert kstest(u, "uniform").pvalue > 0.001
        assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.03
    across = np.array([coin(seed, 5) for seed in range(20_000)])
    assert kstest(across, "uniform").pvalue > 0.001


def test_the_rate_follows_the_evidence():
    audits = Audits(0.02, 0.5, 1_000, 0)
    assert audits.rate(0, 0) == pytest.approx(0.1)
    assert audits.rate(1, 0) == pytest.approx(0.5)
    assert audits.rate(7, -2) == pytest.approx(0.5)
    assert audits.rate(0, 1) == pytest.approx(0.02)
    rates = [audits.rate(v, 0) for v in np.linspace(0, 1, 9)]
    np.testing.assert_allclose(np.diff(np.log(rates)), np.log(5) / 8)


def stream(audits, flagged, violation=0.0, certificate=0.0):
    asks, rates = [], []
    for flag in flagged:
        rates.append(audits.rate(violation, certificate))
        asks.append(audits.ask(bool(flag), rates[-1]))
    return np.array([a.asked for a in asks]), np.array([a.probability for a in asks]), rates


def test_flagged_images_are_always_asked_about_and_others_as_often_as_the_rate_says():
    flagged = np.random.default_rng(0).uniform(size=20_000) < 0.2
    asked, probability, _ = stream(Audits(0.05, 0.2, 1_000, 1), flagged)
    assert asked[flagged].all()
    assert (probability[flagged] == 1).all()
    assert (probability[~flagged] == probability[~flagged][0]).all()
    assert asked[~flagged].mean() == pytest.approx(0.1, abs=0.01)
    assert (asked / probability).mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 1.0])
@pytest.mark.parametrize("budget", [1, 120, 300])
def test_no_1000_consecutive_images_cost_more_than_the_budget(share, budget):
    rng = np.random.default_rng(1)
    flagged = rng.uniform(size=6_000) < share * (np.arange(6_000) > 2_000)
    audits = Audits(0.02, 0.9, budget, 2)
    asked, probability, rates = stream(audits, flagged, violation=1.0)
    window = np.convolve(asked, np.ones(1_000), "valid")
    assert window.max() <= budget
    assert audits.paused == (np.array(rates) == 0).sum()
    assert not probability[np.array(rates) == 0].any()
    if budget == 300:
        assert window[-1] > 200


def test_where_the_budget_allows_it_nobody_is_left_out():
    flagged = np.random.default_rng(3).uniform(size=8_000) < 0.1
    audits = Audits(0.02, 0.9, 300, 4)
    _, _, rates = stream(audits, flagged, violation=1.0)
    assert audits.paused < 0.03 * len(flagged)
    assert np.mean(rates[2_000:]) == pytest.approx(0.2 / 0.9, rel=0.1)


def test_a_replay_and_a_stored_one_ask_about_the_same_images():
    flagged = np.random.default_rng(5).uniform(size=3_000) < 0.3
    whole, _, _ = stream(Audits(0.05, 0.5, 350, 6), flagged)
    again, _, _ = stream(Audits(0.05, 0.5, 350, 6), flagged)
    first, second = Audits(0.05, 0.5, 350, 6), Audits(0.05, 0.5, 350, 0)
    start, _, _ = stream(first, flagged[:1_500])
    second.restore(first.state())
    rest, _, _ = stream(second, flagged[1_500:])
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_array_equal(whole, np.concatenate([start, rest]))


@pytest.mark.parametrize(
    ("floor", "ceiling", "budget"), [(0, 0.5, 10), (0.6, 0.5, 10), (0.1, 1.1, 10), (0.1, 0.2, 0)]
)
def test_impossible_settings_are_refused(floor, ceiling, budget):
    with pytest.raises(ValueError, match="budget"):
        Audits(floor, ceiling, budget, 0)
