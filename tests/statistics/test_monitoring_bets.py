import numpy as np
import pytest
from safetensors.numpy import load, save
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from ood.monitoring.bets import (
    AGrapa,
    EmpiricalBernstein,
    FixedBet,
    Kelly,
    Lbow,
    OnlineNewtonStep,
)
from ood.monitoring.portfolio import WindowPortfolio
from ood.monitoring.windows import Adwin, Window

LIMIT = 0.1
STRATEGIES = {
    "fixed": lambda shape: FixedBet(shape, 0.1),
    "aGRAPA": lambda shape: AGrapa(Window(shape)),
    "aGRAPA, burn-in": lambda shape: AGrapa(Window(shape), 100),
    "aGRAPA, 50": lambda shape: AGrapa(Window(shape, 50)),
    "aGRAPA, ADWIN": lambda shape: AGrapa(Adwin(shape)),
    "LBOW": lambda shape: Lbow(Window(shape)),
    "LBOW, 7": lambda shape: Lbow(Window(shape, 7)),
    "ONS": OnlineNewtonStep,
    "Kelly": Kelly,
    "portfolio": WindowPortfolio,
    "empirical Bernstein": lambda shape: EmpiricalBernstein(shape, 0.1),
}
every = pytest.mark.parametrize("name", STRATEGIES)


def stream(seed, items, shape, share=0.7):
    """Payoffs with audits of 1 in 10 accepted items, some of no matter, and their largest bets."""
    rng = np.random.default_rng(seed)
    audited = rng.uniform(size=(items, *shape)) < 0.3
    largest = np.where(audited, LIMIT, 1.0) / LIMIT
    loss = rng.uniform(size=(items, *shape)) < np.linspace(0.02, 0.4, items).reshape(
        -1, *[1] * len(shape)
    )
    payoffs = np.where(audited, 1 / LIMIT, 1.0) * (loss - LIMIT)
    payoffs[rng.uniform(size=payoffs.shape) >= share] = 0
    return payoffs, largest


def run(process, payoffs, largest):
    for payoff, bound in zip(payoffs, largest, strict=True):
        process.update(payoff, bound)
    return process


# --- second routes, one stream and threshold, with whole histories


def agrapa(past, largest, window=0, burn_in=0):
    seen = np.array(past[-window:] if window else past)
    if len(past) < max(burn_in, 1):
        return 0.0
    mean = seen.mean()
    return float(np.clip(mean / (seen.var() + mean**2), 0, largest / 2))


def lbow(past, largest, window=0):
    seen = np.array(past[-window:] if window else past)
    if len(past) == 0 or seen.mean() <= 0:
        return 0.0
    return float(seen.mean() / (seen.mean() / largest + seen.var() + seen.mean() ** 2))


def kelly(past, largest):
    gains = [payoff for payoff in past if payoff > 0]
    if not gains:
        return 0.0
    q, gain = (len(gains) + 0.5) / (len(past) + 1), np.mean(gains)
    best = minimize_scalar(
        lambda bet: -(q * np.log1p(bet * gain) + (1 - q) * np.log1p(-bet / largest)),
        bounds=(0, largest), method="bounded", options={"xatol": 1e-12},
    ).x  # fmt: skip
    return best if q * gain > (1 - q) / largest else 0.0


@pytest.mark.parametrize(
    ("name", "formula", "rtol"),
    [
        ("fixed", lambda past, largest: 0.1 * largest, 1e-12),
        ("aGRAPA", agrapa, 1e-9),
        ("aGRAPA, burn-in", lambda past, largest: agrapa(past, largest, burn_in=100), 1e-9),
        ("aGRAPA, 50", lambda past, largest: agrapa(past, largest, 50), 1e-9),
        ("LBOW", lbow, 1e-9),
        ("LBOW, 7", lambda past, largest: lbow(past, largest, 7), 1e-9),
        ("Kelly", kelly, 1e-5),
    ],
)
def test_bets_are_those_of_the_formula(name, formula, rtol):
    payoffs, largest = stream(0, 400, (1,))
    process, past, log_wealth = STRATEGIES[name]((1,)), [], 0.0
    for payoff, bound in zip(payoffs[:, 0], largest[:, 0], strict=True):
        bet = formula(past, bound)
        np.testing.assert_allclose(process.bets(np.array([bound]))[0], bet, rtol, atol=1e-6)
        process.update(np.array([payoff]), np.array([bound]))
        log_wealth += np.log(1 + bet * payoff)
        past += [payoff] * bool(payoff)
    assert process.log_wealth[0] == pytest.approx(log_wealth, rel=1e-4)


