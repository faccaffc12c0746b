"""Fit what explains a workspace's decisions by its training images."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tqdm import tqdm

from app.audit import AUDIT_FILE
from app.auditing import make_audit
from app.epochs import EpochLogits
from app.files import write_whole
from app.fitting import Materials
from app.influences import FACTORS_FILE, INFLUENCE_FILE, load_influence
from app.observing import once
from app.sampling import evenly
from app.workspace import SINGLE_FLIPS_FILE
from explain.head import RefitDidNotConverge, RefittedHead, refit_like
from explain.influence import LARGEST_HEAD, HeadInfluence
from explain.kfac import KFACFactors
from explain.refits import HeadRefits
from explain.trust import Fidelity, leave_one_out_check
from explain.unfairness import single_flips
from ood.store import save_fitted

CHECKED_ON = 50
ASKED_FOR_FLIPS = 5_000


def fit_influence(on: Materials) -> dict[str, float] | None:
    """Refit the head, invert its Hessian, check both; None when the head is too large for that.

    Of one that is too large, the curvature is kept as EK-FAC takes it.
    """
    build, bank, summary = on.build, on.bank, on.build / "refit.json"
    activations = bank.images.activations
    size = bank.head.weight.size + bank.head.bias.size
    if size > LARGEST_HEAD:
        tqdm.write(
            f"The head has {size:,} weights, more than the {LARGEST_HEAD:,} whose Hessian is "
            "inverted exactly: influences are approximate (EK-FAC), and nothing can be refitted."
        )
        _fit_factors(on)
        summary.write_text("null")
    elif not summary.exists():
        tqdm.write("refit the head and invert its Hessian")
        try:
            head, agreement = refit_like(
                np.asarray(activations.features), np.asarray(bank.images.labels),
                np.asarray(activations.logits),
            )  # fmt: skip
            influence = HeadInfluence.fit(bank, head)
            checked = _check_influence(on, head, influence)
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
            build / INFLUENCE_FILE,
        )
        facts = {"l2": head.l2, "gradient_norm": head.gradient_norm, "agreement": agreement}
        write_whole(summary, json.dumps(facts | checked).encode())
    refit: dict[str, float] | None = json.loads(summary.read_text())
    return refit


def _check_influence(
    on: Materials, head: RefittedHead, influence: HeadInfluence
) -> dict[str, float]:
    """How far predictions agree with leaving single training images out, in truth."""
    tqdm.write("leave out single images, in truth")
    held_out = on.calibration.images.activations.features
    check = leave_one_out_check(
        influence,
        HeadRefits.of(on.bank, head, influence.inverse_hessian),
        np.asarray(held_out[evenly(len(held_out), CHECKED_ON)]),
    )
    newton = asdict(Fidelity.of(check.newton, check.actual))
    return asdict(Fidelity.of(check.influence, check.actual)) | {
        f"newton_{name}": value for name, value in newton.items()
    }


def _fit_factors(on: Materials) -> None:
    """Curvature of a large head as it is."""

    def write(path: Path) -> None:
        save_fitted(KFACFactors.fit(on.bank), path)

    try:
        once(on.build / FACTORS_FILE, write, lambda path: None)
    except (ValueError, np.linalg.LinAlgError) as error:
        tqdm.write(f"{error} This workspace will show no influences.")


def fit_audit(on: Materials, epochs: EpochLogits | None) -> None:
    """Look for what is doubtful about the training images."""

    def write(path: Path) -> None:
        stored = on.build / INFLUENCE_FILE
        influence = load_influence(on.bank, stored) if stored.exists() else None
        logged = None if epochs is None else epochs.of(on.bank.images)
        save_fitted(make_audit(on.bank, on.calibration, influence, logged), path)

    once(on.build / AUDIT_FILE, write, lambda path: None)


def fit_single_flips(on: Materials, refit: dict[str, float] | None) -> None:
    """Look for calibration images that one training image decides."""
    if refit is None:
        return

    def write(path: Path) -> None:
        tqdm.write("look for decisions that hang on one training image")
        influence = load_influence(on.bank, on.build / INFLUENCE_FILE)
        head = RefittedHead(influence.theta, refit["l2"], refit["gradient_norm"])
        refits = HeadRefits.of(on.bank, head, influence.inverse_hessian)
        rows = evenly(len(on.calibration), ASKED_FOR_FLIPS)
        features = np.asarray(on.calibration.images.activations.features[rows])
        save_fitted(single_flips(influence, refits, features, rows), path)

    once(on.build / SINGLE_FLIPS_FILE, write, lambda path: None)
