"""kronfluence and captum's TracInCPFast, explaining one image at a time as ours does."""

from collections.abc import Callable

import numpy as np
import torch
from captum.influence import TracInCPFast
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy
from torch.utils.data import TensorDataset

from explain.head import L2
from tests.benchmarks.resnet20 import ResNet20

K = 10


class Body(ResNet20):
    """The ResNet-20 up to 512 features."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        return adaptive_avg_pool2d(x, (2, 4)).flatten(1)


class Network(nn.Module):
    """Something that makes features, and the refitted head."""

    def __init__(self, body: nn.Module, theta: np.ndarray) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(theta.shape[1] - 1, theta.shape[0])
        self.head.weight.data = torch.tensor(theta[:, :-1], dtype=torch.float32)
        self.head.bias.data = torch.tensor(theta[:, -1], dtype=torch.float32)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Margin(Task):
    """For kronfluence: cross-entropy to learn by, the margin to explain."""

    def compute_train_loss(self, batch, model, sample=False):
        logits = model(batch[0])
        labels = batch[1]
        if sample:
            labels = torch.multinomial(logits.detach().softmax(dim=1), 1).flatten()
        return cross_entropy(logits, labels, reduction="sum")

    def compute_measurement(self, batch, model):
        best = model(batch[0]).topk(2).values
        return (best[:, 0] - best[:, 1]).sum()

    def get_influence_tracked_modules(self):
        return ["head"]


def kronfluence(
    network: Network, train: TensorDataset, batch: int
) -> Callable[[Tensor], np.ndarray]:
    """A function that scores all training images for one image, curvature fitted beforehand."""
    task = Margin()
    analyzer = Analyzer(
        f"{len(train)}-{batch}", prepare_model(network, task), task, cpu=True,
        disable_tqdm=True, output_dir="build/influence_speed/kronfluence",
    )  # fmt: skip
    analyzer.fit_all_factors(
        "ekfac", train, per_device_batch_size=batch, overwrite_output_dir=True,
        factor_args=FactorArguments(strategy="ekfac"),
    )  # fmt: skip

    def ask(image: Tensor) -> np.ndarray:
        analyzer.compute_pairwise_scores(
            "scores", "ekfac", TensorDataset(image[None], torch.zeros(1).long()), train,
            per_device_query_batch_size=1, per_device_train_batch_size=batch,
            score_args=ScoreArguments(damping_factor=L2), overwrite_output_dir=True,
        )  # fmt: skip
        return analyzer.load_pairwise_scores("scores")["all_modules"][0].numpy()

    return ask


def tracin(network: Network, train: TensorDataset, batch: int) -> Callable[[Tensor], object]:
    """captum's proponents of one image, from one checkpoint, which is its fastest."""
    method = TracInCPFast(
        network, network.head, train, ["as it is"], lambda model, path: 1.0,
        loss_fn=nn.CrossEntropyLoss(reduction="sum"), batch_size=batch,
    )  # fmt: skip
    return lambda image: method.influence((image[None], network(image[None]).argmax(1)), k=K)
