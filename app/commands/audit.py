"""`python -m app audit`: what is doubtful about the training images, without a screen."""

import argparse
import sys
from pathlib import Path

from app.locations import DEMO, workspace_path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's options."""
    parser = commands.add_parser("audit", help="list training images that are doubtful, and why")
    parser.add_argument("--workspace", default=DEMO, help="name or path (default: %(default)s)")
    parser.add_argument(
        "--all", action="store_true", help="every training image, not only the doubtful ones"
    )
    parser.add_argument(
        "--reviewer", default="me", help="whose decisions to show (default: %(default)s)"
    )
    parser.add_argument(
        "--part", choices=("images", "classes", "weak-spots", "groups"), default="images",
        help="doubtful images; how well each class does; alike calibration images that do badly; "
        "or groups of training images by what they do to those (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--format", choices=("json", "csv", "parquet"), default="json")
    parser.add_argument("--out", type=Path, help="file to write; standard output without it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when the records were written, 1 when not, 2 on wrong usage."""
    import numpy as np

    from app.audit import doubtful
    from app.corrections import issue_records
    from app.files import write_whole
    from app.manifest import WorkspaceError
    from app.records import WRITERS
    from app.triage import Triage
    from app.weak_spots import class_records, hurting_records, spot_records
    from app.workspace import Workspace

    try:
        workspace = Workspace.open(workspace_path(args.workspace))
    except WorkspaceError as error:
        print(error, file=sys.stderr)
        return 2
    audit = workspace.audit
    if audit is None:
        print(f"{args.workspace} holds no audit. Prepare it again.", file=sys.stderr)
        return 2
    if args.part == "images":
        rows = np.arange(len(workspace.bank.images)) if args.all else doubtful(audit)
        marks = Triage.of(workspace.manifest.name, args.reviewer).marks()
        records = issue_records(workspace, audit, marks, rows)
    elif args.part == "classes":
        records = class_records(workspace)
    elif args.part == "weak-spots":
        records = spot_records(workspace)
    elif workspace.refits is not None:
        records = hurting_records(workspace, audit)
    else:
        print("The last layer cannot be refitted: groups cannot be weighed.", file=sys.stderr)
        return 2
    data = WRITERS[args.format](records)
    try:
        if args.out is None:
            sys.stdout.buffer.write(data)
        else:
            write_whole(args.out, data)
    except OSError as error:
        print(f"The records could not be written: {error}", file=sys.stderr)
        return 1
    return 0
