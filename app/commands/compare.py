"""`python -m app compare`: one record per detector and set of outliers, without a screen."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from app.locations import DEMO, workspace_path

if TYPE_CHECKING:
    from app.outliers import Scores
    from app.workspace import Workspace

CHUNK = 256
_REASONS_SAID = 3


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's options."""
    parser = commands.add_parser("compare", help="compare all detectors on images they should flag")
    parser.add_argument("--workspace", default=DEMO, help="name or path (default: %(default)s)")
    parser.add_argument(
        "--ood", nargs="+", type=Path, default=[], metavar="DIR",
        help="folder, zip or image of unknown things; each is a set, named by its last part",
    )  # fmt: skip
    parser.add_argument(
        "--ready", action="store_true", help="compare on the workspace's ready-made sets too"
    )
    parser.add_argument("--format", choices=("json", "csv", "markdown", "latex"), default="json")
    parser.add_argument("--out", type=Path, help="file to write; standard output without it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when every file was compared, 1 when some were refused, 2 on wrong usage."""
    if not args.ood and not args.ready:
        print("Nothing to compare on: give --ood DIR or --ready.", file=sys.stderr)
        return 2
    missing = [str(path) for path in args.ood if not path.exists()]
    if missing:
        print(f"No such file or folder: {', '.join(missing)}", file=sys.stderr)
        return 2
    from app.manifest import WorkspaceError
    from app.workspace import Workspace
    from models.classifier import NonFiniteOutput

    try:
        workspace = Workspace.open(workspace_path(args.workspace))
        sets = dict(workspace.outliers) if args.ready else {}
        own, complete = _score_all(workspace, set_names(args.ood, taken=sets))
    except (WorkspaceError, NonFiniteOutput) as error:
        print(error, file=sys.stderr)
        return 2
    sets |= own
    if not sets:
        print("There are no images to compare on.", file=sys.stderr)
        return 2
    try:
        _write(_compared(workspace, sets, args.format), args.out)
    except OSError as error:
        print(f"The comparison could not be written: {error}", file=sys.stderr)
        return 1
    return 0 if complete else 1


def set_names(paths: Sequence[Path], taken: Iterable[str]) -> dict[str, Path]:
    """Paths by their last part; by the whole path where that would name two sets."""
    from app.uploads import printable

    whole = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))  # noqa: PTH100
    uses = Counter([*(path.name for path in whole), *taken])
    return {printable(Path(p.name) if p.name and uses[p.name] == 1 else p): p for p in whole}


def _score_all(workspace: "Workspace", paths: dict[str, Path]) -> "tuple[dict[str, Scores], bool]":
    """Scores of each set that has images, and whether every file of every set could be read."""
    sets, complete = {}, True
    for name, path in paths.items():
        scores, refused = _score(workspace, path)
        if refused:
            complete = False
            print(f"{name}: files that could not be read: {len(refused):,}", file=sys.stderr)
            for reason in refused[:_REASONS_SAID]:
                print(f"  {reason}", file=sys.stderr)
        if scores is None:
            complete = False
            print(f"{name}: no images in there, left out.", file=sys.stderr)
        else:
            sets[name] = scores
    return sets, complete


def _score(workspace: "Workspace", path: Path) -> "tuple[Scores | None, list[str]]":
    """Every detector's scores of the images in there, a chunk in memory at a time."""
    import numpy as np
    from tqdm import tqdm

    from app.inspecting import inspect_files
    from app.uploads import read_paths

    parts: list[Scores] = []
    refused: list[str] = []
    files = iter(tqdm(read_paths([path]), desc=path.name, unit="files", disable=None))
    while chunk := list(islice(files, CHUNK)):
        found = inspect_files(workspace, chunk, gradients=True)
        refused += [f"{file.name}: {file.reason}" for file in found.refused]
        if found.inspection is not None:
            parts.append(found.inspection.scores)
    if not parts:
        return None, refused
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, refused


def _compared(workspace: "Workspace", sets: "dict[str, Scores]", form: str) -> bytes:
    from app.comparison import compare, contenders
    from app.comparison_tables import WRITERS

    among, known = contenders(workspace), workspace.calibration_scores
    return WRITERS[form]([c for name in sets for c in compare(among, known, sets[name], name)])


def _write(data: bytes, out: Path | None) -> None:
    """Complete or not at all."""
    from app.files import write_whole

    if out is None:
        sys.stdout.buffer.write(data)
    else:
        write_whole(out, data)
