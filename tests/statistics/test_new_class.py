from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta, binom, binomtest
from sklearn.cluster import KMeans

from models.bank import normalise_rows
from ood.conformal import ConformalCalibration
from ood.new_class import (
    Ball,
    FlaggedCalibration,
    Proposal,
    clopper_pearson_upper,
    log_e_values,
    share_of_error,
)
from ood.new_class_monitor import NewClassMonitor, _clustering_sizes

LEVEL = 0.1
WIDTH = 40


def cluster(features):
    return KMeans(-(-len(features) // 8), n_init=1, random_state=0).fit_predict(features)


def known(rng, size):
    """Features in three bumps, and scores that know how far out an image lies."""
    noise = rng.normal(size=(size, WIDTH))
    return np.eye(3, WIDTH)[rng.integers(3, size=size)] * 4 + noise, (noise**2).sum(axis=1)


def novel(rng, size):
    return rng.normal(size=(size, WIDTH)) * 0.5 - np.eye(1, WIDTH, 5) * 4, np.full(size, 99.0)


def fitted(rng, size):
    """The threshold of the decision and the flagged calibration images."""
    features, scores = known(rng, size)
    threshold = ConformalCalibration(np.sort(scores)).threshold(LEVEL)
    return threshold, FlaggedCalibration.of(features, scores > threshold)


def watch(rng, features, scores, cluster=cluster, size=1_000):
    threshold, calibration = fitted(rng, size)
    flagged = np.flatnonzero(scores > threshold)
    monitor = NewClassMonitor.start(calibration, cluster)
    ids = [str(row) for row in flagged]
    return monitor.extend(ids, features[flagged], flagged + 1, len(scores)), flagged


def is_alarmed(monitor) -> bool:
    return any(p.confirmed_at is not None for p in monitor.proposals)


def proposal(rate=0.01, error=0.05, radius=0.5, **changes):
    return Proposal(Ball(np.zeros(1, np.float32), radius), 5, 100, rate, error, **changes)


# --- bounds and bets


@pytest.mark.parametrize(("count", "size"), [(0, 1), (0, 50), (3, 50), (49, 50), (50, 50)])
@pytest.mark.parametrize("error", [0.3, 0.025, 1e-6])
def test_clopper_pearson_is_scipys(count, size, error):
    exact = binomtest(count, size, alternative="less").proportion_ci(1 - error, "exact").high
    bound = clopper_pearson_upper(count, size, error)
    assert bound == pytest.approx(exact, rel=1e-8)
    assert 0 < bound <= 1
    if bound < 1:
        assert binom.cdf(count, size, bound) == pytest.approx(error)


@pytest.mark.parametrize(("n", "level"), [(100, 0.01), (100, 0.2), (4_000, 0.05)])
@pytest.mark.parametrize("error", [0.25, 0.015, 1e-4])
def test_the_rate_bound_holds_although_calibration_images_set_the_threshold(n, level, error):
    """Exactly: the flagged share is Beta(k, n + 1 - k), and k - 1 calibration images are flagged.

    Of those a share r is in the ball, the same as of images to come; r may depend on the share.
    """
    k = int(level * (n + 1))
    flagged = clopper_pearson_upper(k - 1, n, error / 2)
    inside = np.array([clopper_pearson_upper(x, k - 1, error / 2) for x in range(k)])
    shares = beta.ppf(np.linspace(0, 1, 1_001)[1:], k, n + 1 - k)
    rates = np.linspace(0.02, 1, 50)
    too_low = (flagged * inside)[None, None] < shares[:, None, None] * rates[None, :, None]
    chance = (binom.pmf(np.arange(k), k - 1, rates[:, None])[None] * too_low).sum(axis=2)
    worst = chance.max(axis=1)  # for each share the worst r
    assert worst.mean() <= error + 1e-3  # each of 1,000 steps is taken at its upper end


def test_for_a_ball_chosen_to_avoid_calibration_images_the_bound_fails():
    """The control: of 60 places, all hit equally often, the one with fewest of 1,000 images."""
    counts = np.random.default_rng(0).multinomial(1_000, np.full(60, 1 / 60), 200)
    bounds = np.array([[clopper_pearson_upper(int(x), 1_000, 0.05) for x in row] for row in counts])
    assert (bounds[:, 0] < 1 / 60).sum() <= binom.ppf(0.999, 200, 0.05)
    assert (bounds.min(axis=1) < 1 / 60).mean() > 0.5


@pytest.mark.parametrize("rate", [0.3, 0.004, 1e-6])
def test_e_values_are_the_mean_of_brute_force_products(rate):
    rng = np.random.default_rng(0)
    hits = rng.uniform(size=300) < max(rate, 0.02)
    exponents = 1 - (np.arange(16) + 0.5) / 16
    wealth = np.ones(16)
    found = log_e_values(np.cumsum(hits), np.arange(1, 301), rate)
    for hit, log_e in zip(hits, found, strict=True):
        alternatives = rate**exponents
        wealth *= np.where(hit, alternatives / rate, (1 - alternatives) / (1 - rate))
        assert log_e == pytest.approx(np.log(wealth.mean()), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("rate", [0.9, 0.05, 1e-5])
def test_e_values_are_fair(rate):
    """On average over the next item the wealth is what it was; at a lower rate, less."""
    hits, items = np.array([2, 3, 2]), np.array([40, 41, 41])
    now, hit, miss = np.exp(log_e_values(hits, items, rate))
    assert rate * hit + (1 - rate) * miss == pytest.approx(now, rel=1e-12)
    assert rate / 2 * hit + (1 - rate / 2) * miss < now


def test_e_values_do_not_overflow():
    huge = np.array([0, 1_000_000, 10**9])
    log_e = log_e_values(huge, np.full(3, 10**9), 1e-9)
    assert np.isfinite(log_e).all() and log_e[-1] > 1e9
    assert log_e_values(np.array([5]), np.array([5]), 1.0).tolist() == [0.0]
    assert log_e_values(np.zeros(1, int), np.zeros(1, int), 0.1) == pytest.approx(0, abs=1e-12)


def test_errors_add_up():
    shares = [share_of_error(0.05, number) for number in range(1, 100_001)]
    assert 0.0499 < sum(shares) < 0.05


# --- balls


def test_a_ball_holds_nine_in_ten_and_its_rim():
    features = normalise_rows(np.random.default_rng(0).normal(size=(50, 8)))
    ball = Ball.around(features)
    assert ball.holds(features).sum() == 45
    distances = np.linalg.norm(features.astype(float) - features.mean(axis=0, dtype=float), axis=1)
    np.testing.assert_array_equal(ball.holds(features), np.argsort(np.argsort(distances)) < 45)


def test_a_ball_of_copies_holds_copies_only():
    features = normalise_rows(np.random.default_rng(0).normal(size=(9_000, 128)))
    ball = Ball.around(np.repeat(features[-1:], 7, axis=0))
    assert ball.radius < 1e-6
    assert np.flatnonzero(ball.holds(features)).tolist() == [8_999]
    assert ball.holds(features[-1:]).all()  # whatever else is in the batch
    assert ball.holds(features[:0]).shape == (0,)


def test_calibration_images_are_counted():
    features = np.array([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0], [5.0, 0.0]])
    calibration = FlaggedCalibration.of(features, np.array([True, True, True, False]))
    ball = Ball(np.array([1, 0], np.float32), 0.1)
    bounds = clopper_pearson_upper(3, 4, 0.005) * clopper_pearson_upper(2, 3, 0.005)
    assert calibration.rate_bound(ball, 0.01) == bounds
    none = FlaggedCalibration.of(features, np.zeros(4, bool))
    assert none.rate_bound(ball, 0.01) == pytest.approx(1 - 0.005**0.25)
    for rows in (features[:0], features[:2]):
        with pytest.raises(ValueError, match="every calibration image"):
            FlaggedCalibration.of(rows, np.ones(3 if len(rows) else 0, bool))


# --- one proposal


def test_a_proposal_stops_at_the_item_that_confirms_it():
    rng = np.random.default_rng(1)
    positions = np.sort(rng.choice(np.arange(101, 400), 60, replace=False))
    features = rng.choice([0.0, 1.0], size=(60, 1)).astype(np.float32)
    done = proposal().follow(features, positions, 500)
    wealth = np.ones(16)
    alternatives = 0.01 ** (1 - (np.arange(16) + 0.5) / 16)
    hits = dict(zip(positions.tolist(), features[:, 0] == 0, strict=True))
    for position in range(101, 501):
        hit = hits.get(position, False)
        wealth *= np.where(hit, alternatives / 0.01, (1 - alternatives) / 0.99)
        if wealth.mean() >= 2 / 0.05:
            break
    assert done.confirmed_at == position < 400
    assert done.items == position - 100 and done.log_e_value >= np.log(40)
    assert done.follow(features, positions + 500, 1_000) is done


def test_one_proposal_is_confirmed_falsely_as_rarely_as_it_says():
    """The hardest case: all flagged images are in the ball, so that their rate hangs on the set."""
    rng = np.random.default_rng(2)
    n, k, error, streams = 300, 30, 0.3, 1_000
    bound = clopper_pearson_upper(k - 1, n, error / 2)
    at_worst, wrong = proposal(rate=bound, error=error), 0
    for rate in rng.beta(k, n + 1 - k, streams):
        at = 101 + np.flatnonzero(rng.uniform(size=3_000) < rate)
        done = at_worst.follow(np.zeros((len(at), 1), np.float32), at, 3_100)
        wrong += done.confirmed_at is not None
    assert 0.01 * streams < wrong <= binom.ppf(0.999, streams, error)


def test_what_does_not_hit_is_only_counted():
    after = proposal().follow(np.ones((3, 1), np.float32), np.array([101, 150, 160]), 300)
    assert (after.hits, after.items, after.confirmed_at) == (0, 200, None)
    assert after.log_e_value < 0
    empty = after.follow(np.empty((0, 1), np.float32), np.empty(0, int), 400)
    assert (empty.hits, empty.items) == (0, 300)


def test_where_calibration_bounds_nothing_nothing_is_confirmed():
    hits = np.zeros((1_000, 1), np.float32)
    after = proposal(rate=1.0).follow(hits, np.arange(101, 1_101), 1_100)
    assert after.confirmed_at is None and after.log_e_value == 0


# --- the monitor


def mixed(rng, items, share):
    features, scores = known(rng, items)
    new = rng.uniform(size=items) < share
    features[new], scores[new] = novel(rng, new.sum())
    return features, scores, new


def test_a_new_class_is_confirmed():
    delays, purity = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        features, scores, new = mixed(rng, 1_000, 0.1)
        monitor, flagged = watch(rng, features, scores)
        found = monitor.new_classes()[0]
        assert found.proposal.log_e_value >= np.log(2 / found.proposal.error)
        assert found.false_alarm == 0.05
        delays.append(new[: found.proposal.confirmed_at].sum())
        purity.append(new[flagged[found.members]].mean())
    assert np.median(delays) < 60 and np.median(purity) > 0.95


def test_known_images_are_rarely_a_new_class_and_testing_on_the_cluster_fails():
    """150 streams; the control counts the images that a ball was made of as evidence for it."""
    rng = np.random.default_rng(0)
    alarms, control = 0, 0
    for _ in range(150):
        monitor, flagged = watch(rng, *known(rng, 1_500))
        alarms += is_alarmed(monitor)
        again = [
            replace(p, since=0, hits=0, confirmed_at=None).follow(
                monitor.features, flagged + 1, monitor.inspected
            )
            for p in monitor.proposals
        ]
        control += any(p.confirmed_at is not None for p in again)
    most = binom.ppf(0.999, 150, 0.05)
    assert alarms <= most < control


def numbers(monitor):
    return [
        (p.ball.centre.tobytes(), p.ball.radius, p.made_of, p.since, p.rate, p.error, p.items,
         p.hits, p.confirmed_at, p.log_e_value)
        for p in monitor.proposals
    ]  # fmt: skip


@pytest.mark.parametrize("pieces", [2, 7, 150])
def test_replay_in_pieces_gives_the_same_numbers(pieces):
    rng = np.random.default_rng(3)
    features, scores, _ = mixed(rng, 1_000, 0.1)
    whole, flagged = watch(rng, features, scores)
    part = NewClassMonitor.start(whole.calibration, cluster)
    cuts = np.sort(rng.choice(1_001, pieces - 1))
    for low, high in zip([0, *cuts], [*cuts, 1_000], strict=True):
        rows = flagged[(low <= flagged) & (flagged < high)]
        part = part.extend([str(row) for row in rows], features[rows], rows + 1, high)
    assert len(whole.proposals) > 3 and is_alarmed(whole)
    assert numbers(part) == numbers(whole)
    assert part.ids == whole.ids and part.inspected == whole.inspected
    np.testing.assert_array_equal(part.features, whole.features)


def test_copies_are_no_evidence():
    """A batch inspected ten times; and one odd known image again and again."""
    rng = np.random.default_rng(4)
    features, scores = known(rng, 300)
    once, flagged = watch(rng, features, scores)
    again = once
    for time in range(1, 10):
        again = again.extend(
            list(map(str, flagged)), features[flagged], flagged + 1 + 300 * time, 300 * (time + 1)
        )
    assert [p.hits for p in again.proposals] == [p.hits for p in once.proposals]
    assert again.ids == once.ids and not again.new_classes()
    same = NewClassMonitor.start(once.calibration, cluster).extend(
        ["a"] * 500, np.ones((500, WIDTH)), np.arange(1, 501), 500
    )
    assert same.ids == ("a",) and not same.proposals


def test_different_images_in_one_place_are_evidence():
    """Black frames, say: a ball of radius nearly 0."""
    _, calibration = fitted(np.random.default_rng(5), 400)
    monitor = NewClassMonitor.start(calibration, lambda features: np.zeros(len(features), int))
    monitor = monitor.extend(
        list(map(str, range(100))), -np.ones((100, WIDTH)), np.arange(10, 1_001, 10), 1_000
    )
    (found,) = monitor.new_classes()
    assert len(found.members) == 100 and found.proposal.ball.radius < 1e-6
    assert found.proposal.hits < 20 and found.proposal.made_of == 10


def test_clusters_are_proposed_anew_when_doubled_and_not_before():
    _, calibration = fitted(np.random.default_rng(6), 400)
    rng = np.random.default_rng(7)
    features = rng.normal(size=(70, WIDTH)) + 9 * np.eye(1, WIDTH)
    monitor = NewClassMonitor.start(calibration, lambda f: np.zeros(len(f), int))
    monitor = monitor.extend(list(map(str, range(70))), features, np.arange(1, 71), 70)
    assert [p.made_of for p in monitor.proposals] == [10, 23, 51]
    assert [p.since for p in monitor.proposals] == [10, 23, 51]
    few = NewClassMonitor.start(calibration, lambda f: np.arange(len(f)) // 4)
    assert not few.extend(list(map(str, range(70))), features, np.arange(1, 71), 70).proposals


def test_clusterings_come_when_there_are_half_as_many_again():
    assert _clustering_sizes(0, 60) == [10, 15, 23, 34, 51]
    assert _clustering_sizes(10, 33) == [15, 23]
    one_by_one = [size for n in range(1_000) for size in _clustering_sizes(n, n + 1)]
    assert one_by_one == _clustering_sizes(0, 1_000)
    assert len(_clustering_sizes(0, 100_000)) < 30


def test_streams_without_flags_or_images():
    _, calibration = fitted(np.random.default_rng(8), 400)
    start = NewClassMonitor.start(calibration, cluster)
    nothing = [], np.empty((0, WIDTH)), np.empty(0)
    assert start.extend(*nothing, 0).inspected == 0
    assert start.extend(*nothing, 700).extend(*nothing, 900).inspected == 900
    assert start.extend(*nothing, 700).new_classes() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ["a"]}, "1 ids, 2 features and 2 positions"),
        ({"features": np.ones((2, 3))}, "from the same layer"),
        ({"features": np.full((2, WIDTH), np.nan)}, "not finite"),
        ({"positions": np.array([5, 5])}, "must ascend, from 5 on"),
        ({"positions": np.array([4, 6])}, "must ascend, from 5 on"),
        ({"inspected": 6}, "up to 6"),
    ],
)
def test_streams_that_cannot_be_are_refused(change, message):
    _, calibration = fitted(np.random.default_rng(9), 400)
    monitor = replace(NewClassMonitor.start(calibration, cluster), inspected=4)
    stream = {
        "ids": ["a", "b"], "features": np.ones((2, WIDTH)), "positions": np.array([5, 7]),
        "inspected": 7,
    }  # fmt: skip
    assert monitor.extend(**stream).inspected == 7
    with pytest.raises(ValueError, match=message):
        monitor.extend(**stream | change)
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\)"):
        NewClassMonitor.start(calibration, cluster, 1.0)