def test_kelly_at_full_labels_is_the_kt_estimate():
    losses = np.random.default_rng(0).uniform(size=300) < 0.3
    process = Kelly((1,))
    for t, loss in enumerate(losses):
        if losses[:t].any():
            q = (losses[:t].sum() + 0.5) / (t + 1)
            expected = max(q - LIMIT, 0) / (LIMIT * (1 - LIMIT))
            assert process.bets(1 / LIMIT)[0] == pytest.approx(expected)
        process.update(np.array([loss - LIMIT]), 1 / LIMIT)


def test_online_newton_steps():
    payoffs, largest = stream(1, 400, (1,))
    process, bet, curvature, wealth = OnlineNewtonStep((1,)), 0.0, 1.0, 1.0
    for payoff, bound in zip(payoffs[:, 0], largest[:, 0], strict=True):
        used = min(bet, bound / 2)
        assert process.bets(bound)[0] == pytest.approx(used, rel=1e-9)
        process.update(np.array([payoff]), bound)
        if payoff:
            wealth *= 1 + used * payoff
            z = -payoff / (1 + used * payoff)
            curvature += z**2
            bet = max(used - 2 / (2 - np.log(3)) * z / curvature, 0)
    assert np.exp(process.log_wealth[0]) == pytest.approx(wealth, rel=1e-9)


def test_empirical_bernstein_in_a_unit_that_is_large_enough():
    payoffs, largest = stream(2, 400, (1,))
    process, past, log_wealth, spread = EmpiricalBernstein((1,), 0.1), [], 0.0, 0.0
    for payoff, bound in zip(payoffs[:, 0], largest[:, 0], strict=True):
        process.update(np.array([payoff]), bound)
        if payoff == 0:
            continue
        t, mean = len(past) + 1, np.mean(past) if past else 0.0
        unit = max(1, 1 / bound + max(mean, 0))
        share = min(np.sqrt(2 * np.log(10) / ((0.25 + spread) * np.log(1 + t))), 0.5)
        deviation = (payoff - mean) / unit
        assert deviation >= -1 - 1e-12
        log_wealth += share * payoff / unit - deviation**2 * (-np.log(1 - share) - share)
        spread += deviation**2
        past.append(payoff)
    assert process.log_wealth[0] == pytest.approx(log_wealth, rel=1e-9)


# --- windows


@pytest.mark.parametrize("length", [0, 1, 7, 50])
def test_windows_hold_the_last_items_that_matter(length):
    payoffs, _ = stream(3, 300, (2, 3))
    window = Window((2, 3), length)
    for t, payoff in enumerate(payoffs):
        window.add(payoff)
        for place in np.ndindex(2, 3):
            seen = [p for p in payoffs[: t + 1, *place] if p][-length:]
            expected = [np.mean(seen), np.mean(np.square(seen))] if seen else [0, 0]
            np.testing.assert_allclose(window.moments[:, *place], expected, atol=1e-12)
    np.testing.assert_array_equal(window.items, (payoffs != 0).sum(axis=0))


class ListAdwin:
    """ADWIN2 with a list of buckets, newest first."""

    def __init__(self):
        self.buckets, self.items = [], 0

    def add(self, payoff):
        self.buckets.insert(0, [payoff])
        size = 1
        while sum(len(b) == size for b in self.buckets) > 5:
            last = max(i for i, b in enumerate(self.buckets) if len(b) == size)
            merged = self.buckets.pop(last) + self.buckets.pop(last - 1)
            self.buckets.insert(last - 1, merged)
            size *= 2
        self.items += 1
        while self.items % 32 == 0 and self.differs():
            self.buckets.pop()

    def differs(self):
        window = np.concatenate(list(self.buckets))
        log = np.log(2 / (0.002 / np.log(len(window)))) if len(window) > 1 else 0
        for split in range(1, len(self.buckets)):
            new = np.concatenate(self.buckets[:split])
            old = np.concatenate(self.buckets[split:])
            inverse = 1 / len(new) + 1 / len(old)
            allowed = np.sqrt(2 * inverse * window.var() * log) + 2 / 3 * inverse * log
            if abs(new.mean() - old.mean()) > allowed:
                return True
        return False


def test_adwin_is_the_one_with_lists():
    rng = np.random.default_rng(4)
    risks = np.repeat([0.05, 0.5, 0.1, 0.9], 300)
    payoffs = (rng.uniform(size=(3, 1_200)) < risks) - LIMIT
    payoffs[rng.uniform(size=payoffs.shape) < 0.2] = 0
    window, lists, lengths = Adwin((3, 1)), [ListAdwin() for _ in range(3)], []
    for payoff in payoffs.T:
        window.add(payoff[:, None])
        for one, value in zip(lists, payoff, strict=True):
            if value:
                one.add(value)
        seen = [np.concatenate(one.buckets or [[0.0]]) for one in lists]
        np.testing.assert_allclose(
            window.moments[..., 0], [[s.mean() for s in seen], [(s**2).mean() for s in seen]],
            atol=1e-12,
        )  # fmt: skip
        lengths.append([len(s) for s in seen])
    assert (np.diff(lengths, axis=0) < 0).any(axis=0).all()


