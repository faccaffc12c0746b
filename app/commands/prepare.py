"""`python -m app prepare`: a workspace from anyone's model and images."""

import argparse
import os
import sys
from pathlib import Path

from app.locations import home

DEFAULT_MEAN = (0.485, 0.456, 0.406)
DEFAULT_STD = (0.229, 0.224, 0.225)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's options."""
    parser = commands.add_parser("prepare", help="make a workspace from a model and its images")
    parser.add_argument("--name", required=True, help="name, or path, of the new workspace")
    parser.add_argument("--train", type=Path, required=True, help="folder of class folders")
    parser.add_argument(
        "--calibration", type=Path, required=True,
        help="images of the same classes that the model was not trained on",
    )  # fmt: skip
    parser.add_argument(
        "--model", required=True, help="torchvision architecture, or module:function"
    )
    parser.add_argument(
        "--weights", required=True,
        help="safetensors or state dict file, or weights that torchvision publishes (DEFAULT)",
    )  # fmt: skip
    parser.add_argument("--classes", type=Path, help="class names in the head's order, one a line")
    parser.add_argument("--image-size", type=int, help="side in pixels (default: 224)")
    parser.add_argument("--resize", type=int, default=0, help="shorter side before the crop")
    parser.add_argument("--mean", type=float, nargs="+", help="one number: a grayscale model")
    parser.add_argument("--std", type=float, nargs="+")
    parser.add_argument(
        "--detector", default="",
        help="the one that decides (default: the best on outliers made from calibration images)",
    )  # fmt: skip
    parser.add_argument(
        "--unknown", type=Path,
        help="folder of class folders that the model does not know, to compare detectors on only",
    )  # fmt: skip
    parser.add_argument(
        "--odin", action="store_true",
        help="fit ODIN too, which asks for gradients: five passes more for each image it scores",
    )  # fmt: skip
    parser.add_argument(
        "--epoch-logits", type=Path,
        help=".npz of the logits after each epoch, as models.train --log-epochs writes it: "
        "another witness against wrong labels",
    )  # fmt: skip
    parser.add_argument("--about", default="", help="one sentence for visitors")
    parser.add_argument("--samples", type=Path, help="folder of images to try")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when the workspace is there, 1 when it could not be made, 2 on wrong usage."""
    from safetensors import SafetensorError

    from app.manifest import WorkspaceError
    from app.prepare import Recipe, prepare
    from models.anatomy import HeadNotFound
    from models.architectures import UnknownArchitecture
    from models.loading import (
        WeightsRefused,
        download_weights,
        published_preprocessing,
        read_state_dict,
        torchvision_weights,
    )
    from models.preprocessing import Preprocessing
    from ood.combination import COMBINATIONS
    from ood.detectors import DETECTORS, SPECIAL
    from ood.gradient import ODIN

    # A name goes to one's own workspaces, never into those that come with Kindred.
    target = Path(args.name) if os.sep in args.name else home() / args.name
    names = [*COMBINATIONS, *DETECTORS, *SPECIAL, ODIN.info.name]
    if args.detector and args.detector not in names:
        print(f"No detector {args.detector!r}; choose of {', '.join(names)}.", file=sys.stderr)
        return 2
    try:
        classes = None
        preprocessing = None
        if Path(args.weights).is_file() or os.sep in args.weights or "." in args.weights:
            weights = read_state_dict(Path(args.weights))
        else:
            entry = torchvision_weights(args.model, args.weights)
            weights = download_weights(entry)
            preprocessing = published_preprocessing(entry)
            classes = tuple(entry.meta["categories"])
        published = preprocessing or Preprocessing(224, DEFAULT_MEAN, DEFAULT_STD)
        preprocessing = Preprocessing(
            image_size=args.image_size or published.image_size,
            resize=args.resize or (0 if args.image_size else published.resize),
            mean=tuple(args.mean or published.mean),
            std=tuple(args.std or published.std),
        )
        if args.classes:
            lines = args.classes.read_text(encoding="utf-8").splitlines()
            classes = tuple(line.strip() for line in lines if line.strip())
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    recipe = Recipe(
        name=target.name,
        about=args.about,
        train=args.train,
        calibration=args.calibration,
        model=args.model,
        weights=weights,
        weights_source=args.weights,
        preprocessing=preprocessing,
        classes=classes,
        detector=args.detector,
        samples=args.samples,
        unknown=args.unknown,
        epoch_logits=args.epoch_logits,
        odin=args.odin or args.detector == ODIN.info.name,
    )
    try:
        manifest = prepare(recipe, target)
    except (WorkspaceError, WeightsRefused, HeadNotFound, UnknownArchitecture) as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, SafetensorError) as error:  # a full disk is either
        print(f"{error} What is done so far is kept; run it again to go on.", file=sys.stderr)
        return 1
    print(
        f"{target}: {len(manifest.classes)} classes, calibration accuracy "
        f"{manifest.calibration_accuracy:.2%}, {len(manifest.skipped)} files skipped, "
        f"{manifest.leaked} calibration images left out because they are training images too."
    )
    return 0
