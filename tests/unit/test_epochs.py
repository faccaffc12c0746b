from dataclasses import replace

import numpy as np
import pytest

from app.epochs import EpochLogits
from app.manifest import WorkspaceError
from models.observed import Blobs
from tests.unit.test_bank import observed


def images(*names):
    found = observed(np.zeros((len(names), 2)), labels=np.zeros(len(names), int))
    return replace(found, names=Blobs.pack([name.encode() for name in names]))


@pytest.fixture
def path(tmp_path):
    logits = np.arange(12, dtype=np.float16).reshape(2, 3, 2)
    np.savez(tmp_path / "log.npz", names=np.array(["a", "b", "c"]), logits=logits)
    return tmp_path / "log.npz"


def test_logits_come_in_the_order_of_the_images(path):
    found = EpochLogits.read(path, 2).of(images("c", "a"))
    np.testing.assert_array_equal(found, [[[4, 5], [0, 1]], [[10, 11], [6, 7]]])


def test_an_image_that_was_not_logged_is_named(path):
    with pytest.raises(WorkspaceError, match=r"For 1 training images .* such as d"):
        EpochLogits.read(path, 2).of(images("a", "d"))


def test_other_files_are_refused(path, tmp_path):
    with pytest.raises(WorkspaceError, match=r"needed are logits \(epochs, 3, 5\)"):
        EpochLogits.read(path, 5)
    with pytest.raises(WorkspaceError, match=r"is no \.npz file"):
        EpochLogits.read(tmp_path / "nothing.npz", 2)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(WorkspaceError, match=r"is no \.npz file"):
        EpochLogits.read(tmp_path / "text.npz", 2)
    np.savez(tmp_path / "pickled.npz", names=np.array(["a"], object), logits=np.zeros((1, 1, 2)))
    with pytest.raises(WorkspaceError, match=r"is no \.npz file"):
        EpochLogits.read(tmp_path / "pickled.npz", 2)
    np.savez(tmp_path / "nan.npz", names=np.array(["a"]), logits=np.full((1, 1, 2), np.nan))
    with pytest.raises(WorkspaceError, match="NaN"):
        EpochLogits.read(tmp_path / "nan.npz", 2)
