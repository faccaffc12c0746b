"""What a watched stream's numbers mean, for people who are no experts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.watch_scale import Scale
from ood.monitoring.report import Alarm, Kind, Report
from ood.monitoring.settings import Settings, Strategy
from ood.monitoring.strategies import obeys_tests
from ood.monitoring.thresholds import State

NEWS_FOR = 500
STRATEGY_NAME = {
    Strategy.MARKET: "A market, held back by tests",
    Strategy.CERTIFIED: "A market, certified thresholds only",
    Strategy.CONSTANT_PRODUCT: "A slower market, held back by tests",
    Strategy.FIXED: "Nobody: a fixed threshold",
    Strategy.NOT_REJECTED: "The largest not rejected yet",
    Strategy.QUANTILE_TRACKING: "Quantile tracking",
    Strategy.DTACI: "DtACI",
}
STRATEGY_MEANING = {
    Strategy.MARKET: "It goes where the answers say it is best, but never to a threshold that is "
    "proven to let too much through.",
    Strategy.CERTIFIED: "The same, but once thresholds are certified only those are used: the most "
    "careful, and it flags most.",
    Strategy.CONSTANT_PRODUCT: "Like the market, but it gives up on thresholds less quickly.",
    Strategy.FIXED: "What is usual: chosen once, on normal images, and never changed.",
    Strategy.NOT_REJECTED: "As published by Timans et al.: what a test has rejected stays so.",
    Strategy.QUANTILE_TRACKING: "Moves a little at each answer; no test holds it back.",
    Strategy.DTACI: "Several step sizes at once, the best count most; no test holds it back.",
}


@dataclass(frozen=True)
class Standing:
    """One large sentence, what it rests on, and a sign that is not its colour alone."""

    words: str
    more: str
    icon: str
    colour: str


def percent(share: float) -> str:
    """0.1 as "10%", 0.025 as "2.5%"."""
    return f"{share:.1%}".replace(".0%", "%")


def misses_standing(report: Report, settings: Settings, scale: Scale) -> Standing:
    """What is known of unknown images that are accepted."""
    limit, risk = percent(settings.miss_limit), report.misses
    if risk.state == State.CERTIFIED:
        return Standing(
            f"At most {limit} of unknown images slip through: certified since image "
            f"{risk.since:,}",
            f"The chance that such a certificate is ever wrong is at most "
            f"{percent(settings.error)}.",
            "verified", "green",
        )  # fmt: skip
    if risk.state == State.VIOLATED:
        return Standing(
            f"More than {limit} of unknown images slip through: violated since about image "
            f"{max(1, risk.since):,}",
            f"The chance that this is ever said wrongly is at most {percent(settings.error)}. Do "
            "not rely on what is accepted.",
            "report", "red",
        )  # fmt: skip
    return Standing(
        f"Not proven yet that at most {limit} of unknown images slip through",
        evidence_sentence(report, scale),
        "hourglass_top", "gray",
    )  # fmt: skip


def evidence_sentence(report: Report, scale: Scale) -> str:
    """How far the threshold in force is on its way to a proof, by the logarithm of wealth."""
    if not report.answered:
        return "Only answers can prove it, and there are none yet."
    place, risk = scale.place(report.deployed), report.misses
    wealth = np.array([risk.log_violation[place], risk.log_certificate[place]])
    bad, good = np.clip(wealth / risk.needed[:, place], 0, 1)
    if max(good, bad) < 0.01:
        return "So far the answers say nothing either way."
    if good >= bad:
        return f"{good:.0%} of the evidence for a certificate is there; answers bring more."
    return f"{bad:.0%} of the evidence that it is more is there; answers bring more."


def threshold_standing(report: Report, settings: Settings, scale: Scale) -> Standing:
    """Where the threshold is, and why there."""
    share = percent(scale.normal_share(report.deployed))
    words = f"{share} of normal images score above the threshold"
    proposed, place = scale.place(report.proposed), scale.place(report.deployed)
    who = STRATEGY_NAME[settings.strategy].partition(",")[0]
    wanted = f"would flag {percent(scale.normal_share(report.proposed))}"
    if settings.strategy is Strategy.FIXED:
        return Standing(words, "It was fixed at the start.", "lock", "gray")
    careful = settings.strategy is Strategy.CERTIFIED and not np.isnan(report.certified)
    if place < proposed and careful:
        why = f"{who} {wanted}; the threshold is kept where it is certified."
        return Standing(words, why, "verified", "gray")
    if place < proposed and obeys_tests(settings.strategy):
        why = f"{who} {wanted}; tests forbid it: there too much slips through."
        return Standing(words, why, "front_hand", "gray")
    return Standing(words, f"{who} wants it there. {certified_sentence(report, scale)}",
                    "storefront", "gray")  # fmt: skip


def certified_sentence(report: Report, scale: Scale) -> str:
    """Up to where thresholds are certified."""
    if np.isnan(report.certified):
        return "No threshold is certified yet."
    share = percent(scale.normal_share(report.certified))
    if scale.place(report.certified) >= scale.place(report.deployed):
        return f"Certified up to one that flags {share}."
    return f"Certified are only thresholds that flag {share} or more."


def alarm_sentence(alarm: Alarm, settings: Settings) -> str:
    """What an alarm says, and when it was noticed."""
    noticed = f"noticed at image {alarm.item:,}"
    since = f"since about image {max(1, alarm.since):,}, {noticed}"
    match alarm.kind:
        case Kind.MISSES:
            return f"More than {percent(settings.miss_limit)} of unknown images slip through, "\
                f"{since}."  # fmt: skip
        case Kind.FALSE_ALARMS:
            limit = percent(settings.false_alarm_limit)
            return f"More than {limit} of known images are flagged, {since}."
        case Kind.DRIFT:
            return f"Other images come than the normal ones it was calibrated on, {noticed}."


def standing_alarms(alarms: Sequence[Alarm], report: Report) -> list[Alarm]:
    """Those that concern now: limits still broken, and a change in the last 500 images."""
    latest = {alarm.kind: alarm for alarm in alarms}
    now = {
        Kind.MISSES: report.misses.state == State.VIOLATED,
        Kind.FALSE_ALARMS: report.false_alarms.state == State.VIOLATED,
    }
    return [
        alarm
        for kind, alarm in latest.items()
        if now.get(kind, report.items - alarm.item < NEWS_FOR)
    ]
