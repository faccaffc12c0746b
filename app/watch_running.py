"""A stream without a screen: its batches, and what is said after each."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.records import Record
from app.watch_alarms import Channel, send_alarms
from app.watch_folder import Batch, WatchedFolder
from app.watch_scores import ScoreFile
from app.watch_summary import batch_record
from app.watching import Watch
from app.workspace import Workspace

_AT_ONCE = 50
_PAUSE_S = 0.5
_LOOKS = 20
_RETRY_S = 30.0
_BY = "file"


def score_batches(watch: Watch, file: ScoreFile) -> Iterator[Batch]:
    """Decide about the rows of a file, 50 at a time; after each the labels that are asked for.

    Rows that came before are not taken again, but what was not answered then is. How many they are
    is said with the next new rows, or at the end.
    """
    passed_over = 0
    for arrivals in file.arrivals(watch.stream.calibration, _AT_ONCE):
        decided = watch.arrive(arrivals)
        sources = [arrival.source for arrival in arrivals if arrival.source in file.answers]
        watch.answer_sources({source: file.answers[source] for source in sources}, _BY)
        passed_over += len(arrivals) - len(decided)
        yield Batch(tuple(decided), passed_over=passed_over if decided else 0)
        passed_over = 0 if decided else passed_over
    if passed_over:
        yield Batch(passed_over=passed_over)


def folder_batches(
    watch: Watch, workspace: Workspace, path: Path, *, every: float, once: bool
) -> Iterator[Batch]:
    """Decide about the images of a folder as they come; an empty batch after each look.

    Args:
        watch: a stream of this workspace.
        workspace: that scores them.
        path: of the folder.
        every: seconds between looks.
        once: end as soon as nothing new is there. Files that are being written are waited for, but
            not for ever.
    """
    folder, looks = WatchedFolder(watch, workspace, path), 0
    while True:
        batch = folder.step()
        yield batch
        if batch:
            continue
        looks += 1
        if once and (not folder.waiting or looks >= _LOOKS):
            return
        time.sleep(_PAUSE_S if once else every)


class Telling:
    """What is said of a stream after each batch, and its alarms sent out.

    Attributes:
        failed: whether any file was refused or any alarm could not be sent so far.
    """

    def __init__(self, watch: Watch, channels: Sequence[Channel]) -> None:
        """From here on: what was said of earlier alarms is not said again."""
        self._watch, self._channels = watch, channels
        self._alarms = len(watch.alarms())
        self._send_at = 0.0
        self.failed = False

    def after(self, batch: Batch) -> Record | None:
        """A record; None when nothing came, and nothing is new.

        An alarm that could not be sent is tried again half a minute later.
        """
        problems = []
        if time.monotonic() >= self._send_at:
            problems = send_alarms(self._watch, self._channels)
        if problems:  # waiting for what is out of order would hold up every batch
            self._send_at = time.monotonic() + _RETRY_S
        alarms = self._watch.alarms()[self._alarms :]
        self._alarms += len(alarms)
        self.failed |= bool(batch.refused or problems)
        if not (batch or alarms or problems):
            return None
        return batch_record(self._watch.name, self._watch.report(), batch, alarms, problems)
