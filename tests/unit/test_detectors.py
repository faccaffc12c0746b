"""What holds for every detector, on clusters that look like features behind a ReLU."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from models.activations import Activations, Head
from models.bank import Bank, TuningSet, normalise_rows
from ood.detectors import DETECTORS, Energy
from ood.detectors.exact_quantile import exact_quantile
from ood.detectors.subspace import null_point, principal_dimensions
from ood.metrics import evaluate
from ood.store import load_fitted, save_fitted
from tests.unit.test_bank import bank_of, observed, tuning_of

CLASSES, DIM = 6, 64


class World:
    """Training, tuning and asked images: clusters of features, and a head for them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        centres = 3 * rng.random((CLASSES, DIM)) * (rng.random((CLASSES, DIM)) < 0.4)
        spread = 0.3 * rng.normal(size=(DIM, DIM)) * np.geomspace(1, 0.1, DIM)
        directions = centres - centres.mean(axis=0)
        weight = 6 * directions / np.square(directions).sum(axis=1, keepdims=True)
        weight += 0.1 * rng.normal(size=weight.shape)  # a head of full rank
        bias = -weight @ centres.mean(axis=0) + rng.normal(0, 0.2, CLASSES)
        self.head = Head(weight.astype(np.float32), bias.astype(np.float32))

        def draw(n: int, seed: int):
            labels = rng.integers(0, CLASSES, n)
            noise = rng.normal(size=(n, DIM)) @ spread
            return self.seen(np.maximum(centres[labels] + noise, 0), labels, seed)

        self.bank = Bank(draw(4_000, 1), self.head)
        self.tuning = TuningSet(draw(500, 2), self.bank)
        known, unknown = draw(300, 3), 0.5 * rng.random((300, DIM)) * centres.max()
        unknown *= rng.random((300, DIM)) < 0.4
        odd = self.seen(unknown, np.zeros(300, int), 4)
        self.queries = self.bank.locate(
            Activations(
                *(
                    np.concatenate([getattr(s.activations, part) for s in (known, odd)])
                    for part in ("logits", "features")
                ),
                means=(np.concatenate([s.activations.means[0] for s in (known, odd)]),),
                maxima=(np.concatenate([s.activations.maxima[0] for s in (known, odd)]),),
            )
        )

    def seen(self, features, labels, seed):
        images = observed(features, labels, seed=seed)
        features = images.activations.features
        logits = features @ self.head.weight.T + self.head.bias
        means = (np.ascontiguousarray(features[:, ::4]),)
        maxima = (np.ascontiguousarray(features[:, 1::4]),)
        return replace(images, activations=Activations(logits, features, means, maxima))

    @cache  # noqa: B019
    def fitted(self, name):
        return DETECTORS[name].fit(self.bank, self.tuning)


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.mark.parametrize("name", DETECTORS)
def test_larger_means_more_outlying(world, name):
    scores = world.fitted(name).score(world.queries)
    assert scores.dtype == np.float32 and scores.shape == (600,)
    assert np.median(scores[300:]) > np.median(scores[:300])


@pytest.mark.parametrize("name", DETECTORS)
def test_scores_do_not_depend_on_the_batch(world, name):
    detector = world.fitted(name)
    alone = world.bank.locate(world.queries.take(np.arange(7, 8)))
    together = detector.score(world.queries)
    tolerance = 1e-4 * np.abs(together).max()
    np.testing.assert_allclose(together[7], detector.score(alone)[0], rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("name", DETECTORS)
def test_saved_detectors_score_the_same(world, name, tmp_path):
    detector = world.fitted(name)
    save_fitted(detector, tmp_path / "d.safetensors")
    again = load_fitted(DETECTORS[name], tmp_path / "d.safetensors")
    np.testing.assert_array_equal(detector.score(world.queries), again.score(world.queries))


@pytest.mark.parametrize("name", DETECTORS)
def test_fits_are_the_same_each_time_and_from_float16(world, name):
    bank = Bank(world.bank.images, world.head)
    again = DETECTORS[name].fit(bank, world.tuning).score(world.queries)
    first = world.fitted(name).score(world.queries)
    np.testing.assert_array_equal(first, again)
    known = bank.images.activations
    halved = replace(
        known,
        features=known.features.astype(np.float16),
        logits=known.logits.astype(np.float16),
    )
    bank = Bank(replace(bank.images, activations=halved), world.head)
    rough = DETECTORS[name].fit(bank, world.tuning).score(world.queries)
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough, first, atol=0.05 * np.ptp(first))


