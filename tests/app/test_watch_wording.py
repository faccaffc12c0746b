"""What is said of a watched stream: sentences, banners and what is drawn as proven."""

from dataclasses import replace

import numpy as np
import pytest

from app.watch_contents import calibration_of
from app.watch_playing import ANSWER_DELAY
from app.watch_scale import Scale
from app.web import watch_turns
from app.web.watch_charts import wealth_chart
from app.web.watch_turns import Turns
from app.web.watch_wording import (
    alarm_sentence,
    banner_sentence,
    certified_sentence,
    misses_standing,
    percent,
    standing_alarms,
    threshold_standing,
)
from ood.monitoring.monitor import Monitor
from ood.monitoring.payoffs import Answer
from ood.monitoring.report import Alarm, Kind
from ood.monitoring.settings import Settings, Strategy
from ood.monitoring.thresholds import State


@pytest.fixture(scope="module")
def calibration(demo):
    return calibration_of(demo)


@pytest.fixture(scope="module")
def scale(calibration):
    return Scale.of(Settings(), calibration)


@pytest.fixture
def report(calibration):
    return Monitor(Settings(), calibration).report()


def test_a_scale_says_thresholds_in_shares_of_normal_images(scale, calibration):
    for share in (0.01, 0.05, 0.25):
        threshold = np.quantile(calibration, 1 - share, method="inverted_cdf")
        assert abs(scale.normal_share(threshold) - share) < 2 / len(calibration)
    assert scale.normal_share(scale.thresholds[0]) == 1 and scale.normal_share(np.inf) == 0
    ranks, labels = scale.ticks()
    assert ranks == sorted(ranks) and labels[0] == "100%" and labels[-1] == "0%"
    assert np.isnan(scale.ranks(np.array([np.nan]))).all()
    assert [scale.place(t) for t in scale.thresholds[::20]] == list(range(len(scale.thresholds)))[
        ::20
    ]


def test_the_large_sentence_says_what_is_proven(report, scale):
    settings = Settings()
    unproven = misses_standing(report, settings, scale)
    assert "Not proven yet that at most 10%" in unproven.words and "none yet" in unproven.more
    certified = replace(report, misses=replace(report.misses, state=State.CERTIFIED, since=812))
    said = misses_standing(certified, settings, scale)
    assert said.words.startswith("Shown by the images up to 812: at most 10% of unknown")
    assert "where more slip through all the time is at most 5%" in said.more
    assert "A change after image 812 shows as an alarm" in said.more
    violated = replace(report, misses=replace(report.misses, state=State.VIOLATED, since=1_480))
    bad = misses_standing(violated, settings, scale)
    assert "violated since about image 1,480" in bad.words
    assert len({s.icon for s in (unproven, said, bad)}) == 3
    assert "2.5%" in misses_standing(report, replace(settings, miss_limit=0.025, miss_target=0.02),
                                     scale).words  # fmt: skip


def test_evidence_is_said_as_a_share_of_what_is_needed(report, scale):
    place, misses = scale.place(report.deployed), report.misses
    half = misses.log_certificate.copy()
    half[place] = misses.needed[1, place] / 2
    good = replace(report, answered=9, misses=replace(misses, log_certificate=half))
    assert "50% of the evidence for a certificate" in misses_standing(good, Settings(), scale).more
    bad = replace(report, answered=9, misses=replace(misses, log_violation=half))
    assert "that it is more" in misses_standing(bad, Settings(), scale).more


def test_the_threshold_says_who_put_it_there(report, scale):
    low, high = float(scale.thresholds[50]), float(scale.thresholds[120])
    held = replace(report, deployed=low, proposed=high)
    assert "tests forbid it" in threshold_standing(held, Settings(), scale).more
    free = replace(report, deployed=high, proposed=high)
    said = threshold_standing(free, Settings(), scale).more
    assert "A market wants it there" in said and "No threshold is certified" in said
    fixed = Settings(strategy=Strategy.FIXED)
    assert "fixed at the start" in threshold_standing(free, fixed, scale).more
    careful = Settings(strategy=Strategy.CERTIFIED)
    kept = replace(held, certified=low)
    assert "kept where it is certified" in threshold_standing(kept, careful, scale).more
    assert "Certified up to" in certified_sentence(kept, scale)
    assert "or more" in certified_sentence(replace(kept, deployed=high), scale)
    assert percent(0.1) == "10%" and percent(0.025) == "2.5%" and percent(1) == "100%"


def test_alarms_stand_while_they_last_and_while_they_are_news(report):
    alarms = [
        Alarm(Kind.MISSES, 900, 700, 5.0),
        Alarm(Kind.FALSE_ALARMS, 950, 0, 5.0),
        Alarm(Kind.DRIFT, 1_000, 0, 5.0),
    ]
    now = replace(report, items=1_200, settled=1_180)
    assert standing_alarms(alarms, now) == alarms
    later = replace(report, items=2_000, settled=1_990)
    assert standing_alarms(alarms, later) == []
    violated = replace(later, misses=replace(report.misses, state=State.VIOLATED))
    assert standing_alarms(alarms, violated) == alarms[:1]
    held_up = replace(report, items=2_000, settled=1_000)  # answers noticed it just now
    assert standing_alarms(alarms, held_up) == alarms[:2]
    settings = Settings()
    assert "since about image 700, noticed at image 900" in alarm_sentence(alarms[0], settings)
    assert "known images were flagged since about image 1," in alarm_sentence(alarms[1], settings)
    assert "noticed at image 1,000" in alarm_sentence(alarms[2], settings)


