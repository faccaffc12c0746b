"""A stream watched: thresholds chosen, labels asked for, alarms raised and limits certified."""

from collections import deque
from dataclasses import dataclass
from typing import Self

import numpy as np

from ood.monitoring.audit import Audits
from ood.monitoring.drift import Drift
from ood.monitoring.grid import threshold_grid
from ood.monitoring.market import Market
from ood.monitoring.payoffs import Answer, AnsweredItems, Risk
from ood.monitoring.report import Alarm, Kind, Report, RiskReport
from ood.monitoring.settings import Settings, Strategy
from ood.monitoring.strategies import obeys_tests, start_chooser
from ood.monitoring.thresholds import State, TestedThresholds

_NUMBERS = ("items", "flagged", "asked", "answered", "_deployed", "_settled")
_PARTS = ("chooser", "audits", "drift")
_AT_ONCE = 256
_USUAL_AUDIT = 0.2
_QUIET = 1_000
_KIND = {Risk.MISS: Kind.MISSES, Risk.FALSE_ALARM: Kind.FALSE_ALARMS}


@dataclass(frozen=True)
class Decided:
    """What becomes of one image.

    Attributes:
        item: its number, from 1.
        flagged: whether its score is above the threshold.
        threshold: that was in force.
        asked: whether the operator is asked what it is.
        probability: of being asked.
    """

    item: int
    flagged: bool
    threshold: float
    asked: bool
    probability: float


