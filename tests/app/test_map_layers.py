"""What the map draws, and what is said of a selection."""

import csv
import io
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.inbox_contents import Stream, Vectors
from app.inspecting import inspect_files
from app.map_layers import (
    LAYERS,
    VERDICTS,
    Colour,
    Dots,
    Layer,
    calibration_dots,
    colouring,
    cross_entropy,
    inbox_dots,
    training_dots,
    upload_dots,
)
from app.map_sampling import MOST_DRAWN, apart, drawn, stratified_sample
from app.map_selection import Origins, inside, selection_records, summarise, tellest_first
from app.new_class_replay import LEVEL
from app.records import to_csv
from app.uploads import expand
from ood.decision import Rule, Verdict
from ood.temperature import probabilities

UNKNOWN, KNOWN = VERDICTS.index(Verdict.UNKNOWN), VERDICTS.index(Verdict.KNOWN)


def some_dots(layer, count, *, seed=0, classes=8, flagged=0, **columns):
    """Images at random places, the first of them flagged."""
    rng = np.random.default_rng(seed)
    verdicts = np.full(count, KNOWN, np.int8)
    verdicts[:flagged] = UNKNOWN
    return Dots.of(
        layer, np.arange(count), rng.normal(size=(count, 2)), rng.integers(0, classes, count),
        verdicts=None if layer is Layer.TRAINING else verdicts, **columns,
    )  # fmt: skip


def inbox_of(inspection, images):
    """A stream as the inbox would give it, of all images of one pass."""
    count = len(images)
    return Stream(
        ids=np.arange(1, count + 1), sha256=np.array([image.sha256 for image in images], "U64"),
        names=tuple(image.name for image in images),
        created=np.full(count, "2026-01-01", "datetime64[s]"), levels=np.full(count, LEVEL),
        p_values=np.linspace(0.001, 0.05, count), predicted=inspection.predicted,
        dismissed=np.zeros(count, bool),
        vectors=Vectors(np.asarray(inspection.activations.features, np.float32), ()),
        inspected_before=np.arange(1, count + 1), counted=np.ones(count, bool), inspected=count,
        passes=np.array([[1, count]]),
    )  # fmt: skip


@pytest.fixture
def batch(demo, test_png):
    given = [(f"={name} {n}.png", test_png(name, n)) for name in ("Bag", "Coat") for n in range(6)]
    return inspect_files(demo, list(expand(given)), gradients=False)


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(1, 400), min_size=1, max_size=12), size=st.integers(0, 2_000))
def test_a_sample_has_every_stratum_in_proportion_and_never_too_many(counts, size):
    strata = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = stratified_sample(strata, size)
    assert len(rows) == min(size, len(strata)) and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, stratified_sample(strata, size))
    found = np.bincount(strata[rows], minlength=len(counts))
    if len(counts) <= size < len(strata):
        assert (found >= 1).all()
        share = np.array(counts) * size / len(strata)
        assert np.abs(found - share).max() <= len(counts)


def test_at_most_so_many_are_drawn_and_every_flagged_one(demo):
    dots = Dots.join([
        some_dots(Layer.TRAINING, 60_000), some_dots(Layer.NORMAL, 200, flagged=200),
        some_dots(Layer.UPLOADS, 900, flagged=50), some_dots(Layer.INBOX, 3_000, flagged=3_000),
    ])  # fmt: skip
    rows = drawn(dots, np.arange(len(dots)))
    assert len(rows) == MOST_DRAWN and (np.diff(rows) > 0).all()
    assert np.isin(np.flatnonzero(dots.flagged), rows).all()
    assert np.isin(np.flatnonzero(dots.of_layer(Layer.UPLOADS)), rows).all()
    learned = dots.classes[rows[dots.of_layer(Layer.TRAINING)[rows]]]
    assert np.bincount(learned).min() > 0.95 * len(learned) / 8
    few = drawn(dots, np.arange(100, 300))
    np.testing.assert_array_equal(few, np.arange(100, 300))


