import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, laplace
from scipy.optimize import linprog
from scipy.stats import entropy

from models.bank import normalise_rows
from ood.cluster_checks import (
    STATISTICS,
    artefact_z,
    dip_p_value,
    dip_statistic,
    even_rows,
    image_statistics,
    mmd_test,
    prediction_entropy,
    separation,
)


def dip_by_linear_programs(values) -> float:
    """Over all modes: the nearest distribution that is convex up to it and concave from it on."""
    x, counts = np.unique(values, return_counts=True)
    upper = counts.cumsum() / counts.sum()
    lower = upper - counts / counts.sum()
    return max(min(nearest_with_mode(x, lower, upper, m) for m in range(len(x))), 0.5 / len(values))


def nearest_with_mode(x, lower, upper, mode) -> float:
    """The distribution may jump at its mode; its values there are numbers `mode` and `mode + 1`."""
    k, rows, bounds = len(x), [], []

    def at_most(bound, *terms):
        rows.append(np.zeros(k + 2))
        for place, factor in terms:
            rows[-1][place] += factor
        bounds.append(bound)

    below, above = range(mode + 1), range(mode, k)
    for i in below:
        at_most(lower[i], (i, 1), (-1, -1))
        at_most(-(lower if i == mode else upper)[i], (i, -1), (-1, -1))
    for i in above:
        at_most((upper if i == mode else lower)[i], (i + 1, 1), (-1, -1))
        at_most(-upper[i], (i + 1, -1), (-1, -1))
    for i in range(k):
        at_most(0, (i, 1), (i + 1, -1))
    for sign, side, shift in ((1, below, 0), (-1, above, 1)):
        for i in side[1:-1]:
            before, after = sign / (x[i] - x[i - 1]), sign / (x[i + 1] - x[i])
            at_most(
                0, (i + shift, before + after), (i - 1 + shift, -before), (i + 1 + shift, -after)
            )
    cost = np.eye(k + 2)[-1]
    return linprog(cost, A_ub=np.array(rows), b_ub=bounds, bounds=(0, 1)).fun


@pytest.mark.parametrize("kind", ["one mode", "two modes", "few values", "rounded"])
def test_the_dip_is_the_distance_to_the_nearest_unimodal_distribution(kind):
    rng = np.random.default_rng(0)
    for _ in range(12):
        n = int(rng.integers(2, 22))
        values = {
            "one mode": rng.normal(size=n),
            "two modes": np.concatenate([rng.normal(size=n), rng.normal(5, 1, n)]),
            "few values": rng.integers(0, 6, n).astype(float),
            "rounded": rng.normal(size=n).round(1),
        }[kind]
        assert dip_statistic(values) == pytest.approx(dip_by_linear_programs(values), abs=1e-7)


def test_dips_that_are_known():
    assert dip_statistic(np.arange(10.0)) == 0.05  # 1/2n: as evenly spread as can be
    assert dip_statistic(np.zeros(50)) == 0.01
    assert dip_statistic(np.array([3.0])) == 0.5
    two_places = np.repeat([0.0, 1.0], 50)
    assert dip_statistic(two_places) == pytest.approx(0.25)
    rng = np.random.default_rng(1)
    values = rng.normal(size=100)
    assert dip_statistic(7 - 3 * values) == pytest.approx(dip_statistic(values))


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf]])
def test_no_dip_of_nothing_or_nan(values):
    with pytest.raises(ValueError, match="finite"):
        dip_statistic(np.array(values))


def test_p_values_of_the_dip():
    rng = np.random.default_rng(2)
    for n in (30, 500):
        p = np.array([dip_p_value(dip_statistic(rng.uniform(size=n)), n) for _ in range(200)])
        assert 0.01 <= (p <= 0.05).mean() <= 0.10
        assert 0.4 <= p.mean() <= 0.6
        bimodal = np.concatenate([rng.normal(size=n), rng.normal(6, 1, n)])
        assert dip_p_value(dip_statistic(bimodal), 2 * n) <= 0.01
    # Of uniform samples, 5% have a larger dip: the table of the R package diptest (Maechler).
    for n, quantile in ((20, 0.10513), (50, 0.07027), (100, 0.05113), (200, 0.03684)):
        assert 0.03 <= dip_p_value(quantile, n) <= 0.07


def test_mmd_by_its_definition():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(9, 4)), rng.normal(0.5, 1, size=(6, 4))
    together = np.concatenate([first, second])
    squares = np.square(together[:, None] - together[None]).sum(axis=2)
    bandwidth = np.median(squares[np.triu_indices(15, 1)])

    def mean_kernel(a, b):
        return np.mean([np.exp(-np.square(x - y).sum() / (2 * bandwidth)) for x in a for y in b])

    expected = mean_kernel(first, first) + mean_kernel(second, second)
    expected -= 2 * mean_kernel(first, second)
    assert mmd_test(first, second)[0] == pytest.approx(expected)


