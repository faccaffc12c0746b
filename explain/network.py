"""Which training images made it say so, counting that they taught every layer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from explain.head import RefittedHead
from explain.layers import RefittedNetwork, find_layers
from explain.network_fit import NetworkFit, OtherRun, Progress, Read, digest_weights, load_run
from explain.projection import Projection
from models.classifier import Classifier

L2 = 3e-2


class NotFinished(ValueError):
    """A folder whose fit was interrupted."""


@dataclass(frozen=True)
class NetworkInfluence:
    """Influence of N training images on all of a network's layers, in P numbers an image.

    Koh and Liang (ICML 2017, equation 2) in LoGra's projection, at the network with its last layer
    refitted: after training to the end, residuals are next to nothing for images that taught the
    network much. H = (1/N) sum_i J_i' (diag p_i - p_i p_i') J_i is the Gauss-Newton matrix of all
    layers together, J_i (C, P) the projected Jacobian of image i's logits. With g_i the gradient of
    its loss and q that of a margin, leaving it out changes the margin by
    (1/N) q' (H + l2)^-1 g_i, l2 the refit's. Two trainings of a network differ by more than one
    image's effect: average `on_margin` over several checkpoints or seeds.

    Attributes:
        network: that learned from the images.
        projection: of its layers.
        whitening: (P, P) float32, W with W W' = (H + l2)^-1.
        directions: (N, P) float16, memory-mapped: W' g_i divided by their lengths.
        lengths: (N,) float32; their squares are self-influences.
        skipped: names of layers with weights that are left out.
    """

    network: RefittedNetwork
    projection: Projection
    whitening: np.ndarray
    directions: np.ndarray
    lengths: np.ndarray
    skipped: tuple[str, ...]

    @classmethod
    def fit(
        cls, classifier: Classifier, head: RefittedHead, read: Read, labels: np.ndarray,
        folder: Path, progress: Progress = lambda done, total: None,
    ) -> Self:  # fmt: skip
        """Two passes over some images for bases and curvature, then one over all.

        What is done is kept in `folder`: after a kill the same call goes on from there and ends
        with the same bytes.

        Args:
            classifier: that learned from the images.
            head: its last layer, refitted with an l2 of about `L2`.
            read: rows (n,) of training images to their pixels (n, channels, S, S) uint8.
            labels: (N,) in 0..C-1, as it learned them; N >= 1.
            folder: made if it is not there.
            progress: told how many images of how many are done.

        Raises:
            OtherRun: when the folder was begun for something else.
            SharedLayer: when a layer's weights are used twice in a pass.
            NonFiniteOutput: when an image has NaN or infinity for a logit or gradient.
        """
        network = RefittedNetwork.of(classifier, head)
        NetworkFit(network, read, np.asarray(labels), folder, progress).run()
        return cls.open(classifier, folder)

    @classmethod
    def open(cls, classifier: Classifier, folder: Path) -> Self:
        """What `fit` left in a folder; gradients stay on disk until they are read.

        Raises:
            OtherRun: when it was fitted for other weights.
            NotFinished: when the fit was interrupted.
        """
        if load_run(folder).get("weights") != digest_weights(classifier):
            raise OtherRun(f"{folder} does not belong to a network of these weights.")
        lengths_path = folder / "lengths.npy"
        lengths = np.load(lengths_path) if lengths_path.exists() else np.array([np.nan])
        if np.isnan(lengths).any():
            raise NotFinished(f"The fit in {folder} was interrupted. Run it again to go on.")
        fitted = load_file(folder / "whitening.safetensors")
        head = RefittedHead(fitted["theta"].numpy(), float(fitted["l2"]), 0.0)
        network = RefittedNetwork.of(classifier, head)
        layers, skipped = find_layers(network)
        return cls(
            network=network,
            projection=Projection.load(layers, folder / "projection.safetensors"),
            whitening=fitted["whitening"].numpy(),
            # Copy on write: torch wants arrays that it may write to, and never does.
            directions=np.load(folder / "directions.npy", mmap_mode="c"),
            lengths=lengths,
            skipped=skipped,
        )

    @property
    def self_influence(self) -> np.ndarray:
        """(N,) float32, g_i' (H + l2)^-1 g_i."""
        return np.square(self.lengths)

    def on_margin(self, pixels: np.ndarray, target: int, against: int) -> np.ndarray:
        """Every training image's influence on one image's margin.

        Args:
            pixels: (channels, S, S) uint8 of the image in question.
            target: class whose logit counts positive.
            against: class whose logit counts negative.

        Returns:
            (N,) float32, in logits: the margin's predicted change were that image left out.
        """

        def margin(logits: Tensor) -> Tensor:
            weights = torch.zeros_like(logits)
            weights[:, target] += 1
            weights[:, against] -= 1
            return weights[None]

        gradient = self.projection.gradients(self.network, pixels[None], margin)[0, 0].cpu()
        query = gradient @ torch.from_numpy(self.whitening)
        size = query.norm()
        # Of length one, neither side leaves the range of 16 bits.
        cosines = torch.mv(torch.from_numpy(self.directions), (query / size.clamp(1e-30)).half())
        return cosines.float().numpy() * self.lengths * float(size / len(self.lengths))
