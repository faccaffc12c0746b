"""Recorded scenarios, and two strategies run to the end."""

from dataclasses import replace

import numpy as np
import pytest

from app.watch_comparison import missed_share, run_to_end
from app.watch_contents import NO_CLASS, Arrival, calibration_of
from app.watch_playing import (
    ANSWER_DELAY,
    answer_truly,
    play,
    played_by,
    plays_only,
    stream_name,
)
from app.watch_scale import Scale
from app.watch_scenario import PHASES, Scenario, plays_on, record
from app.watch_store import WatchStore
from app.watching import Watch
from app.web.watch_charts import chart_rows, price_strip, threshold_chart, wealth_chart
from app.workspace import Workspace
from ood.monitoring.payoffs import Answer
from ood.monitoring.report import Kind
from ood.monitoring.settings import Settings, Strategy


@pytest.fixture
def store(tmp_path):
    return WatchStore.open(f"sqlite:///{tmp_path / 'watch.sqlite'}")


@pytest.fixture(scope="module")
def calibration(demo):
    return calibration_of(demo)


def test_a_recording_is_the_same_for_the_same_seed_and_shows_no_image_twice():
    for scenario in Scenario:
        one, same, other = record(scenario, 3), record(scenario, 3), record(scenario, 4)
        assert np.array_equal(one.pixels, same.pixels) and np.array_equal(one.classes, same.classes)
        assert not np.array_equal(one.pixels, other.pixels)
        assert len(one) == sum(phase.count for phase in PHASES[scenario]) == 3_000
        clean = one.pixels.reshape(len(one), -1)[one.pixels.max((1, 2)) > 200]
        assert len(np.unique(clean, axis=0)) >= len(clean) - 2  # two test images may be the same


def test_shares_classes_and_truth_are_as_the_phases_say():
    found = record(Scenario.TYPES)
    for start, name in ((0, "Ankle boot"), (1_000, "Bag"), (2_000, "Ankle boot")):
        part = slice(start, start + 1_000)
        assert set(found.classes[part][found.unknown[part]]) == {name}
        assert abs(found.unknown[part].mean() - 0.25) < 0.05
    assert found.truth(1 + int(np.argmax(found.unknown))) is Answer.UNKNOWN
    assert found.truth(1 + int(np.argmin(found.unknown))) is Answer.KNOWN
    assert found.phase(1_000) != found.phase(1_001) and found.phase(3_000) == found.phase(2_001)
    gradual = record(Scenario.GRADUAL).unknown
    assert gradual[1_300:1_700].mean() > 0.2 > 0.06 > gradual[:500].mean()


def test_a_camera_fault_changes_pictures_not_what_they_show():
    found, before = record(Scenario.CAMERA), record(Scenario.NOTHING)
    assert np.array_equal(found.unknown, before.unknown)  # the same draw, other pictures
    same = (found.pixels == before.pixels).all((1, 2))
    assert same[:1_000].all() and same[1_800:].all() and not same[1_000:1_800].any()
    assert found.pixels[1_000:1_800].mean() < 0.6 * before.pixels[1_000:1_800].mean()


def test_a_stream_is_named_after_what_it_plays(demo, tiny_workspace):
    first = stream_name(Scenario.ABRUPT, [])
    second = stream_name(Scenario.ABRUPT, [first])
    assert played_by(first) == (Scenario.ABRUPT, 0) and played_by(second) == (Scenario.ABRUPT, 1)
    for other in ("Uploads", "Uploads - take 1", f"{Scenario.ABRUPT} - take 0", Scenario.ABRUPT):
        assert played_by(other) is None
    assert plays_on(demo) and not plays_on(Workspace.open(tiny_workspace))


def test_two_who_play_one_stream_double_nothing_and_answers_come_late(demo, store):
    settings, recording = Settings(audit_floor=0.3, audit_ceiling=0.6), record(Scenario.TYPES)
    watch = Watch.create(store, demo, stream_name(Scenario.TYPES, []), settings)
    twin = Watch.open(store, demo, watch.number)
    late = replace(recording, pixels=recording.pixels)
    play(demo, watch, recording, 60)
    play(demo, twin, late, 60)
    assert watch.report().items == twin.report().items == 120
    with_old_view = watch.report().items
    answer_truly(twin, recording)
    report = watch.report()
    assert report.items == with_old_view and report.answered > 0
    waiting = [question.item for question in watch.questions(500)]
    assert waiting and min(waiting) > 120 - ANSWER_DELAY
    answer_truly(watch, recording)
    assert watch.report().answered == report.answered


