"""captum's and kronfluence's influences for the linear datamodeling score."""

import copy
import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from captum.influence import TracInCPFast
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch import nn
from torch.utils.data import TensorDataset

from tests.benchmarks.lds_network import Setting, build

OF_THE_MEAN = "0.1 of the mean"
DAMPINGS = (OF_THE_MEAN, "1e-8", "1e-5", "1e-4", "1e-3", "1e-2")


def tracin(setting: Setting) -> dict[str, np.ndarray]:
    """captum's TracInCPFast over the three checkpoints, for the label's loss and for the margin."""

    def load(model: nn.Module, path: str) -> float:
        model.load_state_dict(torch.load(path, weights_only=True))
        return 1.0

    def margin(logits: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        return (logits.gather(1, pairs[:, :1]) - logits.gather(1, pairs[:, 1:])).sum()

    loss = nn.CrossEntropyLoss(reduction="sum")
    dataset = TensorDataset(setting.inputs, torch.tensor(setting.labels))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{number}.pt" for number in range(len(setting.checkpoints))]
        for path, checkpoint in zip(paths, setting.checkpoints, strict=True):
            torch.save(checkpoint.state_dict(), path)
        for name, test_loss, targets, sign in (
            ("loss of the predicted class", loss, setting.pairs[:, 0], -1),
            ("margin", margin, setting.pairs, 1),
        ):
            model = build().eval()
            peer = TracInCPFast(
                model, model[-1], dataset, paths, load, loss, batch_size=500,
                test_loss_fn=test_loss,
            )  # fmt: skip
            scores = peer.influence((setting.query_inputs, torch.tensor(targets)))
            found[f"captum TracInCPFast, 3 checkpoints, {name}"] = sign * scores.detach().numpy()
    return found


class MarginTask(Task):
    """Cross entropy in training, the margin of a query."""

    def compute_train_loss(self, batch, model, sample=False):
        inputs, labels = batch
        logits = model(inputs)
        if sample:
            labels = torch.multinomial(logits.detach().softmax(dim=1), 1).flatten()
        return nn.functional.cross_entropy(logits, labels, reduction="sum")

    def compute_measurement(self, batch, model):
        inputs, pairs = batch
        logits = model(inputs)
        return (logits.gather(1, pairs[:, :1]) - logits.gather(1, pairs[:, 1:])).sum()


def kronfluence(
    setting: Setting, network: nn.Module, dampings: Sequence[str]
) -> dict[str, np.ndarray]:
    """EK-FAC over all modules; its labels for the Fisher are drawn, here with one seed."""
    torch.manual_seed(0)
    task = MarginTask()
    model = prepare_model(copy.deepcopy(network).requires_grad_(True), task)
    train = TensorDataset(setting.inputs, torch.tensor(setting.labels))
    queries = TensorDataset(setting.query_inputs, torch.tensor(setting.pairs))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("lds", model, task, cpu=True, output_dir=folder, disable_tqdm=True)
        analyzer.fit_all_factors(
            "factors", train, per_device_batch_size=250, factor_args=FactorArguments("ekfac")
        )
        for damping in dampings:
            factor = None if damping == OF_THE_MEAN else float(damping)
            analyzer.compute_pairwise_scores(
                "scores", "factors", queries, train, per_device_query_batch_size=len(queries),
                per_device_train_batch_size=250, overwrite_output_dir=True,
                score_args=ScoreArguments(damping_factor=factor),
            )  # fmt: skip
            found[damping] = analyzer.load_pairwise_scores("scores")["all_modules"].numpy()
    return found
