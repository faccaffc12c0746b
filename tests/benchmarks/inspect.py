"""What an inspection costs beside the bare forward pass, on the demo workspace.

python -m tests.benchmarks.inspect

Each figure is a median over interleaved runs in one process, and a ratio where there is one.
"""

import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from app.locations import ASSETS
from app.workspace import Workspace
from models.classifier import BATCH_SIZE
from models.fashion import read_fashion

IMAGES = 2_000
ROUNDS = 7


def seconds(*functions: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Median time of each function, run in turn after one warm-up."""
    times: list[list[float]] = [[] for _ in functions]
    for round_ in range(rounds + 1):
        for function, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if round_:
                kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in times]


def main() -> None:
    """Measure and print."""
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")
    start = time.perf_counter()
    workspace = Workspace.open(ASSETS / "fashion")
    print(f"opening: {time.perf_counter() - start:.2f} s (at most 3)")
    pixels = read_fashion("t10k")[0][:IMAGES, None]
    classifier = workspace.classifier

    def bare(chunk: np.ndarray = pixels) -> None:
        with torch.inference_mode():
            for first in range(0, len(chunk), BATCH_SIZE):
                classifier.network(classifier.inputs(chunk[first : first + BATCH_SIZE])).cpu()

    hooks = [module._forward_hooks.copy() for module in classifier.network.modules()]

    def forward() -> None:
        for module in classifier.network.modules():
            module._forward_hooks.clear()
        bare()
        for module, kept in zip(classifier.network.modules(), hooks, strict=True):
            module._forward_hooks.update(kept)

    inspected, passed = seconds(lambda: workspace.inspect(pixels), forward)
    print(
        f"{IMAGES:,} images: {inspected:.2f} s, bare forward {passed:.2f} s, "
        f"ratio {inspected / passed:.2f} (at most 1.5)"
    )
    one = pixels[:1]
    alone, single = seconds(
        lambda: workspace.inspect(one, influences=True), lambda: bare(one), rounds=40
    )
    print(
        f"one image with influences: {alone * 1e3:.1f} ms, {alone / single:.1f} of its forward "
        f"passes (at most 60 ms or 3)"
    )
    seen = workspace.inspect(one).activations
    (influences,) = seconds(lambda: workspace.explain(seen, 0), rounds=40)
    print(f"influences of one image: {influences * 1e3:.1f} ms (under 10)")


if __name__ == "__main__":
    main()
