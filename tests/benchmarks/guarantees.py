"""Every stated guarantee, measured by simulation, and controls that must fail.

python -m tests.benchmarks.guarantees

Prints a Markdown table. "held" compares the measured figure with the stated one, allowing three
standard errors of the simulation; a row marked as a control is right when it does not hold.
"""

import time
from collections.abc import Iterator

import numpy as np
from scipy.stats import betabinom, chi2, norm

from ood.conditional import METHODS, conditional_p_values
from ood.conformal import ConformalCalibration, MondrianCalibration
from ood.decision import UNKNOWN_SHARE
from ood.exchangeability import check_exchangeability
from ood.fdr import benjamini_hochberg, conformal_e_values, e_benjamini_hochberg, storey
from ood.simultaneous import FalseDiscoveryEnvelope

LEVEL = 0.05
RATE = 0.1
CLASS_SHARES = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
CLASS_CENTRES = np.array([0.0, 0.5, -0.5, 1.0, 2.0])

Row = tuple[str, str, float, np.ndarray, str]


def at_most(name: str, stated: float, values: np.ndarray, beside: str = "") -> Row:
    """A row for a mean that is stated to be no larger."""
    return name, "<=", stated, np.asarray(values, float), beside


def at_least(name: str, stated: float, values: np.ndarray, beside: str = "") -> Row:
    """A row for a mean that is stated to be no smaller."""
    return name, ">=", stated, np.asarray(values, float), beside


def marginal(draws: int = 10_000) -> Iterator[Row]:
    """Exact error given each calibration set of normal scores."""
    rng = np.random.default_rng(0)
    for n in (200, 1_000):
        sets = np.sort(rng.normal(size=(draws, n)), axis=1)
        fitted = [ConformalCalibration(scores) for scores in sets]
        for rule, level in (("unsure or unknown", LEVEL), ("unknown", LEVEL * UNKNOWN_SHARE)):
            errors = norm.sf([one.threshold(level) for one in fitted])
            yield at_most(
                f"marginal, n = {n:,}, {rule}: type-I error", level, errors,
                f"{(errors <= level).mean():.1%} of sets under it",
            )  # fmt: skip


def mondrian(draws: int = 10_000, n: int = 2_000) -> Iterator[Row]:
    """Five classes with different scores; the two rare ones share a category now and then."""
    rng = np.random.default_rng(1)
    errors, plain = np.empty((2, draws, 5))
    own = np.empty((draws, 5), bool)
    for draw in range(draws):
        predicted = rng.choice(5, n, p=CLASS_SHARES)
        scores = rng.normal(CLASS_CENTRES[predicted])
        fitted = MondrianCalibration.fit(scores, predicted, 5)
        own_sets = [fitted.categories[k] for k in fitted.category_of]
        errors[draw] = norm.sf([one.threshold(LEVEL) for one in own_sets] - CLASS_CENTRES)
        plain[draw] = norm.sf(
            ConformalCalibration(np.sort(scores)).threshold(LEVEL) - CLASS_CENTRES
        )
        own[draw] = np.bincount(fitted.category_of)[fitted.category_of] == 1
    worst = max(range(3), key=lambda c: errors[own[:, c], c].mean())
    yield at_most(
        f"Mondrian, n = {n:,}, worst class of its own: type-I error", LEVEL,
        errors[own[:, worst], worst], f"class {worst}",
    )  # fmt: skip
    shared = ~own
    weights = shared * CLASS_SHARES
    pooled = (errors * weights).sum(axis=1)[shared.any(axis=1)]
    yield at_most(
        "Mondrian, shared category: type-I error", LEVEL,
        pooled / weights.sum(axis=1)[shared.any(axis=1)], f"in {shared.any(axis=1).mean():.0%}",
    )  # fmt: skip
    yield at_most("Mondrian, all images: type-I error", LEVEL, errors @ CLASS_SHARES)
    yield at_most("control: marginal, worst class: type-I error", LEVEL, plain[:, 4])


