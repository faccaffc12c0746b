"""Which training images made it say so."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax

from explain.head import RefittedHead, extend, hessian
from explain.search import both_largest, top
from models.bank import Bank

LARGEST_HEAD = 8_000
ROUNDING = 2.0**-20
UNDERFLOW = np.float32(1e-30)
_CHUNK = 16_384
_TILE = 96
_BLOCK = 1_024
_FOREMOST = 7 * _BLOCK
_CACHED = 8 * 1024 * _TILE


@dataclass(frozen=True)
class Influences:
    """The training images that moved one decision most.

    An influence is the predicted change of the decision's margin (logit of `target` minus
    logit of `against`) if that training image were left out and the head refitted. So helpful
    images have negative influences, harmful ones positive.

    Attributes:
        target: the predicted class.
        against: the runner-up.
        helpful: (k,) rows of the Bank.
        helpful_influence: (k,) float32.
        harmful: (k,) rows of the Bank.
        harmful_influence: (k,) float32.
    """

    target: int
    against: int
    helpful: np.ndarray
    helpful_influence: np.ndarray
    harmful: np.ndarray
    harmful_influence: np.ndarray


@dataclass(frozen=True)
class HeadInfluence:
    """Closed-form influence of N training images on the refitted head.

    Koh and Liang (ICML 2017, equation 2) with the head's exact Hessian H. With residuals
    d_i = p_i - y_i and u the unit vectors' difference of the two classes, leaving image i out
    changes the margin of x by (1/N) d_i' V h_i, where V = H^-1 (u (x) h_x).

    Attributes:
        stored: (N, D) features as the Bank has them, float16 or float32, mapped from disk.
        residuals: (N, C) float32, d_i.
        inverse_hessian: (C (D + 1), C (D + 1)) float32.
        self_influence: (N,) float32, g_i' H^-1 g_i with g_i = d_i (x) h_i.
        theta: (C, D + 1), the refitted head.
        order: (N,) rows by descending ceiling.
        ceilings: (N,) float32, descending; no influence on x of an image is above its ceiling
            times the reach of x, see `strongest`.
    """

    stored: np.ndarray
    residuals: np.ndarray
    inverse_hessian: np.ndarray
    self_influence: np.ndarray
    theta: np.ndarray
    order: np.ndarray
    ceilings: np.ndarray

    @classmethod
    def fit(cls, bank: Bank, head: RefittedHead) -> Self:
        """Invert the Hessian and take every image's self-influence."""
        features = extend(bank.images.activations.features)
        matrix = hessian(features, head.theta, head.l2)
        inverse = cho_solve(cho_factor(matrix), np.eye(len(matrix))).astype(np.float32, order="C")
        return cls.from_inverse(bank, head.theta, inverse)

    @classmethod
    def from_inverse(
        cls, bank: Bank, theta: np.ndarray, inverse: np.ndarray,
        self_influence: np.ndarray | None = None,
    ) -> Self:  # fmt: skip
        """Put together from what is stored, a matrix product for the rest."""
        stored = np.asarray(bank.images.activations.features)
        residuals, squares = _residuals(stored, np.asarray(bank.images.labels), theta)
        if self_influence is None:
            self_influence = _quadratic_forms(stored, residuals, inverse)
        squared = np.maximum(self_influence, UNDERFLOW) + _slack(inverse, len(theta)) * squares
        order = np.argsort(-squared, kind="stable").astype(np.int32)
        return cls(
            stored, residuals, inverse, self_influence, theta, order, np.sqrt(squared[order])
        )

    @property
    def features(self) -> np.ndarray:
        """(N, D + 1) float32, extended; a copy each time."""
        return extend(self.stored).astype(np.float32)

    def predict(self, features: np.ndarray) -> int:
        """The class that the refitted head gives to an image of (D,) features."""
        return int((self.theta @ np.append(features, 1)).argmax())

    def on_margin(self, features: np.ndarray, target: int, against: int) -> np.ndarray:
        """Every training image's influence on one image's margin.

        Args:
            features: (D,) of the image in question.
            target: class whose logit counts positive.
            against: class whose logit counts negative.

        Returns:
            (N,) float32, in logits.
        """
        return self.along(self._direction(features, target, against))

    def along(self, direction: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """(1/N) d_i' V h_i of some training images, (n,) float32, or of all.

        Args:
            direction: (C, D + 1) float32, V = H^-1 times the gradient of what is asked about.
            rows: (n,) of the Bank.
        """
        effects = np.empty(len(self.stored) if rows is None else len(rows), np.float32)
        for part in cached_rows(len(effects), self.stored.shape[1]):
            chosen = part if rows is None else rows[part]
            logits = tall_product(as_float32(self.stored[chosen]), direction[:, :-1].T)
            logits += direction[:, -1]
            effects[part] = np.einsum("nc,nc->n", self.residuals[chosen], logits)
        return effects / np.float32(len(self.stored))

    def explain(
        self, features: np.ndarray, target: int, against: int, k: int,
        trusted: np.ndarray | None = None,
    ) -> Influences:  # fmt: skip
        """The k most helpful and the k most harmful training images.

        Helpful ones are ranked by l-RelatIF, influence over the root of self-influence
        (Barshan, Brunet and Dziugaite, AISTATS 2020): ranked by influence alone, the same few
        outliers would explain every image. Harmful ones are ranked by influence, since it is
        outliers and wrong labels that one looks for there.

        Args:
            features: (D,) of the image in question.
            target: class whose logit counts positive.
            against: class whose logit counts negative.
            k: how many of each.
            trusted: (N,) bool, whose labels are not doubted: only these may be helpful. A network
                that has learned a wrong label by heart is taught by it, but shows a person nothing.
        """
        influence = self.on_margin(features, target, against)
        relative = -influence / np.sqrt(np.maximum(self.self_influence, 1e-12))
        if trusted is not None:
            relative *= trusted
        helpful = top(relative, k)
        helpful = helpful[relative[helpful] > 0]
        harmful = top(influence, k)
        harmful = harmful[influence[harmful] > 0]
        return Influences(target, against, helpful, influence[helpful], harmful, influence[harmful])

    def strongest(self, features: np.ndarray, target: int, against: int, k: int) -> Influences:
        """The k images of most negative and the k of most positive influence, both by influence.

        The same as a full scan gives, from the few images that matter: by Cauchy and Schwarz
        |g' H^-1 q| <= (g' H^-1 g)^1/2 (q' H^-1 q)^1/2 with q = u (x) h_x. Both factors are taken
        of H^-1 + e I, where e, 2^-20 of the largest eigenvalue of H^-1, covers what float32
        rounds off in the inverse and in the products; squares that it loses count as 1e-30.
        """
        direction = self._direction(features, target, against)
        ceilings = self.ceilings * self._reach(direction, features, target, against)
        helpful, harmful = both_largest(
            lambda part: self._ranked(direction, part), self.order, ceilings, k, _BLOCK
        )
        return Influences(target, against, *helpful, *harmful)

    def _ranked(self, direction: np.ndarray, part: slice) -> np.ndarray:
        """`along` of a part of the rows by descending ceiling; most queries ask for the first."""
        features, residuals = self._foremost
        if part.stop > len(features):
            return self.along(direction, self.order[part])
        products = tall_product(features[part], direction.T)
        return np.einsum("nc,nc->n", residuals[part], products) / np.float32(len(self.stored))

    @cached_property
    def _foremost(self) -> tuple[np.ndarray, np.ndarray]:
        """Extended features, float32, and residuals of the rows with the highest ceilings."""
        rows = self.order[:_FOREMOST]
        return extend(self.stored[rows]).astype(np.float32), self.residuals[rows]

    def largest_effect(self, features: np.ndarray, target: int, against: int) -> float:
        """What no training image's influence on one image's margin exceeds, in logits."""
        direction = self._direction(features, target, against)
        return float(self.ceilings[0]) * self._reach(direction, features, target, against)

    def removal_effect(
        self, rows: np.ndarray, features: np.ndarray, target: int, against: int
    ) -> np.ndarray:
        """The change of the margin by one Newton step without each training image alone.

        Where `on_margin` keeps the Hessian of all images, this takes image i's own part out of
        it, H_i = S_i (x) h_i h_i' with S_i = diag p_i - p_i p_i': what counts for an image that
        bends its own surroundings. By Woodbury's identity the step is
        (1/N) (V h_i)' (I - S_i M_i / N)^-1 d_i, where M_i are the C x C numbers h_i' H^-1_ab h_i
        (Pregibon, Annals of Statistics 1981, section 4, for two classes).

        Args:
            rows: (k,) of the Bank, a handful: each reads the whole inverse.
            features: (D,) of the image in question.
            target: class whose logit counts positive.
            against: class whose logit counts negative.

        Returns:
            (k,) float64, in logits.
        """
        direction, count = self._direction(features, target, against), len(self.stored)
        classes, dim = direction.shape
        h = extend(self.stored[rows])
        blocks = tall_product(self.inverse_hessian.reshape(-1, dim), h.T.astype(np.float32))
        own = (blocks.reshape(classes, dim, classes, len(h)) * h.T[:, None]).sum(axis=1)
        residuals = self.residuals[rows].astype(np.float64)
        p = residuals + (np.arange(classes) == residuals.argmin(axis=1)[:, None])
        curvature = np.eye(classes) * p[:, None] - p[:, :, None] * p[:, None]
        left = np.eye(classes) - curvature @ own.transpose(2, 0, 1) / count
        steps = np.linalg.solve(left, residuals[..., None])[..., 0]
        return np.einsum("kc,kc->k", h @ direction.T, steps) / count

    def _reach(
        self, direction: np.ndarray, features: np.ndarray, target: int, against: int
    ) -> float:
        """(q' H^-1 q)^1/2 / N, with the slack that `strongest` explains."""
        extended = extend_one(features)
        square = float((direction[target] - direction[against]) @ extended)
        slack = _slack(self.inverse_hessian, len(self.theta)) * 2 * float(extended @ extended)
        return float(np.sqrt(max(square, 0) + slack)) / len(self.stored)

    def _direction(self, features: np.ndarray, target: int, against: int) -> np.ndarray:
        """(C, D + 1), V: two blocks of the inverse's rows, each contiguous."""
        classes, dim = self.theta.shape
        blocks = self.inverse_hessian.reshape(classes, dim, classes * dim)
        extended = extend_one(features)
        return (extended @ blocks[target] - extended @ blocks[against]).reshape(classes, dim)


def extend_one(features: np.ndarray) -> np.ndarray:
    """(D,) features of an image in question to (D + 1,) float32.

    Raises:
        ValueError: when they are not finite.
    """
    if not np.isfinite(features).all():
        raise ValueError("The features of the image in question are not all finite.")
    return np.append(features, 1).astype(np.float32)


def as_float32(features: np.ndarray) -> np.ndarray:
    """The same numbers; torch widens float16 fifteen times as fast as numpy."""
    if features.dtype == np.float16:
        return torch.from_numpy(np.require(features, requirements=["C", "W"])).float().numpy()
    return np.asarray(features, np.float32)


def cached_rows(count: int, dim: int) -> Iterator[slice]:
    """Rows in parts that, widened to float32, stay in a processor core's cache."""
    size = max(_CACHED // max(dim, 1) // _TILE, 1) * _TILE
    return (slice(start, start + size) for start in range(0, count, size))


def tall_product(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(n, D) @ (D, C) for few columns, in tiles that BLAS has a faster path for."""
    whole = len(rows) // _TILE * _TILE
    tiles = rows[:whole].reshape(whole // _TILE, _TILE, rows.shape[1]) @ columns
    return np.concatenate([tiles.reshape(whole, columns.shape[1]), rows[whole:] @ columns])


def _slack(inverse: np.ndarray, classes: int) -> float:
    """2^-20 of the inverse's largest eigenvalue, 1/l2.

    The Hessian of logits that all move together is l2 I alone, whatever the images.
    """
    biases = inverse.reshape(classes, -1, classes, len(inverse) // classes)[:, -1, :, -1]
    return ROUNDING * float(biases.sum(dtype=np.float64)) / classes


def _residuals(
    stored: np.ndarray, labels: np.ndarray, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) residuals, and the (N,) squared lengths of the gradients d_i (x) h_i."""
    residuals = np.empty((len(stored), len(theta)), np.float32)
    squares = np.empty(len(stored), np.float32)
    for start in range(0, len(stored), _CHUNK):
        part = slice(start, start + _CHUNK)
        h = extend(stored[part])
        d = softmax(h @ theta.T, axis=1)
        own = np.arange(len(d)), labels[part]
        d[own] = 0
        d[own] = -d.sum(axis=1)  # p - 1 would round a confident image's residual away
        residuals[part] = d
        squares[part] = np.einsum("nc,nc->n", d, d) * np.einsum("nd,nd->n", h, h)
    return residuals, squares


def _quadratic_forms(
    features: np.ndarray, residuals: np.ndarray, inverse: np.ndarray
) -> np.ndarray:
    """(N,) of g_i' H^-1 g_i, a pair of classes at a time.

    Residuals add up to zero, so that the last one can go: against it, the other classes' blocks
    lose what they all share, 1/l2, beside which float32 would not see the rest.
    """
    classes = residuals.shape[1]
    blocks = inverse.reshape(classes, -1, classes, len(inverse) // classes)
    forms = np.zeros(len(features), np.float32)
    for start in range(0, len(features), _CHUNK):
        d = residuals[start : start + _CHUNK]
        h = np.ones((len(d), blocks.shape[1]), np.float32)
        h[:, : features.shape[1]] = as_float32(features[start : start + _CHUNK])
        for a in range(classes - 1):
            for b in range(a, classes - 1):
                block = blocks[a, :, b] - blocks[a, :, -1] - blocks[-1, :, b] + blocks[-1, :, -1]
                pair = np.einsum("nd,nd->n", h @ block, h)
                forms[start : start + _CHUNK] += (1 if a == b else 2) * d[:, a] * d[:, b] * pair
    return forms
