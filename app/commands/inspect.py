"""`python -m app inspect`: one record per image, without a screen."""

import argparse
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from app.locations import DEMO, workspace_path

if TYPE_CHECKING:
    from app.records import Record
    from app.uploads import RefusedImage
    from app.workspace import Workspace
    from ood.decision import Rule

CHUNK = 256


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's options."""
    parser = commands.add_parser("inspect", help="inspect images and print one record each")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="image, folder or zip")
    parser.add_argument("--workspace", default=DEMO, help="name or path (default: %(default)s)")
    parser.add_argument(
        "--alpha", type=level, default=0.05,
        help="share of known images that may be flagged (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--by-class", action="store_true", help="let it hold within each predicted class"
    )
    parser.add_argument(
        "--conditional", choices=("monte_carlo", "simes", "dkw"), default="",
        help="let it hold with 95%% confidence for this calibration set (default: on average)",
    )  # fmt: skip
    parser.add_argument("--format", choices=("json", "csv", "parquet"), default="json")
    parser.add_argument("--out", type=Path, help="file to write; standard output without it")
    parser.set_defaults(run=run)


def level(text: str) -> float:
    """A number strictly between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def run(args: argparse.Namespace) -> int:
    """0 when every file was inspected, 1 when some were refused, 2 on wrong usage."""
    missing = [str(path) for path in args.paths if not path.exists()]
    if missing:
        print(f"No such file or folder: {', '.join(missing)}", file=sys.stderr)
        return 2
    from app.manifest import WorkspaceError
    from app.workspace import Workspace

    try:
        workspace = Workspace.open(workspace_path(args.workspace))
    except WorkspaceError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        if args.out is None:
            count = _write_records(workspace, args, sys.stdout.buffer)
        else:
            count = _write_file(workspace, args)
    except OSError as error:
        print(f"The records could not be written: {error}", file=sys.stderr)
        return 1
    if count.inspected + count.refused == 0:
        print("There are no files in there.", file=sys.stderr)
        return 2
    return 1 if count.refused else 0


def _write_file(workspace: "Workspace", args: argparse.Namespace) -> "_Count":
    """Complete or not at all, and never among the images that are being read."""
    from app.files import replacing

    with replacing(args.out) as partial, partial.open("wb") as out:
        return _write_records(workspace, args, out)


@dataclass
class _Count:
    inspected: int = 0
    refused: int = 0


def _write_records(workspace: "Workspace", args: argparse.Namespace, out: BinaryIO) -> _Count:
    """JSON as it comes, a chunk at a time; tables at the end."""
    from app.records import WRITERS
    from app.uploads import read_paths
    from ood.decision import Rule

    rule = Rule(args.alpha, args.by_class, args.conditional)
    write, streamed = WRITERS[args.format], args.format == "json"
    count, records = _Count(), []
    files = read_paths(args.paths)
    while chunk := list(islice(files, CHUNK)):
        found = _inspect_chunk(workspace, chunk, rule)
        refused = sum(record["error"] is not None for record in found)
        count.refused += refused
        count.inspected += len(found) - refused
        if streamed:
            out.write(write(found))
            out.flush()
        else:
            records += found
    if not streamed:
        out.write(write(records))
    return count


def _inspect_chunk(
    workspace: "Workspace", files: "list[tuple[str, bytes] | RefusedImage]", rule: "Rule"
) -> "list[Record]":
    """Records in the order of the files; images and refusals in their places."""
    from app.inspecting import inspect_files
    from app.records import image_record, refused_record
    from app.uploads import RefusedImage

    found = inspect_files(workspace, files)
    inspected = {}
    if found.inspection is not None:
        decisions = workspace.decide(found.inspection, rule)
        for row, (image, decision) in enumerate(zip(found.images, decisions, strict=True)):
            influences = workspace.explain(found.inspection.activations, row)
            inspected[id(image)] = image_record(
                workspace, image, found.inspection, row, decision, influences
            )
    return [
        refused_record(u) if isinstance(u, RefusedImage) else inspected[id(u)]
        for u in found.uploads
    ]
