"""Numbers as sentences for people who are no experts."""

import re
from collections.abc import Sequence

from ood.decision import Decision, Rule, Verdict

VERDICT_ICON = {
    Verdict.KNOWN: ":material/check_circle:",
    Verdict.UNSURE: ":material/help:",
    Verdict.UNKNOWN: ":material/cancel:",
    Verdict.UNDECIDED: ":material/remove_circle:",
}
VERDICT_SIGN = {
    Verdict.KNOWN: "✓",
    Verdict.UNSURE: "?",
    Verdict.UNKNOWN: "✕",
    Verdict.UNDECIDED: "-",
}
VERDICT_COLOUR = {
    Verdict.KNOWN: "green",
    Verdict.UNSURE: "orange",
    Verdict.UNKNOWN: "red",
    Verdict.UNDECIDED: "gray",
}
CONFIDENT = 0.9
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:@&])")


def plain(text: str) -> str:
    """Text from outside, so that Markdown shows it letter by letter."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def literal(text: str) -> str:
    """A name from outside as inline code: no link, no icon, no picture comes of it."""
    text = " ".join(text.split()) or "(no name)"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}"


def out_of(share: float) -> str:
    """0.62 as "62 in 100", 0.0034 as "3 in 1,000"."""
    for base in (100, 1_000, 10_000, 100_000):
        if share * base >= 0.95:
            break
    return f"{max(1, round(share * base)):,} in {base:,}"


def verdict_sentence(decision: Decision) -> str:
    """What the verdict means, with its p-value in words."""
    if decision.verdict is Verdict.UNDECIDED:
        return (
            f"Too few normal images were held out to decide this: of {decision.calibration_size:,} "
            f"not one image can be flagged at {decision.level:.1%}."
        )
    if decision.verdict is Verdict.KNOWN:
        if decision.method:
            return "Nothing unusual found: too many normal images may look this odd."
        share = out_of(decision.p_value)
        return f"Nothing unusual found: {share} normal images look at least this odd."
    if decision.method:
        rarity = f"at most {out_of(decision.p_value)} normal images look this odd"
    elif decision.p_value * (decision.calibration_size + 1) < 1.5:
        rarity = f"not one of {decision.calibration_size:,} normal images looks this odd"
    else:
        rarity = f"only {out_of(decision.p_value)} normal images look this odd"
    if decision.verdict is Verdict.UNKNOWN:
        return f"Looks like nothing it was trained on: {rarity}."
    return f"Unusual for what it was trained on: {rarity}."


def confidence_sentence(decision: Decision, class_name: str, confidence: float) -> str:
    """What the classifier answers, and when its confidence means nothing."""
    sure = "over 99.9%" if confidence > 0.999 else f"{confidence:.1%}"
    if decision.flagged:
        return (
            f"It would say **{class_name}**, {sure} sure - a number that means nothing for images "
            "unlike those it learned from."
        )
    if confidence >= CONFIDENT:
        return f"It says **{class_name}** and is {sure} sure."
    return (
        f"It says **{class_name}** but is only {sure} sure: expect {out_of(1 - confidence)} such "
        "answers to be wrong."
    )


def advice(decision: Decision, confidence: float) -> str:
    """What to do with the classifier's answer."""
    if decision.verdict is Verdict.UNKNOWN:
        return "Do not use its answer."
    if decision.verdict is not Verdict.KNOWN or confidence < CONFIDENT:
        return "Let a person look before using its answer."
    return "No reason found to doubt its answer."


def level_sentence(
    rule: Rule, flagged: int, size: int, realised: Sequence[tuple[float, float]]
) -> str:
    """What the level does to normal images.

    Args:
        rule: what is asked for.
        flagged: how many of the normal images held out.
        size: how many were held out.
        realised: 95% interval of the share flagged, of each category.
    """
    found = (
        f"Of {size:,} normal images held out for this, **{flagged:,}** are flagged at "
        f"{rule.level:.1%}."
    )
    low, high = min(low for low, _ in realised), max(high for _, high in realised)
    whose = "any one answer" if rule.by_class else "the same mix of classes"
    promise = f"For new normal images of {whose} expect {low:.1%} to {high:.1%}."
    if rule.method:
        taken = ", for each answer taken alone," if rule.by_class else ""
        promise += f" With 95% confidence{taken} it is never more than {rule.level:.1%}."
    return f"{found} {promise}"
