"""Fit whole-network influence for a workspace's own weights and for other checkpoints."""

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors
from tqdm import tqdm

from app.files import write_whole
from app.locations import MANIFEST
from app.manifest import WorkspaceError, all_digests
from app.networks import (
    CHECKPOINT_FILE,
    NETWORK_FOLDER,
    Agreement,
    NetworkAnswer,
    ask_networks,
    load_checkpoint,
)
from app.observing import once
from app.sampling import evenly
from app.workspace import INFLUENCES_SHOWN, Workspace
from explain import projection
from explain.head import RefittedHead, refit_head
from explain.influence import HeadInfluence
from explain.network import L2, NetworkInfluence
from explain.network_fit import digest_weights, load_run
from models.classifier import Classifier
from models.images import ImageRefused
from models.imagesets import ImageFolder
from models.observed import stored_name

ASKED = 50
_READ_AT_ONCE = 1_024
_RUN_FILE = "run.json"


@dataclass(frozen=True)
class TrainingPixels:
    """The training images of a workspace, read again and known by their pixels.

    Attributes:
        workspace: that observed them.
        folder: where they are.
        places: (N,) row of the Bank to row of the folder.
    """

    workspace: Workspace
    folder: ImageFolder
    places: np.ndarray

    @classmethod
    def open(cls, workspace: Workspace, root: Path) -> Self:
        """Find every training image by its name.

        Raises:
            WorkspaceError: when the folder cannot be listed, or lacks some.
        """
        try:
            folder = ImageFolder.open(root)
        except FileNotFoundError as error:
            raise WorkspaceError(f"There are no training images: {error}") from error
        at = {stored_name(name): place for place, name in enumerate(folder.names)}
        images = workspace.bank.images
        names = [images.name(row) for row in range(len(images))]
        if missing := [name for name in names if name not in at]:
            raise WorkspaceError(
                f"{root} lacks {len(missing):,} of {len(names):,} training images "
                f"(first: {missing[0]}). Give the folder that the workspace was prepared from."
            )
        return cls(workspace, folder, np.array([at[name] for name in names]))

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(n,) rows of the Bank to (n, channels, S, S) uint8.

        Raises:
            WorkspaceError: when a file can no longer be read, or shows something else.
        """
        preprocessing, images = self.workspace.manifest.preprocessing, self.workspace.bank.images
        files = self.folder.read(
            self.places[rows].tolist(),
            lambda decoded: (decoded.sha256, preprocessing.pixels(decoded.image)),
        )
        found = []
        for row, file in zip(rows, files, strict=True):
            path = self.folder.root / images.name(int(row))
            if isinstance(file, ImageRefused):
                raise WorkspaceError(f"{path} could be read before, and now cannot: {file}")
            sha256, pixels = file
            if sha256 != images.sha256(int(row)):
                raise WorkspaceError(
                    f"{path} is not the image that the workspace was prepared from: its pixels "
                    "differ. Restore it; what is done so far is kept."
                )
            found.append(pixels)
        return np.stack(found)


def fit_networks(workspace: Workspace, train: Path, checkpoints: Sequence[Path]) -> Agreement:
    """Fit what is not fitted yet, in folders of the workspace, then measure how far all agree.

    Each is there complete or not at all, and a killed run goes on where it was.

    Args:
        workspace: just opened.
        train: folder of the training images.
        checkpoints: weights of the same architecture: of one training, or of several.

    Raises:
        WorkspaceError: when it has no refitted last layer, or the images are not its own.
        WeightsRefused: when a checkpoint is not of this network.
        OSError: when the disk is full, or may not be written to.
    """
    if not isinstance(workspace.influence, HeadInfluence) or len(workspace.classes) < 2:
        raise WorkspaceError(
            "Whole-network influence needs a last layer of two or more classes that can be "
            "refitted, and this one cannot: it is too large, or found no optimum."
        )
    pixels = TrainingPixels.open(workspace, train)
    others = [load_checkpoint(workspace.manifest, path) for path in checkpoints]
    folders = _folders(workspace.path / NETWORK_FOLDER, [workspace.classifier, *others])
    to_do = {f: c for f, c in folders.items() if not (f / MANIFEST).exists()}
    _check_disk(workspace, list(to_do))
    for folder, classifier in to_do.items():
        _fit_one(workspace, classifier, pixels, folder)
    agreement = _measure_agreement(workspace, workspace.influence)
    agreement.write(workspace.path)
    return agreement


def _folders(root: Path, classifiers: Sequence[Classifier]) -> dict[Path, Classifier]:
    """A numbered folder for each, where an earlier run has begun it or a new one."""
    begun = {load_run(folder).get("weights"): folder for folder in root.glob("[0-9]*")}
    new = (root / str(n) for n in count() if not (root / str(n) / _RUN_FILE).exists())
    found = {}
    for classifier in classifiers:
        weights = digest_weights(classifier)
        if weights not in begun:
            begun[weights] = next(new)
        found[begun[weights]] = classifier
    return found


def _check_disk(workspace: Workspace, folders: Sequence[Path]) -> None:
    """Say how much will be written, and refuse where it does not fit."""
    images = len(workspace.bank.images)
    size = images * projection.LARGEST_SIZE * np.dtype(np.float16).itemsize
    # A file that is begun has its full length, but takes no room where nothing is written yet.
    written = [f.stat().st_blocks * 512 for folder in folders for f in folder.glob("directions*")]
    needed = max(size * len(folders) - sum(written), 0)
    free = shutil.disk_usage(workspace.path).free
    tqdm.write(
        f"Whole-network influence of {images:,} training images: {len(folders)} networks to fit, "
        f"at most {needed / 1e9:.2f} GB more in {workspace.path / NETWORK_FOLDER}."
    )
    if free < needed:
        raise WorkspaceError(
            f"The disk has only {free / 1e9:.2f} GB free. Make room, or move the workspace."
        )


def _fit_one(
    workspace: Workspace, classifier: Classifier, pixels: TrainingPixels, folder: Path
) -> None:
    if not (folder / _RUN_FILE).exists():  # what is there may be of other weights
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if classifier is not workspace.classifier:
        state = {k: t.detach().cpu().clone() for k, t in classifier.network.state_dict().items()}
        once(folder / CHECKPOINT_FILE, lambda path: save_tensors(state, path), lambda path: None)
    head = _refitted(workspace, classifier, pixels, folder)
    labels = np.asarray(workspace.bank.images.labels)
    with tqdm(desc=f"network {folder.name}", unit="image") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        NetworkInfluence.fit(classifier, head, pixels.read, labels, folder, progress)
    write_whole(folder / MANIFEST, json.dumps(all_digests(folder)).encode())


def _refitted(
    workspace: Workspace, classifier: Classifier, pixels: TrainingPixels, folder: Path
) -> RefittedHead:
    """The last layer refitted, kept: a second refit would differ in its last bits."""
    images = workspace.bank.images

    def write(path: Path) -> None:
        features = images.activations.features
        if classifier is not workspace.classifier:
            rows = np.arange(len(images))
            parts = np.array_split(rows, -(-len(rows) // _READ_AT_ONCE))
            bar = tqdm(parts, desc=f"features {folder.name}")
            features = np.concatenate([classifier.observe(pixels.read(p)).features for p in bar])
        labels = np.asarray(images.labels)
        head = refit_head(features, labels, len(workspace.classes), L2)
        save_file({"theta": head.theta, "gradient_norm": np.array(head.gradient_norm)}, path)

    stored = once(folder / "head.safetensors", write, load_file)
    return RefittedHead(stored["theta"], L2, float(stored["gradient_norm"]))


def _measure_agreement(workspace: Workspace, last_layer: HeadInfluence) -> Agreement:
    """Ask all networks about some calibration images, as their small pictures show them."""
    preprocessing, thumbnails = (
        workspace.manifest.preprocessing, workspace.calibration.images.thumbnails,
    )  # fmt: skip
    answers: list[NetworkAnswer] = []
    for row in tqdm(evenly(len(workspace.calibration), ASKED), desc="measure agreement"):
        with Image.open(io.BytesIO(thumbnails[row])) as picture:
            pixels = preprocessing.pixels(picture.convert("RGB"))
        seen = workspace.classifier.observe(pixels[None])
        against, target = (int(c) for c in np.argsort(seen.logits[0])[-2:])
        answers.append(
            ask_networks(
                workspace.networks, last_layer, seen.features[0], pixels, target, against,
                INFLUENCES_SHOWN, workspace.trusted,
            )
        )  # fmt: skip
    return Agreement.of(answers, len(workspace.networks))
