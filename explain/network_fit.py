"""The passes over the training images that whole-network influence needs, resumable."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from safetensors.torch import load_file, save_file
from scipy.linalg import cholesky, solve_triangular
from torch import Tensor
from torch.nn.functional import one_hot

from explain.layers import RefittedNetwork, find_layers
from explain.projection import Projection, expected_labels
from models.classifier import BATCH_SIZE, Classifier

BASIS_IMAGES = 1_024
CURVATURE_IMAGES = 5_120
SHARD = 8 * BATCH_SIZE
LABEL_DRAWS = 10

Read = Callable[[np.ndarray], np.ndarray]
Progress = Callable[[int, int], None]


class OtherRun(ValueError):
    """A folder that was begun for another network, head or training set."""


@dataclass(frozen=True)
class NetworkFit:
    """One fit of a `NetworkInfluence`, in a folder from which it goes on after a kill.

    Attributes:
        network: that learned from the images.
        read: rows (n,) of training images to their pixels (n, channels, S, S) uint8.
        labels: (N,) in 0..C-1.
        folder: where everything is written.
        progress: told how many images of how many are done.
    """

    network: RefittedNetwork
    read: Read
    labels: np.ndarray
    folder: Path
    progress: Progress

    def run(self) -> None:
        """Do what is not done yet."""
        if len(self.labels) == 0:
            raise ValueError("There are no training images: nothing can have taught the network.")
        self._claim_folder()
        projection = self._projection()
        self._write_gradients(projection, self._whitening(projection))

    def _claim_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        mine = {
            "weights": digest_weights(self.network.classifier),
            "head": sha256(self.network.head.theta.tobytes()).hexdigest(),
            "l2": self.network.head.l2,
            "labels": sha256(self.labels.astype("<i8").tobytes()).hexdigest(),
        }
        found = load_run(self.folder)
        others = [name for name in mine if found and found.get(name) != mine[name]]
        if others:
            raise OtherRun(
                f"{self.folder} was begun with other {' and '.join(others)}. Give another folder, "
                "or empty this one."
            )
        _write(self.folder / "run.json", lambda path: path.write_text(json.dumps(mine)))

    def _projection(self) -> Projection:
        path = self.folder / "projection.safetensors"
        layers, _ = find_layers(self.network)
        if not path.exists():
            batches = self._counted(_split(self._sample(BASIS_IMAGES), BATCH_SIZE), before=0)
            _write(path, Projection.fit(self.network, layers, map(self.read, batches)).save)
        return Projection.load(layers, path)

    def _whitening(self, projection: Projection) -> Tensor:
        path = self.folder / "whitening.safetensors"
        if not path.exists():
            damped = self._curvature(projection).numpy()
            damped += self.network.head.l2 * np.eye(len(damped))
            factor = cholesky(damped, lower=True)
            whitening = solve_triangular(factor, np.eye(len(factor)), lower=True).T
            state = {
                "whitening": torch.tensor(np.ascontiguousarray(whitening), dtype=torch.float32),
                "theta": torch.tensor(self.network.head.theta),
                "l2": torch.tensor(self.network.head.l2, dtype=torch.float64),
            }
            _write(path, lambda partial: save_file(state, partial))
        (self.folder / "curvature.safetensors").unlink(missing_ok=True)
        return load_file(path)["whitening"]

    def _curvature(self, projection: Projection) -> Tensor:
        """(P, P) float64, the Gauss-Newton matrix of a sample; kept shard by shard."""
        path = self.folder / "curvature.safetensors"
        size, sample = projection.size, self._sample(CURVATURE_IMAGES)
        state = {"sum": torch.zeros(size, size, dtype=torch.float64), "images": torch.tensor(0)}
        if path.exists():
            state = load_file(path)
        for start in range(int(state["images"]), len(sample), SHARD):
            random = torch.Generator().manual_seed(start)
            shard = sample[start : start + SHARD]
            batches = _split(shard, BATCH_SIZE)
            for rows in self._counted(batches, before=len(self._sample(BASIS_IMAGES)) + start):
                jacobian = projection.gradients(
                    self.network, self.read(rows),
                    lambda logits: expected_labels(logits, LABEL_DRAWS, random),  # noqa: B023
                ).flatten(0, 1)  # fmt: skip
                state["sum"] += (jacobian.T @ jacobian).cpu()
            state["images"] = torch.tensor(start + len(shard))
            _write(path, lambda partial: save_file(state, partial))
        return state["sum"] / len(sample)

    def _write_gradients(self, projection: Projection, whitening: Tensor) -> None:
        """Whitened gradients of all images' losses; the length of one that is to do is NaN."""
        n = len(self.labels)
        directions_path, lengths_path = self.folder / "directions.npy", self.folder / "lengths.npy"
        if not lengths_path.exists():
            open_memmap(directions_path, "w+", np.float16, (n, projection.size)).flush()
            _write(lengths_path, lambda path: np.save(path, np.full(n, np.nan, np.float32)))
        directions, lengths = open_memmap(directions_path, "r+"), open_memmap(lengths_path, "r+")
        whitening = whitening.to(self.network.classifier.device)
        before = len(self._sample(BASIS_IMAGES)) + len(self._sample(CURVATURE_IMAGES))
        for start in range(int(np.isfinite(lengths).sum()), n, SHARD):
            shard = np.arange(start, min(start + SHARD, n))
            batches = self._counted(_split(shard, BATCH_SIZE), before + start)
            rows = torch.cat([self._loss_gradients(projection, b) @ whitening for b in batches])
            norms = rows.norm(dim=1)
            directions[shard] = (rows / norms.clamp(1e-30)[:, None]).half().cpu().numpy()
            directions.flush()
            lengths[shard] = norms.cpu().numpy()
            lengths.flush()

    def _loss_gradients(self, projection: Projection, rows: np.ndarray) -> Tensor:
        def residuals(logits: Tensor) -> Tensor:
            labels = torch.from_numpy(self.labels[rows]).long().to(logits.device)
            return (logits.softmax(dim=1) - one_hot(labels, logits.shape[1]))[None]

        return projection.gradients(self.network, self.read(rows), residuals)[0]

    def _sample(self, count: int) -> np.ndarray:
        """Rows of up to `count` images, the same at each call."""
        return np.random.default_rng(0).permutation(len(self.labels))[:count]

    def _counted(self, batches: Sequence[np.ndarray], before: int) -> Iterator[np.ndarray]:
        """The batches; what is done with each has been reported when the next one comes."""
        n = len(self.labels)
        total = min(BASIS_IMAGES, n) + min(CURVATURE_IMAGES, n) + n
        for rows in batches:
            yield rows
            before += len(rows)
            self.progress(before, total)


def _split(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _write(path: Path, save: Callable[[Path], object]) -> None:
    """All of a file or nothing of it."""
    partial = path.with_name(f"partial-{path.name}")
    save(partial)
    os.replace(partial, path)


def load_run(folder: Path) -> dict[str, object]:
    """What a folder was begun for; nothing for one that was not."""
    path = folder / "run.json"
    return json.loads(path.read_text()) if path.exists() else {}


def digest_weights(classifier: Classifier) -> str:
    """Hex sha256 of a network's state."""
    digest = sha256()
    for name, tensor in sorted(classifier.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
