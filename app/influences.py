"""Influence on the last layer as a workspace keeps it."""

from pathlib import Path

from safetensors.numpy import load_file

from app.manifest import Manifest
from explain.influence import HeadInfluence
from explain.kfac import KFACFactors, KFACInfluence
from models.bank import Bank
from ood.store import load_fitted

INFLUENCE_FILE = "influence.safetensors"
FACTORS_FILE = "factors.safetensors"


def open_influence(
    bank: Bank, path: Path, manifest: Manifest
) -> HeadInfluence | KFACInfluence | None:
    """Influence in a workspace; None where it could not be had.

    Args:
        bank: its training images.
        path: its folder.
        manifest: its own.
    """
    if manifest.refit is not None:
        return load_influence(bank, path / INFLUENCE_FILE)
    if FACTORS_FILE in manifest.digests:
        return KFACInfluence.of(bank, load_fitted(KFACFactors, path / FACTORS_FILE))
    return None


def load_influence(bank: Bank, path: Path) -> HeadInfluence:
    """What preparing a workspace stored of the refitted head."""
    stored = load_file(path)
    return HeadInfluence.from_inverse(
        bank, stored["theta"], stored["inverse_hessian"], stored["self_influence"]
    )
