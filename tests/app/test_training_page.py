"""The Training set page, without a browser."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from app.__main__ import main
from app.audit import doubtful, reasons
from app.corrections import (
    cleaned_manifest,
    edit_of,
    for_cleanlab,
    for_fiftyone,
    issue_records,
    preview,
)
from app.counterfactual import Edit
from app.slices import slice_of
from app.triage import Action, Mark, Triage
from app.weak_spots import spot_records
from app.web.slice_choice import effects_on
from app.web.training_lists import LISTS, ordered
from app.workspace import Workspace
from explain.unfairness import SingleFlips
from models.bank import Bank
from tests.app.screens import texts


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("KINDRED_HOME", str(tmp_path))


@pytest.fixture
def training(page):
    page.run()
    return page.switch_page("web/training_page.py")


def press(page, label):
    next(button for button in page.button if button.label == label).click()
    return page.run()


def view(page, title):
    page.session_state["view"] = title
    return page.run()


def test_at_first_it_lists_what_is_probably_labelled_wrongly(training, demo):
    training.run()
    assert not training.exception
    table = training.dataframe[0].value
    assert len(table) == min(500, demo.audit.flagged.sum())
    assert (table["Others say"] != table["Label"]).all()
    assert table["Doubt"].is_monotonic_decreasing
    assert "0 decided" in texts(training) and "None yet" in texts(training)


def test_twenty_are_decided_by_their_buttons_and_nothing_is_lost(training, demo):
    training.run()
    for number in range(20):
        press(training, ("Keep", "Relabel", "Remove", "Unsure")[number % 4])
        assert not training.exception
    assert "20 decided" in texts(training)
    marks = Triage.of("fashion", "me").marks()
    rows = ordered(demo.audit, "labels", np.asarray(demo.bank.images.labels), None)[:20]
    assert list(marks) == [demo.bank.images.sha256(int(row)) for row in rows]
    assert [mark.action for mark in marks.values()][:4] == [
        Action.KEEP, Action.RELABEL, Action.REMOVE, Action.UNSURE,
    ]  # fmt: skip
    said = texts(training)
    assert "**5** to remove, **5** to relabel, **5** to keep, **5** unsure" in said
    assert re.search(r"classifies \*\*\d+\.\d\d%\*\* of 4,000 calibration images", said)


def test_a_decision_is_undone_and_a_note_is_kept(training, demo):
    training.run()
    training.text_input(
        key=next(t.key for t in training.text_input if t.label == "Note")
    ).set_value("see the strap").run()
    press(training, "Remove")
    (mark,) = Triage.of("fashion", "me").marks().values()
    assert mark.note == "see the strap"
    press(training, "Previous")
    press(training, "Undo")
    assert Triage.of("fashion", "me").marks() == {}


@pytest.mark.parametrize("title", [entry.title for entry in LISTS.values()])
def test_every_list_opens(training, title):
    training.run()
    assert not view(training, title).exception


def test_groups_are_weighed_and_refitted(training):
    training.run()
    view(training, "Groups that hurt")
    assert "**Group 1**" in texts(training)
    press(training, "Refit without it")
    assert re.search(r"In truth: loss [+-]\d\.\d{4} \(predicted -\d\.\d{4}\)", texts(training))


def test_classes_are_listed_the_worst_first(training, demo):
    training.run()
    view(training, "Classes and weak spots")
    table = training.dataframe[0].value
    assert table["Accuracy"].is_monotonic_increasing and table["Class"].iloc[0] == "Shirt"
    assert table["Training images"].sum() == len(demo.bank.images)


def test_reasons_hold_for_the_images_they_name(demo):
    audit, labels = demo.audit, np.asarray(demo.bank.images.labels)
    found = reasons(audit)
    assert set(found) == {"label", "duplicate", "leak", "odd", "harmful", "worthless"}
    assert 0.005 < found["odd"].mean() <= 0.01 and found["label"].mean() < 0.1
    assert (audit.suggested[found["label"]] != labels[found["label"]]).all()
    assert np.isfinite(audit.harm).all() and np.abs(audit.margin).max() <= 1
    rows = doubtful(audit)
    assert len(rows) == np.any(list(found.values()), axis=0).sum()


def test_records_and_files_say_what_was_decided(demo):
    images, audit = demo.bank.images, demo.audit
    first, second, third = (int(row) for row in doubtful(audit)[:3])
    marks = {
        images.sha256(first): Mark(images.sha256(first), Action.REMOVE, note="=cmd()"),
        images.sha256(second): Mark(images.sha256(second), Action.RELABEL, "Coat"),
        "0" * 64: Mark("0" * 64, Action.REMOVE),  # of another training set
    }
    assert edit_of(demo, marks) == Edit((first,), ((second, demo.classes.index("Coat")),))
    one, two, three = issue_records(demo, audit, marks, [first, second, third])
    assert one["decision"] == "remove" and two["new_label"] == "Coat" and three["decision"] is None
    assert one["id"] == images.sha256(first) and one["reasons"]
    rows = list(csv.DictReader(io.StringIO(cleaned_manifest(demo, marks).decode())))
    assert len(rows) == len(images) - 1
    labels = {row["id"]: row["label"] for row in rows}
    assert images.sha256(first) not in labels and labels[images.sha256(second)] == "Coat"
    found = list(csv.DictReader(io.StringIO(for_cleanlab(demo, audit).decode())))
    assert len(found) == len(images)
    assert sum(row["is_label_issue"] == "True" for row in found) == audit.flagged.sum()
    assert all(0 <= float(row["label_score"]) <= 1 for row in found)
    written = json.loads(for_fiftyone(demo, marks))
    assert written["classes"] == list(demo.classes)
    assert written["labels"][images.name(second)] == demo.classes.index("Coat")
    assert images.name(first) not in written["labels"]


def test_the_preview_is_paired_and_honest_about_chance(demo):
    nothing = preview(demo, Edit())
    assert nothing.before == nothing.after and nothing.low < 0 < nothing.high
    found = preview(demo, Edit(removed=tuple(range(0, 42_000, 3))))
    assert found.images == 4_000
    assert found.after - found.before == pytest.approx((found.gained - found.lost) / 4_000)
    assert found.low < found.after - found.before < found.high


def test_the_command_lists_what_is_doubtful(demo, tmp_path):
    out = tmp_path / "audit.json"
    assert main(["audit", "--format", "json", "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == len(doubtful(demo.audit)) and all(r["reasons"] for r in records)
    assert main(["audit", "--workspace", str(tmp_path / "nothing")]) == 2


def test_every_witness_has_its_own_column(training, demo):
    training.run()
    table = training.dataframe[0].value
    assert list(table.columns[4:]) == ["Doubt", "Head", "Neighbours", "Trees"]  # none logged
    row = ordered(demo.audit, "labels", np.asarray(demo.bank.images.labels), None)[7]
    assert table["Trees"].iloc[7] == pytest.approx(demo.audit.out_of_bag[row])


def test_harm_is_asked_about_a_slice(training, demo):
    training.run()
    view(training, "Hurting the classifier")
    overall = training.dataframe[0].value["Harm"]
    training.selectbox(key="slice").select("Shirt").run()
    assert not training.exception
    on_shirts = training.dataframe[0].value["Harm"]
    assert on_shirts.is_monotonic_decreasing and on_shirts.iloc[0] > overall.iloc[0]


def test_a_list_is_left_out_in_truth_and_taken_back(training):
    training.run()
    view(training, "Odd ones")
    count = int(next(b.label for b in training.button if b.key == "try-without").split()[-1])
    training.button(key="try-without").click().run()
    assert f"Tried: {count} left out" in texts(training)
    table = training.dataframe[1].value.set_index("On")
    assert {"All calibration images", "Shirt", "Those it gets wrong"} < set(table.index)
    predicted, actual = table["Loss: predicted"], table["Loss: actual"]
    assert np.corrcoef(predicted[1:9], actual[1:9])[0, 1] > 0.5 and (actual != 0).any()
    training.button(key="undo-edit").click().run()
    assert "Tried:" not in texts(training) and len(training.dataframe) == 1


def test_copies_and_leaks_show_the_other_picture(training, demo):
    training.run()
    view(training, "Copies")
    assert "The same picture, or nearly, among the training images" in texts(training)
    leaks = np.flatnonzero(demo.audit.leaks >= 0)
    assert 0 < len(leaks) < 20 and (demo.audit.duplicates >= 0).sum() < 200


def test_weak_spots_are_shown_and_no_single_image_decides(training, demo):
    training.run()
    view(training, "Classes and weak spots")
    said = texts(training)
    assert "in 96 groups that are alike" in said
    spots = spot_records(demo)
    assert f"**{spots[0]['accuracy']:.0%} right** of {spots[0]['images']} images" in said
    assert (demo.single_flips.by == -1).all() and "None was found" in said


def test_images_that_one_image_decides_are_shown_with_it(training, demo, monkeypatch):
    flips = SingleFlips(np.arange(100), np.full(100, -1), np.zeros(100, int))
    flips.by[[3, 40]], flips.after[[3, 40]] = [7, 9], [1, 2]
    monkeypatch.setattr(Workspace, "single_flips", property(lambda workspace: flips))
    training.run()
    view(training, "Classes and weak spots")
    said = texts(training)
    assert "For 2 of 100 calibration images" in said
    assert said.count("Without the right one the left one would be") == 2
    shares = training.dataframe[0].value.set_index("Class")["Decided by one image"]
    labels = np.asarray(demo.calibration.images.labels)[:100]
    name = demo.classes[labels[3]]
    expected = np.isin(np.flatnonzero(labels == labels[3]), [3, 40]).mean()
    assert shares[name] == pytest.approx(expected)


def test_the_visitors_own_groups_are_compared(training, demo):
    images = demo.calibration.images
    half = [f"{images.name(row)},{'left' if row % 2 else 'right'}" for row in range(len(images))]
    training.run()
    view(training, "Classes and weak spots")
    table = "\n".join(["file,side", *half]).encode()
    training.file_uploader[0].upload("mine.csv", table)
    training.run()
    assert not training.exception
    table = training.dataframe[1].value
    assert sorted(table["By side"]) == ["left", "right"]
    assert table["Calibration images"].sum() == 4_000 and (table["Note"] == "").all()
    view(training, "Hurting the classifier")
    assert "side: left" in training.selectbox(key="slice").options


def test_a_table_that_is_none_is_refused_and_nothing_is_lost(training):
    training.run()
    view(training, "Classes and weak spots")
    training.file_uploader[0].upload("mine.csv", b"name,who\na,b\n")
    training.run()
    assert "No column is called file" in texts(training) and not training.exception


def test_the_map_opens_with_nothing_picked(training):
    training.run()
    view(training, "From the map")
    assert not training.exception and "Draw around some" in texts(training)
    assert not training.dataframe


def test_the_command_tells_of_classes_weak_spots_and_groups(demo, tmp_path):
    def told(part):
        out = tmp_path / f"{part}.json"
        assert main(["audit", "--part", part, "--format", "json", "--out", str(out)]) == 0
        return [json.loads(line) for line in out.read_text().splitlines()]

    classes = told("classes")
    assert [record["group"] for record in classes] == list(demo.classes)
    assert sum(record["images"] for record in classes) == 4_000
    assert {record["group"] for record in classes if record["worse"]} == {"Shirt", "T-shirt"}
    spots = told("weak-spots")
    assert spots and all(len(spot["files"]) == spot["images"] >= 10 for spot in spots)
    assert [s["accuracy"] for s in spots] == sorted(s["accuracy"] for s in spots)
    groups = told("groups")
    assert sum(group["images"] for group in groups) == len(demo.bank.images)
    losses = [group["predicted_loss_without"] for group in groups]
    assert losses == sorted(losses) and losses[0] < 0


def test_a_decision_on_a_copy_is_on_that_copy(demo, monkeypatch):
    ids = np.array(demo.bank.images.ids)
    ids[[10, 30]] = ids[5]
    images = replace(demo.bank.images, ids=ids)
    copied = replace(demo, bank=Bank(images, demo.bank.head))
    first, second, third = (copied.training_ids[row] for row in (5, 10, 30))
    assert (second, third) == (f"{first}-2", f"{first}-3") and len(copied.rows_by_id) == 42_000
    assert edit_of(copied, {first: Mark(first, Action.REMOVE)}) == Edit((5,))
    assert edit_of(copied, {second: Mark(second, Action.REMOVE)}) == Edit((10,))
    (record,) = issue_records(copied, demo.audit, {third: Mark(third, Action.KEEP)}, [30])
    assert record["id"] == third and record["decision"] == "keep"


def test_slices_of_one_name_are_not_taken_for_each_other(training, demo):
    """Another person's table, or the same one corrected, may have groups of the same names."""
    labels = np.asarray(demo.calibration.images.labels)
    shirts, coats = (
        slice_of(demo, np.flatnonzero(labels == demo.classes.index(name)))
        for name in ("Shirt", "Coat")
    )
    one, other = (effects_on(demo.key, on.digest, on, demo) for on in (shirts, coats))
    assert np.corrcoef(one, other)[0, 1] < 0.9
    np.testing.assert_array_equal(one, effects_on(demo.key, shirts.digest, shirts, demo))