def test_mmd_keeps_its_level_and_has_power():
    rng = np.random.default_rng(4)
    same = [mmd_test(rng.normal(size=(20, 5)), rng.normal(size=(30, 5)))[1] for _ in range(150)]
    assert (np.array(same) <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
    assert mmd_test(rng.normal(size=(20, 5)), rng.normal(1, 1, size=(30, 5)))[1] == 1 / 500
    equal = np.ones((5, 3))
    assert mmd_test(equal, equal) == (0, 1)
    assert mmd_test(equal[:1], equal[:1] + 1)[1] == 1


def classes_and_more(rng, kind, n=3_000, inspected=3_000):
    """Two known classes; members that are a tail of the first, or a third class beside it."""
    middle = np.zeros((2, 16))
    middle[:, 0], middle[1, 1] = 20, 12
    known = np.concatenate([rng.normal(size=(n // 2, 16)) + m for m in middle])
    stream = rng.normal(size=(inspected // 2, 16)) + middle[0]
    if kind == "tail":
        order = np.argsort(stream[:, 2])[-inspected // 20 :]
        found = stream[rng.permutation(order)]
    else:
        found = stream[: inspected // 10] + 8 * np.eye(16)[2]
    formed, held_out = np.array_split(found, 2)
    centre = normalise_rows(formed).mean(axis=0)
    return centre, held_out, known, np.repeat([4, 7], n // 2), inspected // 2


def test_a_class_is_a_mode_of_its_own_and_a_tail_is_not():
    rng = np.random.default_rng(5)
    for _ in range(5):
        found = separation(*classes_and_more(rng, "class"))
        assert (found.nearest, found.members) == (4, 150)
        assert found.dip_p <= 0.01 and found.mmd_p <= 0.01 and 0.2 < found.distance < 0.6
        assert separation(*classes_and_more(rng, "tail")).dip_p > 0.05


def test_members_that_are_the_class_itself_look_like_it():
    rng = np.random.default_rng(6)
    found = []
    for _ in range(60):
        known = rng.normal(size=(200, 6)) + 5
        members = rng.normal(size=(40, 6)) + 5
        centre = normalise_rows(rng.normal(size=(40, 6)) + 5).mean(axis=0)
        found.append(separation(centre, members, known, np.zeros(200, int), 400))
    for name in ("dip_p", "mmd_p"):
        assert np.mean([getattr(f, name) <= 0.05 for f in found]) <= 0.05 + 3 * np.sqrt(0.05 / 60)


def test_one_member_and_bad_ones():
    known, labels = np.eye(4), np.arange(4)
    found = separation(np.eye(4)[0], np.eye(4)[:1], known, labels, 1)
    assert (found.nearest, found.distance, found.mmd, found.mmd_p) == (0, 0, 0, 1)
    assert found.dip_p == 1
    with pytest.raises(ValueError, match="members"):
        separation(np.eye(4)[0], np.full((1, 4), np.nan), known, labels, 1)
    with pytest.raises(ValueError, match="members"):
        separation(np.eye(4)[0], np.empty((0, 4)), known, labels, 1)
    with pytest.raises(ValueError, match="among 1 images"):
        separation(np.eye(4)[0], np.eye(4), known, labels, 1)


def test_entropies():
    sure = prediction_entropy(20 * np.eye(3))
    assert sure.of_images == pytest.approx(0, abs=1e-6)
    assert sure.of_classes == pytest.approx(np.log(3))
    unsure = prediction_entropy(np.zeros((5, 4)))
    assert unsure.of_images == pytest.approx(np.log(4)) and unsure.of_classes == 0
    logits = np.random.default_rng(0).normal(size=(30, 6))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert prediction_entropy(logits).of_images == pytest.approx(entropy(softmax, axis=1).mean())
    assert prediction_entropy(np.array([[1e4, 0.0]])).of_images == 0


def test_image_statistics():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 3, 17, 17)).astype(np.uint8)
    pixels[0], pixels[1] = 0, 200
    pixels[1, :, :, :5] = 7
    found = image_statistics(pixels, np.array([[9, 4]] * 6))
    assert found.shape == (6, len(STATISTICS))
    np.testing.assert_array_equal(found[0], [0, 0, 0, 1, 6])
    assert found[1, 3] == pytest.approx(5 / 17)
    gray = pixels.astype(float).mean(axis=1)
    np.testing.assert_allclose(found[:, 2], [laplace(g, mode="nearest").var() for g in gray])
    np.testing.assert_allclose(found[:, 1], gray.std(axis=(1, 2)))
    assert image_statistics(pixels[:0], np.empty((0, 2))).shape == (0, 5)


def test_artefacts_stand_out_and_normal_images_do_not():
    rng = np.random.default_rng(1)
    images = gaussian_filter(rng.normal(size=(300, 1, 28, 28)), (0, 0, 1, 1))
    pixels = np.clip(110 + 150 * images, 0, 255).astype(np.uint8)
    blurred = gaussian_filter(pixels[:40].astype(float), (0, 0, 2, 2)).astype(np.uint8)
    small, black = np.full((40, 2), 8), np.zeros_like(pixels[:40])
    sizes = np.full((260, 2), 28)
    normal = image_statistics(pixels[40:], sizes)

    def z(pixels, sizes):
        found = artefact_z(image_statistics(pixels, sizes), normal)
        return dict(zip(STATISTICS, found.tolist(), strict=True))

    assert all(abs(value) < 1 for value in z(pixels[:40], sizes[:40]).values())
    assert z(blurred, sizes[:40])["sharpness"] < -3.5
    assert z(black, sizes[:40])["black"] > 3.5
    assert z(pixels[:40], small)["size"] == -np.inf


def test_robust_z_by_hand():
    normal = np.array([[0.0, 0, 1], [1, 0, 1], [2, 0, 1], [3, 0, 1], [50, 4, 1]])
    found = artefact_z(np.array([[5.0, 4, 1], [5, 4, 1]]), normal)
    np.testing.assert_allclose(found, [3 / 1.4826, 4 / (np.sqrt(np.pi / 2) * 0.8), 0])


def test_even_rows():
    np.testing.assert_array_equal(even_rows(3, 10), [0, 1, 2])
    np.testing.assert_array_equal(even_rows(11, 3), [0, 5, 10])
    np.testing.assert_array_equal(even_rows(5, 1), [0])
    assert len(even_rows(0, 5)) == 0