def test_a_detector_of_another_kind_does_not_load(world, tmp_path):
    save_fitted(world.fitted("knn"), tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="ViM needs"):
        load_fitted(DETECTORS["vim"], tmp_path / "d.safetensors")


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize(
    "kind", ["identical", "zeros", "one class", "constant features", "few", "one image", "large"]
)
def test_degenerate_training_sets_give_finite_scores(name, kind):
    rng = np.random.default_rng(0)
    features = {
        "identical": np.ones((60, 8)),
        "zeros": np.zeros((60, 8)),
        "one class": rng.normal(size=(60, 8)),
        "constant features": np.hstack([rng.normal(size=(60, 4)), np.ones((60, 4))]),
        "few": rng.normal(size=(5, 8)),
        "one image": rng.normal(size=(1, 8)),
        "large": 1e4 * rng.normal(size=(60, 8)),
    }[kind]
    labels = np.zeros(len(features), int) if kind == "one class" else np.arange(len(features)) % 3
    bank = bank_of(features, labels)
    asked = np.vstack([rng.normal(size=(5, 8)), np.zeros((1, 8)), -np.ones((1, 8)), features[:1]])
    queries = bank.locate(observed(asked, seed=3).activations)
    with np.errstate(all="raise", under="ignore"):
        scores = DETECTORS[name].fit(bank, tuning_of(bank)).score(queries)
    assert np.isfinite(scores).all()


@pytest.fixture(scope="module", params=["rank 4", "rank 8", "rank 16", "falling"])
def narrow(request):
    """512 float16 features that fill few directions: known, new known and strange images."""
    rng, kind = np.random.default_rng(0), request.param
    falling = kind == "falling"  # deviations 1, 1/4, 1/9, ...
    rank = 512 if falling else int(kind.split()[1])
    mix = np.diag(np.arange(1.0, 513) ** -2) if falling else rng.normal(size=(rank, 512))
    centres = 4 * rng.normal(size=(3, rank))

    def seen(n, spread, seed):
        labels = np.arange(n) % 3
        within = spread * rng.normal(size=(n, rank))
        hidden = within + (centres[labels] if spread == 1 else 0)
        vectors = (hidden @ mix).astype(np.float16)
        return replace(
            observed(vectors, labels, seed=seed),
            activations=Activations(
                logits=rng.normal(size=(n, 3)).astype(np.float32),
                features=vectors,
                means=(rng.normal(size=(n, 4)).astype(np.float32),),
                maxima=(vectors,),
            ),
        )

    bank = Bank(seen(5_200, 1, 1), Head(np.eye(3, 512, dtype=np.float32), np.zeros(3, np.float32)))
    return bank, seen(500, 1, 2).activations, seen(500, 8, 3).activations


@pytest.mark.parametrize("name", ["mds", "mds++", "rmds", "rmds++", "layers", "maxima"])
def test_gaussians_stand_features_that_fill_few_directions(narrow, name):
    """The rest of the covariance is what float32 got wrong, half of it negative."""
    bank, *asked = narrow
    if name == "layers":  # as many numbers as not to be shrunk: ten images for each of 520
        few = [replace(a, features=a.means[0]) for a in (bank.images.activations, *asked)]
        bank, *asked = Bank(replace(bank.images, activations=few[0]), bank.head), *few[1:]
    known, strange = map(DETECTORS[name].fit(bank, None).score, asked)
    assert np.isfinite(known).all() and np.isfinite(strange).all()
    assert evaluate(known, strange).auroc > 0.8


def test_distances_are_those_of_float64_even_in_few_directions(narrow):
    bank, known, _ = narrow
    features, labels = np.float64(bank.images.activations.features), bank.images.labels
    means = np.stack([features[labels == c].mean(axis=0) for c in range(3)])
    around = features - means[labels]
    covariance = around.T @ around / len(around)
    ridge = 2.0**-23 * np.sqrt(2_048 * np.diag(covariance).max() * np.trace(covariance))
    precision = np.linalg.inv(covariance + ridge * np.eye(512))
    to_means = np.float64(known.features)[:, None] - means
    expected = np.einsum("ncd,de,nce->nc", to_means, precision, to_means, optimize=True)
    ours = DETECTORS["mds"].fit(bank, None).score(known)
    np.testing.assert_allclose(ours, expected.min(axis=1), rtol=0.1)


