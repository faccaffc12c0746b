"""What one influence query costs, beside kronfluence and captum, and with very many images.

KINDRED_CIFAR10=... KINDRED_DATA=... python -m tests.benchmarks.influence_speed [--threads 1]
    [peers] [million] [classes]

Environment as for tests.benchmarks.cifar10. What takes long to make (features, heads, curvature)
is kept in build/influence_speed. Each time is a median over different images in question.

peers: CIFAR-10's 50,000 training images, 512 features (last stage of the ResNet-20, pooled to
2 x 4), the head refitted. kronfluence (EK-FAC of that layer) and captum's TracInCPFast are given
the very features and a network of that one layer, so that they are spared the convolutions; then
the same with the convolutions, on 5,000 of the images. All explain one image at a time.
million: the 50,000 images twenty times, with noise of a tenth of each feature's spread.
classes: 200,000 made images of 1,000 classes in 100 groups, 2,048 features, power-law spectrum, 2%
of the labels wrong; a linear discriminant as last layer.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from safetensors.numpy import load_file, save_file
from scipy.linalg import cho_factor, cho_solve
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from explain.head import L2, extend, hessian, refit_head
from explain.influence import HeadInfluence
from explain.kfac import KFACFactors, KFACInfluence
from explain.search import top
from models.activations import Activations, Head
from models.bank import Bank
from models.observed import Blobs, ObservedSet
from ood.store import load_fitted, save_fitted
from tests.benchmarks.cifar10 import DATA, read_labels, read_png
from tests.benchmarks.influence_peers import Body, K, Network, kronfluence, tracin

KEPT = Path("build/influence_speed")
QUERIES = 100
MILLION = 1_000_000
MADE, CLASSES, GROUPS, FEATURES = 200_000, 1_000, 100, 2_048

Query = tuple[np.ndarray, int, int]


def bank_of(
    features: np.ndarray, logits: np.ndarray, labels: np.ndarray, theta: np.ndarray
) -> Bank:
    n, blank = len(labels), Blobs(np.empty(0, np.uint8), np.zeros(len(labels) + 1, np.int64))
    images = ObservedSet(
        Activations(logits, features), labels, np.zeros((n, 32), np.uint8), blank, blank
    )
    return Bank(images, Head(theta[:, :-1].astype(np.float32), theta[:, -1].astype(np.float32)))


def kept(name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    path = KEPT / f"{name}.safetensors"
    if not path.exists():
        start = time.perf_counter()
        made = {key: np.array(value, order="C") for key, value in make().items()}
        save_file(made, path)
        print(f"({name}: made in {time.perf_counter() - start:.0f} s)\n", flush=True)
    return load_file(path)


def body() -> Body:
    network = Body()
    state = torch.load(DATA / "cifar10_resnet20.pt", weights_only=True)
    network.load_state_dict(state)
    return network.eval()


def inputs(pixels: np.ndarray) -> Tensor:
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    return (torch.from_numpy(pixels).float() / 255 - mean) / std


def training_pixels() -> np.ndarray:
    return np.concatenate([read_png(f"data_batch_{n}.png") for n in range(1, 6)])


def cifar() -> dict[str, np.ndarray]:
    """Features (float16) and labels of the training and test images."""

    def features(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            parts = [network(inputs(pixels[s : s + 500])) for s in range(0, len(pixels), 500)]
        return torch.cat(parts).half().numpy()

    network = body()
    return {
        "train": features(training_pixels()), "labels": read_labels("train_lables.json"),
        "test": features(read_png("test_batch.png")),
    }  # fmt: skip


def refitted(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    head = refit_head(data["train"], data["labels"], 10, L2)
    matrix = hessian(extend(data["train"]), head.theta, L2)
    inverse = cho_solve(cho_factor(matrix), np.eye(len(matrix))).astype(np.float32)
    bank = bank_of(data["train"], data["train"][:, :10], data["labels"], head.theta)
    own = HeadInfluence.from_inverse(bank, head.theta, inverse).self_influence
    return {"theta": head.theta, "inverse": inverse, "self_influence": own}


def queries(features: np.ndarray, theta: np.ndarray, count: int) -> list[Query]:
    logits = features[:count].astype(np.float32) @ theta[:, :-1].T + theta[:, -1]
    pairs = np.argsort(logits, axis=1)[:, -2:]
    return [(features[i].astype(np.float32), int(t), int(a)) for i, (a, t) in enumerate(pairs)]


def milliseconds(ask: Callable, asked: list) -> float:
    """Median over the queries, after a first that does not count."""
    times = []
    for query in [asked[0], *asked]:
        start = time.perf_counter()
        ask(query)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[1:]))


def megabytes_beside_features(influence: HeadInfluence) -> float:
    """Of everything that a query reads, but the features."""
    kept = [getattr(influence, field.name) for field in fields(influence) if field.name != "stored"]
    return sum(array.nbytes for array in (*kept, *influence._foremost)) / 2**20


def agreement(influence: HeadInfluence | KFACInfluence, asked: list[Query], own: np.ndarray) -> str:
    """How much of the lists is what a full scan gives: the mean of both lists of K."""
    shares: list[int] = []
    for query in asked:
        everything = influence.on_margin(*query)
        strongest = influence.strongest(*query, K)
        lists = [(strongest.helpful, -everything), (strongest.harmful, everything)]
        if isinstance(influence, KFACInfluence):  # the other's is a full scan itself
            relative = everything / np.sqrt(np.maximum(own, 1e-12))
            lists.append((influence.explain(*query, K).helpful, -relative))
        shares += [len(set(got) & set(top(scores, K))) for got, scores in lists]
    return f"{np.mean(shares):.2f} of {K} as a full scan gives ({len(asked)} images)"


def report(name: str, milliseconds_each: dict[str, float]) -> None:
    print(f"| {name} | ms |\n|---|---|")
    for what, cost in milliseconds_each.items():
        print(f"| {what} | {cost:,.1f} |")
    print(flush=True)


def ours(influence: HeadInfluence | KFACInfluence, asked: list[Query]) -> dict[str, float]:
    return {
        "strongest by influence, both signs": milliseconds(
            lambda query: influence.strongest(*query, K), asked
        ),
        "explain: helpful by l-RelatIF, harmful by influence": milliseconds(
            lambda query: influence.explain(*query, K), asked
        ),
    }


PEERS = {"kronfluence": kronfluence, "captum TracInCPFast": tracin}


def compare(
    name: str, costs: dict[str, float], network: Callable[[], Network], train: TensorDataset,
    images: Tensor,
) -> None:  # fmt: skip
    """Ours beside the peers, each at the better of two batch sizes."""
    influence, explain = list(costs.values())[:2]
    theirs = {
        peer: min(
            milliseconds(make(network(), train, batch), list(images)) for batch in (1_024, 4_096)
        )
        for peer, make in PEERS.items()
    }
    report(name, costs | theirs)
    for peer, cost in theirs.items():
        print(
            f"{peer}: {cost / influence:,.0f} times ours by influence, {cost / explain:,.0f} "
            "times ours with l-RelatIF\n"
        )


def peers() -> None:
    data = kept("cifar", cifar)
    fitted = kept("refitted", lambda: refitted(data))
    theta, labels = fitted["theta"], data["labels"].astype(np.int64)
    bank = bank_of(data["train"], data["train"][:, :10], labels, theta)
    influence = HeadInfluence.from_inverse(bank, theta, fitted["inverse"], fitted["self_influence"])
    asked = queries(data["test"], theta, QUERIES)
    costs = ours(influence, asked)
    first = influence.strongest(*asked[0], K)
    rows = np.concatenate([first.helpful[:6], first.harmful[:6]])
    costs["Newton removal effect of 12 images"] = milliseconds(
        lambda query: influence.removal_effect(rows, *query), asked
    )
    test = torch.from_numpy(data["test"][:5]).float()
    linear = TensorDataset(torch.from_numpy(data["train"]).float(), torch.from_numpy(labels))
    compare("50,000 x 512 x 10", costs, lambda: Network(nn.Identity(), theta), linear, test)
    scores = kronfluence(Network(nn.Identity(), theta), linear, 4_096)(test[0])
    r = np.corrcoef(scores, influence.on_margin(*asked[0]))[0, 1]
    print(f"correlation of kronfluence's scores with ours, first image: {r:.2f}")
    print(agreement(influence, asked[:50], influence.self_influence) + "\n", flush=True)
    few = slice(5_000)
    bank = bank_of(data["train"][few], data["train"][few, :10], labels[few], theta)
    fewer = HeadInfluence.from_inverse(bank, theta, fitted["inverse"])
    whole = TensorDataset(inputs(training_pixels()[few]), torch.from_numpy(labels[few]))
    images = inputs(read_png("test_batch.png")[:2])
    compare(
        "5,000 images through the ResNet-20", ours(fewer, asked), lambda: Network(body(), theta),
        whole, images,
    )  # fmt: skip


def million_features(train: np.ndarray) -> np.ndarray:
    """(1,000,000, 512) float16, mapped; row i is row i mod 50,000 with noise."""
    path, rng = KEPT / "million.npy", np.random.default_rng(0)
    if not path.exists():
        spread = 0.1 * train.std(axis=0, dtype=np.float32)
        unfinished = path.with_suffix(".part")
        made = open_memmap(unfinished, "w+", np.float16, (MILLION, train.shape[1]))
        for start in range(0, MILLION, len(train)):
            noise = rng.standard_normal(train.shape, np.float32)
            made[start : start + len(train)] = np.maximum(train + spread * noise, 0)
        made.flush()
        unfinished.rename(path)
    return np.load(path, mmap_mode="r")


def million() -> None:
    data = kept("cifar", cifar)
    fitted = kept("refitted", lambda: refitted(data))
    theta, features = fitted["theta"], million_features(data["train"])
    labels = np.tile(data["labels"].astype(np.int32), MILLION // len(data["labels"]))
    bank = bank_of(features, features[:, :10], labels, theta)
    own = kept(
        "million",
        lambda: {"own": HeadInfluence.from_inverse(bank, theta, fitted["inverse"]).self_influence},
    )["own"]
    influence = HeadInfluence.from_inverse(bank, theta, np.array(fitted["inverse"]), np.array(own))
    asked = queries(data["test"], theta, 20)
    report("1,000,000 x 512 x 10", ours(influence, asked))
    more = megabytes_beside_features(influence)
    print(
        f"memory beside the features' own {features.nbytes / 2**20:,.0f} MB: {more:,.0f} MB, "
        f"{1 + more * 2**20 / features.nbytes:.2f} times them together"
    )
    print(agreement(influence, asked, influence.self_influence) + "\n", flush=True)


def made_images() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Features (200,000, 2,048) float16, mapped, and the rest: logits, labels, theta, test."""
    rng, path = np.random.default_rng(0), KEPT / "classes.npy"
    spread = np.arange(1, FEATURES + 1, dtype=np.float32) ** -0.5
    mixing = np.linalg.qr(rng.standard_normal((FEATURES, FEATURES)))[0].astype(np.float32)
    groups = rng.standard_normal((GROUPS, FEATURES), np.float32)
    means = groups[np.arange(CLASSES) % GROUPS]
    means = 0.14 * (means + 0.7 * rng.standard_normal((CLASSES, FEATURES), np.float32)) * spread

    def some(labels: np.ndarray) -> np.ndarray:
        heavy = rng.gamma(4, 0.25, (len(labels), 1)).astype(np.float32) ** 0.5
        noise = rng.standard_normal((len(labels), FEATURES), np.float32) * spread * heavy
        return np.maximum(10 * (means[labels] + noise) @ mixing + 0.1, 0)

    def rest() -> dict[str, np.ndarray]:
        true = np.arange(MADE) % CLASSES
        features = open_memmap(path, "w+", np.float16, (MADE, FEATURES))
        for start in range(0, MADE, 10_000):
            features[start : start + 10_000] = some(true[start : start + 10_000])
        features.flush()
        held_out = rng.integers(0, CLASSES, 2_000)
        theta = calibrated(discriminant(features, true), some(held_out), held_out)
        logits = np.empty((MADE, CLASSES), np.float16)
        for start in range(0, MADE, 10_000):
            part = features[start : start + 10_000].astype(np.float32)
            logits[start : start + 10_000] = part @ theta[:, :-1].T + theta[:, -1]
        wrong = rng.random(MADE) < 0.02
        labels = np.where(wrong, rng.integers(0, CLASSES, MADE), true).astype(np.int32)
        test = some(rng.integers(0, CLASSES, 40)).astype(np.float16)
        return {"logits": logits, "labels": labels, "theta": theta, "test": test}

    made = kept("classes", rest)
    return np.load(path, mmap_mode="r"), made


