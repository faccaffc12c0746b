"""`python -m app network`: which training images taught the whole network, not its end alone."""

import argparse
import sys
from pathlib import Path

from app.locations import DEMO, workspace_path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "network", help="add influence on all layers, not the last alone, to a workspace"
    )
    parser.add_argument("--workspace", default=DEMO, help="name or path (default: %(default)s)")
    parser.add_argument(
        "--train", type=Path, required=True,
        help="the folder of training images that the workspace was prepared from",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", default=[],
        help="more weights of this network, of one training or several: their mean is steadier",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when all networks are fitted, 1 when not, 2 on wrong usage."""
    from safetensors import SafetensorError

    from app.manifest import WorkspaceError
    from app.network_fitting import fit_networks
    from app.workspace import Workspace
    from explain.head import RefitDidNotConverge
    from explain.layers import SharedLayer
    from explain.network_fit import OtherRun
    from models.classifier import NonFiniteOutput
    from models.loading import WeightsRefused

    try:
        workspace = Workspace.open(workspace_path(args.workspace))
    except WorkspaceError as error:
        print(error, file=sys.stderr)
        return 2
    refused = (
        WorkspaceError, WeightsRefused, OtherRun, SharedLayer, NonFiniteOutput, RefitDidNotConverge,
    )  # fmt: skip
    try:
        found = fit_networks(workspace, args.train, args.checkpoint)
    except refused as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, SafetensorError) as error:  # a full disk is either
        print(f"{error} What is done so far is kept; run it again to go on.", file=sys.stderr)
        return 1
    between = "" if found.between is None else f", with each other {found.between:.2f}"
    print(
        f"{workspace.path}: influence by {found.networks} networks. Over {found.images} "
        f"calibration images their ranks correlate {found.with_head:.2f} with those of the last "
        f"layer alone{between}. An app that is running shows it after a restart."
    )
    return 0
