"""The rules that a monitor can choose thresholds by, ready to start."""

from typing import assert_never

import numpy as np
from scipy.special import logsumexp

from ood.monitoring.adaptive_levels import DtACI
from ood.monitoring.baselines import Fixed, LargestNotRejected, QuantileTracking
from ood.monitoring.bets import AGrapa
from ood.monitoring.choosing import Chooser
from ood.monitoring.losses import Pinball
from ood.monitoring.market import LMSR, ConstantProduct, Market
from ood.monitoring.settings import Settings, Strategy
from ood.monitoring.windows import Window

# Of those tried in tests/benchmarks/monitoring_choosing.py on real scores.
_LMSR = {"depth": 0.4, "share": 0.0005}
_PRODUCT = {"depth": 5.0, "share": 0.02}
_STEP = 0.01
_RECENT = 1_000
_BURN_IN = 100
_PRIOR = 10.0
_MARKETS = (Strategy.MARKET, Strategy.CERTIFIED, Strategy.CONSTANT_PRODUCT)


def obeys_tests(strategy: Strategy) -> bool:
    """Whether no threshold that is called violated is deployed; the others are as published."""
    return strategy in _MARKETS


def start_chooser(settings: Settings, thresholds: np.ndarray, calibration: np.ndarray) -> Chooser:
    """A rule for one stream, before its first item.

    Args:
        settings: what is wanted.
        thresholds: (K,) ascending.
        calibration: (n,) scores of held-out known images.
    """
    start = np.quantile(calibration, 1 - settings.start_level)
    shape, target = (len(thresholds),), settings.miss_target
    # A market begins as if a few unknown images had agreed on the threshold to start from.
    distances = np.abs(np.arange(len(thresholds)) - np.searchsorted(thresholds, start))
    doubt = _PRIOR * distances / len(thresholds)
    match settings.strategy:
        case Strategy.MARKET | Strategy.CERTIFIED:
            hedge = LMSR(shape, **_LMSR)
            hedge.log_prices = -doubt - logsumexp(-doubt)
            return Market(thresholds, hedge, Pinball(target))
        case Strategy.CONSTANT_PRODUCT:
            maker = ConstantProduct(shape, **_PRODUCT)
            maker.log_reserves += doubt - doubt.mean()
            return Market(thresholds, maker, Pinball(target))
        case Strategy.FIXED:
            return Fixed((), float(start))
        case Strategy.NOT_REJECTED:
            process = AGrapa(Window(shape, 0), _BURN_IN)
            return LargestNotRejected(
                thresholds, settings.miss_limit, settings.error, settings.audit_floor, process
            )
        case Strategy.QUANTILE_TRACKING:
            spread = float(np.diff(np.quantile(calibration, [0.05, 0.95]))[0])
            return QuantileTracking(start, target, _STEP * spread)
        case Strategy.DTACI:
            return DtACI(start, target, _RECENT)
    assert_never(settings.strategy)
