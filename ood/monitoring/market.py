"""A market over thresholds: its prices say where losses have been small lately.

Each threshold is an outcome; every labelled item sells shares of each in proportion to the loss
there, and the maker's prices fall where losses are. After each trade a small tax is shared out
evenly (fixed share; Herbster and Warmuth, Machine Learning 1998), so that no price vanishes and
the prices can follow a best threshold that moves.

A market proposes and proves nothing: evidence stays valid whatever is deployed.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.special import logsumexp

from ood.monitoring.choosing import Restorable

_TOLERANCE = 1e-13
_STEPS = 100

Loss = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Maker(Protocol):
    """A market maker: who buys and sells shares of K thresholds at prices that add up to 1."""

    @property
    def prices(self) -> np.ndarray:
        """(..., K) float64, positive, adding up to 1."""
        ...

    def update(self, losses: np.ndarray) -> None:
        """Trade on one item of each stream.

        Args:
            losses: (..., K), at least 0, times the weight of the item; 0 all over a stream says
                that its item does not matter, and leaves that stream as it was.
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Everything, as arrays that may be stored."""
        ...

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a stored state to the same numbers, bit for bit."""
        ...


class LMSR(Restorable):
    """The logarithmic market scoring rule, which is Hedge with learning rate 1 / depth.

    Cost of having sold q shares: C(q) = b ln sum exp(q / b), prices exp(q / b) / sum (Hanson,
    Journal of Prediction Markets 2007; that it is Hedge of Freund and Schapire: Chen and Vaughan,
    EC 2010). Without a share the maker never loses more than b ln K, which is Hedge's regret.

    Attributes:
        log_prices: (..., K) natural logarithm.
        depth: b, in the unit of losses; the smaller, the faster prices move.
        share: of each price that is dealt out evenly after a trade, from 0 to below 1.
    """

    def __init__(self, shape: tuple[int, ...], depth: float, share: float) -> None:
        """Of (..., K) streams and thresholds, all prices equal."""
        self.log_prices = np.full(shape, -np.log(shape[-1]))
        self.depth = depth
        self.share = share

    @property
    def prices(self) -> np.ndarray:
        """(..., K) float64, positive, adding up to 1."""
        return np.exp(self.log_prices)

    def update(self, losses: np.ndarray) -> None:
        """Trade on one item of each stream; see `Maker.update`."""
        moved = losses.any(axis=-1)
        after = self.log_prices[moved] - losses[moved] / self.depth
        after -= logsumexp(after, axis=-1, keepdims=True)
        self.log_prices[moved] = _share_out(after, self.share)


class ConstantProduct(Restorable):
    """Keeps the product of its reserves; a price is in proportion to one over the reserve.

    Whoever buys pays money, which makes as much of every share, and takes shares out so that the
    product stays (Angeris and Chitra, AFT 2020). Then C(q) = c with prod (c - q) = b^K, so the
    maker can lose its reserve b and no more. It is follow-the-regularised-leader with
    - K b (prod prices)^(1 / K), by duality (Frongillo, Papireddygari and Waggoner, ITCS 2024); the
    log-barrier, whose prices are one over a reserve too, keeps the sum of 1 / reserves instead.
    Prices fall off with one over the distance in loss, not exponentially: more stays on thresholds
    that look bad.

    Attributes:
        log_reserves: (..., K) natural logarithm; their mean is ln b.
        share: as in `LMSR`; the reserves are scaled to the same product.
    """

    def __init__(self, shape: tuple[int, ...], depth: float, share: float) -> None:
        """Of (..., K) streams and thresholds, with `depth` in each reserve."""
        self.log_reserves = np.full(shape, np.log(depth))
        self.share = share

    @property
    def prices(self) -> np.ndarray:
        """(..., K) float64, positive, adding up to 1."""
        return np.exp(_normalise(-self.log_reserves))

    def update(self, losses: np.ndarray) -> None:
        """Trade on one item of each stream; see `Maker.update`."""
        moved = losses.any(axis=-1)
        before = self.log_reserves[moved]
        mean = before.mean(axis=-1, keepdims=True)
        log_prices = _normalise(-_same_product(np.exp(before) + losses[moved], mean))
        log_reserves = -_share_out(log_prices, self.share)
        self.log_reserves[moved] = log_reserves + (mean - log_reserves.mean(axis=-1, keepdims=True))


class Market(Restorable):
    """A `Chooser`: the threshold of the highest price.

    Not the price-weighted median: a constant-product maker leaves much on thresholds that look
    bad, which draws the median to the middle of the grid, for good where the best threshold lies
    at an end. With an LMSR maker the two hardly differ on real scores.

    Attributes:
        thresholds: (K,) ascending.
    """

    def __init__(self, thresholds: np.ndarray, maker: Maker, loss: Loss) -> None:
        """Of a maker of (..., K) prices, fed with this loss of labelled items."""
        self.thresholds, self._maker, self._loss = thresholds, maker, loss

    @property
    def prices(self) -> np.ndarray:
        """(..., K) float64, positive, adding up to 1."""
        return self._maker.prices

    @property
    def threshold(self) -> np.ndarray:
        """(...) for the next item."""
        return self.thresholds[self.prices.argmax(axis=-1)]

    def observe(self, score: np.ndarray, unknown: np.ndarray, weight: np.ndarray) -> None:
        """Trade on one item of each stream; see `Chooser.observe`."""
        losses = self._loss(self.thresholds, score, unknown)
        self._maker.update(losses * np.asarray(weight)[..., None])

    def state(self) -> dict[str, np.ndarray]:
        """That of the maker; thresholds and loss are settings."""
        return self._maker.state()

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over a stored state."""
        self._maker.restore(state)


def _normalise(log_prices: np.ndarray) -> np.ndarray:
    normalised: np.ndarray = log_prices - logsumexp(log_prices, axis=-1, keepdims=True)
    return normalised


def _share_out(log_prices: np.ndarray, share: float) -> np.ndarray:
    if share == 0:
        return log_prices
    return np.logaddexp(log_prices + np.log1p(-share), np.log(share / log_prices.shape[-1]))


def _same_product(reserves: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(M, K) logarithms of reserves less one number a row, so that their mean is as given.

    By Newton's method in the logarithm of the smallest reserve, in which the sum of logarithms is
    convex with a slope of at least 1: from above it converges without ever overshooting.
    """
    smallest = reserves.min(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        log_gaps = np.log(reserves - smallest)
    log_smallest = np.log(smallest)
    for _ in range(_STEPS):
        log_reserves = np.logaddexp(log_gaps, log_smallest)
        excess = (log_reserves - mean).sum(axis=-1, keepdims=True)
        slope = np.exp(log_smallest - log_reserves).sum(axis=-1, keepdims=True)
        log_smallest = log_smallest - excess / slope
        if (excess <= _TOLERANCE * reserves.shape[-1]).all():
            break
    return np.logaddexp(log_gaps, log_smallest)