def test_adwin_forgets_the_oldest_when_full():
    window = Adwin((1,))
    window._filled[:] = 5
    sizes = np.repeat(2.0 ** np.arange(16), 5).reshape(16, 5)
    window._buckets[:2, :, :5, 0] = sizes
    window._buckets[2, :, :5, 0] = sizes
    window._sums[:] = sizes.sum()
    window.add(np.ones(1))
    assert window._sums[0, 0] == window._buckets[0].sum() == sizes.sum() + 1 - 2 * 2**15
    np.testing.assert_array_equal(window.moments, 1)


def test_the_portfolio_is_the_mixture_over_starts():
    """Every bettor at every start by itself, weighted as the docstring says."""
    payoffs, largest = stream(11, 150, (1,), share=1.0)
    bettors = [AGrapa(Window((1,), length)) for length in (50, 150, 450)]
    bettors += [FixedBet((1,), share) for share in (0.06, 0.2)]
    process, factors = WindowPortfolio((1,)), np.empty((5, 150))
    for t, (payoff, bound) in enumerate(zip(payoffs, largest, strict=True)):
        for row, bettor in zip(factors, bettors, strict=True):
            row[t] = 1 + bettor.bets(bound)[0] * payoff[0]
            bettor.update(payoff, bound)
        process.update(payoff, bound)
        cash = 1 / np.log(np.e + np.arange(t + 2))
        from_start = np.cumprod(factors[:, t::-1], axis=1)[:, ::-1]
        wealth = from_start.mean(axis=0) @ (cash[:-1] - cash[1:]) + cash[-1]
        assert process.log_wealth[0] == pytest.approx(np.log(wealth), rel=1e-9, abs=1e-12)


def test_batches_grow_slower_per_item():
    """The figures that `windows` states; the best bet in hindsight on each."""
    kept = {}
    for batch in (1, 5, 10, 20):
        losses = np.arange(batch + 1)
        weights = binom.pmf(losses, batch, 0.2)
        payoffs = losses / batch - LIMIT
        best = minimize_scalar(
            lambda bet, w=weights, g=payoffs: -(w @ np.log1p(bet * g)),
            bounds=(0, 1 / LIMIT), method="bounded",
        )  # fmt: skip
        kept[batch] = -best.fun / batch
    assert kept[1] == pytest.approx(0.2 * np.log(2) + 0.8 * np.log(8 / 9), rel=1e-6)
    lost = [1 - kept[batch] / kept[1] for batch in (5, 10, 20)]
    np.testing.assert_allclose(lost, [0.09, 0.20, 0.40], atol=0.006)


# --- what holds for every strategy


@every
@pytest.mark.parametrize("seed", range(2))
def test_nobody_expects_to_win_at_the_limit(name, seed):
    """Exactly, after every item: over two payoffs of mean 0, the worst loss and a smaller one."""
    payoffs, largest = stream(seed, 150, (4,))
    process = STRATEGIES[name]((4,))
    for payoff, bound in zip(payoffs, largest, strict=True):
        state, before = process.state(), process.log_wealth.copy()
        for loss in (1 / bound, 0.3 / bound):
            for gain in (0.01 / bound, 9 * loss, 100 / bound):
                lost, won = type(process).restore(state), type(process).restore(state)
                lost.update(-loss, bound)
                won.update(gain, bound)
                mean = gain * np.exp(lost.log_wealth - before) + loss * np.exp(
                    won.log_wealth - before
                )
                assert (mean / (gain + loss) <= 1 + 1e-12).all()
        process.update(payoff, bound)


@every
def test_items_that_do_not_matter_change_nothing(name):
    payoffs, largest = stream(5, 200, (2, 3))
    process = run(STRATEGIES[name]((2, 3)), payoffs, largest)
    before, log_wealth = save(process.state()), process.log_wealth.copy()
    process.update(np.zeros((2, 3)), 0.3)
    assert save(process.state()) == before
    half = np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    process.update(half, 0.3)
    assert (process.log_wealth[1] == log_wealth[1]).all()


@every
def test_streams_and_thresholds_know_nothing_of_each_other(name):
    payoffs, largest = stream(6, 300, (2, 3))
    together = run(STRATEGIES[name]((2, 3)), payoffs, largest)
    for place in np.ndindex(2, 3):
        one = np.array(payoffs[:, *place])
        relevant = one != 0
        alone = run(STRATEGIES[name]((1,)), one[relevant, None], largest[:, *place][relevant, None])
        assert alone.log_wealth[0] == pytest.approx(together.log_wealth[place], abs=1e-12)


