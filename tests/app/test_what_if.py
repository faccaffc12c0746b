"""Leaving training images out, on the Inspect page."""

import re

import numpy as np
import pytest

from app.counterfactual import Edit, outcome, refit
from app.web.what_if import outcome_sentence
from tests.app.screens import sample, settled, texts, upload


def press(page, label):
    next(button for button in page.button if button.label == label).click()
    return settled(page.run())


def labels(page):
    return [button.label for button in page.button]


def test_leaving_out_what_taught_it_is_answered_and_undone(page):
    found = texts(sample(page, "Shirt"))
    assert "What if it had not learned from them?" in found and "Without these" not in found
    said = texts(press(page, "Leave out the 6 that taught it"))
    assert re.search(r"Without these 6 images it would (still )?say", said)
    assert "Refitted on the other 41,994 training images" in said
    assert "Numbers: margin" not in said
    said = texts(press(page, "Leave out the 6 nearest"))
    count = int(re.search(r"Without these (\d+) images", said).group(1))
    assert 6 < count <= 12
    assert "Without these 6 images" in texts(press(page, "Undo"))
    assert "Without these" not in texts(press(page, "Undo")) and "Undo" not in labels(page)


def test_a_flip_set_is_found_shown_and_changes_the_answer(page, demo):
    found = texts(sample(page, "Bag"))
    said = texts(press(page, "Find the fewest that change it"))
    assert re.search(r"Without (this image|these [\d,]+ images) it would say \w", said)
    assert "it would still say" not in said and found != said


def test_an_answer_that_rests_on_very_many_says_so(page):
    sample(page, "Trouser")
    said = texts(press(page, "Find the fewest that change it"))
    assert "does not change the answer" in said and "Without these" not in said


def test_with_numbers_prediction_and_refit_stand_side_by_side(page):
    page.query_params["numbers"] = "true"
    sample(page, "Shirt")
    said = texts(press(page, "Leave out the 6 that spoke against it"))
    predicted, actual = map(
        float,
        re.search(
            r"predicted a change of ([+-][\d.]+), the refit gave ([+-]\d+\.\d+)", said
        ).groups(),
    )
    assert predicted > 0 and 0.5 < actual / predicted < 2
    assert "calibration images" in said and "before" in said


def test_another_label_is_a_change_too(page, demo):
    page.query_params["numbers"] = "true"
    sample(page, "Shirt")
    boxes = {box.label: box for box in page.selectbox}
    boxes["Or give one of those above another label"].select_index(0)
    boxes["Its other label"].select_index(2)
    page.run()
    assert "With this change it would" in texts(press(page, "Relabel"))


def test_a_whole_class_can_go(page):
    page.query_params["numbers"] = "true"
    sample(page, "Trouser")
    next(b for b in page.selectbox if b.label == "Leave out a whole class").select("Trouser").run()
    said = texts(settled(page))
    assert "instead of Trouser" in said and "and 5,238 more are left out" in said


def test_what_is_left_out_stays_so_for_the_next_image(page, test_png):
    sample(page, "Shirt")
    press(page, "Leave out the 6 nearest")
    assert "Without these 6 images" in texts(upload(page, [("a.png", test_png("Coat"))]))


def test_an_edit_holds_each_row_once():
    edit = Edit().without(np.array([3, 1, 3])).relabel(7, 2).relabel(1, 0)
    assert edit.removed == (3,) and edit.relabelled == ((7, 2), (1, 0))
    assert edit.relabel(7, 5).relabelled == ((1, 0), (7, 5))
    assert edit.without(np.array([7])).relabelled == ((1, 0),)
    assert not Edit() and edit


def test_the_outcome_of_nothing_is_nothing(demo):
    features = np.asarray(demo.calibration.images.activations.features[0])
    found = outcome(demo, refit(demo, Edit()), features)
    np.testing.assert_allclose(found.before, found.after)
    assert found.change == pytest.approx(0, abs=1e-9) and abs(found.predicted) < 1e-6
    assert found.before.sum() == pytest.approx(1)
    assert "still say" in outcome_sentence(demo.classes, Edit((1,)), found)
