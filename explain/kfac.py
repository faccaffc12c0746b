"""Influence on last layers too large for their exact Hessian, such as those of 1,000 classes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import eigh
from scipy.special import logsumexp

from explain.head import L2
from explain.influence import (
    ROUNDING,
    UNDERFLOW,
    Influences,
    as_float32,
    cached_rows,
    extend_one,
    tall_product,
)
from explain.search import largest
from models.bank import Bank

_CHUNK = 4_096
_RANK = 4
_BLOCK = 64


@dataclass(frozen=True)
class KFACFactors:
    """The last layer's curvature in the eigenbasis of its Kronecker factors (EK-FAC).

    With h a training image's extended features and p its probabilities, A = E[h h'] and
    S = E[diag p - p p'] have eigenvectors Q_A and Q_S (Martens and Grosse, ICML 2015). The
    Gauss-Newton matrix is taken as (Q_S (x) Q_A) diag(Lambda) (Q_S (x) Q_A)' with the Lambda that
    fit it best, its true diagonal in that basis (George, Laurent, Bouthillier, Ballas and
    Vincent, NeurIPS 2018, section 4): E[(p.Q_S^2 - (p Q_S)^2)' (h Q_A)^2]. The expectation over
    labels is taken in closed form, so that nothing is sampled and nothing varies.

    Attributes:
        class_basis: (C, C) float32, Q_S.
        feature_basis: (D + 1, D + 1) float32, Q_A.
        eigenvalues: (C, D + 1) float32, Lambda.
        damping: added to every eigenvalue, the weight of the penalty of a refit.
        log_partition: (N,) float32, log sum exp of each training image's logits.
        self_influence: (N,) float32, g_i' H^-1 g_i with g_i = (p_i - y_i) (x) h_i.
        squares: (N,) float32, |g_i|^2.
    """

    class_basis: np.ndarray
    feature_basis: np.ndarray
    eigenvalues: np.ndarray
    damping: float
    log_partition: np.ndarray
    self_influence: np.ndarray
    squares: np.ndarray

    @classmethod
    def fit(cls, bank: Bank, damping: float = L2) -> Self:
        """Three passes over the training images' features and logits.

        Raises:
            ValueError: when the Bank is empty, or the network divides what its last layer
                answers, so that its logits are not that layer's.
        """
        if bank.head.divided:
            raise ValueError("The network divides its last layer's answers by another number.")
        if len(bank.images) == 0:
            raise ValueError("There are no training images.")
        activations, labels = bank.images.activations, np.asarray(bank.images.labels)
        logits, features = np.asarray(activations.logits), np.asarray(activations.features)
        log_partition = np.concatenate(
            [logsumexp(as_float32(logits[part]), axis=1) for part in _parts(len(logits))]
        ).astype(np.float32)

        def passes() -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
            for part in _parts(len(logits)):
                p = np.exp(as_float32(logits[part]) - log_partition[part, None])
                yield part, p, _extend(features[part])

        class_basis, feature_basis = _bases(passes(), len(logits))
        eigenvalues = np.zeros((len(class_basis), len(feature_basis)))
        for _, p, h in passes():
            spread = p @ class_basis**2 - (p @ class_basis) ** 2
            eigenvalues += np.maximum(spread, 0).T @ (h @ feature_basis) ** 2
        eigenvalues = (eigenvalues / len(logits)).astype(np.float32)
        inverse = 1 / (eigenvalues + np.float32(damping))
        own, squares = np.empty((2, len(logits)), np.float32)
        for part, p, h in passes():
            d = _residuals(p, labels[part])
            d2, h2 = (d @ class_basis) ** 2, (h @ feature_basis) ** 2
            own[part] = np.einsum("nd,nd->n", d2 @ inverse, h2)
            squares[part] = d2.sum(axis=1) * h2.sum(axis=1)
        return cls(class_basis, feature_basis, eigenvalues, damping, log_partition, own, squares)


@dataclass(frozen=True)
class KFACInfluence:
    """Influence of N training images on a last layer as it is, its curvature by EK-FAC.

    The same queries as `HeadInfluence` answers, with two differences. Newton's method cannot
    refit so large a layer, so that influences are taken at the network's own weights, which are
    not quite at an optimum: they rank images, and the size of an effect is a rough one. And
    residuals are not stored but made anew from the Bank's logits, a chunk at a time.

    Memory beside the Bank's features and logits, which stay mapped: 12 bytes an image, and
    4 (C^2 + (D + 1)^2 + C (D + 1)) bytes.

    Attributes:
        features: (N, D) as the Bank has them.
        logits: (N, C) as the Bank has them.
        labels: (N,).
        theta: (C, D + 1), the network's last layer, bias last.
        factors: see there.
    """

    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    theta: np.ndarray
    factors: KFACFactors

    @classmethod
    def of(cls, bank: Bank, factors: KFACFactors) -> Self:
        """On all training images of the Bank that the factors were fitted on."""
        activations = bank.images.activations
        return cls(
            np.asarray(activations.features), np.asarray(activations.logits),
            np.asarray(bank.images.labels), np.column_stack([bank.head.weight, bank.head.bias]),
            factors,
        )  # fmt: skip

    def predict(self, features: np.ndarray) -> int:
        """The class that the last layer gives to an image of (D,) features."""
        return int((self.theta @ np.append(features, 1)).argmax())

    def on_margin(self, features: np.ndarray, target: int, against: int) -> np.ndarray:
        """Every training image's influence on one image's margin: N C D multiplications.

        Args:
            features: (D,) of the image in question.
            target: class whose logit counts positive.
            against: class whose logit counts negative.

        Returns:
            (N,) float32, in logits.
        """
        rotated = self._rotated(features, target, against)
        direction = self.factors.class_basis @ rotated @ self.factors.feature_basis.T
        effects = np.empty(len(self.labels), np.float32)
        for part in _parts(len(effects)):
            products = _extend(self.features[part]) @ direction.T
            effects[part] = np.einsum("nc,nc->n", self._residuals(part), products)
        return effects / np.float32(len(effects))

    def explain(
        self, features: np.ndarray, target: int, against: int, k: int,
        trusted: np.ndarray | None = None,
    ) -> Influences:  # fmt: skip
        """The k most helpful images by l-RelatIF and the k most harmful by influence.

        Exactly those that `on_margin` would give, see `_search`; `HeadInfluence.explain` says
        why the two are ranked differently.
        """
        search = self._search(features, target, against)
        root = np.sqrt(np.maximum(self.factors.self_influence, 1e-12))
        weights = -1 / root if trusted is None else -(trusted / root)
        helpful, relative = search(weights, k)
        harmful, influence = search(np.ones_like(root), k)
        return Influences(target, against, helpful, -relative * root[helpful], harmful, influence)

    def strongest(self, features: np.ndarray, target: int, against: int, k: int) -> Influences:
        """The k images of most negative and the k of most positive influence."""
        search, ones = self._search(features, target, against), np.ones(len(self.labels), "f4")
        helpful, negative = search(-ones, k)
        return Influences(target, against, helpful, -negative, *search(ones, k))

    def _search(
        self, features: np.ndarray, target: int, against: int
    ) -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
        """A search for the k largest of (N,) weights times influence.

        V is nearly of low rank, because curvature nearly is a Kronecker product; were it exactly,
        one product with the features and one with the residuals would do. So four of each give
        every influence up to g' vec(V - V_4), which is at most (g' H^-1 g)^1/2 times the length of
        V - V_4 in the metric H; only images that may belong to the k best within that are scored
        by V itself. As in `HeadInfluence.strongest`, e I is added to H^-1 for float32.
        """
        rotated = self._rotated(features, target, against)
        left, right, remainder = self._low_rank(rotated)
        slack = ROUNDING / self.factors.damping
        asked = 2 * (1 + float(np.square(features, dtype=np.float64).sum()))
        own = np.maximum(self.factors.self_influence, UNDERFLOW) + slack * self.factors.squares
        within = np.sqrt(own) * np.float32(np.sqrt(remainder + slack * asked) / len(self.labels))
        nearly = self._nearly(left, right)

        def search(weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            middle, width = nearly * weights, within * np.abs(weights)
            k = min(k, len(middle))
            surely = np.partition(middle - width, len(middle) - k)[len(middle) - k]
            rows = np.flatnonzero(middle + width >= max(surely, 0))
            ceilings = (middle + width)[rows]
            descending = np.argsort(-ceilings, kind="stable")
            order = rows[descending]
            return largest(
                lambda part: self._exactly(order[part], rotated) * weights[order[part]],
                order, ceilings[descending], k, _BLOCK,
            )  # fmt: skip

        return search

    def _rotated(self, features: np.ndarray, target: int, against: int) -> np.ndarray:
        """(C, D + 1), V in the eigenbasis."""
        basis = self.factors.class_basis
        h = extend_one(features) @ self.factors.feature_basis
        damped = self.factors.eigenvalues + np.float32(self.factors.damping)
        return (basis[target] - basis[against])[:, None] * h / damped

    def _low_rank(self, rotated: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Left (C, r) and right (D + 1, r) with V near left right', and the squared remainder.

        The singular vectors are those under weights that factor and come near to H (randomised:
        Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4, seeded).
        """
        damped = self.factors.eigenvalues + np.float32(self.factors.damping)
        by_class, by_feature = np.sqrt(damped.mean(axis=1)), np.sqrt(damped.mean(axis=0))
        weighted = by_class[:, None] * rotated * by_feature
        start = np.random.default_rng(0).standard_normal((2 * _RANK, rotated.shape[1]), np.float32)
        span = np.linalg.qr(weighted @ start.T)[0]
        for _ in range(2):
            span = np.linalg.qr(weighted @ (weighted.T @ span))[0]
        u, s, v = np.linalg.svd(span.T @ weighted, full_matrices=False)
        left = (span @ u[:, :_RANK] * s[:_RANK]) / by_class[:, None]
        right = v[:_RANK].T / by_feature[:, None]
        remainder = float((damped * (rotated - left @ right.T) ** 2).sum(dtype=np.float64))
        return self.factors.class_basis @ left, self.factors.feature_basis @ right, remainder

    def _nearly(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(N,) of (1/N) d_i' left right' h_i."""
        by_features = np.empty((len(self.labels), right.shape[1]), np.float32)
        for part in cached_rows(len(self.labels), self.features.shape[1]):
            by_features[part] = tall_product(as_float32(self.features[part]), right[:-1])
        by_features += right[-1]
        by_classes = np.empty_like(by_features)
        with_sum = np.column_stack([left, np.ones_like(left[:, :1])])
        for part in cached_rows(len(self.labels), len(left)):
            others, labels = self._probabilities(part), self.labels[part]
            others[np.arange(len(others)), labels] = 0
            products = tall_product(others, with_sum)
            by_classes[part] = products[:, :-1] - products[:, -1:] * left[labels]
        return np.einsum("nr,nr->n", by_classes, by_features) / np.float32(len(self.labels))

    def _probabilities(self, rows: slice | np.ndarray) -> np.ndarray:
        p = as_float32(self.logits[rows]) - self.factors.log_partition[rows, None]
        return np.exp(p, out=p)

    def _residuals(self, rows: slice | np.ndarray) -> np.ndarray:
        return _residuals(self._probabilities(rows), self.labels[rows])

    def _exactly(self, rows: np.ndarray, rotated: np.ndarray) -> np.ndarray:
        """(n,) influences; for a few rows cheaper in the eigenbasis than turning V back."""
        d = self._residuals(rows) @ self.factors.class_basis
        h = _extend(self.features[rows]) @ self.factors.feature_basis
        return np.einsum("nd,nd->n", d @ rotated, h) / np.float32(len(self.labels))


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


def _residuals(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n, C) p - y, in place; p - 1 would round a confident image's residual away."""
    own = np.arange(len(p)), labels
    p[own] = 0
    p[own] = -p.sum(axis=1)
    return p


def _extend(features: np.ndarray) -> np.ndarray:
    return np.column_stack([as_float32(features), np.ones(len(features), np.float32)])


def _bases(
    passes: Iterator[tuple[slice, np.ndarray, np.ndarray]], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors of E[diag p - p p'] and E[h h'], float32."""
    by_class: np.ndarray | float = 0.0
    by_feature: np.ndarray | float = 0.0
    for _, p, h in passes:
        by_class = by_class + np.diag(p.sum(axis=0, dtype=np.float64)) - p.T @ p
        by_feature = by_feature + h.T @ h
    vectors = (eigh(np.asarray(total) / count)[1] for total in (by_class, by_feature))
    class_basis, feature_basis = (found.astype(np.float32, order="C") for found in vectors)
    return class_basis, feature_basis
