import numpy as np
import pytest

from ood.monitoring.monitor import Monitor
from ood.monitoring.payoffs import Answer
from ood.monitoring.report import Kind
from ood.monitoring.settings import Settings, Strategy
from ood.monitoring.thresholds import State

CALIBRATION = np.random.default_rng(9).normal(size=1_000)
SMALL = {"thresholds": 40, "budget": 1_000}
MANY_AUDITS = SMALL | {"audit_floor": 0.3, "audit_ceiling": 0.6}


def world(items, share=0.3, shift=3.0, seed=0):
    rng = np.random.default_rng(seed)
    unknown = rng.uniform(size=items) < share
    return rng.normal(size=items) + shift * unknown, unknown


def told(unknown):
    return Answer.UNKNOWN if unknown else Answer.KNOWN


def watch(monitor, scores, unknown, start=0):
    """Answer every question at once; the decisions."""
    decided = []
    for score, is_unknown in zip(scores[start:], unknown[start:], strict=True):
        decided.append(monitor.decide(score))
        if decided[-1].asked:
            assert monitor.answer(decided[-1].item, told(is_unknown))
    return decided


def same(a, b):
    first, second = a.state(), b.state()
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


@pytest.mark.parametrize("strategy", Strategy)
def test_a_restored_monitor_goes_on_to_the_same_numbers(strategy):
    settings = Settings(strategy=strategy, **SMALL)
    scores, unknown = world(700)
    monitor = Monitor(settings, CALIBRATION)
    watch(monitor, scores[:400], unknown[:400])
    monitor.decide(scores[400])  # may wait for its answer
    again = Monitor.restore(settings, CALIBRATION, monitor.state())
    same(monitor, again)
    for one in (monitor, again):
        if one.waits(401):
            one.answer(401, told(unknown[400]))
        watch(one, scores, unknown, start=401)
    same(monitor, again)
    assert monitor.items == 700 and monitor.report().answered == monitor.asked


@pytest.mark.parametrize("strategy", set(Strategy) - {Strategy.NOT_REJECTED})
def test_at_first_the_share_that_was_asked_for_is_flagged(strategy):
    """As published, the largest threshold not rejected begins with the largest of all."""
    monitor = Monitor(Settings(strategy=strategy, start_level=0.1), CALIBRATION)
    flagged = (monitor.report().deployed < CALIBRATION).mean()
    assert 0.08 < flagged < 0.12
    prices = monitor.report().prices
    assert len(prices) == 0 or prices.sum() == pytest.approx(1)


def test_the_order_of_answers_does_not_matter_but_their_time_does():
    settings = Settings(**SMALL)
    scores, unknown = world(300)
    reports = []
    for backwards in (False, True):
        monitor = Monitor(settings, CALIBRATION)
        asked = [d.item for d in map(monitor.decide, scores) if d.asked]
        for item in reversed(asked) if backwards else asked:
            monitor.answer(item, told(unknown[item - 1]))
        reports.append(monitor)
    same(*reports)
    assert reports[0].report().settled == 300


def test_an_alarm_does_not_depend_on_how_many_answers_come_at_once():
    """The first question is answered last: whatever was found in between is said."""
    settings = Settings(strategy=Strategy.FIXED, **MANY_AUDITS)
    scores, unknown = world(900, shift=0.5)
    scores = np.concatenate([scores, world(900, shift=6.0, seed=1)[0]])
    unknown = np.concatenate([unknown, world(900, shift=6.0, seed=1)[1]])
    monitors = []
    for first_last in (False, True):
        monitor = Monitor(settings, CALIBRATION)
        asked = [d.item for d in map(monitor.decide, scores) if d.asked]
        for item in asked[1:] + asked[:1] if first_last else asked:
            monitor.answer(item, told(unknown[item - 1]))
        monitors.append(monitor)
    same(*monitors)
    assert [alarm.kind for alarm in monitors[0].alarms].count(Kind.MISSES) == 1


def test_what_comes_after_an_open_question_waits():
    monitor = Monitor(Settings(**SMALL), CALIBRATION)
    scores = np.full(20, 50.0)  # all flagged, all asked about
    for score in scores:
        monitor.decide(score)
    for item in range(2, 21):
        monitor.answer(item, Answer.UNKNOWN)
    assert monitor.report().settled == 0 and monitor.waits(1) and not monitor.waits(2)
    assert (monitor.report().misses.log_violation == 0).all()
    monitor.answer(1, Answer.UNKNOWN)
    assert monitor.report().settled == 20
    assert monitor.report().misses.log_certificate[5] > 0


