"""Fit everything that a workspace holds; each step is kept, so that a killed run goes on."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from app.files import write_whole
from app.novelty_layer import NOVELTY_LAYER_FILE, NoveltyLayer
from app.observing import once
from app.outliers import SET_SIZE, Scores, made_sets, read_outliers, read_pixels, unknown_sets
from app.sampling import evenly
from explain.map import fit_map, place
from models.bank import Bank, CalibrationSet, TuningSet
from models.classifier import Classifier, NoStages
from models.imagesets import ImageFolder
from models.observed import ObservedSet
from ood.combination import MEMBERS, Combiner
from ood.detectors import detectors_for
from ood.gradient import ODIN
from ood.layer_choice import choose_layer
from ood.panel import COMBINER_FILE, Panel
from ood.patches import PatchBank
from ood.store import load_fitted, save_fitted

OWN_SAMPLE = 2_000
PATCH_IMAGES = 2_000
_PATCHES_AT_ONCE = 256
_READ_AT_ONCE = 1_024


@dataclass(frozen=True)
class Materials:
    """What everything is fitted on.

    Attributes:
        build: folder that the workspace grows in.
        classifier: the network.
        bank: the training images.
        tuning: held-out images that finish detectors.
        calibration: held-out images that calibrate them.
        train: folder of the training images.
        held_out: folder of the others.
    """

    build: Path
    classifier: Classifier
    bank: Bank
    tuning: TuningSet
    calibration: CalibrationSet
    train: ImageFolder
    held_out: ImageFolder


def fit_panel(on: Materials, *, odin: bool) -> tuple[Panel, dict[str, float]]:
    """Fit every detector, ODIN if asked for, and what joins them; also the seconds each took."""
    folder, report = on.build / "panel", on.build / "fit_seconds.json"
    seconds: dict[str, float] = json.loads(report.read_text()) if report.exists() else {}
    folder.mkdir(exist_ok=True)
    tuning, kinds = on.tuning, detectors_for(on.bank)
    work: dict[str, Callable[[], object]] = {
        name: lambda kind=kind: kind.fit(on.bank, tuning)  # type: ignore[misc]
        for name, kind in kinds.items()
    }
    if odin:
        rows = evenly(len(tuning), SET_SIZE)
        pixels = read_pixels(on.classifier, on.held_out, tuning.images, rows)
        work[ODIN.info.name] = lambda: ODIN.fit(on.classifier, pixels)
    for name, fit in tqdm(work.items(), desc="fit detectors"):
        if name in seconds:
            continue
        start = time.perf_counter()
        detector = fit()
        seconds[name] = time.perf_counter() - start
        save_fitted(detector, folder / f"{name}.safetensors")
        write_whole(report, json.dumps(seconds).encode())
    seconds = {name: seconds[name] for name in work}
    members = {
        name: load_fitted(kinds[name], folder / f"{name}.safetensors").score(tuning.activations)
        for name in MEMBERS
    }
    save_fitted(Combiner.fit(members), folder / COMBINER_FILE)
    return Panel.load(folder, seconds), seconds


def score_normal(on: Materials, panel: Panel) -> Scores:
    """Score the calibration images, and a sample of the training images; returns the tuning set's.

    The training images' scores show whether a detector finds training images, not known classes.
    """
    own = evenly(len(on.bank.images), OWN_SAMPLE)

    def write(name: str, path: Path) -> None:
        if name == "training":
            scores = panel.score(on.bank.locate_own(own))
            scores |= _score_stored(on, panel, on.train, on.bank.images, own)
        else:
            held_out = on.calibration if name == "calibration" else on.tuning
            rows = np.arange(len(held_out))
            scores = panel.score(held_out.activations)
            scores |= _score_stored(on, panel, on.held_out, held_out.images, rows)
        save_file(scores, path)

    scores: Scores = {}
    for name in ("calibration", "training", "tuning"):
        path = on.build / f"{name}_scores.safetensors"
        scores = once(path, partial(write, name), load_file)
    return scores


def _score_stored(
    on: Materials, panel: Panel, folder: ImageFolder, images: ObservedSet, rows: np.ndarray
) -> Scores:
    """Scores of what needs the pixels of images that were observed before."""
    if panel.odin is None:
        return {}
    parts = [
        panel.score_gradients(on.classifier, read_pixels(on.classifier, folder, images, some))
        for some in tqdm(np.array_split(rows, -(-len(rows) // _READ_AT_ONCE)), desc="gradients")
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def score_outliers(on: Materials, panel: Panel, unknown: ImageFolder | None) -> dict[str, Scores]:
    """Score ready-made outliers, set by set; returns set to detector to scores."""

    def write(path: Path) -> None:
        rows = evenly(len(on.tuning), SET_SIZE)
        images = read_pixels(on.classifier, on.held_out, on.tuning.images, rows)
        made = made_sets(images, np.asarray(on.tuning.images.labels)[rows])
        others = iter(()) if unknown is None else unknown_sets(on.classifier, unknown)
        scored = {}
        for name, pixels in tqdm(chain(made, others), desc="score outliers"):
            found = panel.score(on.bank.locate(on.classifier.observe(pixels)))
            found |= panel.score_gradients(on.classifier, pixels)
            for detector, scores in found.items():
                scored[f"{name}/{detector}"] = scores
        save_file(scored, path)

    return read_outliers(once(on.build / "outliers.safetensors", write, load_file))


def fit_patches(on: Materials) -> None:
    """Remember patches of some training images, measured on held-out ones."""

    def observed(
        folder: ImageFolder, images: ObservedSet, rows: np.ndarray
    ) -> Iterator[np.ndarray]:
        for some in np.array_split(rows, -(-len(rows) // _PATCHES_AT_ONCE)):
            yield on.classifier.observe_patches(read_pixels(on.classifier, folder, images, some))

    def write(path: Path) -> None:
        tqdm.write("remember patches")
        rows, some = evenly(len(on.bank.images), PATCH_IMAGES), evenly(len(on.tuning), SET_SIZE)
        training = observed(on.train, on.bank.images, rows)
        normal = observed(on.held_out, on.tuning.images, some)
        save_fitted(PatchBank.fit(training, rows, normal), path)

    try:
        once(on.build / "patches.safetensors", write, lambda path: None)
    except NoStages as error:
        tqdm.write(f"{error} This workspace will not show where an image is odd.")


def fit_novelty_layer(on: Materials) -> None:
    """Choose the layer at which new classes are looked for, on training images."""

    def write(path: Path) -> None:
        tqdm.write("hide each class to choose a layer for new ones")
        images = on.bank.images
        choice = choose_layer(images.activations, np.asarray(images.labels), on.bank.head)
        save_fitted(NoveltyLayer.of(choice), path)

    once(on.build / NOVELTY_LAYER_FILE, write, lambda path: None)


def fit_the_map(build: Path, bank: Bank, calibration: CalibrationSet) -> None:
    """Lay out the training images, and place the calibration images among them."""
    tqdm.write("fit the map")

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, fit_map(bank.images.activations.features))

    coordinates = once(build / "map.npy", write, np.load)
    neighbours = calibration.activations.neighbours
    assert neighbours is not None  # a CalibrationSet's activations are located
    np.save(build / "calibration_map.npy", place(neighbours, coordinates))
