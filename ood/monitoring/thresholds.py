"""Which thresholds are proven to keep a limit, and which to break it, at every time at once."""

from enum import IntEnum
from typing import Self

import numpy as np

from ood.monitoring.mixtures import Start, StartMixture, start_posterior
from ood.monitoring.payoffs import Answer, AnsweredItems, Claim, Risk, largest_bets, payoffs

_BLOCK = 32
_RECENT = 2_048
_SHORTEST_BAN, _MOST_DOUBLINGS = 100, 10
_NEVER = 2**62
_SAVED = (
    "thresholds", "states", "violated_at", "certified_at", "changed_at", "runs", "_reached",
    "_begun", "_free_at", "_strikes",
)  # fmt: skip


class State(IntEnum):
    """What is known of a threshold."""

    UNPROVEN = 0
    CERTIFIED = 1
    VIOLATED = 2


def closure(reached: np.ndarray, risk: Risk, claim: Claim) -> np.ndarray:
    """Which thresholds may be called so: those for which every riskier (safer) one has evidence.

    Thresholds that keep the limit of misses are all those up to some threshold. So a violation is
    claimed only where every threshold above has evidence too: whoever claims it of a safe one
    errs on the largest safe one, and P(any false claim) <= P(that one's wealth is ever as large),
    for any betting strategy (closed testing: Marcus, Peritz and Gabriel, Biometrika 1976).
    Certificates mirror it, and so do false alarms.

    Args:
        reached: (..., K) bool, the wealth has been as large as it must be; thresholds ascend.
        risk: misses or false alarms.
        claim: violation or certificate.
    """
    if (claim is Claim.VIOLATION) == (risk is Risk.MISS):
        return np.logical_and.accumulate(reached[..., ::-1], axis=-1)[..., ::-1]
    return np.logical_and.accumulate(reached, axis=-1)


