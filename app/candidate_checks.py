"""What else speaks for or against a group being a class, on images that did not form it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.inbox_contents import Stream
from app.new_class_replay import calibration_features
from app.workspace import Workspace
from ood.cluster_checks import PredictionEntropy, Separation, prediction_entropy, separation
from ood.clusters import cluster_by_means

FEWEST_HELD_OUT = 5


@dataclass(frozen=True)
class Checks:
    """Of one group; none of it carries the promise about false alarms, see `NewClassMonitor`.

    Attributes:
        separation: from the nearest known class; None with fewer than 5 images held out.
        entropy: of what the classifier says of its images.
    """

    separation: Separation | None
    entropy: PredictionEntropy


def check_groups(
    workspace: Workspace, stream: Stream, rows: np.ndarray, groups: Sequence[np.ndarray]
) -> list[Checks]:
    """Checks of each group, on half of the images, which other images' clusters are put to.

    Every other image is held out. The rest are clustered again, as many clusters as there are
    groups; what falls into the cluster that holds most of a group stands for it.

    Args:
        workspace: whose inbox it is.
        stream: everything in the inbox.
        rows: (N,) of the stream, those that were grouped.
        groups: each (M,) of the stream, among `rows`.
    """
    entropies = [_entropy(workspace, stream, group) for group in groups]
    different = rows[np.sort(np.unique(stream.sha256[rows], return_index=True)[1])]
    formed, held_out = different[::2], different[1::2]
    if not groups or len(formed) < len(groups):
        return [Checks(None, entropy) for entropy in entropies]
    features = workspace.novelty_layer.features(stream.vectors)
    clusters = cluster_by_means(features[formed], len(groups))
    fallen = clusters.assign(features[held_out])
    known = calibration_features(workspace)
    labels = np.asarray(workspace.calibration.images.labels)
    inside = [clusters.labels[np.isin(formed, group)] for group in groups]
    own = [int(np.bincount(found).argmax()) if len(found) else -1 for found in inside]
    checks = []
    for cluster, entropy in zip(own, entropies, strict=True):
        members = features[held_out[fallen == cluster]]
        apart = None
        # A cluster that is most of two groups stands for neither.
        if cluster >= 0 and own.count(cluster) == 1 and len(members) >= FEWEST_HELD_OUT:
            among = max(len(members), stream.inspected // 2)
            apart = separation(clusters.centres[cluster], members, known, labels, among)
        checks.append(Checks(apart, entropy))
    return checks


def _entropy(workspace: Workspace, stream: Stream, group: np.ndarray) -> PredictionEntropy:
    head = workspace.bank.head
    return prediction_entropy(stream.vectors.features[group] @ head.weight.T + head.bias)
