"""The Map page, without a browser: layers, colours, a lasso and what can be done with it."""

import re
from collections import Counter

import numpy as np
import pytest
import streamlit as st

from app.discovery import keep_flagged
from app.inbox import Inbox, identity
from app.inspecting import inspect_files
from app.map_layers import Colour, Dots, Layer, calibration_dots, training_dots
from app.map_selection import Origins
from app.uploads import expand
from app.web.map_hover import hover_card
from app.web.map_reasons import summed_influence
from tests.app.screens import texts, upload

EVERYTHING = {"x": [-100, 100], "y": [-100, 100]}


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("KINDRED_HOME", str(tmp_path))
    st.cache_resource.clear()
    st.cache_data.clear()


@pytest.fixture
def bags(test_png):
    return [(f"{name} {n}.png", test_png(name, n)) for name in ("Bag", "Coat") for n in range(12)]


def keep(demo, given):
    found = inspect_files(demo, list(expand(given)), gradients=False)
    keep_flagged(Inbox.open(), demo, "a pass", found.images, found.inspection, 0.05, counted=True)
    return found


def opened(page):
    page.switch_page("web/map_page.py").run()
    assert not page.exception
    return page


def switch(page, *layers):
    page.session_state["map-layers"] = list(layers)
    return page.run()


def chart(page):
    """Its key, and its traces with how many dots each has."""
    (found,) = page.get("plotly_chart")
    return re.search(r"map-[0-9a-f]{16}$", found.proto.id).group()


def draw_around(page, **box):
    page.session_state[chart(page)] = {"selection": {"points": [], "box": [box], "lasso": []}}
    page.run()
    assert not page.exception
    return page


def button(page, label):
    return next(found for found in page.button if found.label.startswith(label))


def test_at_first_it_shows_what_was_prepared(page, demo):
    page.run()
    said = texts(opened(page))
    flagged = len(calibration_dots(demo))
    assert f"20,000 of {42_000 + flagged:,} dots drawn, every flagged one among them" in said
    assert "None of yours" in said and "Nothing waits in the inbox" in said
    assert "Draw around some dots" in said and "What a map cannot tell" in said
    assert re.search(r"Trustworthiness 0\.9\d, continuity 0\.9\d", said)


def test_layers_and_colours_make_other_figures_and_none_is_an_empty_one(page):
    page.run()
    opened(page)
    keys = {chart(page)}
    for colour in list(Colour)[1:]:
        page.session_state["map-colour"] = colour
        page.run()
        assert not page.exception
        keys.add(chart(page))
    assert len(keys) == len(Colour)
    before = chart(page)
    assert chart(page.run()) == before
    said = texts(switch(page, Layer.NORMAL))
    assert re.search(r"\b\d{3} dots\.", said) and not page.exception
    assert "0 dots. Switch a layer on." in texts(switch(page)) and not page.exception


def test_a_lasso_shows_the_images_and_survives_another_colour(page, bags):
    upload(page, bags)
    opened(page)
    switch(page, Layer.UPLOADS)
    said = texts(draw_around(page, **EVERYTHING))
    assert re.search(r"\*\*24 selected, 1\d flagged, \d classes\*\*: 24 yours\.", said)
    signs = Counter(re.findall(r"(?:✓|\?|✕) (\w+)", said))
    assert sum(signs.values()) == 24 and signs["unknown"] >= 6
    before = chart(page)
    page.session_state["map-colour"] = Colour.P_VALUE
    page.run()
    assert chart(page) != before and "24 selected" in texts(page)
    page.run()
    assert "24 selected" in texts(page)
    draw_around(page, x=[-100, -99], y=[-100, -99])
    assert "Draw around some dots" in texts(page)  # let go of


def test_images_are_tagged_for_the_session_and_untagged(page, bags):
    upload(page, bags)
    opened(page)
    switch(page, Layer.UPLOADS)
    draw_around(page, **EVERYTHING)
    assert button(page, "Tag these 24").disabled
    page.text_input(key="map-tag").set_value("dim *light*").run()
    button(page, "Tag these 24").click().run()
    said = texts(page)
    assert not page.exception and r"Tagged: **dim \*light\*** 24" in said
    button(page, "Remove their tags").click().run()
    assert not page.exception and "Tagged:" not in texts(page)


