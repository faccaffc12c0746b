import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from models.bank import normalise_rows
from ood.learned_class import L2, NEIGHBOURS, LearnedClass


@pytest.fixture
def world():
    """Three known classes and a new one apart from them, in 10 features."""
    rng = np.random.default_rng(0)
    middle = 3 * np.eye(4, 10)
    labels = np.repeat(np.arange(3), 100)
    features = middle[labels] + rng.normal(size=(300, 10))
    new = middle[3] + rng.normal(size=(260, 10))
    theta = 2 * np.eye(3, 10)
    return features, features @ theta.T, new, new @ theta.T, labels


def test_the_new_row_minimises_the_joint_cross_entropy(world):
    """Second route: the whole softmax with one row free, by a general optimiser."""
    features, logits, new, new_logits, _ = world
    found = LearnedClass.learn(features, logits, new[:20], new_logits[:20])
    scale = np.linalg.norm(features, axis=1).mean()
    weights = np.append(np.full(300, 1 / 300), np.full(20, 1 / (3 * 20)))

    def objective(flat):
        own = np.concatenate([features, new[:20]]) @ flat[:-1] / scale + flat[-1]
        z = np.column_stack([np.concatenate([logits, new_logits[:20]]), own])
        log_p = log_softmax(z, axis=1)
        of_known = logsumexp(log_p[:300, :3], axis=1)  # which of the known ones is not asked
        losses = -np.append(of_known, log_p[300:, 3])
        return weights @ losses + L2 / 2 * (flat[:-1] ** 2).sum()

    best = minimize(objective, np.zeros(11), method="L-BFGS-B", options={"ftol": 1e-15})
    ours = np.append(found.weight * scale, found.bias)
    assert objective(ours) <= best.fun + 1e-9
    assert found.logit(new).shape == (260,)


def test_it_knows_the_class_and_hardly_forgets_the_others(world):
    features, logits, new, new_logits, _ = world
    found = LearnedClass.learn(features, logits, new[:20], new_logits[:20])
    assert (found.logit(new[20:]) > new_logits[20:].max(axis=1)).mean() > 0.85
    assert (found.logit(features) < logits.max(axis=1)).mean() > 0.95


def by_the_book(members, x):
    """The n + 1 scores anew for one image, as the definition has it."""
    everyone = np.vstack([members, x])
    distances = np.linalg.norm(everyone[:, None] - everyone[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    k = min(NEIGHBOURS, len(members) - 1)
    scores = np.sort(distances, axis=1)[:, :k].mean(axis=1)
    return (scores >= scores[-1] * (1 - 1e-7)).mean()


@pytest.mark.parametrize("n", [2, 3, 6, 40])
def test_p_values_are_those_of_full_conformal_prediction(world, n):
    features, logits, new, new_logits, _ = world
    found = LearnedClass.learn(features, logits, new[:n], new_logits[:n])
    asked = np.concatenate([new[100:130], features[:10], new[:2]])
    expected = [by_the_book(normalise_rows(new[:n]), normalise_rows(x[None])) for x in asked]
    np.testing.assert_allclose(found.p_values(asked), expected, atol=1e-9)


def test_at_most_a_share_alpha_of_the_class_has_p_below_alpha():
    rng = np.random.default_rng(1)
    low = []
    for _ in range(300):
        new = rng.normal(size=(25, 6)) + 2
        found = LearnedClass.learn(
            rng.normal(size=(50, 6)), np.zeros((50, 2)), new[:24], np.zeros((24, 2))
        )
        low.append(found.p_values(new[24:])[0])
    for alpha in (0.04, 0.1, 0.3):
        share = (np.array(low) <= alpha).mean()
        assert share <= alpha + 2 * np.sqrt(alpha * (1 - alpha) / 300)
    assert np.mean(low) < 0.6  # and they are not merely large


def test_strangers_are_not_of_the_class(world):
    features, logits, new, new_logits, _ = world
    found = LearnedClass.learn(features, logits, new[:60], new_logits[:60])
    assert (found.p_values(features) <= 0.05).mean() > 0.9


def test_too_few_and_broken_images_are_refused(world):
    features, logits, new, new_logits, _ = world
    with pytest.raises(ValueError, match="needs 2 images at least, not 1"):
        LearnedClass.learn(features, logits, new[:1], new_logits[:1])
    new[3, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        LearnedClass.learn(features, logits, new[:9], new_logits[:9])


def test_copies_of_one_image_are_a_class(world):
    features, logits, new, new_logits, _ = world
    same, same_logits = np.tile(new[:1], (5, 1)), np.tile(new_logits[:1], (5, 1))
    found = LearnedClass.learn(features, logits, same, same_logits)
    assert found.p_values(new[:1])[0] == 1
    assert found.p_values(new[1:2])[0] == pytest.approx(1 / 6)
