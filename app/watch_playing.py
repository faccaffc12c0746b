"""A recorded scenario, played into a watched stream; its truth, given as answers."""

import re
from collections.abc import Sequence
from dataclasses import replace

from app.inspecting import inspect_files
from app.watch_contents import Arrival
from app.watch_scenario import Recording, Scenario
from app.watching import Watch, arrivals_of
from app.workspace import Workspace

ANSWER_DELAY = 40
TRUTH = "the recording"
_NAME = re.compile("(?P<scenario>.+) - take (?P<take>[1-9][0-9]{0,5})")


def stream_name(scenario: Scenario, streams: Sequence[str]) -> str:
    """A name that says what is played, and is not among those of other streams."""
    take = 1
    while f"{scenario} - take {take}" in streams:
        take += 1
    return f"{scenario} - take {take}"


def played_by(name: str) -> tuple[Scenario, int] | None:
    """Scenario and seed that a stream of this name plays, each take another; None for none."""
    found = _NAME.fullmatch(name.strip())
    if found is None or found["scenario"] not in set(Scenario):
        return None
    return Scenario(found["scenario"]), int(found["take"]) - 1


def plays_only(watch: Watch, scenario: Scenario) -> bool:
    """Whether all that came along a stream is of this scenario, as its last image tells.

    Images of a recording are numbered as those of the stream are; where any other came between,
    the numbers are no more the same.

    Raises:
        StoreError: see `Watch`.
    """
    last = watch.report().items
    return not last or bool(watch.taken([f"{scenario} {last}"]))


def of_source(arrivals: Sequence[Arrival], source: str, start: int = 1) -> list[Arrival]:
    """Arrivals that a stream takes once: numbered in what they come from."""
    return [replace(a, source=f"{source} {n}") for n, a in enumerate(arrivals, start)]


def play(workspace: Workspace, watch: Watch, recording: Recording, count: int) -> None:
    """Let the next images of a recording come, at most so many.

    Where several play one stream at a time, each image still comes once.

    Raises:
        StoreError: see `Watch`.
    """
    start = watch.report().items
    found = inspect_files(workspace, recording.files(start, start + count))
    if found.inspection is not None:
        arrivals = arrivals_of(workspace, found.images, found.inspection)
        watch.arrive(of_source(arrivals, recording.scenario, start + 1))


def answer_truly(watch: Watch, recording: Recording) -> None:
    """Answer what has waited for 40 images, as the recording knows; at its end, all.

    Raises:
        StoreError: see `Watch`.
    """
    report = watch.report()
    at_end = report.items >= len(recording)
    latest = len(recording) if at_end else report.items - ANSWER_DELAY
    answers = {
        f"{recording.scenario} {item}": recording.truth(item)
        for item in range(report.settled + 1, latest + 1)
    }
    if answers:
        watch.answer_sources(answers, TRUTH)
