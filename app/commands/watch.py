"""`python -m app watch`: a stream's monitor without a screen; one record per batch."""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.commands.inspect import level
from app.locations import DEMO, workspace_path
from ood.monitoring.settings import Settings, Strategy

if TYPE_CHECKING:
    import numpy as np

    from app.watch_alarms import Channel
    from app.watch_folder import Batch
    from app.watching import Watch

_STRATEGIES = {
    strategy.name.lower().replace("_", "-"): strategy for strategy in Strategy
}  # fmt: skip


class _Wrong(Exception):
    """What was asked for cannot be done."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's options."""
    parser = commands.add_parser("watch", help="watch a stream, and print one record per batch")
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="of the stream; one that is there goes on"
    )
    parser.add_argument("--workspace", default=DEMO, help="name or path (default: %(default)s)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--folder", type=Path, help="whose new image files are the stream")
    source.add_argument(
        "--scores", type=Path, metavar="FILE",
        help="CSV or Parquet of scores: columns score, and unknown (1 or 0) and name if they are "
        "there; a label is given as an answer where it is asked for",
    )  # fmt: skip
    source.add_argument(
        "--replay", type=Path, metavar="FILE",
        help="exported record; says where it stands, once every bit of it is the same again",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE",
        help="scores of held-out known images, where --scores are not those of the workspace",
    )  # fmt: skip
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the record (Parquet)")
    _add_timing(parser)
    _add_settings(parser)
    parser.set_defaults(run=run)


def _add_timing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--every", type=_seconds, default=2.0, metavar="SECONDS",
        help="between looks at the folder (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="end when the folder has no new files")
    parser.add_argument("--webhook", metavar="URL", help="gets each alarm once, as JSON")
    parser.add_argument(
        "--command", metavar="PROGRAM", dest="program",
        help="gets each alarm once, as JSON on its standard input; with arguments, without a shell",
    )  # fmt: skip


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings of a new stream")
    group.add_argument(
        "--miss-limit", type=level, help="share of unknown images that may be accepted (0.1)"
    )
    group.add_argument(
        "--false-alarm-limit", type=level, help="share of known images that may be flagged (0.1)"
    )
    group.add_argument("--error", type=level, help="chance of ever being wrong (0.05)")
    group.add_argument(
        "--strategy", choices=list(_STRATEGIES), help="who chooses the threshold (market)"
    )
    group.add_argument(
        "--audit-rate", type=_rates, metavar="FLOOR:CEILING",
        help="share of accepted images that are asked about (0.05:0.3)",
    )  # fmt: skip
    group.add_argument("--budget", type=int, help="labels asked for per 1,000 images (400)")
    group.add_argument("--seed", type=_seed, help="of the audits (one that nobody knows)")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 86,400")
    return value


def _seed(text: str) -> int:
    # Of at most 19 digits: what is stored of a stream has room for no more.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 to 2^63 - 1")
    return int(text)


def _rates(text: str) -> tuple[float, float]:
    floor, _, ceiling = text.partition(":")
    return level(floor), level(ceiling)


def run(args: argparse.Namespace) -> int:
    """0 when all is well, 1 when files or alarms failed or a replay differs, 2 on wrong usage."""
    from app.manifest import WorkspaceError
    from app.watch_scores import ScoresRefused
    from app.watching import StoreError

    try:
        if args.replay is not None:
            return _replay(args.replay)
        return _watch(args)
    except (_Wrong, WorkspaceError, ScoresRefused) as error:
        print(error, file=sys.stderr)
        return 2
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The records could not be written: {error}", file=sys.stderr)
        return 1


def _replay(path: Path) -> int:
    from app.watch_summary import summary
    from app.watching import OtherNumbers, RecordError, replayed

    try:
        monitor = replayed(path.read_bytes())
    except OSError as error:
        raise _Wrong(f"{path} cannot be read: {error.strerror}.") from error
    except OtherNumbers as error:
        print(error, file=sys.stderr)
        return 1
    except RecordError as error:
        raise _Wrong(f"{path}: {error}") from error
    _print({"replayed": "bit for bit"} | summary(monitor.report()))
    return 0


