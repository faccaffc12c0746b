"""Make a workspace: observe every image once, then fit everything on what that left behind.

Work happens in a hidden folder beside the target and is renamed at the end, so a workspace is
there complete or not at all. A killed run resumes: each finished shard of images and each
finished file is kept, as long as the inputs are the same.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
from torch import Tensor
from tqdm import tqdm

from app.manifest import Manifest, Skipped, WorkspaceError, all_digests
from app.uploads import THUMBNAIL_SIDE
from explain.head import refit_head
from explain.influence import LARGEST_HEAD, HeadInfluence
from explain.map import fit_map, place
from models.bank import Bank, CalibrationSet, shared_ids
from models.classifier import Classifier, NonFiniteOutput
from models.images import ImageRefused, thumbnail_webp
from models.imagesets import ImageFolder
from models.loading import load_network
from models.observed import Blobs, ObservedSet, join_observed
from models.preprocessing import Preprocessing
from ood.detectors import DETECTORS, Detector, load_detector, save_detector
from ood.temperature import fit_temperature

T = TypeVar("T")

SHARD = 2_048
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
        RefitDidNotConverge: when influences would be wrong.
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
        {k: t.contiguous() for k, t in network.state_dict().items()}, build / "weights.safetensors"
    )
    skipped: list[Skipped] = []
    bank_images = _observe(classifier, train, build, "bank", np.float16, skipped)
    held_out = _observe(classifier, calibration, build, "held_out", np.float32, skipped)
    bank = Bank(bank_images, classifier.head)
    leaked = shared_ids(held_out, bank_images)
    if leaked.all():
        raise WorkspaceError(
            "There are no calibration images left: every one of them is a training image too. "
            "No error rate can be stated without images held out from training."
        )
    held_out = _once(
        build / "calibration",
        lambda path: held_out.take(np.flatnonzero(~leaked)).save(path),
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
        skipped=tuple(skipped),
    )
    for leftover in ("fingerprint", "refit.json", "bank.skipped.json", "held_out.skipped.json"):
        (build / leftover).unlink()
    shutil.rmtree(build / "held_out")
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
    classes = recipe.classes or train.classes
    for kind, folder in (("training", train), ("calibration", calibration)):
        if surplus := sorted(set(folder.classes) - set(classes)):
            raise WorkspaceError(
                f"The {kind} folder has classes that the model does not: {', '.join(surplus[:5])}. "
                f"It knows {', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}."
            )
    if missing := sorted(set(classes) - set(train.classes)):
        raise WorkspaceError(
            f"{len(missing)} classes of the model have no training folder: "
            f"{', '.join(missing[:5])}. Every class needs training images."
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
        digest.update(name.encode() + recipe.weights[name].contiguous().numpy().tobytes())
    for folder in folders:
        for name in folder.names:
            stat = (folder.root / name).stat()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _start_or_resume(build: Path, fingerprint: str) -> None:
    stamp = build / "fingerprint"
    if build.exists() and not (stamp.exists() and stamp.read_text() == fingerprint):
        shutil.rmtree(build)
    build.mkdir(parents=True, exist_ok=True)
    stamp.write_text(fingerprint)


def _once(path: Path, write: Callable[[Path], None], read: Callable[[Path], T]) -> T:
    """Read what an earlier run finished, or write it, under another name until it is complete."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name("partial-" + path.name)
        write(partial)
        os.replace(partial, path)
    return read(path)


def _observe(
    classifier: Classifier,
    folder: ImageFolder,
    build: Path,
    name: str,
    dtype: type[np.floating],
    skipped: list[Skipped],
) -> ObservedSet:
    """Run the classifier over a folder, a shard at a time, and join the shards."""
    shards = build / f"{name}-shards"
    reports = build / f"{name}.skipped.json"
    if not (build / name).exists():
        shards.mkdir(exist_ok=True)
        refused: list[Skipped] = []
        with tqdm(total=len(folder), desc=f"observe {folder.root.name}", unit="image") as bar:
            for start in range(0, len(folder), SHARD):
                rows = range(start, min(start + SHARD, len(folder)))
                refused += _once(
                    shards / f"{start:09d}.json",
                    lambda path, rows=rows, start=start: _write_shard(  # type: ignore[misc]
                        classifier, folder, rows, shards / f"{start:09d}", path
                    ),
                    _read_skipped,
                )
                bar.update(len(rows))
        observed = [ObservedSet.open(p) for p in sorted(shards.iterdir()) if p.is_dir()]
        observed = [part for part in observed if len(part)]
        if not observed:
            raise WorkspaceError(
                f"Not one image of {folder.root} can be read "
                f"(first: {refused[0].name}: {refused[0].reason})."
            )
        for entry in refused:
            tqdm.write(f"skipped {entry.folder}/{entry.name}: {entry.reason}")
        reports.write_text(json.dumps([asdict(entry) for entry in refused]))
        join_observed(observed, build / name, dtype)
    shutil.rmtree(shards, ignore_errors=True)
    skipped += _read_skipped(reports)
    return ObservedSet.open(build / name)


def _read_skipped(path: Path) -> list[Skipped]:
    return [Skipped(**entry) for entry in json.loads(path.read_text())]


def _write_shard(
    classifier: Classifier, folder: ImageFolder, rows: range, target: Path, report: Path
) -> None:
    pixels, kept, ids, thumbnails = [], [], [], []
    refused = []
    for row, image in zip(rows, folder.read(rows), strict=True):
        if isinstance(image, ImageRefused):
            refused.append(Skipped(folder.root.name, folder.names[row], str(image)))
            continue
        kept.append(row)
        pixels.append(classifier.preprocessing.pixels(image.image))
        ids.append(np.frombuffer(bytes.fromhex(image.sha256), np.uint8))
        thumbnails.append(thumbnail_webp(image.image, THUMBNAIL_SIDE))
    if kept:
        try:
            activations = classifier.observe(np.stack(pixels))
        except NonFiniteOutput as error:
            raise WorkspaceError(
                f"{folder.root.name}, from {folder.names[kept[0]]}: {error}"
            ) from error
        shutil.rmtree(target, ignore_errors=True)
        ObservedSet(
            activations=activations,
            labels=np.array([folder.labels[row] for row in kept], np.int32),
            ids=np.stack(ids),
            names=Blobs.pack([folder.names[row].encode() for row in kept]),
            thumbnails=Blobs.pack(thumbnails),
        ).save(target)
    report.write_text(json.dumps([asdict(entry) for entry in refused]))


def _fit_detectors(build: Path, bank: Bank, calibration: CalibrationSet) -> None:
    scores = {}
    for name, kind in tqdm(DETECTORS.items(), desc="fit detectors"):
        detector: Detector = _once(
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
        head = refit_head(activations.features, labels, bank.num_classes)
        influence = HeadInfluence.fit(bank, head)
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

    coordinates = _once(build / "map.npy", write, np.load)
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
        for path in sorted(recipe.samples.iterdir()):
            shutil.copyfile(path, samples / path.name)
        return
    labels, first = np.unique(held_out.labels, return_index=True)
    for number, (label, row) in enumerate(zip(labels, first, strict=True), start=1):
        if number > _SAMPLES_OWN:
            break
        source = calibration.root / held_out.name(int(row))
        name = calibration.classes[label].replace("/", " ")
        shutil.copyfile(source, samples / f"{number:02d} {name}{source.suffix}")
