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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
from torch import Tensor
from tqdm import tqdm

from app.manifest import Manifest, WorkspaceError, all_digests
from app.observing import observe_folder, once, skipped_report
from explain.head import RefitDidNotConverge, refit_head
from explain.influence import LARGEST_HEAD, HeadInfluence
from explain.map import fit_map, place
from models.bank import Bank, CalibrationSet, shared_ids
from models.classifier import Classifier
from models.images import ImageRefused, decode_image, thumbnail_webp
from models.imagesets import ImageFolder
from models.loading import load_network
from models.observed import ObservedSet
from models.preprocessing import Preprocessing
from ood.detectors import DETECTORS, Detector, load_detector, save_detector
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
        detector: name of the default one.
        samples: folder of images to try; None for a few calibration images.
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


def prepare(recipe: Recipe, target: Path) -> Manifest:
    """Make a workspace at `target`.

    Raises:
        WorkspaceError: when something is there already or the inputs do not fit together.
        WeightsRefused, HeadNotFound, UnknownArchitecture: when the classifier does not load.
    """
    if target.exists():
        raise WorkspaceError(f"{target} exists already. Delete it, or choose another name.")
    train, calibration = _open_folders(recipe)
    classes = recipe.classes or train.classes
    network = load_network(recipe.model, recipe.weights, len(classes), recipe.weights_source)
    classifier = Classifier(network, recipe.preprocessing, classes)
    build = target.with_name(f".{target.name}.preparing")
    _start_or_resume(build, _fingerprint(recipe, (train, calibration)))

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
    held_out = once(
        build / "calibration",
        lambda path: unseen.images.take(np.flatnonzero(~leaked)).save(path),
        ObservedSet.open,
    )
    calibrated = CalibrationSet(held_out, bank)

    _fit_detectors(build, bank, calibrated)
    refit = _fit_influence(build, bank)
    _fit_map(build, bank, calibrated)
    _write_samples(build, recipe, calibration, held_out)
    logits, labels = held_out.activations.logits, held_out.labels
    manifest = Manifest(
        name=recipe.name,
        about=recipe.about,
        model=recipe.model,
        preprocessing=recipe.preprocessing,
        classes=classes,
        detector=recipe.detector,
        temperature=fit_temperature(logits, labels),
        calibration_accuracy=float((logits.argmax(axis=1) == labels).mean()),
        leaked=int(leaked.sum()),
        refit=refit,
        skipped=learned.skipped + unseen.skipped,
    )
    for leftover in (
        build / "fingerprint",
        build / "refit.json",
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


def _relabel(folder: ImageFolder, classes: Sequence[str]) -> ImageFolder:
    """The same folder with labels in the order of the model's classes."""
    index = [classes.index(name) for name in folder.classes]
    return replace(
        folder, classes=tuple(classes), labels=tuple(index[label] for label in folder.labels)
    )


def _fingerprint(recipe: Recipe, folders: Sequence[ImageFolder]) -> str:
    """Digest of everything that a resumed run must find unchanged."""
    digest = hashlib.sha256()
    settings = (recipe.model, asdict(recipe.preprocessing), recipe.classes)
    digest.update(json.dumps(settings).encode())
    for name in sorted(recipe.weights):
        tensor = recipe.weights[name].contiguous().reshape(-1)
        digest.update(name.encode() + tensor.view(torch.uint8).numpy().tobytes())
    for folder in folders:
        for name in folder.names:
            stat = (folder.root / name).stat()
            facts = f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0"
            digest.update(facts.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _start_or_resume(build: Path, fingerprint: str) -> None:
    stamp = build / "fingerprint"
    if build.exists() and not (stamp.exists() and stamp.read_text() == fingerprint):
        shutil.rmtree(build)
    build.mkdir(parents=True, exist_ok=True)
    stamp.write_text(fingerprint)


def _fit_detectors(build: Path, bank: Bank, calibration: CalibrationSet) -> None:
    scores = {}
    for name, kind in tqdm(DETECTORS.items(), desc="fit detectors"):
        detector: Detector = once(
            build / f"detectors/{name}.safetensors",
            lambda path, kind=kind: save_detector(kind.fit(bank), path),  # type: ignore[misc]
            lambda path, kind=kind: load_detector(kind, path),  # type: ignore[misc]
        )
        scores[name] = detector.score(calibration.activations)
    save_file(scores, build / "calibration_scores.safetensors")


def _fit_influence(build: Path, bank: Bank) -> dict[str, float] | None:
    """Refit the head and invert its Hessian; None when the head is too large for that."""
    summary = build / "refit.json"
    activations = bank.images.activations
    size = bank.head.weight.size + bank.head.bias.size
    if size > LARGEST_HEAD:
        tqdm.write(
            f"The head has {size:,} weights, more than the {LARGEST_HEAD:,} whose Hessian is "
            "inverted exactly: this workspace will show no influences."
        )
        summary.write_text("null")
    elif not summary.exists():
        tqdm.write("refit the head and invert its Hessian")
        labels = np.asarray(bank.images.labels)
        try:
            head = refit_head(activations.features, labels, bank.num_classes)
            influence = HeadInfluence.fit(bank, head)
        except (RefitDidNotConverge, np.linalg.LinAlgError) as error:
            tqdm.write(f"{error} This workspace will show no influences.")
            summary.write_text("null")
            return None
        save_file(
            {
                "theta": head.theta,
                "inverse_hessian": influence.inverse_hessian,
                "self_influence": influence.self_influence,
            },
            build / "influence.safetensors",
        )
        same = head.logits(activations.features).argmax(axis=1) == activations.logits.argmax(axis=1)
        facts = {"l2": head.l2, "gradient_norm": head.gradient_norm, "agreement": same.mean()}
        summary.write_text(json.dumps(facts))
    refit: dict[str, float] | None = json.loads(summary.read_text())
    return refit


def _fit_map(build: Path, bank: Bank, calibration: CalibrationSet) -> None:
    tqdm.write("fit the map")

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, fit_map(bank.images.activations.features))

    coordinates = once(build / "map.npy", write, np.load)
    neighbours = calibration.activations.neighbours
    assert neighbours is not None  # a CalibrationSet's activations are located
    np.save(build / "calibration_map.npy", place(neighbours, coordinates))


def _write_samples(
    build: Path, recipe: Recipe, calibration: ImageFolder, held_out: ObservedSet
) -> None:
    """Copy the samples given, or take the first calibration image of some classes."""
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