def test_two_answers_to_one_question_count_once():
    monitor = Monitor(Settings(**SMALL), CALIBRATION)
    monitor.decide(50.0)
    monitor.decide(51.0)
    assert monitor.answer(2, Answer.KNOWN) and not monitor.answer(2, Answer.UNKNOWN)
    assert monitor.answer(1, Answer.KNOWN) and not monitor.answer(1, Answer.UNKNOWN)
    assert monitor.answered == 2 and monitor.report().settled == 2


def test_what_was_not_asked_is_refused():
    monitor = Monitor(Settings(audit_floor=1e-6, audit_ceiling=1e-6, **SMALL), CALIBRATION)
    monitor.decide(50.0)  # flagged, and open
    monitor.decide(-50.0)
    with pytest.raises(ValueError, match="was not asked about"):
        monitor.answer(2, Answer.KNOWN)
    with pytest.raises(ValueError, match="no image 3"):
        monitor.answer(3, Answer.KNOWN)
    with pytest.raises(ValueError, match="known, unknown"):
        monitor.answer(1, Answer.NOT_ASKED)
    with pytest.raises(ValueError):
        monitor.decide(float("nan"))
    assert monitor.items == 2


def test_a_limit_that_is_kept_is_certified_and_one_that_is_broken_alarms():
    scores, unknown = world(1_500, shift=6.0)
    monitor = Monitor(Settings(**MANY_AUDITS), CALIBRATION)
    watch(monitor, scores, unknown)
    report = monitor.report()
    assert np.isfinite(report.certified)
    assert not [alarm for alarm in monitor.alarms if alarm.kind is Kind.MISSES]
    fixed = Monitor(Settings(strategy=Strategy.FIXED, **MANY_AUDITS), CALIBRATION)
    watch(fixed, scores, unknown)
    assert fixed.report().misses.state is State.CERTIFIED
    # Now most of the unknown ones look like known ones.
    later, unknown = world(1_500, shift=0.5, seed=1)
    watch(fixed, later, unknown)
    alarm = next(alarm for alarm in fixed.alarms if alarm.kind is Kind.MISSES)
    assert fixed.report().misses.state is not State.CERTIFIED
    assert 1_400 <= alarm.since <= alarm.item <= 2_500


def test_the_market_never_deploys_what_is_called_violated():
    scores, unknown = world(2_000, shift=1.5)
    monitor = Monitor(Settings(**SMALL), CALIBRATION)
    for score, is_unknown in zip(scores, unknown, strict=True):
        decided = monitor.decide(score)
        if decided.asked:
            monitor.answer(decided.item, told(is_unknown))
            report = monitor.report()
            assert (
                report.misses.state is not State.VIOLATED
                or report.deployed == (monitor.thresholds[0])
            )
    assert (report.misses.states == State.VIOLATED).any()


def test_only_what_is_certified_is_deployed_once_something_is():
    scores, unknown = world(1_500, shift=5.0)
    monitor = Monitor(Settings(strategy=Strategy.CERTIFIED, **MANY_AUDITS), CALIBRATION)
    held_back = 0
    for number in range(0, len(scores), 50):
        watch(monitor, scores[: number + 50], unknown[: number + 50], start=number)
        report = monitor.report()
        if np.isfinite(report.certified):
            assert report.deployed == min(report.certified, report.proposed)
            held_back += report.certified < report.proposed
    assert held_back > 0


def test_a_budget_of_labels_is_kept():
    scores, unknown = world(3_000)
    monitor = Monitor(Settings(thresholds=40, budget=100), CALIBRATION)
    asked = np.array([d.asked for d in watch(monitor, scores, unknown)])
    assert np.convolve(asked, np.ones(1_000), "valid").max() <= 100
    assert asked.sum() == monitor.asked > 150


def test_images_that_come_differently_are_noticed_without_a_label():
    settings = Settings(audit_floor=1e-6, audit_ceiling=1e-6, **SMALL)
    monitor = Monitor(settings, CALIBRATION)
    for score in np.random.default_rng(3).normal(-1, 1, 600):
        monitor.decide(score)
    assert [alarm.kind for alarm in monitor.alarms] == [Kind.DRIFT]


def test_limits_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="below their limit"):
        Settings(miss_target=0.2, miss_limit=0.1)
    with pytest.raises(ValueError, match="must lie in"):
        Settings(error=0.0)