def _watch(args: argparse.Namespace) -> int:
    if not args.name or not (args.folder or args.scores or args.export):
        raise _Wrong("Give the stream's NAME, and --folder, --scores or --export; or --replay.")
    if args.folder and not args.folder.is_dir():
        raise _Wrong(f"There is no folder {args.folder}.")
    if args.calibration and args.folder:
        raise _Wrong("--calibration is for scores from elsewhere; a folder's are the workspace's.")
    from app.files import write_whole
    from app.watch_running import Telling

    channels = _channels(args)
    watch, batches = _opened(args)
    telling = Telling(watch, channels)
    try:
        for batch in batches:
            if (record := telling.after(batch)) is not None:
                _print(record)
    except KeyboardInterrupt:
        print("Stopped; everything so far is kept.", file=sys.stderr)
    if args.export:
        write_whole(args.export, watch.record())
    return int(telling.failed)


def _print(record: dict[str, Any]) -> None:
    from app.records import to_json_lines

    sys.stdout.buffer.write(to_json_lines([record]))
    sys.stdout.flush()


def _opened(args: argparse.Namespace) -> "tuple[Watch, Iterator[Batch]]":
    """The stream, and what comes along it as it is asked for."""
    import hashlib

    from app.inbox import identity
    from app.watch_contents import calibration_of
    from app.watch_running import folder_batches, score_batches
    from app.watch_scores import read_scores
    from app.workspace import Workspace

    scores = read_scores(args.scores) if args.scores else None
    workspace = None if args.calibration else Workspace.open(workspace_path(args.workspace))
    if workspace is None:
        # Such streams belong to their calibration scores, whatever file these are read from.
        calibration = read_scores(args.calibration).scores
        digest = hashlib.sha256(calibration.tobytes()).hexdigest()
        watch = _stream(args, f"scores {digest}", calibration)
    else:
        watch = _stream(args, identity(workspace), calibration_of(workspace))
    if scores is not None:
        return watch, score_batches(watch, scores)
    if args.folder and workspace is not None:
        every, once = args.every, args.once
        return watch, folder_batches(watch, workspace, args.folder, every=every, once=once)
    return watch, iter(())


def _stream(args: argparse.Namespace, workspace: str, calibration: "np.ndarray") -> "Watch":
    """The stream of this name; it begins where there is none."""
    from app.watch_playing import played_by
    from app.watch_store import WatchStore
    from app.watching import Watch

    store, wanted = WatchStore.open(), _settings(args)
    numbers = {info.name: info.number for info in store.streams(workspace)}
    if args.name not in numbers:
        if not (args.folder or args.scores):
            raise _Wrong(f"There is no stream {args.name} in this workspace.")
        if played_by(args.name) is not None:
            raise _Wrong(f"{args.name} is what the stream of a recorded scenario is called.")
        try:
            return Watch.begin(store, workspace, args.name, _new(wanted), calibration)
        except ValueError as error:
            raise _Wrong(str(error)) from error
    watch = Watch(store, store.stream(workspace, numbers[args.name]))
    other = [name for name, value in wanted.items() if getattr(watch.settings, name) != value]
    if other:
        raise _Wrong(
            f"The stream {args.name} has another {other[0].replace('_', ' ')}, "
            f"{getattr(watch.settings, other[0])}, for good; begin one of another name."
        )
    return watch


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Those that were given."""
    names = ("miss_limit", "false_alarm_limit", "error", "budget", "seed")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.strategy:
        given["strategy"] = _STRATEGIES[args.strategy]
    if args.audit_rate:
        given["audit_floor"], given["audit_ceiling"] = args.audit_rate
    return given


def _new(given: dict[str, Any]) -> Settings:
    from app.watching import with_own_seed

    usual = Settings()
    if "miss_limit" in given:  # the choosing aims below it by the usual ratio
        ratio = usual.miss_target / usual.miss_limit
        given = {"miss_target": ratio * given["miss_limit"]} | given
    settings = Settings(**given)
    return settings if "seed" in given else with_own_seed(settings)


def _channels(args: argparse.Namespace) -> "list[Channel]":
    from app.watch_alarms import Program, Webhook

    channels: list[Channel] = []
    try:
        if args.webhook is not None:
            channels.append(Webhook(args.webhook))
        if args.program is not None:
            channels.append(Program(tuple(shlex.split(args.program))))
    except ValueError as error:
        raise _Wrong(str(error)) from error
    return channels
