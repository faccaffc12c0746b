r"""Train a classifier from folders of images.

    python -m models.train --train DIR --test DIR --model NAME --image-size N \
        --mean M [M M] --std S [S S] --out weights.safetensors

Seeded; on the GPU where there is one. The test folder is looked at once, at the end: nothing
is chosen by it. The preprocessed training images are held in memory, one byte a value.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from models.architectures import build_architecture
from models.images import ImageRefused
from models.imagesets import ImageFolder
from models.preprocessing import Preprocessing

BATCH_SIZE = 128
MAX_LEARNING_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4


@dataclass(frozen=True)
class LoadedImages:
    """All readable images of a folder.

    Attributes:
        pixels: (N, channels, S, S) uint8.
        labels: (N,) int64.
        names: N paths in the folder.
    """

    pixels: Tensor
    labels: Tensor
    names: tuple[str, ...]


def load_images(folder: ImageFolder, preprocessing: Preprocessing) -> LoadedImages:
    """Read a folder; what cannot be read is said and left out."""
    pixels, labels, names = [], [], []
    inputs = folder.read(range(len(folder)), lambda decoded: preprocessing.pixels(decoded.image))
    reading = zip(inputs, folder.labels, folder.names, strict=True)
    for image, label, name in tqdm(reading, desc=f"read {folder.root}", total=len(folder)):
        if isinstance(image, ImageRefused):
            tqdm.write(f"skipped {name}: {image}")
            continue
        pixels.append(image)
        labels.append(label)
        names.append(name)
    return LoadedImages(torch.from_numpy(np.stack(pixels)), torch.tensor(labels), tuple(names))


def augment(pixels: Tensor, flip: bool) -> Tensor:
    """Shift each image of (N, C, S, S) by up to S/10 pixels and mirror half of them."""
    side = pixels.shape[-1]
    margin = max(1, side // 10)
    padded = nn.functional.pad(pixels, (margin,) * 4)
    shifts = torch.randint(0, 2 * margin + 1, (2, len(pixels), 1), device=pixels.device)
    rows, columns = shifts + torch.arange(side, device=pixels.device)
    if flip:
        mirrored = torch.rand(len(pixels), 1, device=pixels.device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    image = torch.arange(len(pixels), device=pixels.device)
    shifted = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2)


def train(
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    preprocessing: Preprocessing,
    *,
    epochs: int,
    flip: bool,
    device: torch.device,
    after_epoch: Callable[[nn.Module], None] = lambda network: None,
) -> list[float]:
    """Train in place by SGD with a one-cycle schedule; returns each epoch's mean loss.

    Mixed precision in bfloat16. Source of the schedule: Smith and Topin, 2017
    (arXiv:1708.07120). `after_epoch` is given the network in its present state.
    """
    network.to(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=MAX_LEARNING_RATE, momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY, nesterov=True,
    )  # fmt: skip
    batches = len(pixels) // BATCH_SIZE
    if batches == 0:
        raise ValueError(f"{len(pixels)} training images do not fill one batch of {BATCH_SIZE}.")
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, MAX_LEARNING_RATE, total_steps=epochs * batches
    )
    losses = []
    for epoch in range(epochs):
        network.train()
        order = torch.randperm(len(pixels))[: batches * BATCH_SIZE].view(batches, BATCH_SIZE)
        total = 0.0
        for rows in tqdm(order, desc=f"epoch {epoch + 1}/{epochs}", mininterval=5):
            inputs = preprocessing.normalise(augment(pixels[rows].to(device), flip))
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                loss = nn.functional.cross_entropy(network(inputs), labels[rows].to(device))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += loss.item()
        losses.append(total / batches)
        after_epoch(network)
        tqdm.write(f"epoch {epoch + 1}: loss {losses[-1]:.4f}")
    return losses


@torch.inference_mode()
def logits_of(network: nn.Module, pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(N, C) float32, without augmentation."""
    network.eval()
    device = next(network.parameters()).device
    parts = [network(preprocessing.normalise(p.to(device))).cpu() for p in torch.split(pixels, 512)]
    return torch.cat(parts)


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--test", type=Path, required=True, help="folder of the same classes")
    parser.add_argument("--model", required=True, help="torchvision name or module:function")
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--mean", type=float, nargs="+", required=True)
    parser.add_argument("--std", type=float, nargs="+", required=True)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--flip", action="store_true", help="mirror images at random")
    parser.add_argument(
        "--log-epochs", type=Path, metavar="FILE",
        help="write the training images' logits after each epoch to this .npz (a pass more each)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="weights, .safetensors")
    args = parser.parse_args()

    if args.log_epochs is not None and args.log_epochs.suffix != ".npz":
        parser.error(f"--log-epochs {args.log_epochs} must end in .npz.")
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    preprocessing = Preprocessing(args.image_size, tuple(args.mean), tuple(args.std))
    train_folder, test_folder = ImageFolder.open(args.train), ImageFolder.open(args.test)
    if train_folder.classes != test_folder.classes:
        parser.error(f"classes differ: {train_folder.classes} and {test_folder.classes}.")
    network = build_architecture(args.model, len(train_folder.classes))
    images = load_images(train_folder, preprocessing)
    logged: list[np.ndarray] = []

    def log_epoch(network: nn.Module) -> None:
        if args.log_epochs is not None:
            logits = logits_of(network, images.pixels, preprocessing)
            logged.append(logits.numpy().astype(np.float16))

    losses = train(
        network, images.pixels, images.labels, preprocessing,
        epochs=args.epochs, flip=args.flip, device=device, after_epoch=log_epoch,
    )  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, args.out)
    if args.log_epochs is not None:
        args.log_epochs.parent.mkdir(parents=True, exist_ok=True)
        np.savez(args.log_epochs, names=np.array(images.names), logits=np.stack(logged))
    test = load_images(test_folder, preprocessing)
    right = logits_of(network, test.pixels, preprocessing).argmax(dim=1) == test.labels
    result = {
        "command": vars(args) | {"train": str(args.train), "test": str(args.test)},
        "loss": losses,
        "test_accuracy": right.float().mean().item(),
    }
    args.out.with_suffix(".json").write_text(json.dumps(result, indent=1, default=str) + "\n")
    print(f"test accuracy {result['test_accuracy']:.4f}; weights in {args.out}")


if __name__ == "__main__":
    main()
