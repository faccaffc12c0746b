"""A stream that is watched: its monitor, kept in step with what is on disk."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from app.inbox import identity
from app.inbox_contents import storable
from app.inbox_pictures import plain_picture
from app.watch_contents import (
    NO_CLASS,
    Arrival,
    Question,
    RefusedFile,
    StreamInfo,
    arrivals_of,
    calibration_of,
    with_own_seed,
)
from app.watch_history import History
from app.watch_log import EventKind, Log, arrival_row, refused_row
from app.watch_record import OtherNumbers, RecordError, record_of, replayed
from app.watch_replay import OtherDecision, Replay
from app.watch_store import Stream, WatchStore, now
from app.watch_tables import WATCH, StoreError
from ood.monitoring.monitor import Decided
from ood.monitoring.payoffs import Answer
from ood.monitoring.report import Alarm, Report
from ood.monitoring.settings import Settings

if TYPE_CHECKING:
    from app.workspace import Workspace

__all__ = [
    "NO_CLASS", "Arrival", "History", "OtherNumbers", "Question", "RecordError", "RefusedFile",
    "StoreError", "StreamInfo", "Watch", "arrivals_of", "replayed", "with_own_seed",
]  # fmt: skip

_SNAPSHOT_EVERY = 1_000
_Sourced = TypeVar("_Sourced", Arrival, RefusedFile)


class Watch:
    """One stream; any number of threads, processes and operators may hold a Watch of it.

    Before each change it goes through what others have done, while nobody else can change the
    stream. All methods raise StoreError when the store cannot be read or written; the stream is
    then as it was.

    Attributes:
        store: where it is kept.
        stream: what of it never changes.
    """

    def __init__(self, store: WatchStore, stream: Stream) -> None:
        """Of a stream that is in the store."""
        self.store, self.stream = store, stream
        self._lock = threading.RLock()
        self._replay: Replay | None = None

    @classmethod
    def create(
        cls, store: WatchStore, workspace: "Workspace", name: str, settings: Settings
    ) -> Self:
        """Begin a stream of scores by the workspace's default detector.

        Raises:
            ValueError: when the name is empty, too long or in use in this workspace, or see
                `Monitor`.
        """
        return cls.begin(store, identity(workspace), name, settings, calibration_of(workspace))

    @classmethod
    def begin(
        cls, store: WatchStore, workspace: str, name: str, settings: Settings,
        calibration: np.ndarray,
    ) -> Self:  # fmt: skip
        """Begin a stream of any scores.

        Args:
            store: where it is kept.
            workspace: that it belongs to, by its identity; of scores from elsewhere any text.
            name: unique there.
            settings: of its monitor.
            calibration: (n,) scores of held-out known images.

        Raises:
            ValueError: see `create`.
        """
        Replay(settings, calibration)  # says what cannot be, before anything is stored
        return cls(store, store.create(workspace, name, settings, calibration))

    @classmethod
    def open(cls, store: WatchStore, workspace: "Workspace", number: int) -> Self:
        """Go on with a stream.

        Raises:
            ValueError: when there is none of this number in this workspace.
        """
        return cls(store, store.stream(identity(workspace), number))

    @classmethod
    def streams(cls, store: WatchStore, workspace: "Workspace") -> list[StreamInfo]:
        """Those of a workspace, oldest first."""
        return store.streams(identity(workspace))

    @property
    def number(self) -> int:
        """By which it is opened."""
        return self.stream.number

    @property
    def name(self) -> str:
        """Unique in its workspace."""
        return self.stream.name

    @property
    def settings(self) -> Settings:
        """Of its monitor."""
        return self.stream.settings

    def arrive(
        self, arrivals: Sequence[Arrival], refused: Sequence[RefusedFile] = ()
    ) -> list[Decided]:
        """Decide about the next images, in order; afterwards all of it is on disk, or none.

        Args:
            arrivals: images with their scores.
            refused: files that came with them and have none; they become rows with a reason.

        Returns:
            Of each arrival that was taken: of all but those of a source that came before.

        Raises:
            ValueError: when a score is not finite.
            ImageRefused: when the picture of one that is asked about cannot be decoded.
        """
        if not np.isfinite([[a.score, a.p_value] for a in arrivals]).all():
            raise ValueError("Scores and p-values must be finite.")
        with self._changing() as (log, replay):
            sources = [a.source for a in arrivals] + [file.source for file in refused]
            seen = set(log.taken(sources))
            created, decided, rows, pictures = now(), [], [], {}
            for arrival in _first_of_source(arrivals, seen):
                found = replay.decide(arrival.score)
                decided.append(found)
                rows.append(arrival_row(arrival, found, created))
                if found.asked and arrival.picture and arrival.sha256:
                    pictures[arrival.sha256] = plain_picture(arrival.picture)
            rows += [refused_row(file, created) for file in _first_of_source(refused, seen)]
            log.add_pictures(pictures)
            _append(log, replay, rows)
        return decided

    def answer(self, item: int, answer: Answer, by: str) -> bool:
        """Take what somebody says of an image, for good: evidence cannot be unseen.

        Returns:
            Whether it was taken; False when somebody had answered it before.

        Raises:
            ValueError: when it was not asked about.
        """
        return self.answer_all({item: answer}, by) == 1

    def answer_all(self, answers: Mapping[int, Answer], by: str) -> int:
        """Take several answers, all or none of them; otherwise as `answer`.

        Returns:
            How many were taken; the others had been answered before.
        """
        with self._changing() as (log, replay):
            return _answer(log, replay, answers, by)

    def answer_sources(self, answers: Mapping[str, Answer], by: str) -> int:
        """Take answers by the sources of the images, where they are asked for and still wait.

        Returns:
            How many were taken.
        """
        with self._changing() as (log, replay):
            waiting = {
                item: answers[source]
                for source, item in log.taken(list(answers)).items()
                if replay.monitor.waits(item)
            }
            return _answer(log, replay, waiting, by)

    def questions(self, limit: int) -> list[Question]:
        """Those that still wait, oldest first, at most so many."""
        with self._reading() as (log, replay):
            return log.questions(replay.monitor.report().settled, limit)

    def refused(self, limit: int) -> list[RefusedFile]:
        """The last so many files that no score could be given, newest first."""
        with self._reading() as (log, _):
            return log.refused(limit)

    def taken(self, sources: Sequence[str]) -> set[str]:
        """Which of these sources came before, or were refused."""
        with self._reading() as (log, _):
            return set(log.taken(sources))

    def report(self) -> Report:
        """Where it stands; `asked - answered` questions wait."""
        with self._reading() as (_, replay):
            return replay.monitor.report()

    def alarms(self) -> list[Alarm]:
        """So far, in order."""
        with self._reading() as (_, replay):
            return list(replay.monitor.alarms)

    def history(self) -> History:
        """How it came to stand there, for charts."""
        with self._reading() as (_, replay):
            return replay.recorder.history()

    def record(self) -> bytes:
        """A Parquet file of all of it, from which `replayed` makes the same numbers again."""
        with self._reading() as (log, replay):
            return record_of(
                self.name, self.settings, self.stream.calibration, log.events(), replay.monitor
            )

    @contextmanager
    def _reading(self) -> Iterator[tuple[Log, Replay]]:
        with self._whole(), self.store.reading(self.stream) as log:
            yield log, self._caught_up(log)

    @contextmanager
    def _changing(self) -> Iterator[tuple[Log, Replay]]:
        with self._whole(), self.store.changing(self.stream) as log:
            yield log, self._caught_up(log)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """One thread at a time; after anything that fails, what is in memory is read anew."""
        with self._lock:
            try:
                yield
            except BaseException:
                self._replay = None  # it may be ahead of what is on disk
                raise

    def _caught_up(self, log: Log) -> Replay:
        replay = self._replay
        with WATCH.undamaged():
            if replay is None:
                replay = Replay(self.settings, self.stream.calibration)
                if stored := log.snapshot():
                    replay.restore(*stored)
            try:
                for event in log.events(after=replay.event):
                    replay.repeat(dict(event._mapping))
            except OtherDecision as error:
                raise StoreError(
                    f"The stream {self.name} cannot go on: {error} Begin a new one."
                ) from error
        self._replay = replay
        return replay


def _append(log: Log, replay: Replay, rows: Sequence[Mapping[str, object]]) -> None:
    """Write what the replay has just gone through."""
    if not rows:
        return
    replay.event = log.append(rows)
    if replay.event - replay.snapshot_event >= _SNAPSHOT_EVERY:
        log.save_snapshot(replay.event, replay.state())
        replay.snapshot_event = replay.event


def _answer(log: Log, replay: Replay, answers: Mapping[int, Answer], by: str) -> int:
    created = now()
    rows = [
        {"kind": EventKind.ANSWER, "item": item, "answer": int(answer), "by": storable(by),
         "created": created}
        for item, answer in answers.items()
        if replay.answer(item, answer)
    ]  # fmt: skip
    _append(log, replay, rows)
    return len(rows)


def _first_of_source(given: Sequence[_Sourced], seen: set[str]) -> Iterator[_Sourced]:
    """Those whose source is not among those seen, where it is then remembered."""
    for one in given:
        if one.source and one.source in seen:
            continue
        seen.add(one.source)
        yield one
