"""Watches a stream of flagged images for new classes, with a bound on ever being wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from typing import Self

import numpy as np

from models.bank import normalise_rows
from ood.clusters import Progress, no_progress
from ood.new_class import Ball, FlaggedCalibration, Proposal, share_of_error
from ood.novelty import SMALLEST_GROUP

FIRST_CLUSTERING = 10
_GROWTH = 1.5
_REMADE_FROM = 2
_WIDER = 1.25


@dataclass(frozen=True)
class NewClass:
    """The facts behind the verdict that flagged images are a new class.

    Attributes:
        members: (M,) int, rows of `NewClassMonitor.ids`, in the order of the stream: all images
            within the ball so far, also those that it was made of.
        proposal: the ball, the images that counted, when it was confirmed.
        false_alarm: bound on the probability that any proposal is ever confirmed falsely.
    """

    members: np.ndarray
    proposal: Proposal
    false_alarm: float


@dataclass(frozen=True)
class NewClassMonitor:
    """What a stream of inspected images has shown so far; a function of that stream.

    Whenever there are half as many flagged images again, they are clustered, and each cluster is
    made into a ball whose later hits are tested; see `Proposal`. Clusters and balls see flagged
    images only, never whether calibration images lie near, so that

        P(any proposal is ever confirmed, while all images are known ones) <= false_alarm,

    by the union bound over proposals, for images exchangeable with the calibration images; frames
    of one film are not. A copy of a flagged image seen before is no evidence: it is no hit and is
    not clustered, so that a batch may be inspected twice. Images are flagged throughout at the
    level at which the calibration images are.

    Attributes:
        calibration: held out from whatever the network, the detector and `cluster` were fitted
            on, the choice of features included.
        cluster: (N, D) unit features of N >= 10 images to (N,) int, -1 for none. It must not
            look at the calibration images: clusters chosen to avoid them fill faster than their
            bound says.
        false_alarm: probability of ever proposing a class falsely.
        ids: those of the N different flagged images so far, in order.
        features: (N, D) theirs, of unit length.
        inspected: images so far, flagged or not.
        proposals: in the order in which they were made.
    """

    calibration: FlaggedCalibration
    cluster: Callable[[np.ndarray], np.ndarray]
    false_alarm: float
    ids: tuple[str, ...]
    features: np.ndarray
    inspected: int
    proposals: tuple[Proposal, ...]

    @classmethod
    def start(
        cls,
        calibration: FlaggedCalibration,
        cluster: Callable[[np.ndarray], np.ndarray],
        false_alarm: float = 0.05,
    ) -> Self:
        """Before the first image.

        Raises:
            ValueError: when the false-alarm rate is not between 0 and 1.
        """
        if not 0 < false_alarm < 1:
            raise ValueError(f"The false-alarm rate is {false_alarm}; it must lie in (0, 1).")
        return cls(calibration, cluster, false_alarm, (), calibration.features[:0], 0, ())

    def extend(
        self, ids: Sequence[str], features: np.ndarray, positions: np.ndarray, inspected: int,
        counted: np.ndarray | None = None, progress: Progress = no_progress,
    ) -> Self:  # fmt: skip
        """After more of the stream; in one piece or in several, the outcome is the same.

        Args:
            ids: of F flagged images, in the order of the stream; the same for the same pixels.
            features: (F, D), of any length but 0.
            positions: (F,) int, which of all inspected images each is, from 1; ascending.
            inspected: how many images have been inspected at the end.
            counted: (F,) bool; False for images that were picked after they had been seen. They
                are clustered, and are no evidence; their position is that of the last image
                inspected before they were picked. None: all count.
            progress: called with the share of the new images that were followed.

        Raises:
            ValueError: when these do not fit each other or what came before.
        """
        positions = np.asarray(positions, np.int64)
        counted = np.ones(len(ids), bool) if counted is None else counted
        self._check(ids, features, positions, inspected, counted)
        new = _first_seen(ids, self.ids)
        ids, positions, counted = [ids[row] for row in new], positions[new], counted[new]
        unit = normalise_rows(np.ascontiguousarray(features[new]))
        after, start = self, 0
        for size in _clustering_sizes(len(self.ids), len(self.ids) + len(new)):
            end = size - len(self.ids)
            piece = slice(start, end)
            now = int(positions[end - 1])
            after = after._follow(ids[piece], unit[piece], positions[piece], now, counted[piece])
            after = after._propose()
            start = end
            progress(end / len(new))
        return after._follow(
            ids[start:], unit[start:], positions[start:], inspected, counted[start:]
        )

    def new_classes(self) -> list[NewClass]:
        """What is confirmed, the largest first; one of several balls around the same images."""
        holding = sorted(
            (
                (proposal, proposal.ball.holds(self.features))
                for proposal in self.proposals
                if proposal.confirmed_at is not None
            ),
            key=lambda found: -found[1].sum(),
        )
        listed = np.zeros(len(self.ids), bool)
        classes = []
        for proposal, inside in holding:
            if listed[inside].mean() <= 0.5:
                listed |= inside
                classes.append(NewClass(np.flatnonzero(inside), proposal, self.false_alarm))
        return classes

    def _check(
        self, ids: Sequence[str], features: np.ndarray, positions: np.ndarray, inspected: int,
        counted: np.ndarray,
    ) -> None:  # fmt: skip
        if not len(ids) == len(features) == len(positions) == len(counted):
            raise ValueError(
                f"{len(ids)} ids, {len(features)} features and {len(positions)} positions: give "
                "one of each for every flagged image."
            )
        if features.shape[1] != self.calibration.features.shape[1]:
            raise ValueError(
                f"Features have {features.shape[1]} numbers, those of the calibration images "
                f"{self.calibration.features.shape[1]}: take both from the same layer."
            )
        if not np.isfinite(features).all():
            raise ValueError("Some features are not finite.")
        # Images that were picked lie between two inspected ones, or behind the last.
        steps = np.diff(positions, prepend=self.inspected)
        if np.any(steps < counted) or (len(positions) and positions[-1] > inspected):
            raise ValueError(
                f"Positions must ascend, from {self.inspected + 1} on and up to {inspected}, the "
                "number of images inspected."
            )

    def _follow(
        self, ids: Sequence[str], features: np.ndarray, positions: np.ndarray, inspected: int,
        counted: np.ndarray,
    ) -> Self:  # fmt: skip
        return replace(
            self,
            ids=(*self.ids, *ids),
            features=np.concatenate([self.features, features]),
            inspected=inspected,
            proposals=tuple(
                proposal.follow(features[counted], positions[counted], inspected)
                for proposal in self.proposals
            ),
        )

    def _propose(self) -> Self:
        """Make a ball of each cluster, largest first, where none does already.

        One does that holds most of the cluster, was made of at least half as many images and is
        at most a quarter wider. So a ball around all kinds of images does not stand in the way of
        one kind of them; and a cluster that has doubled is proposed anew, as its ball fits better
        and the old one may have lost its stake in the time before the class appeared. All this
        depends on flagged images only.
        """
        labels = self.cluster(self.features)
        clusters = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
        proposals = list(self.proposals)
        for rows in sorted(clusters, key=len, reverse=True):
            if len(rows) < SMALLEST_GROUP:
                continue
            members = self.features[rows]
            ball = Ball.around(members)
            if any(_serves(proposal, ball, members) for proposal in proposals):
                continue
            error = share_of_error(self.false_alarm, len(proposals) + 1)
            rate = self.calibration.rate_bound(ball, error / 2)
            proposals.append(Proposal(ball, len(rows), self.inspected, rate, error))
        return replace(self, proposals=tuple(proposals))


def _serves(proposal: Proposal, ball: Ball, members: np.ndarray) -> bool:
    """Whether a ball under test does for a new one around (m, D) members."""
    return (
        len(members) < _REMADE_FROM * proposal.made_of
        and proposal.ball.radius <= _WIDER * ball.radius
        and bool(proposal.ball.holds(members).mean() > 0.5)
    )


def _first_seen(ids: Sequence[str], before: Sequence[str]) -> np.ndarray:
    """Rows of `ids` that are neither in `before` nor earlier in `ids`."""
    seen = set(before)
    rows = []
    for row, image in enumerate(ids):
        if image not in seen:
            seen.add(image)
            rows.append(row)
    return np.array(rows, np.int64)


def _clustering_sizes(above: int, up_to: int) -> list[int]:
    """Numbers of flagged images at which they are clustered: 10, 15, 23, 34, ..."""
    sizes = (int(np.ceil(FIRST_CLUSTERING * _GROWTH**step)) for step in count())
    return [size for size in takewhile(lambda size: size <= up_to, sizes) if size > above]