class TestedThresholds:
    """For one risk, evidence at each threshold that it is above its limit, and that it is below.

    Call a threshold safe if its risk, given whatever came before, never exceeds the limit, and
    unsafe if it is never below. P(any safe threshold is ever called violated) <= error and
    P(any unsafe one is ever certified) <= error, over all thresholds and all time.

    A violation starts the certificate anew, and a certificate starts anew a test that has found
    evidence of violation; then safe and unsafe are meant from there on. What was found of the past
    need not be so for ever: a threshold is called violated until it is certified, or until as many
    items that matter have come as it took to find out, at least 100, and twice as many each time
    it is found again; then its test starts anew too, lower (safer) thresholds first. The j-th run
    of a
    threshold spends error 6 / (pi j)^2. Thresholds come to their j-th run one by one; whoever
    comes later has the clock, and with it the cash, of those already there, and no bets. Take the
    certificates of misses, and of all in their j-th run the lowest that is unsafe from its start
    of it: any false certificate needs one of it. Should a lower one come, that one's wealth is no
    larger, so that the wealth of the lowest stays a supermartingale, and one share pays for all.
    And should the lowest leave without having been certified, as when it is violated again, all
    above leave with it.

    Wealths come from `StartMixture`, with heavy-tailed starts.

    Attributes:
        risk: misses or false alarms.
        thresholds: (K,) ascending.
        limit: of the risk, in (0, 1).
        error: see above; each of the two promises has it.
        label_error: at most this share of the items called so by the operator (unknown, for
            misses) is not, and of those that are so at most this share is called otherwise; then
            the risk among items called so differs from the risk by no more, so that violations
            are tested at limit + label_error and certificates at limit - label_error.
        items: how many items have been seen.
        states: (K,) int, codes of `State`.
        violated_at: (K,) int, item (from 1) at which it was last called violated; 0 for never.
        certified_at: (K,) int, the same for certified.
        changed_at: (K,) int, the item since which that violation is thought to last, the median
            of `start_posterior` over the last 2,048 items that mattered; 0 for never violated.
        process: the wealth, (2, K), of violation and certificate.
        runs: (2, K) int, from 1.
    """

    def __init__(
        self,
        risk: Risk,
        thresholds: np.ndarray,
        limit: float,
        error: float,
        label_error: float = 0.0,
    ) -> None:
        if thresholds.ndim != 1 or not len(thresholds) or not (np.diff(thresholds) > 0).all():
            raise ValueError(
                f"Thresholds of shape {thresholds.shape} must be one row, strictly ascending."
            )
        if not (0 <= label_error < min(limit, 1 - limit) and 0 < error < 1):
            raise ValueError(
                f"Limit {limit:g} and error {error:g} must lie in (0, 1), and the label error "
                f"{label_error:g} from 0 to below the limit (and 1 - limit)."
            )
        self.risk, self.thresholds, self.limit, self.error = risk, thresholds, limit, error
        self.label_error = label_error
        k = len(thresholds)
        self.items = 0
        self.states, self.violated_at, self.certified_at, self.changed_at = np.zeros(
            (4, k), np.int64
        )
        self.process = StartMixture((2, k), Start.HEAVY)
        self.runs = np.ones((2, k), np.int64)
        self._reached = np.zeros((2, k), bool)
        self._await()
        # Item before each run of the violation test; when a violation lapses, counted in items that
        # matter; and how often it was found since a certificate.
        self._clock, self._next_free = 0, _NEVER
        self._begun, self._free_at, self._strikes = np.zeros((3, k), np.int64)
        # Of items that mattered: position, score, weight, deployed, audit, 1 for "do not know".
        # Twice as many as are used, so that few are moved to make room.
        self._records, self._kept = np.zeros((2 * _RECENT, 6)), 0

    def update(self, items: AnsweredItems) -> None:
        """Learn of more items; in blocks of any size the numbers are the same.

        Answers are taken in the order of the items, so that which an operator answers first is no
        choice of evidence. Where he does not know, each process gets the worse of the two.

        Raises:
            ValueError: for scores that are not numbers, or audit probabilities outside (0, 1].
        """
        if np.isnan(items.scores).any():
            raise ValueError("Scores that are not numbers cannot be compared with thresholds.")
        if not ((items.audit > 0) & (items.audit <= 1)).all():
            raise ValueError(
                "Audit probabilities must lie in (0, 1]: without audits no accepted item is known."
            )
        own = Answer.UNKNOWN if self.risk is Risk.MISS else Answer.KNOWN
        doubt = items.answers == Answer.DO_NOT_KNOW
        mattering = np.flatnonzero((items.answers == own) | doubt)
        for begin in range(0, len(mattering), _BLOCK):
            rows = mattering[begin : begin + _BLOCK]
            records = np.column_stack(
                [self.items + 1 + rows, items.scores[rows], items.weights[rows],
                 items.deployed[rows], items.audit[rows], doubt[rows]]
            )  # fmt: skip
            gains, largest = np.empty((2, len(rows), *self.runs.shape))
            for row, claim in enumerate(Claim):
                gains[:, row], largest[:, row] = self._bets(claim, records, self.thresholds)
            for row, record in enumerate(records):
                self._remember(record)
                self.process.update(gains[row], largest[row])
                self._lapse()
                self._claim()
        self.items += len(items)

    def _bets(
        self, claim: Claim, records: np.ndarray, thresholds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(R, k) payoffs and largest bets of R records at k thresholds."""
        _, scores, weights, deployed, audit, doubt = records.T
        is_violation = claim is Claim.VIOLATION
        limit = self.limit + (self.label_error if is_violation else -self.label_error)
        own = np.full(len(records), self.risk is Risk.MISS)
        gains = payoffs(self.risk, thresholds, scores, own, weights, limit)
        if not is_violation:
            np.negative(gains, out=gains)
        unsure = doubt > 0
        gains[unsure] = np.minimum(gains[unsure], 0)
        return gains, largest_bets(claim, self.risk, thresholds, deployed, audit, limit)

    @property
    def needed(self) -> np.ndarray:
        """(2, K) float64, how large the wealth must be for a violation and for a certificate."""
        return (np.pi * self.runs) ** 2 / (6 * self.error)

    def _remember(self, record: np.ndarray) -> None:
        if self._kept == len(self._records):
            self._records[:_RECENT] = self._records[_RECENT:]
            self._kept = _RECENT
        self._records[self._kept] = record
        self._kept += 1

    def _recent(self) -> np.ndarray:
        return self._records[max(0, self._kept - _RECENT) : self._kept]

    def _claim(self) -> None:
        new = self.process.wealth >= self._next_needed
        if not new.any():
            return
        self._reached |= new
        at = int(self._records[self._kept - 1, 0])
        violated = closure(self._reached[0], self.risk, Claim.VIOLATION)
        violated &= self.states != State.VIOLATED
        if violated.any():
            self.states[violated], self.violated_at[violated] = State.VIOLATED, at
            self._date(np.flatnonzero(violated))
            took = (self._recent()[:, :1] > self.changed_at).sum(axis=0)
            ban = np.maximum(_SHORTEST_BAN, took) << np.minimum(self._strikes, _MOST_DOUBLINGS)
            self._free_at[violated] = self._clock + ban[violated]
            self._strikes[violated] += 1
            # Whoever leaves a run of the certificate takes along all above in it; see above.
            left = np.isin(self.runs[1], self.runs[1, violated])
            self._restart(1, left & (self.states == State.VIOLATED))
        certified = closure(self._reached[1], self.risk, Claim.CERTIFICATE)
        certified &= self.states != State.CERTIFIED
        if certified.any():
            self.states[certified], self.certified_at[certified] = State.CERTIFIED, at
            self._strikes[certified] = 0
            self._restart(0, certified & self._reached[0])
        if violated.any() or certified.any():
            self._next_free = self._first_free()
        self._await()

    def _lapse(self) -> None:
        """Stop calling violated what was found long enough ago, the safest thresholds first."""
        self._clock += 1
        if self._clock < self._next_free:
            return
        violated = self.states == State.VIOLATED
        due = violated & (self._free_at <= self._clock)
        due &= closure(due | ~violated, self.risk, Claim.CERTIFICATE)
        self.states[due] = State.UNPROVEN
        self._restart(0, due)
        self._next_free = self._first_free()

    def _first_free(self) -> int:
        """When the safest violated threshold is free again."""
        violated = np.flatnonzero(self.states == State.VIOLATED)
        if len(violated) == 0:
            return _NEVER
        return int(self._free_at[violated[0 if self.risk is Risk.MISS else -1]])

    def _date(self, violated: np.ndarray) -> None:
        records = self._recent()
        for some in np.array_split(violated, -(-len(violated) // _BLOCK)):
            own = records[records[:, 0] > self._begun[some].min()]
            gains, largest = self._bets(Claim.VIOLATION, own, self.thresholds[some])
            gains = np.where(own[:, :1] > self._begun[some], gains, 0)
            shares = start_posterior(
                self.process.start, self.process.clock[0, some], gains, largest
            )
            median = (shares.cumsum(axis=0) >= 0.5).argmax(axis=0)
            self.changed_at[some] = own[median, 0]

    def _restart(self, claim: int, where: np.ndarray) -> None:
        runs = self.runs[claim]
        for run in np.unique(runs[where]):
            joining, there = where & (runs == run), ~where & (runs == run + 1)
            clock = self.process.clock[claim, there].max(initial=0)
            cells = np.zeros(self.runs.shape, bool)
            cells[claim] = joining
            self.process.restart(cells, clock)
        runs[where] += 1
        self._reached[claim, where] = False
        if claim == 0:
            self._begun[where] = int(self._records[self._kept - 1, 0])
        self._await()

    def _await(self) -> None:
        """What wealth is waited for: none where it has been reached."""
        self._next_needed = np.where(self._reached, np.inf, self.needed)

    def state(self) -> dict[str, np.ndarray]:
        """Everything, as arrays that may be stored; its size does not depend on the stream's."""
        arrays = {name: getattr(self, name).copy() for name in _SAVED}
        process = {f"process_{name}": array for name, array in self.process.state().items()}
        settings = [list(Risk).index(self.risk), self.limit, self.error, self.label_error]
        return {
            "settings": np.array(settings), "items": np.array([self.items, self._clock]),
            "records": self._recent().copy(), **arrays, **process
        }  # fmt: skip

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> Self:
        """Thresholds under test that go on to the same numbers, bit for bit."""
        risk, *settings = state["settings"].tolist()
        tested = cls(list(Risk)[int(risk)], state["thresholds"], *settings)
        for name in _SAVED:
            setattr(tested, name, state[name].copy())
        parts = {k.removeprefix("process_"): v for k, v in state.items() if k[:8] == "process_"}
        tested.process = StartMixture.restore(parts)
        tested.items, tested._clock = state["items"].tolist()
        tested._next_free = tested._first_free()
        tested._await()
        tested._kept = len(state["records"])
        tested._records[: tested._kept] = state["records"]
        return tested
