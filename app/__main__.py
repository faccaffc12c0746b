"""`python -m app`: the web app; with `inspect` and others: the same without a screen."""

import argparse
import sys
from collections.abc import Sequence

from app.commands import audit, compare, inspect, network, prepare, serve, watch


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="Why an image classifier decided what it did, and when not to trust it.",
    )
    commands = parser.add_subparsers(dest="command")
    for command in (serve, inspect, compare, audit, prepare, network, watch):
        command.add_parser(commands)
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or (arguments[0].startswith("--") and arguments[0] != "--help"):
        arguments = ["serve", *arguments]
    args = parser.parse_args(arguments)
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