def test_more_flagged_ones_than_can_be_drawn_are_sampled():
    dots = Dots.join([
        some_dots(Layer.TRAINING, 500), some_dots(Layer.NORMAL, 40, flagged=40),
        some_dots(Layer.INBOX, 50_000, flagged=50_000),
    ])  # fmt: skip
    rows = drawn(dots, np.arange(len(dots)))
    assert len(rows) == MOST_DRAWN and dots.flagged[rows].all()
    assert dots.of_layer(Layer.NORMAL)[rows].any()


def test_layers_are_switched_and_no_image_is_shown_twice():
    groups = np.array([0, -1, 0, 1])
    twins = np.array([True, False, False, False])
    dots = Dots.join([
        some_dots(Layer.TRAINING, 3), some_dots(Layer.UPLOADS, 2, groups=np.array([0, -1])),
        some_dots(Layer.INBOX, 4, groups=groups, twins=twins),
    ])  # fmt: skip
    assert dots.visible([Layer.TRAINING]).tolist() == [0, 1, 2]
    assert dots.visible([Layer.INBOX]).tolist() == [5, 6, 7, 8]
    assert dots.visible([Layer.GROUPS]).tolist() == [5, 7, 8]
    assert dots.visible([Layer.UPLOADS, Layer.INBOX]).tolist() == [3, 4, 6, 7, 8]
    assert dots.visible([Layer.UPLOADS, Layer.GROUPS]).tolist() == [3, 4, 7, 8]
    assert len(dots.visible([])) == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), side=st.floats(0.01, 3), most=st.integers(1, 60))
def test_pictures_do_not_overlap_and_use_the_room_there_is(seed, side, most):
    places = np.random.default_rng(seed).normal(size=(200, 2))
    rows = apart(places, side, most)
    assert 0 < len(rows) <= most and rows[0] == 0
    between = np.abs(places[rows, None] - places[None, rows]).max(axis=2)
    assert (between[~np.eye(len(rows), dtype=bool)] >= side).all()
    if len(rows) < most:
        to_shown = np.abs(places[:, None] - places[None, rows]).max(axis=2).min(axis=1)
        assert (np.delete(to_shown, rows) < side).all()
    assert len(apart(np.empty((0, 2)), side, most)) == 0


def test_a_loss_is_minus_the_log_of_the_labels_probability(demo):
    images = demo.bank.images
    labels = np.asarray(images.labels[:300])
    logits, temperature = np.asarray(images.activations.logits[:300]), demo.manifest.temperature
    expected = -np.log(probabilities(logits, temperature)[np.arange(300), labels])
    np.testing.assert_allclose(cross_entropy(logits, labels, temperature), expected, atol=1e-4)
    np.testing.assert_allclose(training_dots(demo).losses[:300], expected, atol=1e-4)


def test_calibration_images_are_those_that_are_flagged(demo):
    dots = calibration_dots(demo)
    flagged = demo.calibration_flagged(Rule(LEVEL))
    np.testing.assert_array_equal(dots.rows, np.flatnonzero(flagged))
    assert dots.flagged.all() and (dots.p_values <= LEVEL).all() and np.isfinite(dots.losses).all()


def test_uploads_and_the_inbox_say_what_the_rest_of_the_app_says(demo, batch):
    found, stream = batch.inspection, inbox_of(batch.inspection, batch.images)
    own = upload_dots(demo, found, np.full(12, -1))
    decisions = demo.decide(found, Rule(LEVEL))
    assert [VERDICTS[v] for v in own.verdicts] == [d.verdict for d in decisions]
    np.testing.assert_array_equal(own.places, found.places)
    rows = np.array([3, 7])
    kept = inbox_dots(demo, stream, rows, found.places[rows], rows, np.array([False, True]))
    np.testing.assert_array_equal(kept.p_values, stream.p_values[rows])
    np.testing.assert_array_equal(kept.rows, rows)
    assert kept.flagged.all() and np.isnan(kept.losses).all()
    assert kept.groups.tolist() == [3, 7] and kept.twins.tolist() == [False, True]