class Monitor:
    """One stream of scores, and the answers of an operator, who may take his time.

    Answers count in the order of the images, whatever order they are given in: so the choice of
    what to answer first is no choice of evidence. What an answer changes holds from the next image
    on. The outcome depends on scores, answers, and on how many images had come when each answer
    did; a replay of these gives the same numbers, bit for bit.

    Attributes:
        settings: fixed.
        thresholds: (K,) candidates, ascending.
        items: images so far.
        flagged: of those, flagged ones.
        asked: of those, images asked about.
        answered: answers given.
        alarms: so far, in order.
    """

    def __init__(self, settings: Settings, calibration: np.ndarray) -> None:
        """Before the first image.

        Args:
            settings: what is wanted.
            calibration: (n,) scores of held-out known images.

        Raises:
            ValueError: see `threshold_grid` and `Audits`.
        """
        self.settings = settings
        self.thresholds = threshold_grid(calibration, settings.thresholds)
        limits = {
            Risk.MISS: settings.miss_limit, Risk.FALSE_ALARM: settings.false_alarm_limit
        }  # fmt: skip
        self._tested = {
            risk: TestedThresholds(
                risk, self.thresholds, limit, settings.error, settings.label_error
            )
            for risk, limit in limits.items()
        }
        self._chooser = start_chooser(settings, self.thresholds, calibration)
        self._audits = Audits(
            settings.audit_floor, settings.audit_ceiling, settings.budget, settings.seed
        )
        self._drift = Drift(calibration, settings.seed)
        self.items = self.flagged = self.asked = self.answered = 0
        self.alarms: list[Alarm] = []
        self._waiting: deque[tuple[float, float, float, bool]] = deque()
        self._answers: dict[int, Answer] = {}
        self._settled = 0
        self._raised: set[Kind] = set()
        self._deployed = self._choose()
        self._lean = self._evidence()

    def decide(self, score: float) -> Decided:
        """Flag the next image or accept it, and ask about it or not.

        Raises:
            ValueError: when the score is not a number; the stream is then as it was.
        """
        threshold = float(self.thresholds[self._deployed])
        self._drift.observe(score)
        rate = self._audits.rate(*self._lean)
        flagged = bool(score > threshold)
        ask = self._audits.ask(flagged, rate)
        self.items += 1
        self.flagged += flagged
        self.asked += ask.asked
        # In a pause nobody is asked, which carries no evidence whatever the rate.
        self._waiting.append((float(score), threshold, rate or 1.0, ask.asked))
        certain = -np.log(self.settings.error)
        if self._drift.log_wealth >= certain and Kind.DRIFT not in self._raised:
            self.alarms.append(Alarm(Kind.DRIFT, self.items, 0, threshold))
            self._raised.add(Kind.DRIFT)
        if self.asked == self.answered or len(self._waiting) >= _AT_ONCE:
            self._settle()
        return Decided(self.items, flagged, threshold, ask.asked, ask.probability)

    def answer(self, item: int, answer: Answer) -> bool:
        """Take what the operator says of an image; a second answer to the same one is not taken.

        Returns:
            Whether it was taken.

        Raises:
            ValueError: when the image was not asked about, or the answer is none.
        """
        if answer is Answer.NOT_ASKED:
            raise ValueError("An answer says known, unknown, or do not know.")
        if not 1 <= item <= self.items:
            raise ValueError(f"There is no image {item} among the {self.items} so far.")
        if item <= self._settled or item in self._answers:
            return False
        if not self._waiting[item - self._settled - 1][3]:
            raise ValueError(f"Image {item} was not asked about.")
        self._answers[item] = answer
        self.answered += 1
        self._settle()
        return True

    def waits(self, item: int) -> bool:
        """Whether an image was asked about and has no answer yet."""
        place = item - self._settled - 1
        return 0 <= place < len(self._waiting) and (
            self._waiting[place][3] and item not in self._answers
        )

    def report(self) -> Report:
        """Where it stands."""
        certified = np.flatnonzero(self._tested[Risk.MISS].states == State.CERTIFIED)
        return Report(
            items=self.items,
            settled=self._settled,
            flagged=self.flagged,
            asked=self.asked,
            answered=self.answered,
            deployed=float(self.thresholds[self._deployed]),
            proposed=float(self._chooser.threshold),
            certified=float(self.thresholds[certified[-1]]) if len(certified) else float("nan"),
            audit_rate=self._audits.rate(*self._lean),
            misses=self._risk_report(Risk.MISS),
            false_alarms=self._risk_report(Risk.FALSE_ALARM),
            prices=self._chooser.prices if isinstance(self._chooser, Market) else np.empty(0),
            log_drift=self._drift.log_wealth,
        )

    def _risk_report(self, risk: Risk) -> RiskReport:
        tested, k = self._tested[risk], self._deployed
        state = State(tested.states[k])
        dates = {State.VIOLATED: tested.changed_at, State.CERTIFIED: tested.certified_at}
        violation, certificate = tested.process.log_wealth
        return RiskReport(
            state=state,
            since=int(dates[state][k]) if state in dates else 0,
            states=tested.states.copy(),
            log_violation=violation.copy(),
            log_certificate=certificate.copy(),
            needed=np.log(tested.needed),
        )

    def _settle(self) -> None:
        """Learn from all images before the first that still waits for its answer."""
        piece: list[tuple[float, int, float, float]] = []
        while self._waiting:
            score, threshold, audit, asked = self._waiting[0]
            if asked and self._settled + 1 not in self._answers:
                break
            self._waiting.popleft()
            self._settled += 1
            answer = self._answers.pop(self._settled) if asked else Answer.NOT_ASKED
            piece.append((score, int(answer), threshold, audit))
            if asked:  # alarms must not depend on how many answers came at once
                self._learn(piece)
                piece = []
        if piece:
            self._learn(piece)
        self._deployed = self._choose()
        self._lean = self._evidence()

    def _learn(self, piece: list[tuple[float, int, float, float]]) -> None:
        """From consecutive images of which at most the last was asked about."""
        items = AnsweredItems(*(np.array(part) for part in zip(*piece, strict=True)))
        for tested in self._tested.values():
            tested.update(items)
        score, answer, threshold, audit = piece[-1]
        if answer in (Answer.KNOWN, Answer.UNKNOWN):
            # The fewer audits, the smaller all steps: none is larger than that of one in five.
            weight = items.weights[-1:] * min(1.0, audit / _USUAL_AUDIT)
            self._chooser.observe(np.array(score), np.array(answer == Answer.UNKNOWN), weight[0])
        if answer != Answer.NOT_ASKED:
            self._raise_alarms(threshold)

    def _choose(self) -> int:
        """The proposal, brought down to what the tests allow; the lowest where they allow none."""
        proposed = int(np.searchsorted(self.thresholds, self._chooser.threshold, "right")) - 1
        states = self._tested[Risk.MISS].states
        allowed = len(states)
        if obeys_tests(self.settings.strategy):
            # Violated are all from some threshold on.
            allowed = int((states != State.VIOLATED).sum())
        if self.settings.strategy is Strategy.CERTIFIED:
            certified = np.flatnonzero(states == State.CERTIFIED)
            allowed = certified[-1] + 1 if len(certified) else allowed
        return max(0, min(proposed, allowed - 1))

    def _evidence(self) -> tuple[float, float]:
        """How far the deployed threshold is on its way to a violation and to a certificate."""
        tested = self._tested[Risk.MISS]
        violation, certificate = tested.process.log_wealth[:, self._deployed] / np.log(
            tested.needed[:, self._deployed]
        )
        return float(violation), float(certificate)

    def _raise_alarms(self, threshold: float) -> None:
        """Of limits that a threshold is newly found to break; the one that decided an image."""
        k = int(np.searchsorted(self.thresholds, threshold))
        for risk, tested in self._tested.items():
            kind = _KIND[risk]
            if tested.states[k] != State.VIOLATED:
                self._raised.discard(kind)
            elif self._news(kind):
                since = int(tested.changed_at[k])
                self.alarms.append(Alarm(kind, self._settled, since, threshold))
                self._raised.add(kind)

    def _news(self, kind: Kind) -> bool:
        """Whether it is not known already: one alarm a kind while it lasts and for 1,000 items."""
        last = max((alarm.item for alarm in self.alarms if alarm.kind is kind), default=-_QUIET)
        return kind not in self._raised and self._settled - last >= _QUIET

    def state(self) -> dict[str, np.ndarray]:
        """Everything but settings and calibration scores, as arrays that may be stored."""
        parts = {str(risk): tested.state() for risk, tested in self._tested.items()}
        parts |= {name: getattr(self, f"_{name}").state() for name in _PARTS}
        kinds = list(Kind)
        alarms = [(kinds.index(a.kind), a.item, a.since, a.threshold) for a in self.alarms]
        return {
            "numbers": np.array([getattr(self, name) for name in _NUMBERS]),
            "raised": np.array([kind in self._raised for kind in kinds]),
            "alarms": np.array(alarms, float).reshape(-1, 4),
            "waiting": np.array(self._waiting, float).reshape(-1, 4),
            "answers": np.array(list(self._answers.items()), np.int64).reshape(-1, 2),
        } | {
            f"{part}.{name}": array
            for part, arrays in parts.items()
            for name, array in arrays.items()
        }

    @classmethod
    def restore(
        cls, settings: Settings, calibration: np.ndarray, state: dict[str, np.ndarray]
    ) -> Self:
        """A monitor that goes on to the same numbers, bit for bit."""
        monitor = cls(settings, calibration)
        vars(monitor).update(zip(_NUMBERS, state["numbers"].tolist(), strict=True))
        kinds = list(Kind)
        monitor._raised = {kind for kind, up in zip(kinds, state["raised"], strict=True) if up}
        monitor.alarms = [
            Alarm(kinds[int(kind)], int(item), int(since), threshold)
            for kind, item, since, threshold in state["alarms"].tolist()
        ]
        monitor._waiting = deque((*row[:3], bool(row[3])) for row in state["waiting"].tolist())
        monitor._answers = {item: Answer(answer) for item, answer in state["answers"].tolist()}
        for risk in monitor._tested:
            monitor._tested[risk] = TestedThresholds.restore(_part(state, risk))
        for name in _PARTS:
            getattr(monitor, f"_{name}").restore(_part(state, name))
        monitor._lean = monitor._evidence()
        return monitor


def _part(state: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    start = f"{name}."
    return {key.removeprefix(start): a for key, a in state.items() if key.startswith(start)}