@every
@pytest.mark.parametrize("cut", [0, 1, 150])
def test_what_is_restored_goes_on_bit_for_bit(name, cut):
    payoffs, largest = stream(7, 300, (2, 3))
    whole = run(STRATEGIES[name]((2, 3)), payoffs, largest)
    part = run(STRATEGIES[name]((2, 3)), payoffs[:cut], largest[:cut])
    stored = save(part.state())
    resumed = run(type(part).restore(load(stored)), payoffs[cut:], largest[cut:])
    assert save(resumed.state()) == save(whole.state())
    assert save(part.state()) == stored  # which shares nothing with the resumed one


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "portfolio"])
def test_a_bet_does_not_see_its_item(name):
    payoffs, largest = stream(8, 100, (2,))
    process = STRATEGIES[name]((2,))
    for payoff, bound in zip(payoffs, largest, strict=True):
        bets = process.bets(bound)
        assert (bets >= 0).all() and (bets < bound).all()
        np.testing.assert_array_equal(process.bets(bound), bets)
        process.update(payoff, bound)


@every
@pytest.mark.parametrize("payoff", [-LIMIT, 1 - LIMIT, 1e-12, -1e-300, 45.0, 1e9])
def test_the_same_payoff_again_and_again(name, payoff):
    process = STRATEGIES[name]((1,))
    for _ in range(2_000):
        process.update(np.array([payoff]), 1 / LIMIT)
    assert np.isfinite(process.log_wealth).all()
    assert payoff > 0 or process.log_wealth[0] <= 1e-12
    assert name == "empirical Bernstein" or payoff < 0.5 or process.log_wealth[0] > 450


@every
def test_ruin_is_impossible(name):
    """Gains make bets large; then all is lost that may be lost, with other largest bets too."""
    process = STRATEGIES[name]((1,))
    for _ in range(500):
        process.update(np.array([1 - LIMIT]), 1 / LIMIT)
    for largest in np.tile([10.0, 1.0, 0.2], 300):
        process.update(np.array([-1 / largest]), largest)
        assert np.isfinite(process.log_wealth).all()


@every
def test_no_thresholds_and_no_streams(name):
    for shape in ((0,), (0, 4), (3, 0)):
        process = STRATEGIES[name](shape)
        process.update(np.zeros(shape), 1.0)
        assert process.log_wealth.shape == shape


@every
def test_false_alarms_are_rare(name):
    """1,000 streams each: at the limit, dips and bursts, Beta losses, and audits of 1 in 10."""
    rng = np.random.default_rng(9)
    streams, items, error = 1_000, 600, 0.1
    shape = (streams, 4)
    process, alarmed = STRATEGIES[name](shape), np.zeros(shape, bool)
    for item in range(items):
        risk = np.array([LIMIT, 0.02 if item % 150 < 75 else LIMIT])
        losses = rng.uniform(size=(streams, 2)) < risk
        score = rng.uniform(size=(streams, 1))
        deployed = 0.05 if item % 2 else 0.3
        chance = np.where(score > deployed, 1.0, 0.1)
        asked = rng.uniform(size=(streams, 1)) < chance
        payoffs = np.hstack(
            [
                losses - LIMIT,
                rng.beta(0.5, 4.5, (streams, 1)) - LIMIT,
                asked / chance * ((score <= LIMIT) - LIMIT),
            ]
        )
        bound = np.array([1, 1, 1, 1.0 if deployed <= LIMIT else 0.1]) / LIMIT
        process.update(payoffs, bound)
        alarmed |= process.log_wealth >= np.log(1 / error)
    assert (alarmed.sum(axis=0) <= binom.ppf(0.999, streams, error)).all()


@pytest.mark.parametrize(
    ("name", "slowest"),
    [
        ("aGRAPA, 50", 160),
        ("ONS", 360),
        ("portfolio", 200),
        ("aGRAPA, ADWIN", 500),
    ],
)
def test_a_late_change_is_found(name, slowest):
    """A risk of 0.2 after 1,500 items of 0.05; 100 streams, the middle one."""
    rng = np.random.default_rng(10)
    process, found = STRATEGIES[name]((100, 1)), np.full(100, 3_000)
    for item in range(2_100):
        risk = 0.05 if item < 1_500 else 0.2
        process.update((rng.uniform(size=(100, 1)) < risk) - LIMIT, 1 / LIMIT)
        new = (process.log_wealth[:, 0] >= np.log(10)) & (found == 3_000)
        found[new] = item - 1_500
    assert 0 < np.median(found) < slowest
