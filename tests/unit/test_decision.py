import numpy as np
import pytest

from ood.conditional import METHODS, conditional_p_values
from ood.conformal import largest_rank, rank_interval
from ood.decision import Rule, Verdict, can_be_unknown, decide, flagging_rank


def decisions(p_values, sizes, level=0.05):
    p = np.asarray(p_values, float)
    return decide(p, np.zeros(len(p), int), level=level, calibration_size=sizes, detector="knn")


def test_too_few_calibration_images_decide_nothing():
    found = decisions([1 / 19, 1.0], 18)
    assert [d.verdict for d in found] == [Verdict.UNDECIDED] * 2
    assert not any(d.flagged for d in found)
    assert flagging_rank(0.05, 18) == 0


def test_each_image_has_the_interval_of_its_own_category():
    sizes = np.array([18, 19, 999, 999])
    found = decisions([1 / 19, 1 / 20, 1 / 1000, 0.5], sizes)
    assert [d.verdict for d in found] == [
        Verdict.UNDECIDED, Verdict.UNSURE, Verdict.UNKNOWN, Verdict.KNOWN
    ]  # fmt: skip
    assert [d.calibration_size for d in found] == sizes.tolist()
    assert [d.realised for d in found] == [
        rank_interval(largest_rank(0.05, n), n) for n in sizes.tolist()
    ]
    assert [d.flagged for d in found] == [False, True, True, False]


def test_one_size_for_all_images():
    assert decisions([0.5, 0.5], 999) == decisions([0.5, 0.5], np.array([999, 999]))
    assert decisions([], 999) == []
    with pytest.raises(ValueError, match="broadcast"):
        decisions([0.5, 0.5], np.array([9, 9, 9]))


@pytest.mark.parametrize("method", ["", *METHODS])
@pytest.mark.parametrize("n", [18, 50, 98, 99, 600, 4_000])
@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_an_image_can_be_unknown_where_the_oddest_one_is(method, n, level):
    p = np.array([1 / (n + 1)])
    if method:
        p = conditional_p_values(p, METHODS[method](n))
    found = decide(p, np.zeros(1, int), level=level, calibration_size=n, detector="", method=method)
    expected = found[0].verdict is Verdict.UNKNOWN
    assert can_be_unknown(Rule(level, method=method), n) == expected


def test_unknown_is_out_of_reach_for_few_images_and_wide_bounds():
    assert not can_be_unknown(Rule(0.05), 50) and flagging_rank(0.05, 50)
    assert can_be_unknown(Rule(0.05), 99) and not can_be_unknown(Rule(0.05), 98)
    assert not can_be_unknown(Rule(0.05, method="dkw"), 4_000)
    assert can_be_unknown(Rule(0.05, method="simes"), 4_000)
