"""Refit the last layer without some training images, or with other labels: the proof."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import log_softmax, softmax

from explain.head import GRADIENT_TOLERANCE, RefitDidNotConverge, RefittedHead, extend
from models.bank import Bank

_NEWTON_STEPS = 30
_CG_STEPS = 60
_PATIENCE = 10
_MOST_DOUBTED = 4_096

Solve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class HeadRefits:
    """Refits that start from an optimum and so take a fraction of a second.

    Newton's method, its systems solved by conjugate gradients with the inverse Hessian of the
    original head as preconditioner; where so much is left out that this no longer helps, with one
    made anew from the images that bend the loss most. Leaving images out keeps everybody else's
    weight 1/N, so that the penalty weighs as much as before.

    Attributes:
        features: (N, D + 1) float64, extended.
        labels: (N,).
        head: at its optimum on all of them.
        inverse: (C (D + 1), C (D + 1)) float32, of the Hessian there.
    """

    features: np.ndarray
    labels: np.ndarray
    head: RefittedHead
    inverse: np.ndarray

    @classmethod
    def of(cls, bank: Bank, head: RefittedHead, inverse: np.ndarray) -> Self:
        """On all training images of a Bank."""
        features = extend(np.asarray(bank.images.activations.features))
        return cls(features, np.asarray(bank.images.labels), head, inverse)

    def without(
        self, rows: Sequence[int] | np.ndarray, relabelled: Mapping[int, int] | None = None
    ) -> RefittedHead:
        """The head that these training images would not have taught.

        Args:
            rows: to leave out.
            relabelled: row to its other label, of images that stay.

        Raises:
            RefitDidNotConverge: when the gradient is not below 1e-8 in the end.
        """
        kept = np.ones(len(self.labels))
        kept[np.asarray(rows, np.int64)] = 0
        labels = self.labels.copy()
        for row, label in (relabelled or {}).items():
            labels[row] = label
        return self._solve(kept / len(kept), labels)

    def predicted(
        self, rows: Sequence[int] | np.ndarray, relabelled: Mapping[int, int] | None = None
    ) -> np.ndarray:
        """(C, D + 1): theta as influence predicts it for the same edit, by one step with H^-1.

        It is the sum of the influences of the single images (Koh and Liang, ICML 2017).
        """
        theta = self.head.theta
        moved = relabelled or {}
        gone = np.asarray(rows, np.int64)
        gone = np.setdiff1d(gone, list(moved))
        h = self.features[gone]
        p = softmax(h @ theta.T, axis=1)
        p[np.arange(len(gone)), self.labels[gone]] -= 1
        gradient = -p.T @ h
        for row, label in moved.items():
            gradient[self.labels[row]] += self.features[row]
            gradient[label] -= self.features[row]
        gradient /= len(self.labels)
        step = self.inverse @ gradient.ravel().astype(np.float32)
        predicted: np.ndarray = theta - step.reshape(theta.shape)
        return predicted

    def _solve(self, weights: np.ndarray, labels: np.ndarray) -> RefittedHead:
        theta, l2, h = self.head.theta, self.head.l2, self.features
        everyone = np.arange(len(labels))

        def loss_and_p(theta: np.ndarray) -> tuple[float, np.ndarray]:
            log_p = log_softmax(h @ theta.T, axis=1)
            loss = -(weights @ log_p[everyone, labels]) + l2 / 2 * np.square(theta).sum()
            return float(loss), np.exp(log_p)

        loss, p = loss_and_p(theta)
        precondition: Solve = self._stored_inverse
        for _ in range(_NEWTON_STEPS):
            residuals = p.copy()
            residuals[everyone, labels] -= 1
            gradient = (residuals * weights[:, None]).T @ h + l2 * theta
            if np.abs(gradient).max() < GRADIENT_TOLERANCE:
                return RefittedHead(theta, l2, float(np.abs(gradient).max()))
            step, settled = self._newton_step(gradient, p, weights, precondition)
            if not settled:
                precondition = self._present_inverse(p, weights)
                step, _ = self._newton_step(gradient, p, weights, precondition, _CG_STEPS)
            slope, size = float(np.vdot(gradient, step)), 1.0
            while size > 1e-6:
                tried, tried_p = loss_and_p(theta - size * step)
                if tried <= loss - 1e-4 * size * slope + 1e-14 * abs(loss):
                    break
                size /= 2
            theta, loss, p = theta - size * step, tried, tried_p
        raise RefitDidNotConverge(
            f"Without these images the last layer did not settle: its gradient is still "
            f"{np.abs(gradient).max():.1e}."
        )

    def _newton_step(
        self, gradient: np.ndarray, p: np.ndarray, weights: np.ndarray, precondition: Solve,
        most: int = _PATIENCE,
    ) -> tuple[np.ndarray, bool]:  # fmt: skip
        """H^-1 g by conjugate gradients, and whether as exact as superlinear convergence needs.

        Products with H in float32: the gradient alone decides where the optimum is.
        """
        h, l2 = self._single, self.head.l2
        p, weights = p.astype(np.float32), weights.astype(np.float32)[:, None]

        def times_hessian(v: np.ndarray) -> np.ndarray:
            moved = h @ v.T.astype(np.float32)
            moved -= np.einsum("nc,nc->n", p, moved)[:, None]
            moved *= p
            moved *= weights
            product: np.ndarray = moved.T @ h + l2 * v
            return product

        step, residual = np.zeros_like(gradient), gradient.copy()
        z = precondition(residual)
        direction, rho = z, float(np.vdot(residual, z))
        start = np.linalg.norm(gradient)
        tolerance = min(0.1, np.sqrt(start)) * start
        for _ in range(most):
            product = times_hessian(direction)
            length = rho / float(np.vdot(direction, product))
            step = step + length * direction
            residual = residual - length * product
            if np.linalg.norm(residual) <= tolerance:
                return step, True
            z = precondition(residual)
            rho, before = float(np.vdot(residual, z)), rho
            direction = z + rho / before * direction
        return step, False

    @cached_property
    def _single(self) -> np.ndarray:
        return self.features.astype(np.float32)

    def _stored_inverse(self, v: np.ndarray) -> np.ndarray:
        solved = self.inverse @ v.ravel().astype(np.float32)
        return solved.astype(np.float64).reshape(v.shape)

    def _present_inverse(self, p: np.ndarray, weights: np.ndarray) -> Solve:
        """Near the inverse Hessian at p: of the images that hold most of the curvature.

        A sure prediction bends the loss hardly at all, and most are sure.
        """
        doubt = (1 - np.square(p).sum(axis=1)) * weights
        order = np.argpartition(-doubt, min(_MOST_DOUBTED, len(doubt)) - 1)[:_MOST_DOUBTED]
        h, p = self._single[order], p[order].astype(np.float32)
        share = doubt.sum() / max(doubt[order].sum(), 1e-300)
        weights = (weights[order] * share).astype(np.float32)
        classes, dim = p.shape[1], h.shape[1]
        blocks = np.zeros((classes, dim, classes, dim), np.float32)
        for a in range(classes):
            for b in range(a, classes):
                curvature = weights * p[:, a] * ((a == b) - p[:, b])
                blocks[a, :, b] = h.T @ (curvature[:, None] * h)
                blocks[b, :, a] = blocks[a, :, b].T
        size = classes * dim
        factor = cho_factor(blocks.reshape(size, size) + self.head.l2 * np.eye(size))

        def solve(v: np.ndarray) -> np.ndarray:
            return cho_solve(factor, v.ravel()).reshape(v.shape)

        return solve