def test_colours_say_what_there_is_and_grey_what_there_is_not():
    dots = replace(
        some_dots(Layer.INBOX, 6),
        p_values=np.array([0.001, 0.0011, 0.01, 0.05, 0.051, np.nan]),
        losses=np.array([0, 0.2, 0.7, 2.4, 50, np.nan]),
        groups=np.array([-1, 0, 3, 7, 8, 300]),
    )
    p_values = colouring(dots, Colour.P_VALUE, ())
    assert p_values.of.tolist() == [0, 1, 1, 2, 3, -1] and len(p_values.names) == 4
    losses = colouring(dots, Colour.LOSS, ())
    assert losses.of.tolist() == [0, 1, 2, 3, 3, -1] and "no label" in losses.none
    groups = colouring(dots, Colour.GROUP, ())
    assert groups.of.tolist() == [-1, 0, 3, 7, 8, 8] and groups.names[8] == "Group 9 and on"
    verdicts = colouring(some_dots(Layer.TRAINING, 2), Colour.VERDICT, ())
    assert verdicts.of.tolist() == [-1, -1]
    classes = colouring(dots, Colour.CLASS, ("a", "b"))
    np.testing.assert_array_equal(classes.of, dots.classes)


def test_a_selection_is_counted_and_its_oddest_come_first():
    dots = Dots.join([
        some_dots(Layer.TRAINING, 3, losses=np.array([0.1, 2.0, 0.5])),
        some_dots(Layer.UPLOADS, 2, flagged=1, p_values=np.array([0.02, 0.4])),
    ])  # fmt: skip
    dots = replace(dots, classes=np.array([1, 1, 2, 5, 1]))
    found = summarise(dots, np.arange(5))
    assert (found.images, found.flagged, found.classes) == (5, 1, 3)
    assert found.layers == {Layer.TRAINING: 3, Layer.UPLOADS: 2}
    assert tellest_first(dots, np.arange(5)).tolist() == [3, 4, 1, 2, 0]
    assert summarise(dots, np.array([1])).layers == {Layer.TRAINING: 1}


def test_records_name_every_image_and_are_safe_in_a_spreadsheet(demo, batch):
    stream = inbox_of(batch.inspection, batch.images)
    found, rows = batch.inspection, np.arange(2)
    dots = Dots.join([
        training_dots(demo), calibration_dots(demo), upload_dots(demo, found, np.full(12, -1)),
        inbox_dots(demo, stream, rows, found.places[rows], np.array([0, -1]), rows > 5),
    ])  # fmt: skip
    first = [int(np.flatnonzero(dots.layers == n)[0]) for n in range(len(LAYERS) - 1)]
    origins = Origins(demo, batch.images, found, stream)
    tags = {demo.training_ids[0]: "odd"}
    learned, normal, own, kept = selection_records(origins, dots, np.array(first), tags)
    assert learned["id"] == demo.training_ids[0] and learned["tag"] == "odd"
    assert learned["verdict"] is learned["p_value"] is learned["group"] is None
    assert normal["layer"] == "Normal but flagged" and normal["loss"] >= 0
    assert normal["file"] == demo.calibration.images.name(int(dots.rows[first[1]]))
    assert own["id"] == kept["id"] == batch.images[0].sha256 and own["tag"] is None
    assert kept["group"] == 1 and kept["p_value"] == 0.001 and kept["loss"] is None
    (row,) = csv.DictReader(io.StringIO(to_csv([own]).decode()))
    assert row["file"] == "'=Bag 0.png" and row["loss"] == ""


def test_a_lasso_around_20_000_dots_is_answered_at_once(demo):
    """All of Python's part but the pictures: who is inside, counts, order, a table of them all."""
    dots = Dots.join([training_dots(demo), calibration_dots(demo)])
    origins = Origins(demo, (), None, None)
    visible = dots.visible([Layer.TRAINING, Layer.NORMAL])
    angles = np.linspace(0, 2 * np.pi, 200)
    middle, reach = np.median(dots.places, axis=0), np.ptp(dots.places, axis=0) * 0.45
    xs, ys = (middle[:, None] + reach[:, None] * [np.cos(angles), np.sin(angles)]).tolist()
    _ = demo.training_ids  # made once
    start = time.perf_counter()
    rows = visible[inside({"lasso": [{"x": xs, "y": ys}]}, dots.places[visible])]
    found, first = summarise(dots, rows), tellest_first(dots, rows)
    told = time.perf_counter() - start
    records = selection_records(origins, dots, first[:20_000], {})
    assert found.images >= 20_000 and len(records) == 20_000
    assert told < 0.5 and time.perf_counter() - start < 2
