"""Whole-network influence in a workspace: opened, asked, and how far it agrees with others."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from scipy.stats import rankdata

from app.files import write_whole
from app.locations import MANIFEST
from app.manifest import Manifest, WorkspaceError, check_digests
from explain.influence import HeadInfluence
from explain.network import NetworkInfluence
from explain.search import top
from models.classifier import Classifier
from models.loading import load_network, read_state_dict

NETWORK_FOLDER = "network"
CHECKPOINT_FILE = "weights.safetensors"
_AGREEMENT_FILE = "agreement.json"
_REMEDY = "delete that folder and run python -m app network again"


@dataclass(frozen=True)
class NetworkAnswer:
    """Which training images made one decision, as K checkpoints of a network have it on average.

    Attributes:
        influence: (N,) float32, mean influence on the decision's margin, in logits.
        helpful: (k,) rows of the Bank, by influence over the root of mean self-influence
            (l-RelatIF, as in `HeadInfluence.explain`); only images of negative influence.
        between: mean Spearman correlation of two checkpoints' influences; None for one.
        with_head: Spearman correlation with the last layer's influences.
        shared: how many of `helpful` are among the last layer's k too.
    """

    influence: np.ndarray
    helpful: np.ndarray
    between: float | None
    with_head: float
    shared: int


@dataclass(frozen=True)
class Agreement:
    """The same agreement, on average over some calibration images.

    Attributes:
        images: how many.
        networks: K.
        between: see `NetworkAnswer`.
        with_head: see `NetworkAnswer`.
    """

    images: int
    networks: int
    between: float | None
    with_head: float

    @classmethod
    def of(cls, answers: Sequence[NetworkAnswer], networks: int) -> Self:
        """The mean over at least one image."""
        between = [answer.between for answer in answers if answer.between is not None]
        return cls(
            images=len(answers),
            networks=networks,
            between=float(np.mean(between)) if between else None,
            with_head=float(np.mean([answer.with_head for answer in answers])),
        )

    @classmethod
    def read(cls, workspace: Path) -> Self | None:
        """What `write` left in a workspace; None where it was not measured.

        Raises:
            WorkspaceError: when the file is damaged.
        """
        path = workspace / NETWORK_FOLDER / _AGREEMENT_FILE
        try:
            return cls(**json.loads(path.read_text())) if path.exists() else None
        except (OSError, ValueError, TypeError) as error:
            raise WorkspaceError(f"{path} is damaged: {error}") from error

    def write(self, workspace: Path) -> None:
        """Keep it in a workspace."""
        text = json.dumps(asdict(self))
        write_whole(workspace / NETWORK_FOLDER / _AGREEMENT_FILE, text.encode())


def ask_networks(
    networks: Sequence[NetworkInfluence], last_layer: HeadInfluence, features: np.ndarray,
    pixels: np.ndarray, target: int, against: int, k: int, trusted: np.ndarray | None = None,
) -> NetworkAnswer:  # fmt: skip
    """A gradient pass through each network, and a search over all training images.

    Args:
        networks: K >= 1.
        last_layer: to compare with.
        features: (D,) of the image in question, of the workspace's own network.
        pixels: (channels, S, S) uint8 of the image in question.
        target: class whose logit counts positive.
        against: class whose logit counts negative.
        k: how many helpful images to name.
        trusted: see `HeadInfluence.explain`.
    """
    each = np.stack([network.on_margin(pixels, target, against) for network in networks])
    influence = each.mean(axis=0)
    own = np.mean([network.self_influence for network in networks], axis=0)
    relative = -influence / np.sqrt(np.maximum(own, 1e-12))
    if trusted is not None:
        relative *= trusted
    helpful = top(relative, k)
    helpful = helpful[relative[helpful] > 0]
    taught = last_layer.explain(features, target, against, k, trusted).helpful
    of_head = last_layer.on_margin(features, target, against)
    pairs = np.triu_indices(len(each), 1)
    return NetworkAnswer(
        influence=influence,
        helpful=helpful,
        between=float(_spearman(each)[pairs].mean()) if len(each) > 1 else None,
        with_head=float(_spearman(np.stack([influence, of_head]))[0, 1]),
        shared=len(np.intersect1d(helpful, taught)),
    )


def open_networks(
    workspace: Path, manifest: Manifest, classifier: Classifier
) -> list[NetworkInfluence]:
    """Those that were fitted to the end, in order; the digests of their files are checked.

    Args:
        workspace: its folder.
        manifest: its own.
        classifier: its own; a checkpoint's is loaded.

    Raises:
        WorkspaceError: when one is damaged or has changed.
    """
    finished = (path.parent for path in (workspace / NETWORK_FOLDER).glob(f"*/{MANIFEST}"))
    folders = sorted(finished, key=lambda folder: (len(folder.name), folder.name))
    try:
        return [_open_network(folder, manifest, classifier) for folder in folders]
    except (OSError, ValueError, AttributeError) as error:
        raise WorkspaceError(
            f"A network in {workspace / NETWORK_FOLDER} cannot be opened: {error}"
        ) from error


def load_checkpoint(manifest: Manifest, path: Path) -> Classifier:
    """A classifier like the workspace's, with other weights.

    Raises:
        WeightsRefused: when the file does not hold any for this network.
    """
    classes = manifest.classes
    network = load_network(manifest.model, read_state_dict(path), len(classes), str(path))
    return Classifier(network, manifest.preprocessing, classes)


def _open_network(folder: Path, manifest: Manifest, classifier: Classifier) -> NetworkInfluence:
    check_digests(folder, json.loads((folder / MANIFEST).read_text()), _REMEDY)
    checkpoint = folder / CHECKPOINT_FILE
    if checkpoint.exists():
        classifier = load_checkpoint(manifest, checkpoint)
    return NetworkInfluence.open(classifier, folder)


def _spearman(influences: np.ndarray) -> np.ndarray:
    """(K, N) to (K, K) rank correlations."""
    correlations: np.ndarray = np.corrcoef(rankdata(influences, axis=1))
    return correlations
