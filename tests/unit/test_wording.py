import pytest

from app.web.wording import advice, confidence_sentence, literal, out_of, plain, verdict_sentence
from ood.decision import Decision, Verdict


def decision(verdict, p_value) -> Decision:
    return Decision(verdict, p_value, 0.05, (0.04, 0.06), "knn", 0)


@pytest.mark.parametrize(
    ("share", "words"),
    [(1.0, "100 in 100"), (0.62, "62 in 100"), (0.0034, "3 in 1,000"), (0.00017, "2 in 10,000"),
     (0.0095, "1 in 100"), (0.0, "1 in 100,000")],
)  # fmt: skip
def test_shares_are_counts(share, words):
    assert out_of(share) == words


def test_the_smallest_p_value_is_not_rounded_up_to_something():
    found = verdict_sentence(decision(Verdict.UNKNOWN, 1 / 6001), 6000)
    assert (
        found
        == "Looks like nothing it was trained on: not one of 6,000 normal images looks this odd."
    )
    two = verdict_sentence(decision(Verdict.UNSURE, 20 / 6001), 6000)
    assert two == "Unusual for what it was trained on: only 3 in 1,000 normal images look this odd."


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
