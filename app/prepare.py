"""Make a workspace: observe every image once, then fit everything on what that left behind.

Work happens in a hidden folder beside the target and is renamed at the end, so a workspace is
there complete or not at all. A killed run resumes: each finished shard of images and each
finished file is kept, as long as the inputs are the same.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file as save_tensors
from torch import Tensor
from tqdm import tqdm

import app
import explain
import models
import ood
from app.epochs import EpochLogits
from app.fitting import (
    Materials,
    fit_novelty_layer,
    fit_panel,
    fit_patches,
    fit_the_map,
    score_normal,
    score_outliers,
)
from app.influence_fitting import fit_audit, fit_influence, fit_single_flips
from app.manifest import Manifest, WorkspaceError, all_digests
from app.observing import observe_folder, once, skipped_report
from app.outliers import CHOOSING
from models.bank import Bank, CalibrationSet, NotHeldOut, TuningSet, shared_ids, split_held_out
from models.classifier import Classifier, NonFiniteOutput
from models.images import ImageRefused, decode_image, thumbnail_webp
from models.imagesets import ImageFolder
from models.loading import load_network
from models.observed import ObservedSet, stored_name
from models.preprocessing import Preprocessing
from ood.combination import COMBINATIONS
from ood.detectors import detectors_for
from ood.gradient import ODIN
from ood.selection import choose_default, mean_auroc
from ood.temperature import fit_temperature

SAMPLE_SIDE = 512
_SAMPLES_OWN = 8


@dataclass(frozen=True)
class Recipe:
    """What a workspace is made of.

    Attributes:
        name: its name.
        about: one sentence for visitors.
        train: folder of training images by class.
        calibration: folder of held-out images of the same classes.
        model: architecture.
        weights: tensors by name.
        weights_source: where they come from, for messages.
        preprocessing: from image to input.
        classes: names in the order of the logits; None for the sorted class folders.
        detector: name of the default one; "" to choose it on made-up outliers.
        samples: folder of images to try; None for a few tuning images.
        unknown: folder of images of other classes, by class, to compare detectors on only.
        odin: whether to fit ODIN too, which needs passes of its own.
        epoch_logits: file of logits that were logged in training, see `EpochLogits`.
    """

    name: str
    about: str
    train: Path
    calibration: Path
    model: str
    weights: dict[str, Tensor]
    weights_source: str
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    detector: str
    samples: Path | None
    unknown: Path | None = None
    odin: bool = False
    epoch_logits: Path | None = None


def prepare(recipe: Recipe, target: Path) -> Manifest:
    """Make a workspace at `target`.

    Raises:
        WorkspaceError: when something is there already or the inputs do not fit together.
        WeightsRefused, HeadNotFound, UnknownArchitecture: when the classifier does not load.
    """
    if target.exists():
        raise WorkspaceError(f"{target} exists already. Delete it, or choose another name.")
    train, calibration = _open_folders(recipe)
    unknown = _open_unknown(recipe.unknown)
    classes = recipe.classes or train.classes
    network = load_network(recipe.model, recipe.weights, len(classes), recipe.weights_source)
    classifier = Classifier(network, recipe.preprocessing, classes)
    _refuse_detector(recipe.detector, classifier)
    epochs = None
    if recipe.epoch_logits is not None:
        epochs = EpochLogits.read(recipe.epoch_logits, len(classes))
        epochs.rows_of([stored_name(name) for name in train.names])
    build = target.with_name(f".{target.name}.preparing")
    folders = (train, calibration, *([unknown] if unknown else []))
    _start_or_resume(build, _fingerprint(recipe, classifier, folders))

    save_tensors(
        {k: t.detach().clone() for k, t in network.state_dict().items()},
        build / "weights.safetensors",
    )
    learned = observe_folder(classifier, train, build / "bank", np.float16)
    unseen = observe_folder(classifier, calibration, build / "unseen", np.float32)
    bank = Bank(learned.images, classifier.head)
    leaked = shared_ids(unseen.images, bank.images)
    if leaked.all():
        raise WorkspaceError(
            "There are no calibration images left: every one of them is a training image too. "
            "No error rate can be stated without images held out from training."
        )
    held_out = unseen.images.take(np.flatnonzero(~leaked))
    try:
        tuned, calibrated = split_held_out(held_out)
    except NotHeldOut as error:
        raise WorkspaceError(str(error)) from error
    tuning_set = TuningSet(held_out.take(tuned), bank)
    calibration_set = CalibrationSet(
        once(
            build / "calibration",
            lambda path: held_out.take(calibrated).save(path),
            ObservedSet.open,
        ),
        bank,
    )

    on = Materials(build, classifier, bank, tuning_set, calibration_set, train, calibration)
    panel, seconds = fit_panel(on, odin=recipe.odin)
    tuning_scores = score_normal(on, panel)
    outliers = score_outliers(on, panel, unknown)
    auroc = mean_auroc(tuning_scores, {name: outliers[name] for name in CHOOSING})
    fit_patches(on)
    fit_novelty_layer(on)
    refit = fit_influence(on)
    fit_audit(on, epochs)
    fit_single_flips(on, refit)
    fit_the_map(build, bank, calibration_set)
    _write_samples(build, recipe, calibration, tuning_set.images)
    logits = calibration_set.images.activations.logits
    labels = calibration_set.images.labels
    manifest = Manifest(
        name=recipe.name,
        about=recipe.about,
        model=recipe.model,
        preprocessing=recipe.preprocessing,
        classes=classes,
        detector=recipe.detector or choose_default(auroc),
        chosen_by=auroc,
        fit_seconds=seconds,
        tuning=len(tuning_set),
        temperature=fit_temperature(logits, labels),
        calibration_accuracy=float((logits.argmax(axis=1) == labels).mean()),
        leaked=int(leaked.sum()),
        refit=refit,
        skipped=learned.skipped + unseen.skipped,
    )
    for leftover in (
        build / "fingerprint",
        build / "refit.json",
        build / "fit_seconds.json",
        build / "tuning_scores.safetensors",
        # Only fitting reads them: of the training images, features and logits are kept.
        *(build / "bank").glob("means-*.npy"),
        *(build / "bank").glob("maxima-*.npy"),
        skipped_report(build / "bank"),
        skipped_report(build / "unseen"),
    ):
        leftover.unlink()
    shutil.rmtree(build / "unseen")
    manifest = replace(manifest, digests=all_digests(build))
    manifest.write(build)
    os.replace(build, target)
    return manifest


def _open_folders(recipe: Recipe) -> tuple[ImageFolder, ImageFolder]:
    try:
        train = ImageFolder.open(recipe.train)
    except FileNotFoundError as error:
        raise WorkspaceError(f"There are no training images: {error}") from error
    try:
        calibration = ImageFolder.open(recipe.calibration)
    except FileNotFoundError as error:
        raise WorkspaceError(
            f"There are no calibration images: {error} Without images held out from training, "
            "no error rate can be stated."
        ) from error
    if recipe.samples is not None and not recipe.samples.is_dir():
        raise WorkspaceError(f"There are no samples: {recipe.samples} is not a folder.")
    classes = recipe.classes or train.classes
    if len(classes) < 2:
        raise WorkspaceError(f"There is one class only, {classes[0]}: nothing is decided.")
    for kind, folder in (("training", train), ("calibration", calibration)):
        if surplus := sorted(set(folder.classes) - set(classes)):
            raise WorkspaceError(
                f"The {kind} folder has classes that the model does not: {', '.join(surplus[:5])}. "
                f"It knows {', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}."
            )
        if missing := sorted(set(classes) - set(folder.classes)):
            raise WorkspaceError(
                f"{len(missing)} classes of the model have no {kind} folder: "
                f"{', '.join(missing[:5])}. Every class needs {kind} images."
            )
    return _relabel(train, classes), _relabel(calibration, classes)


def _refuse_detector(name: str, classifier: Classifier) -> None:
    """One that was asked for by name but cannot be fitted; before hours of work, not after."""
    offered = [*COMBINATIONS, *detectors_for(classifier), ODIN.info.name]
    if name and name not in offered:
        raise WorkspaceError(
            f"The last layer of this model does not allow the detector {name!r}; "
            f"choose of {', '.join(offered)}."
        )


def _open_unknown(folder: Path | None) -> ImageFolder | None:
    try:
        return None if folder is None else ImageFolder.open(folder)
    except FileNotFoundError as error:
        raise WorkspaceError(f"There are no images of unknown classes: {error}") from error


def _relabel(folder: ImageFolder, classes: Sequence[str]) -> ImageFolder:
    """The same folder with labels in the order of the model's classes."""
    index = [classes.index(name) for name in folder.classes]
    return replace(
        folder, classes=tuple(classes), labels=tuple(index[label] for label in folder.labels)
    )