def test_at_its_end_a_recording_answers_all_and_brings_no_more(demo, store):
    recording = record(Scenario.ABRUPT)
    short = replace(recording, pixels=recording.pixels[:50], unknown=recording.unknown[:50])
    watch = Watch.create(store, demo, stream_name(Scenario.ABRUPT, []), Settings())
    for _ in range(3):
        play(demo, watch, short, 40)
        answer_truly(watch, short)
    report = watch.report()
    assert report.items == report.settled == 50 and report.asked == report.answered


def test_a_stream_of_other_images_plays_nothing_whatever_its_name(demo, store):
    recording, name = record(Scenario.TYPES), stream_name(Scenario.TYPES, [])
    watch = Watch.create(store, demo, name, Settings())
    assert plays_only(watch, Scenario.TYPES)
    play(demo, watch, recording, 2)
    assert plays_only(watch, Scenario.TYPES) and not plays_only(watch, Scenario.ABRUPT)
    watch.arrive([Arrival("door.png", "", 1.0, 0.5, NO_CLASS, b"")])
    assert not plays_only(watch, Scenario.TYPES)


def test_a_strategy_run_to_the_end_is_what_a_stream_would_have_been(demo, store, calibration):
    """The comparison asks and answers as the page does, image by image."""
    recording, settings = record(Scenario.TYPES), Settings(audit_floor=0.3, audit_ceiling=0.6)
    scores = demo.inspect(recording.pixels[:90, None]).scores[demo.manifest.detector]
    outcome = run_to_end(settings, calibration, scores, recording.unknown[:90])
    watch = Watch.create(store, demo, stream_name(Scenario.TYPES, []), settings)
    for _ in range(90):
        play(demo, watch, recording, 1)
        answer_truly(watch, recording)
    report = watch.report()
    assert outcome.asked == report.asked and outcome.alarms == tuple(watch.alarms())
    assert outcome.flagged.sum() == report.flagged


def test_a_fixed_threshold_lets_more_ankle_boots_through(calibration):
    rng = np.random.default_rng(0)
    unknown = rng.random(1_500) < 0.3
    scores = np.where(unknown, rng.choice(calibration, 1_500) + 4, rng.choice(calibration, 1_500))
    settings = Settings(audit_floor=0.3, audit_ceiling=0.6, budget=700)
    market = run_to_end(settings, calibration, scores, unknown)
    fixed = run_to_end(replace(settings, strategy=Strategy.FIXED), calibration, scores, unknown)
    assert market.missed[-1] < 0.2 < fixed.missed[-1]
    assert len(set(fixed.thresholds)) == 1
    assert Kind.MISSES in {alarm.kind for alarm in fixed.alarms}


def test_missed_shares_are_those_of_the_last_images():
    unknown, flagged = np.ones(1_200, bool), np.arange(1_200) >= 600
    share = missed_share(flagged, unknown)
    assert share[599] == 1 and share[849] == 0.5 and share[1_199] == 0
    assert np.isnan(missed_share(flagged, ~unknown)).all()


def test_charts_stay_small_however_long_the_stream(demo, store):
    watch = Watch.create(store, demo, "scores", Settings())
    recording = record(Scenario.TYPES)
    play(demo, watch, recording, 400)
    answer_truly(watch, recording)
    history, scale = watch.history(), Scale.of(watch.settings, calibration_of(demo))
    rows = chart_rows(history)
    assert len(rows) <= 160 and rows[-1] == len(history) - 1
    assert (np.diff(history.items[rows]) > 0).all()
    for figure in (
        threshold_chart(history, scale), price_strip(history, scale),
        wealth_chart(watch.report(), scale),
    ):  # fmt: skip
        assert len(figure.to_json()) < 250_000
