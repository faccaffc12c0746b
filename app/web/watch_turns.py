"""Which question each operator is shown, so that two at a time are not asked the same."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

HELD_S = 60.0
_MOST = 1_000


@dataclass(frozen=True)
class Turn:
    """A question that an operator is shown.

    Attributes:
        item: that it is about.
        since: when he was first shown it, by `time.monotonic`.
    """

    item: int
    since: float


class Turns:
    """Who is shown what, in this process; safe to share between threads.

    Nothing is reserved: whoever answers first counts, as `Watch.answer` says.
    """

    def __init__(self) -> None:
        """With nobody shown anything."""
        self._lock = threading.Lock()
        self._shown: dict[tuple[int, str], Turn] = {}

    def take(self, stream: int, operator: str, items: Sequence[int]) -> Turn:
        """What an operator is shown: the same until it is answered, then the next.

        The next is the oldest that nobody else was first shown in the last minute: who leaves one
        open does not hold up the rest. Where there is none, it is the one shown longest ago.

        Args:
            stream: number of the stream.
            operator: by which he is told from others.
            items: that some questions are about which are open, the oldest first; at least one.
        """
        with self._lock:
            kept = self._shown.pop((stream, operator), None)
            if kept is None or kept.item not in items:
                kept = self._next(stream, items, time.monotonic())
            self._shown[stream, operator] = kept  # the last that will be forgotten
            if len(self._shown) > _MOST:
                del self._shown[next(iter(self._shown))]
        return kept

    def _next(self, stream: int, items: Sequence[int], now: float) -> Turn:
        held = dict.fromkeys(items, 0.0)
        for (where, _), turn in self._shown.items():
            if where == stream and turn.item in held and turn.since > now - HELD_S:
                held[turn.item] = max(held[turn.item], turn.since)
        return Turn(min(items, key=held.__getitem__), now)