def _noise(recipe: Recipe) -> np.ndarray:
    """What the network answers to it shows whether its code has changed."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, *recipe.preprocessing.shape), np.uint8)


def _fingerprint(recipe: Recipe, classifier: Classifier, folders: Sequence[ImageFolder]) -> str:
    """Digest of everything that a resumed run must find unchanged."""
    digest = hashlib.sha256()
    settings = (recipe.model, asdict(recipe.preprocessing), recipe.classes, recipe.odin)
    digest.update(json.dumps(settings).encode())
    for package in (app, explain, models, ood):  # half a workspace by other code fits no other half
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    if recipe.epoch_logits is not None:
        digest.update(recipe.epoch_logits.read_bytes())
    with suppress(NonFiniteOutput):  # of noise a network may think nothing
        digest.update(np.round(classifier.observe(_noise(recipe)).logits, 3).tobytes())
    for name in sorted(recipe.weights):
        tensor = recipe.weights[name].contiguous().reshape(-1)
        digest.update(name.encode() + tensor.view(torch.uint8).numpy().tobytes())
    for number, folder in enumerate(folders):
        for name in folder.names:
            stat = (folder.root / name).stat()
            facts = f"{number}\0{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0"
            digest.update(facts.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _start_or_resume(build: Path, fingerprint: str) -> None:
    stamp = build / "fingerprint"
    if build.exists() and not (stamp.exists() and stamp.read_text() == fingerprint):
        shutil.rmtree(build)
    build.mkdir(parents=True, exist_ok=True)
    stamp.write_text(fingerprint)


def _write_samples(
    build: Path, recipe: Recipe, calibration: ImageFolder, held_out: ObservedSet
) -> None:
    """Copy the samples given, or take the first tuning image of some classes.

    A calibration image would be compared with itself.
    """
    samples = build / "samples"
    shutil.rmtree(samples, ignore_errors=True)
    samples.mkdir()
    if recipe.samples is not None:
        for path in sorted(p for p in recipe.samples.iterdir() if p.is_file()):
            _write_sample(path, samples / f"{path.stem}.webp")
        return
    labels, first = np.unique(held_out.labels, return_index=True)
    for number, (label, row) in enumerate(zip(labels, first, strict=True), start=1):
        if number > _SAMPLES_OWN:
            break
        name = calibration.classes[label].replace("/", " ")
        source = calibration.root / held_out.name(int(row))
        _write_sample(source, samples / f"{number:02d} {name}.webp")


def _write_sample(source: Path, target: Path) -> None:
    """A reduced copy without metadata; a file that is no image is left out."""
    try:
        decoded = decode_image(source.read_bytes())
    except (ImageRefused, OSError) as error:
        tqdm.write(f"no sample of {source.name}: {error}")
        return
    target.write_bytes(thumbnail_webp(decoded.image, SAMPLE_SIDE))
