"""Every state of the Inspect page, without a browser."""

import re
import time

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.web import inputs
from app.web.batch import oddest_first
from app.web.job import InspectionJob
from app.web.resources import inference_executor
from app.web.state import _KEY, Session
from ood.decision import Verdict, decide
from tests.app.screens import sample, texts, upload
from tests.conftest import ROOT, png


def test_at_first_it_offers_samples_and_shows_what_was_learned(page):
    page.run()
    assert not page.exception
    labels = [button.label for button in page.button]
    assert {"Coat", "Bag", "Ankle boot", "Digit 3", "Noise", "Fallen shirt"} <= set(labels)
    found = texts(page)
    assert "What it has learned from" in found and "20 MB and 40 megapixels" in found
    assert "**199** are flagged at 5.0%" in found


def test_a_known_sample_is_called_known(page):
    found = texts(sample(page, "Trouser"))
    assert "Nothing unusual found" in found and "It says **Trouser**" in found
    assert "It has seen these before" in found and "These taught it to say so" in found
    assert "Where it looked" in found and "Where it sits" in found
    assert "p-value" not in found  # numbers only when asked for


def test_noise_is_called_unknown(page):
    found = texts(sample(page, "Noise"))
    assert "Looks like nothing it was trained on: only 5 in 10,000 normal images" in found
    assert "Do not use its answer" in found and "The nearest that it has seen" in found


def test_numbers_appear_when_asked_for(page):
    page.query_params["numbers"] = "true"
    found = texts(sample(page, "Sneaker"))
    assert "All detectors: " in found and "predicted change of the margin" in found
    table = page.dataframe[0].value
    assert len(table) == 29 and table["Detector"][0] == "Four together (Fisher)"


def test_the_level_moves_the_verdict_and_its_effect_is_said(page):
    sample(page, "Shirt")
    page.slider[0].set_value(20.0).run()
    assert "are flagged at 20.0%" in texts(page) and not page.exception


def test_a_batch_is_a_table_with_its_refusals(page, test_png):
    files = [(f"coat-{n}.png", test_png("Coat", n)) for n in range(5)]
    files += [("=bad*.png", b"broken"), ("bag.png", test_png("Bag"))]
    upload(page, files)
    found = texts(page)
    tables = [frame.value for frame in page.dataframe]
    (images,) = [t for t in tables if "Verdict" in t]
    assert page.table[0].value["File"].tolist() == ["` =bad*.png `"]
    assert len(images) == 6 and images["p-value"].is_monotonic_increasing
    assert "of these 6 images stand out" in found
    assert "1 of 6" in found
    next(b for b in page.button if b.label == "Next").click().run()
    assert "2 of 6" in texts(page) and not page.exception


def test_a_filter_shows_its_verdicts_and_all_when_a_moved_level_leaves_none():
    p_values = np.array([0.5, 0.001, 0.02])
    strict, loose = (
        decide(p_values, np.zeros(3, int), level=level, calibration_size=999, detector="knn")
        for level in (0.005, 0.05)
    )
    assert oddest_first(loose, []) == [1, 2, 0]
    assert oddest_first(loose, [Verdict.UNSURE]) == [2]
    assert oddest_first(strict, [Verdict.UNSURE]) == [1, 2, 0]


def test_only_refused_files_are_reasons(page):
    found = texts(upload(page, [("[x](http://evil).png", b"broken")]))
    assert "Not an image Kindred can read" in found
    assert "` [x](http://evil).png `" in found  # a name is no Markdown


def test_an_empty_zip_is_said(page):
    found = texts(upload(page, [("z.zip", b"PK\x05\x06" + bytes(18))]))
    assert "holds no files" in found


def test_while_it_runs_there_is_progress_and_the_page_stays(page, demo, monkeypatch):
    monkeypatch.setattr(InspectionJob, "_step", lambda self: None)
    page.session_state[_KEY] = Session(
        job=InspectionJob(demo, [("a.png", b"")] * 7, inference_executor())
    )
    page.run()
    assert not page.exception
    assert any("samples" not in b.label and b.label == "Coat" for b in page.button)
    assert "0 of 7" in str(page.get("progress")[0].proto)