def discriminant(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C, D + 1) of Fisher's linear discriminant."""
    sums, scatter = np.zeros((CLASSES, FEATURES)), np.zeros((FEATURES, FEATURES), np.float32)
    for start in range(0, MADE, 10_000):
        part = features[start : start + 10_000].astype(np.float32)
        np.add.at(sums, labels[start : start + 10_000], part)
        scatter += part.T @ part
    means = sums / (MADE // CLASSES)
    within = scatter / MADE - means.T @ means / CLASSES
    within += 0.3 * np.trace(within) / FEATURES * np.eye(FEATURES)
    weights = cho_solve(cho_factor(within), means.T).T
    return np.column_stack([weights, -(weights * means).sum(axis=1) / 2]).astype(np.float32)


def calibrated(theta: np.ndarray, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Theta times what makes its probabilities fit best."""
    logits = features @ theta[:, :-1].T + theta[:, -1]
    rows = np.arange(len(labels))
    losses = {
        scale: -log_softmax(scale * logits, axis=1)[rows, labels].mean()
        for scale in np.geomspace(0.03, 3, 40, dtype=np.float32)
    }
    return theta * min(losses, key=losses.__getitem__)


def classes() -> None:
    features, made = made_images()
    bank = bank_of(features, made["logits"], made["labels"], made["theta"])
    right = (made["logits"].argmax(axis=1) == made["labels"]).mean()
    path = KEPT / "factors.safetensors"
    if not path.exists():
        start = time.perf_counter()
        save_fitted(KFACFactors.fit(bank), path)
        print(f"(EK-FAC fitted in {time.perf_counter() - start:.0f} s)\n", flush=True)
    influence = KFACInfluence.of(bank, load_fitted(KFACFactors, path))
    asked = queries(made["test"], made["theta"], 40)
    costs = ours(influence, asked[:20])
    costs["full scan"] = milliseconds(lambda query: influence.on_margin(*query), asked[:3])
    report(f"200,000 x 2,048 x 1,000, {right:.0%} classified as labelled", costs)
    print(agreement(influence, asked[:10], influence.factors.self_influence) + "\n", flush=True)


def main() -> None:
    """Measure and print."""
    parts = {"peers": peers, "million": million, "classes": classes}
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=list(parts), metavar="part")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"no part {', '.join(unknown)}; choose of {', '.join(parts)}")
    KEPT.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} thread(s)\n")
    with threadpool_limits(arguments.threads):
        for part in arguments.parts:
            parts[part]()


if __name__ == "__main__":
    main()
