"""What a watched stream's numbers mean, for people who are no experts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.watch_scale import Scale
from ood.monitoring.report import Alarm, Kind, Report, RiskReport
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
            f"Shown by the images up to {risk.since:,}: at most {limit} of unknown images slip "
            "through",
            "The chance that such a certificate is ever given where more slip through all the time "
            f"is at most {percent(settings.error)}. A change after image {risk.since:,} shows as "
            "an alarm, not here.",
            "verified", "green",
        )  # fmt: skip
    if risk.state == State.VIOLATED:
        return Standing(
            f"More than {limit} of unknown images slip through: violated since about image "
            f"{max(1, risk.since):,}",
            "The chance that this is ever said where no more slip through at any time is at most "
            f"{percent(settings.error)}. Do not rely on what is accepted.",
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
    """What an alarm said when it was raised, and when that was."""
    noticed = f"noticed at image {alarm.item:,}"
    if alarm.kind is Kind.DRIFT:
        return f"Other images came than the normal ones it was calibrated on, {noticed}."
    since = f"since about image {max(1, alarm.since):,}, {noticed}"
    return f"{_broken(alarm.kind, settings, now=False)} {since}."


def banner_sentence(alarm: Alarm, report: Report, settings: Settings) -> str:
    """What an alarm says now: whether it is still so, since when, and what became of it."""
    risk = _risk(alarm.kind, report)
    said = alarm_sentence(alarm, settings)
    if risk is None:
        return said
    if risk.state != State.VIOLATED:
        return f"{said.removesuffix('.')}; {_aftermath(alarm, report)}."
    broken = _broken(alarm.kind, settings, now=True)
    if risk.since > alarm.item:  # it was over, and was found once more
        return (
            f"{broken} again, since about image {risk.since:,}; first noticed at image "
            f"{alarm.item:,}."
        )
    since = max(1, alarm.since, risk.since)
    return f"{broken} since about image {since:,}, noticed at image {alarm.item:,}."


def _broken(kind: Kind, settings: Settings, *, now: bool) -> str:
    if kind is Kind.MISSES:
        slip = "slip" if now else "slipped"
        return f"More than {percent(settings.miss_limit)} of unknown images {slip} through"
    be = "are" if now else "were"
    return f"More than {percent(settings.false_alarm_limit)} of known images {be} flagged"


def _aftermath(alarm: Alarm, report: Report) -> str:
    """What became of an alarm whose limit is not found broken any more."""
    if alarm.kind is Kind.MISSES and report.deployed < alarm.threshold:
        return "the threshold was lowered"
    if alarm.kind is Kind.FALSE_ALARMS and report.deployed > alarm.threshold:
        return "the threshold was raised"
    return "whether it is still so is being tested anew"


def _risk(kind: Kind, report: Report) -> RiskReport | None:
    return {Kind.MISSES: report.misses, Kind.FALSE_ALARMS: report.false_alarms}.get(kind)


def standing_alarms(alarms: Sequence[Alarm], report: Report) -> list[Alarm]:
    """Those that concern now: limits that are broken, and what is new, the latest of each kind.

    A market leaves a threshold in the very step in which it is found to break the limit of misses:
    so such an alarm is shown for 500 images, whatever is known of the threshold after it.
    """
    latest = {alarm.kind: alarm for alarm in alarms}
    return [alarm for alarm in latest.values() if _stands(alarm, report)]


def _stands(alarm: Alarm, report: Report) -> bool:
    risk = _risk(alarm.kind, report)
    if risk is not None and risk.state == State.VIOLATED:
        return True
    # Answers are noticed at the image that they are about, not at the latest one.
    now = report.items if risk is None else report.settled
    return now - alarm.item < NEWS_FOR