def test_a_failed_job_is_a_sentence(page, demo, monkeypatch):
    def fail(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr(InspectionJob, "_inspect", fail)
    job = InspectionJob(demo, [("a.png", b"x")], inference_executor())
    while job.running:
        time.sleep(0.01)
    page.session_state[_KEY] = Session(job=job)
    page.run()
    assert "stopped after 0 of 1 files" in page.error[0].value and "boom" not in texts(page)


def test_a_workspace_that_does_not_open_is_a_sentence(page, monkeypatch, tmp_path):
    monkeypatch.setenv("KINDRED_WORKSPACE", str(tmp_path / "nothing"))
    page.run()
    assert "is not a workspace" in page.error[0].value and not page.exception


def test_too_few_calibration_images_are_an_answer(page, monkeypatch, tiny_workspace, test_png):
    monkeypatch.setenv("KINDRED_WORKSPACE", str(tiny_workspace))
    page.run()
    page.slider[0].set_value(0.5).run()
    assert "too few to flag anything at 0.5%" in page.warning[0].value
    found = texts(upload(page, [("a.png", test_png("Coat"))]))
    assert "Too few normal images were held out to decide this: of 60" in found
    assert "Let a person look" in found and "Nothing unusual found" not in found


def test_the_rate_can_hold_for_each_class_and_for_this_very_calibration_set(page, test_png):
    files = [(f"{name}-{n}.png", test_png(name, n)) for name in ("Shirt", "Bag") for n in range(4)]
    found = texts(upload(page, files))
    assert "with 95% confidence" in found and "wherever you move the level" in found
    next(t for t in page.toggle if t.label == "For each class alone").set_value(True).run()
    found = texts(page)
    assert "For new normal images of any one answer expect" in found and not page.exception
    assert "wherever you move the level" not in found  # the bound is for one calibration set
    page.selectbox[0].select("With 95% confidence for this one").run()
    assert "for each answer taken alone, it is never more than 5.0%." in texts(page)


@pytest.mark.parametrize("method", ["Storey", "e-values of four detectors"])
def test_a_batch_can_be_searched_in_other_ways(page, test_png, method):
    page.query_params["numbers"] = "true"
    files = [(f"coat-{n}.png", test_png("Coat", n)) for n in range(30)]
    files += [(f"bag-{n}.png", test_png("Bag", n)) for n in range(10)]
    upload(page, files)
    page.button_group[0].set_value([method]).run()
    assert not page.exception
    count = int(re.search(r"\*\*(\d+)\*\* of these 40 images stand out", texts(page)).group(1))
    assert 8 <= count <= 12


@pytest.mark.parametrize(("brightness", "noticed"), [(1.0, False), (0.6, True)])
def test_a_changed_camera_is_noticed(page, fashion_test, brightness, noticed):
    """The same kinds of clothes, as they are and darker; few of either are flagged."""
    pixels, _, known = fashion_test
    rows = np.flatnonzero(known)[:200]
    found = texts(upload(page, [(f"{row}.png", png(pixels[row, 0] * brightness)) for row in rows]))
    assert ("The error rate may no longer hold" in found) is noticed and not page.exception


def test_two_sessions_keep_to_themselves(monkeypatch, test_png):
    pages = [AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60) for _ in "ab"]
    for page, name in zip(pages, ("Trouser", "Sandal"), strict=True):
        upload(page, [(f"{name}.png", test_png(name))])
    for page, name in zip(pages, ("Trouser", "Sandal"), strict=True):
        page.run()
        assert f"It says **{name}**" in texts(page)


def test_a_new_batch_replaces_the_old_one(demo, test_png):
    session = Session()
    files = [("a.png", test_png("Coat"))]
    session.start(demo, files * 100)
    old = session.job
    session.selected = 5
    session.start(demo, files)
    assert old._cancelled and session.job is not old and session.selected is None
    session.clear()
    assert session.job is None


def test_an_empty_drop_area_forgets_only_its_own_batch(demo, monkeypatch, test_png):
    """While the page loads a fresh drop area reports that it is empty: seen in a browser."""
    state = Session()
    monkeypatch.setattr(inputs, "session", lambda: state)
    monkeypatch.setattr(inputs.st, "session_state", {"files-0": [], "files-1": []})
    files = [("a.png", test_png("Coat"))]
    state.start(demo, files)
    inputs._start_upload(demo, "files-1")
    assert state.job is not None
    state.start(demo, files, "files-0")
    inputs._start_upload(demo, "files-1")
    assert state.job is not None
    inputs._start_upload(demo, "files-0")
    assert state.job is None


def test_a_sense_in_which_nothing_can_be_unknown_says_so(page):
    page.run()
    assert "No image can be called" not in texts(page)
    page.selectbox[0].select("The same, by the DKW inequality").run()
    assert "No image can be called *unknown* here, only *unsure*" in texts(page)


def test_the_sense_survives_the_switch_for_numbers(page):
    page.run()
    page.selectbox[0].select("With 95% confidence for this one").run()
    page.toggle(key="numbers").set_value(True).run()
    assert "With 95% confidence it is never more than 5.0%." in texts(page)