@pytest.mark.parametrize("name", ["rmds", "rmds++"])
def test_more_classes_than_directions_have_a_background_all_the_same(name):
    """Classes of copies, and of very different sizes: what lies between them is all there is."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(30), rng.choice(30, 570, p=rng.dirichlet(np.full(30, 0.3)))])
    images = observed(rng.normal(size=(30, 4))[labels], labels)
    bank = Bank(images, Head(np.eye(30, 4, dtype=np.float32), np.zeros(30, np.float32)))
    assert np.isfinite(DETECTORS[name].fit(bank, None).score(images.activations)).all()


def test_one_image_repeated_has_a_distribution_too():
    """All roundings of a product of copies go the same way."""
    image = np.random.default_rng(0).normal(size=512)
    features = np.where(np.arange(5_200)[:, None] % 2, image, -image)
    bank = bank_of(features, np.zeros(5_200))
    scores = DETECTORS["mds"].fit(bank, None).score(bank.images.activations)
    np.testing.assert_allclose(scores, 1, rtol=0.05)


@pytest.mark.parametrize("name", DETECTORS)
def test_each_detector_names_its_source_and_reads_only_what_it_declares(world, name):
    info, seen = DETECTORS[name].info, world.queries
    assert info.name == name and info.paper.url.startswith("https://")
    assert info.question.endswith("?") and info.question.count("?") == 1

    def declared(part):
        value = getattr(seen, part)
        if part in info.consumes:
            return value
        return () if isinstance(value, tuple) else np.full_like(value, np.nan)

    parts = {part: declared(part) for part in ("logits", "features", "means", "maxima")}
    neighbours = seen.neighbours if "neighbours" in info.consumes else None
    detector = world.fitted(name)
    np.testing.assert_array_equal(
        detector.score(Activations(**parts, neighbours=neighbours)), detector.score(seen)
    )


def test_names_titles_and_questions_are_each_their_own():
    infos = [kind.info for kind in DETECTORS.values()]
    for part in ("name", "title", "question"):
        assert len({getattr(info, part) for info in infos}) == len(infos)


def test_knn_without_neighbours_says_what_to_do(world):
    with pytest.raises(ValueError, match=r"Bank\.locate"):
        DETECTORS["knn"](k=1).score(world.queries.take(np.arange(3)))


def test_vim_takes_the_papers_dimensions():
    assert [principal_dimensions(d) for d in (64, 768, 2048)] == [32, 512, 1000]
    bank = Bank(observed(np.eye(6)), Head(np.zeros((3, 6), np.float32), np.ones(3, np.float32)))
    assert DETECTORS["vim"].fit(bank, tuning_of(bank)).residual.shape == (6, 3)


def test_a_head_of_lower_rank_has_a_null_point_all_the_same(world):
    """sum_c w_c = 0 up to float32, as weight decay leaves it; b moves along it, which changes no
    probability."""
    weight = world.head.weight - world.head.weight.mean(axis=0)
    bias = (weight @ np.linspace(0, 1, DIM) + 3).astype(np.float32)
    point = null_point(Head(weight, bias))
    np.testing.assert_allclose(weight @ point + bias, 3, atol=1e-4)
    assert np.linalg.norm(point) <= np.linalg.norm(np.linspace(0, 1, DIM)) + 1e-4


@pytest.mark.parametrize("shaper", ["react", "ash", "scale", "dice"])
@pytest.mark.parametrize("scorer", ["msp", "maxlogit", "energy"])
def test_any_score_of_logits_follows_any_shaping(world, shaper, scorer):
    shaping = world.fitted(shaper)
    shaped = shaping.apply(world.queries)
    assert shaped.logits.dtype == np.float32 and shaped.features is world.queries.features
    scores = world.fitted(scorer).score(shaped)
    assert scores.shape == (600,) and not np.array_equal(
        scores, world.fitted(scorer).score(world.queries)
    )
    np.testing.assert_array_equal(shaping.score(world.queries), Energy().score(shaped))


@pytest.mark.parametrize("shaper", ["ash", "scale"])
def test_shaping_stays_bounded_for_features_that_may_be_negative(world, shaper):
    features = np.random.default_rng(0).normal(size=(200, DIM)).astype(np.float32)
    features[0] = -1
    factor = np.abs(world.fitted(shaper).shape(features)) / np.abs(features)
    assert factor.max() < np.exp(12)
    kept = factor[factor > 0]
    assert kept.min() >= np.e - 1e-5


@pytest.mark.parametrize("level", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("kind", ["spread", "ties", "constant", "the sample misleads"])
def test_a_quantile_in_parts_is_exact(level, kind):
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(size=(3_000, 7)), 0).astype(np.float32)
    if kind == "ties":
        features = features.round(1)
    if kind == "constant":
        features[:] = 2
    if kind == "the sample misleads":
        features[::3] += 100
    expected = np.quantile(features, level, method="inverted_cdf")
    assert exact_quantile(features, level) == expected


def test_unit_vectors_and_raw_features_part_ways(world):
    """Twice the features is the same image to mds++ and another to mds."""
    seen = world.queries
    doubled = replace(seen, features=2 * seen.features)
    for name, same in {"mds++": True, "rmds++": True, "mds": False, "rmds": False}.items():
        one, two = (world.fitted(name).score(a) for a in (seen, doubled))
        assert np.allclose(one, two, rtol=1e-3, atol=1e-3) == same
    unit = Bank(
        replace(
            world.bank.images,
            activations=replace(
                world.bank.images.activations,
                features=normalise_rows(world.bank.images.activations.features),
            ),
        ),
        world.head,
    )
    raw = DETECTORS["mds"].fit(unit, world.tuning)
    np.testing.assert_allclose(
        raw.score(replace(seen, features=normalise_rows(seen.features))),
        world.fitted("mds++").score(seen),
        rtol=1e-4,
    )
