import pytest

from app.web.wording import (
    advice,
    confidence_sentence,
    level_sentence,
    literal,
    out_of,
    plain,
    verdict_sentence,
)
from ood.decision import Decision, Rule, Verdict


def decision(verdict, p_value) -> Decision:
    return Decision(verdict, p_value, 0.05, (0.04, 0.06), "knn", 0, 6000)


@pytest.mark.parametrize(
    ("share", "words"),
    [(1.0, "100 in 100"), (0.62, "62 in 100"), (0.0034, "3 in 1,000"), (0.00017, "2 in 10,000"),
     (0.0095, "1 in 100"), (0.0, "1 in 100,000")],
)  # fmt: skip
def test_shares_are_counts(share, words):
    assert out_of(share) == words


def test_the_smallest_p_value_is_not_rounded_up_to_something():
    found = verdict_sentence(decision(Verdict.UNKNOWN, 1 / 6001))
    assert (
        found
        == "Looks like nothing it was trained on: not one of 6,000 normal images looks this odd."
    )
    two = verdict_sentence(decision(Verdict.UNSURE, 20 / 6001))
    assert two == "Unusual for what it was trained on: only 3 in 1,000 normal images look this odd."


def test_too_few_calibration_images_are_an_answer():
    undecided = Decision(Verdict.UNDECIDED, 0.2, 0.05, (0.0, 0.0), "knn", 0, 4)
    assert "Too few normal images were held out to decide this: of 4" in verdict_sentence(undecided)
    assert "person" in advice(undecided, 0.99)


def test_the_level_says_in_what_sense_it_holds():
    plainly = level_sentence(Rule(0.05), 190, 4000, [(0.043, 0.057)])
    assert plainly == (
        "Of 4,000 normal images held out for this, **190** are flagged at 5.0%. "
        "For new normal images of the same mix of classes expect 4.3% to 5.7%."
    )
    each = level_sentence(Rule(0.05, by_class=True), 190, 4000, [(0.03, 0.07), (0.04, 0.08)])
    assert "of any one answer expect 3.0% to 8.0%" in each
    sure = level_sentence(Rule(0.05, method="simes"), 150, 4000, [(0.03, 0.045)])
    assert sure.endswith("With 95% confidence it is never more than 5.0%.")


def test_advice_needs_a_known_image_and_a_sure_answer():
    assert advice(decision(Verdict.KNOWN, 0.5), 0.99) == "No reason found to doubt its answer."
    assert "person" in advice(decision(Verdict.KNOWN, 0.5), 0.6)
    assert "person" in advice(decision(Verdict.UNSURE, 0.03), 0.99)
    assert advice(decision(Verdict.UNKNOWN, 0.001), 0.99) == "Do not use its answer."


def test_confidence_is_said_with_what_it_is_worth():
    known, unknown = decision(Verdict.KNOWN, 0.5), decision(Verdict.UNKNOWN, 0.001)
    assert confidence_sentence(known, "Coat", 0.9996) == "It says **Coat** and is over 99.9% sure."
    assert "expect 40 in 100 such answers to be wrong" in confidence_sentence(known, "Coat", 0.6)
    assert "means nothing" in confidence_sentence(unknown, "Coat", 0.99)


def test_names_from_outside_are_code():
    assert literal("https://evil.example/`x`.png") == "`` https://evil.example/`x`.png ``"
    assert literal("") == "` (no name) `"


@pytest.mark.parametrize(
    "text", ["![](http://x.y/z.png)", "a_b*c", "$x$", ":material/bolt:", "<b>", "# h"]
)
def test_names_are_shown_letter_by_letter(text):
    shown = plain(text)
    assert shown.replace("\\", "") == text
    assert all(shown[i - 1] == "\\" for i, c in enumerate(shown) if c in "![]()*_$:<>#")