def test_what_made_the_answers_and_what_the_labels_are(page, demo, bags):
    upload(page, bags)
    opened(page)
    switch(page, Layer.UPLOADS, Layer.TRAINING)
    draw_around(page, **EVERYTHING)
    said = texts(page)
    assert "42,024 selected" in said and "Labels of the 42,000 training images" in said
    assert "perhaps labelled wrongly" in said and "Showing 36 of 42,024" in said
    page.toggle(key="map-makers").set_value(True).run()
    assert not page.exception and "for 24 images without a label" in texts(page)


def test_helpful_images_are_summed_over_the_selected_ones(demo, bags):
    found = inspect_files(demo, list(expand(bags[:5])), gradients=False).inspection
    helped, times = summed_influence(demo, found.activations)
    each = [demo.explain(found.activations, row) for row in range(5)]
    assert sum(times.values()) == sum(len(one.helpful) for one in each)
    row = max(helped, key=helped.get)
    expected = -sum(one.helpful_influence[one.helpful == row].sum() for one in each)
    assert helped[row] == pytest.approx(float(expected), rel=1e-5) and helped[row] > 0


def test_the_flagged_ones_of_the_whole_batch_are_kept_once(page, demo, bags):
    upload(page, bags)
    opened(page)
    switch(page, Layer.UPLOADS)
    draw_around(page, **EVERYTHING)
    button(page, "Keep the flagged ones").click().run()
    stream = Inbox.open().stream(identity(demo))
    assert stream.inspected == 0 and 6 <= len(stream) <= 15 and (stream.p_values <= 0.05).all()
    switch(page, Layer.UPLOADS, Layer.INBOX)
    assert "24 dots." in texts(page)  # an image that is in both is one
    assert f"{len(stream)} dots." in texts(switch(page, Layer.INBOX))


def test_the_inbox_and_its_groups_are_layers_of_their_own(page, demo, test_png):
    keep(demo, [(f"{n}.png", test_png("Bag", n)) for n in range(40)])
    count = len(Inbox.open().stream(identity(demo)))
    page.run()
    opened(page)
    assert f"{count} dots." in texts(switch(page, Layer.INBOX))
    said = texts(switch(page, Layer.GROUPS))
    grouped = int(re.search(r"(\d+) dots\.", said).group(1))
    assert 8 <= grouped <= count
    said = texts(draw_around(page, **EVERYTHING))
    assert f"{grouped} selected, {grouped} flagged" in said and f"{grouped} in the inbox" in said
    page.toggle(key="map-makers").set_value(True).run()
    assert not page.exception and "images without a label" in texts(page)


def test_what_is_dismissed_is_not_on_the_map(page, demo, test_png):
    keep(demo, [(f"{n}.png", test_png("Bag", n)) for n in range(12)])
    inbox = Inbox.open()
    inbox.dismiss(inbox.stream(identity(demo)).ids)
    page.run()
    assert "Nothing waits in the inbox" in texts(opened(page))


def test_a_map_without_its_inbox_says_why(page, monkeypatch, tmp_path):
    (tmp_path / "broken.sqlite").write_bytes(b"no database " * 100)
    monkeypatch.setenv("KINDRED_INBOX", f"sqlite:///{tmp_path / 'broken.sqlite'}")
    page.run()
    assert "The map is without the inbox" in texts(opened(page))


def test_the_picture_below_the_pointer_is_that_of_the_nearest_dot(demo):
    dots = Dots.join([training_dots(demo), calibration_dots(demo)])
    origins = Origins(demo, (), None, None)
    row = len(demo.bank.images) + 3
    over = tuple(dots.places[row].tolist())
    card = hover_card(origins, dots, dots.visible([Layer.NORMAL]), over)
    assert card["picture"].startswith("data:image/webp") and (card["x"], card["y"]) == over
    name = demo.classes[dots.classes[row]]
    assert card["text"].startswith(f"{name}, normal but flagged") and "p = " in card["text"]
    learned = hover_card(origins, dots, np.array([5]), over)
    assert "training images, loss" in learned["text"] and "p =" not in learned["text"]
    assert hover_card(origins, dots, np.empty(0, int), over) is None