def conditional(draws: int = 10_000, n: int = 1_000) -> Iterator[Row]:
    """Exact error given each calibration set, at one level and at all levels at once."""
    rng = np.random.default_rng(2)
    sums = np.cumsum(rng.standard_exponential((draws, n + 1)), axis=1)
    uniform = sums[:, :-1] / sums[:, -1:]
    p_values = np.arange(1, n + 1) / (n + 1)
    for name, bounds in (("none", p_values), *((m, f(n)) for m, f in METHODS.items())):
        rank = (conditional_p_values(p_values, bounds) <= LEVEL).sum()
        realised = uniform[:, rank - 1]
        what = "control: no adjustment" if name == "none" else f"conditional, {name}"
        yield at_least(
            f"{what}: share of sets with error <= 5%", 0.95, realised <= LEVEL,
            f"mean error {realised.mean():.2%}",
        )  # fmt: skip
        yield at_least(
            f"{what}: share of sets valid at all levels", 0.95, (uniform <= bounds).all(axis=1)
        )


def false_discoveries(batches: int = 2_000, m: int = 200, n: int = 1_000) -> Iterator[Row]:
    """Batches with a calibration set each; e-BH averages two detectors' e-values."""
    for outliers in (0, m // 100, m // 20, m // 5):
        rng = np.random.default_rng(outliers)
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(batches):
            scores, calibration = rng.normal(size=m), rng.normal(size=n)
            scores[:outliers] += 4
            second = 0.8 * scores + 0.6 * rng.normal(size=m)
            others = np.sort(0.8 * calibration + 0.6 * rng.normal(size=n))
            calibration.sort()
            p_values = ConformalCalibration(calibration).p_values(scores)
            e_values = (
                conformal_e_values(scores, calibration, RATE / 2)
                + conformal_e_values(second, others, RATE / 2)
            ) / 2
            for name, chosen in (
                ("BH", benjamini_hochberg(p_values, RATE)),
                ("Storey-BH", storey(p_values, RATE)),
                ("e-BH, two detectors", e_benjamini_hochberg(e_values, RATE)),
                ("control: p <= 5%", p_values <= LEVEL),
            ):
                wrong = chosen[outliers:].sum() / max(chosen.sum(), 1)
                found.setdefault(name, []).append((wrong, chosen[:outliers].sum()))
        for name, figures in found.items():
            wrong, right = np.array(figures).T
            power = f"finds {right.mean() / outliers:.0%}" if outliers else ""
            yield at_most(f"{name}, {outliers / m:.0%} outliers: FDR", RATE, wrong, power)


def simultaneous(batches: int = 2_000, m: int = 200, n: int = 1_000) -> Iterator[Row]:
    """Whether the bound holds at the level where it is worst, chosen knowing the truth."""
    envelope = FalseDiscoveryEnvelope.simulate(m, n)
    alone = betabinom.ppf(0.95, m, envelope.ranks, n + 1 - envelope.ranks)
    pointwise = FalseDiscoveryEnvelope(envelope.ranks, alone, m, n)
    for outliers in (0, m // 20, m // 5):
        rng = np.random.default_rng(outliers)
        held, single, bounds, truth = [], [], [], []
        for _ in range(batches):
            scores = rng.normal(size=m)
            scores[:outliers] += 4
            p = ConformalCalibration(np.sort(rng.normal(size=n))).p_values(scores)
            known = np.sort(p[outliers:])
            counts = range(1, len(known) + 1)
            held.append(all(envelope.bound(p, t) >= k for t, k in zip(known, counts, strict=True)))
            single.append(
                all(pointwise.bound(p, t) >= k for t, k in zip(known, counts, strict=True))
            )
            bounds.append(envelope.bound(p, 0.01))
            truth.append((known <= 0.01).sum())
        share = f"{outliers / m:.0%} outliers"
        yield at_least(
            f"simultaneous bound, worst level, {share}: coverage", 0.95, np.array(held),
            f"at 1%: bound {np.mean(bounds):.1f}, truth {np.mean(truth):.1f}",
        )  # fmt: skip
        if not outliers:
            yield at_least(
                f"control: bound for one level, worst level, {share}: coverage", 0.95,
                np.array(single),
            )  # fmt: skip


def exchangeability(batches: int = 5_000, m: int = 300, n: int = 2_000) -> Iterator[Row]:
    """Alarms with and without a shift of the images."""
    rng = np.random.default_rng(3)

    def alarms(shift: float, draws: int) -> np.ndarray:
        return np.array(
            [
                check_exchangeability(
                    rng.normal(shift, size=m), np.sort(rng.normal(size=n)), LEVEL
                ).alarm
                for _ in range(draws)
            ]
        )

    yield at_most("exchangeability check: false alarms", 0.05, alarms(0.0, batches))
    for shift in (0.1, 0.25, 0.5):
        yield at_most(f"control: images shifted by {shift} sd: alarms", 0.05, alarms(shift, 300))


def in_sample(draws: int = 500, n: int = 400, dimensions: int = 50) -> Iterator[Row]:
    """A Gaussian's distances thresholded on the images it was fitted on, or on others."""
    rng = np.random.default_rng(4)
    errors = np.empty((2, draws))
    for draw in range(draws):
        fitted, calibration, new = rng.normal(size=(3, n, dimensions))
        mean, precision = fitted.mean(axis=0), np.linalg.inv(np.cov(fitted.T))
        own, held_out, scores = (
            np.einsum("nd,de,ne->n", x - mean, precision, x - mean)
            for x in (fitted, calibration, new)
        )
        for row, reference in zip(errors, (held_out, own), strict=True):
            row[draw] = (ConformalCalibration(np.sort(reference)).p_values(scores) <= LEVEL).mean()
    yield at_most("Mahalanobis, held-out calibration: type-I error", LEVEL, errors[0])
    yield at_most("control: threshold from the fit set: type-I error", LEVEL, errors[1])


def combining(draws: int = 20_000, detectors: int = 6, n: int = 1_000) -> Iterator[Row]:
    """Six detectors, correlated 0.5, on one image, ranked among the same calibration images."""
    rng = np.random.default_rng(5)
    correlate = np.linalg.cholesky(np.full((detectors, detectors), 0.5) + np.eye(detectors) / 2).T
    p_values = np.empty((draws, detectors))
    for first in range(0, draws, 20):
        calibration = np.sort(rng.normal(size=(n, detectors)) @ correlate, axis=0)
        scores = rng.normal(size=(20, detectors)) @ correlate
        for k in range(detectors):
            fitted = ConformalCalibration(calibration[:, k])
            p_values[first : first + 20, k] = fitted.p_values(scores[:, k])
    simes = (np.sort(p_values, axis=1) * detectors / np.arange(1, detectors + 1)).min(axis=1)
    fisher = chi2.sf(-2 * np.log(p_values).sum(axis=1), 2 * detectors)
    # Images that share a calibration set are dependent, so the error is over sets.
    by_set = (-1, 20)
    yield at_most(
        "Simes over 6 correlated detectors: type-I error", LEVEL,
        (simes <= LEVEL).reshape(by_set).mean(axis=1),
    )  # fmt: skip
    yield at_most(
        "control: Fisher by chi-square, the same: type-I error", LEVEL,
        (fisher <= LEVEL).reshape(by_set).mean(axis=1),
    )  # fmt: skip


def main() -> None:
    """Measure and print."""
    start = time.perf_counter()
    print("| guarantee | stated | measured | draws | held | |\n|---|---|---|---|---|---|")
    for part in (
        marginal, mondrian, conditional, false_discoveries, simultaneous, exchangeability,
        in_sample, combining,
    ):  # fmt: skip
        for name, sign, stated, values, beside in part():
            measured, error = values.mean(), values.std() / np.sqrt(len(values))
            excess = (measured - stated) * (1 if sign == "<=" else -1)
            held = "yes" if excess <= 3 * error else "**no**"
            print(
                f"| {name} | {sign} {stated:.3g} | {measured:.4f} ± {error:.4f} | {len(values):,} "
                f"| {held} | {beside} |"
            )
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
