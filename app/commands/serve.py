"""`python -m app [serve]`: the web app."""

import argparse
import os
import sys
from pathlib import Path

from app.locations import DEMO

_MAIN = Path(__file__).parents[1] / "main.py"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's options."""
    parser = commands.add_parser("serve", help="start the web app (the default)")
    parser.add_argument("--workspace", default=DEMO, help="name or path (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--address", default="127.0.0.1", help="default: this machine only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    os.environ["KINDRED_WORKSPACE"] = args.workspace
    # Fewer arenas: glibc keeps freed uploads otherwise.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    os.execv(
        sys.executable,
        [
            sys.executable, "-m", "streamlit", "run", str(_MAIN),
            "--server.port", str(args.port), "--server.address", args.address,
        ],
    )  # fmt: skip