def test_a_banner_says_what_became_of_an_alarm(report):
    settings, here = Settings(), report.deployed
    alarm = Alarm(Kind.MISSES, 900, 700, here + 1)
    lowered = banner_sentence(alarm, report, settings)
    assert lowered == (
        "More than 10% of unknown images slipped through since about image 700, noticed at image "
        "900; the threshold was lowered."
    )
    assert "tested anew" in banner_sentence(replace(alarm, threshold=here), report, settings)
    flagged = replace(alarm, kind=Kind.FALSE_ALARMS, threshold=here - 1)
    assert "the threshold was raised" in banner_sentence(flagged, report, settings)
    drift = replace(alarm, kind=Kind.DRIFT)
    assert banner_sentence(drift, report, settings) == alarm_sentence(drift, settings)
    for since, words in (
        (500, "images slip through since about image 700, noticed at image 900."),
        (800, "images slip through since about image 800, noticed at image 900."),
        (1_480, "slip through again, since about image 1,480; first noticed at image 900."),
    ):
        state = replace(report.misses, state=State.VIOLATED, since=since)
        assert words in banner_sentence(alarm, replace(report, misses=state), settings)


@pytest.mark.parametrize("strategy", [Strategy.MARKET, Strategy.FIXED])
def test_an_alarm_about_misses_is_a_banner_whoever_chooses(calibration, strategy):
    """A market is off the violated threshold before anybody can look."""
    rng = np.random.default_rng(0)
    settings = Settings(strategy=strategy, audit_floor=0.5, audit_ceiling=1, budget=1_000)
    monitor, waiting = Monitor(settings, calibration), []
    while not any(alarm.kind is Kind.MISSES for alarm in monitor.alarms):
        unknown, easy = monitor.items % 2 == 0, monitor.items < 300
        decided = monitor.decide(float(rng.choice(calibration)) + (30 if unknown and easy else 0))
        waiting += [(decided, unknown)] * decided.asked
        while waiting and waiting[0][0].item <= monitor.items - ANSWER_DELAY:
            item, truth = waiting.pop(0)
            monitor.answer(item.item, Answer.UNKNOWN if truth else Answer.KNOWN)
        assert monitor.items < 1_000
    report, raised = monitor.report(), monitor.alarms
    (alarm,) = (a for a in standing_alarms(raised, report) if a.kind is Kind.MISSES)
    said = banner_sentence(alarm, report, settings)
    moved = strategy is Strategy.MARKET
    assert (report.misses.state != State.VIOLATED) == moved
    assert ("the threshold was lowered" in said) == moved
    assert f"noticed at image {alarm.item:,}" in said


def test_proven_thresholds_are_shaded_and_a_goal_outside_is_said(report, scale):
    risk, k = report.misses, len(scale.thresholds)
    plain = wealth_chart(report, scale)
    assert not [trace for trace in plain.data if str(trace.name).startswith("proven")]
    states = risk.states.copy()
    states[:10], states[k - 20 :] = State.CERTIFIED, State.VIOLATED
    far = replace(risk, states=states, needed=risk.needed + 40)
    figure = wealth_chart(replace(report, misses=far), scale)
    shaded = {trace.name: trace.x for trace in figure.data if trace.fill == "toself"}
    assert shaded["proven: less"][0] == -0.5 and shaded["proven: less"][-1] == 9.5
    assert shaded["proven: more"][0] == k - 20.5 and shaded["proven: more"][-1] == k - 0.5
    top = figure.layout.yaxis.range[1]
    assert all(max(trace.y) <= top for trace in figure.data)
    assert any("above the chart" in str(note.text) for note in figure.layout.annotations)


def test_two_operators_are_shown_two_questions_and_none_is_left_behind(monkeypatch):
    clock = [1_000.0]
    monkeypatch.setattr(watch_turns.time, "monotonic", lambda: clock[0])
    turns = Turns()
    assert turns.take(1, "one", [7, 8, 9]).item == 7
    assert turns.take(1, "other", [7, 8, 9]).item == 8
    assert turns.take(2, "other", [7, 8]).item == 7  # of another stream
    clock[0] += 5
    kept = turns.take(1, "one", [6, 7, 8, 9])
    assert kept.item == 7 and kept.since == 1_000
    assert turns.take(1, "other", [7, 9]).item == 9  # 8 is answered; 7 is another's
    assert turns.take(1, "third", [7, 9]).item == 7  # all are shown; this one longest
    clock[0] += watch_turns.HELD_S
    assert turns.take(1, "fourth", [7, 9]).item == 7  # left open
