import numpy as np
import pytest

from ood.conformal import realised_interval
from ood.decision import Verdict, decide, flagging_rank


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
    assert [d.realised for d in found] == [realised_interval(0.05, n) for n in sizes.tolist()]
    assert [d.flagged for d in found] == [False, True, True, False]


def test_one_size_for_all_images():
    assert decisions([0.5, 0.5], 999) == decisions([0.5, 0.5], np.array([999, 999]))
    assert decisions([], 999) == []
    with pytest.raises(ValueError, match="broadcast"):
        decisions([0.5, 0.5], np.array([9, 9, 9]))
