"""The Watch page and the button on Inspect, without a browser."""

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.watch_store import WatchStore
from app.watching import NO_CLASS, Arrival, StoreError, Watch
from app.web import watch_live, watch_queue, watch_streams
from ood.monitoring.payoffs import Answer
from ood.monitoring.settings import Settings
from tests.app.screens import texts, upload
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def own_store(monkeypatch, tmp_path):
    monkeypatch.setenv("KINDRED_HOME", str(tmp_path))
    st.cache_resource.clear()
    st.cache_data.clear()
    monkeypatch.setattr(watch_queue, "_LOOK_S", 0)


@pytest.fixture
def store(own_store):
    return WatchStore.open()


def watch_page(page):
    page.run()
    page.switch_page("web/watch_page.py").run()
    assert not page.exception
    return page


def start(page):
    page.button(key="watch-start").click().run()
    assert not page.exception
    return page


def metric(page, label):
    return next(found.value for found in page.metric if found.label == label)


def said(page):
    return texts(page) + "\n".join(str(found.value) for found in page.success)


def press(page, words):
    next(found for found in page.button if found.label == words).click().run()
    assert not page.exception


@pytest.fixture
def playing(page):
    """A scenario that has begun."""
    return start(watch_page(page))


def test_where_nothing_is_watched_the_page_says_how_to_start(page):
    watch_page(page)
    assert "Start to watch" in said(page)
    page.segmented_control(key="watch-source").set_value("A folder").run()
    assert "app watch NAME --workspace fashion --folder FOLDER" in page.code[0].value
    page.segmented_control(key="watch-source").set_value("Images you hand in").run()
    assert "Send to the watch" in said(page)


def test_a_scenario_plays_pauses_and_goes_on(playing, store, demo):
    page = playing
    (stream,) = Watch.streams(store, demo)
    assert stream.name == "Nothing changes - take 1"
    before = int(metric(page, "Images"))
    assert before > 0 and page.button(key="watch-play").label == "Pause"
    page.run()  # a tick
    assert int(metric(page, "Images")) == before + 20
    page.select_slider(key="watch-speed").set_value(50).run()
    assert int(metric(page, "Images")) == before + 70
    page.button(key="watch-play").click().run()
    paused = int(metric(page, "Images"))
    page.run()
    assert int(metric(page, "Images")) == paused and page.button(key="watch-play").label == "Play"
    assert f"at image {paused} of 3,000: one image in ten is a bag" in said(page)
    assert int(metric(page, "Answered").replace(",", "")) > 0
    assert "Not proven yet" in said(page) and "The threshold" in said(page)


def test_an_operator_answers_and_answers_are_there_for_the_next(playing, store, demo):
    page = playing
    page.toggle(key="watch-truly").set_value(False).run()
    page.button(key="watch-play").click().run()
    watch = Watch.open(store, demo, 1)
    before, first = watch.report(), watch.questions(1)[0]
    press(page, "Known")
    press(page, "Unknown")
    press(page, "Do not know")
    after = watch.report()
    assert after.answered == before.answered + 3
    assert all(question.item > first.item for question in watch.questions(500))
    assert int(metric(page, "Waiting")) == after.asked - after.answered


def test_of_two_operators_the_first_counts_and_the_second_is_told(playing, store, demo):
    page = playing
    page.toggle(key="watch-truly").set_value(False).run()
    page.button(key="watch-play").click().run()
    watch = Watch.open(store, demo, 1)
    item = watch.questions(1)[0].item
    assert watch.answer(item, Answer.KNOWN, "another")
    answered = watch.report().answered
    press(page, "Unknown")
    assert f"Somebody else had answered image {item}" in said(page)
    assert watch.report().answered == answered


@pytest.fixture
def uploads(store, demo):
    """A stream without a recording; five images wait, of 250."""
    watch = Watch.create(store, demo, "Uploads", Settings(audit_floor=0.01))
    flagged = float(max(watch.stream.calibration)) + 1
    scores = [flagged] * 5 + [-1e9] * 245
    watch.arrive([Arrival(f"{n}.png", "", s, 0.5, NO_CLASS, b"") for n, s in enumerate(scores)])
    return watch


def shown(page):
    keys = (str(b.key) for b in page.button if b.label == "Known")
    return next(int(key.rpartition("-")[2]) for key in keys)


def test_two_operators_are_asked_about_two_images(page, uploads):
    other = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    watch_page(page)
    watch_page(other)
    assert (shown(page), shown(other)) == (1, 2)
    press(other, "Known")
    assert (shown(page.run()), shown(other)) == (1, 3)
    assert "counts only once this question is answered" in said(page)
    assert "What came after image 1 counts only once the question about it" in said(other)


def test_a_key_for_the_image_before_is_no_answer(page, uploads, monkeypatch):
    monkeypatch.setattr(watch_queue, "_LOOK_S", 60)
    watch_page(page)
    press(page, "Known")
    assert "the key did not count" in page.toast[0].value
    assert shown(page) == 1 and uploads.report().answered == 0
    monkeypatch.setattr(watch_queue, "_LOOK_S", 0)
    press(page, "Known")
    assert shown(page) == 2 and uploads.report().answered == 1


def test_a_store_that_fails_while_it_is_watched_is_said(playing, monkeypatch):
    def fail(*_):
        raise StoreError("The disk is full.")

    monkeypatch.setattr(Watch, "report", fail)
    playing.run()
    assert not playing.exception and "The disk is full." in said(playing)
    monkeypatch.undo()


def test_a_recording_ends_and_its_alarms_are_listed(page, monkeypatch):
    real = watch_streams.record
    shown = 600
    monkeypatch.setattr(
        watch_streams, "record",
        lambda *a: type(r := real(*a))(r.scenario, r.pixels[1000 - shown // 2 : 1000 + shown // 2],
                                       r.classes[1000 - shown // 2 : 1000 + shown // 2],
                                       r.unknown[1000 - shown // 2 : 1000 + shown // 2]),
    )  # fmt: skip
    monkeypatch.setattr(watch_live, "_SPEEDS", (20, 300))
    watch_page(page)
    page.selectbox(key="watch-scenario").set_value("A camera fault").run()
    start(page)
    page.select_slider(key="watch-speed").set_value(300).run()
    page.run()
    page.run()
    assert not page.exception and "at its end" in said(page)
    assert page.button(key="watch-play").disabled
    assert metric(page, "Waiting") == "0"
    assert "**Alarm.**" in said(page) and "Alarms so far" in said(page)
    kinds = next(f.value for f in page.dataframe if "Noticed at image" in f.value)["About"]
    assert "drift" in set(kinds)


def test_a_record_is_taken_away_and_runs_again_to_the_same_numbers(playing, store, demo, tmp_path):
    page = playing
    record = Watch.open(store, demo, 1).record()
    page.file_uploader(key="watch-replay").upload("watch.parquet", record)
    page.run()
    assert not page.exception and "The same numbers, bit for bit" in said(page)
    page.file_uploader(key="watch-replay").upload("watch.parquet", b"PAR1 is not all of it")
    page.run()
    assert not page.exception and len(page.error) == 1


def test_two_strategies_run_beside_each_other(playing, monkeypatch):
    page = playing
    page.button(key="watch-play").click().run()
    assert "Both get the same images" in said(page)
    page.button(key="compare-run").click().run()
    assert not page.exception
    table = next(f.value for f in page.dataframe if "Strategy" in f.value)
    assert isinstance(table, pd.DataFrame) and len(table) == 2
    assert table["Slipped through"].between(0, 1).all() and (table["Asked"] > 0).all()


def test_settings_that_cannot_be_are_refused_in_words(page):
    watch_page(page)
    page.number_input(key="watch-target-0.1").set_value(20.0).run()
    assert page.button(key="watch-start").disabled
    assert "must be below their limit" in said(page)


def test_a_name_in_use_is_refused_in_words(page, store, demo):
    Watch.create(store, demo, "Uploads", Settings())
    watch_page(page)
    page.selectbox(key="stream").set_value("Start a new one").run()
    page.segmented_control(key="watch-source").set_value("Images you hand in").run()
    start(page)
    assert len(page.error) == 1 and "Uploads" in page.error[0].value


def test_a_stream_of_uploads_cannot_be_called_as_a_recording_is(page, store, demo):
    watch_page(page)
    page.segmented_control(key="watch-source").set_value("Images you hand in").run()
    page.text_input(key="watch-name").set_value(" Nothing changes - take 7 ").run()
    start(page)
    assert "give another name" in page.error[0].value and not Watch.streams(store, demo)


def test_a_batch_is_sent_once_and_its_broken_file_is_a_row(page, test_png, store, demo):
    batch = [(f"Bag {n}.png", test_png("Bag", n)) for n in range(3)]
    upload(page, [*batch, ("Coat.png", test_png("Coat")), ("broken.png", b"no image")])
    page.session_state["send"] = True
    page.run()
    page.button(key="send-now").click().run()
    assert not page.exception and "4 images came along *Uploads*" in said(page)
    page.button(key="send-now").click().run()
    assert "came along it already" in said(page)
    (stream,) = Watch.streams(store, demo)
    assert stream.name == "Uploads" and stream.items == 4
    page.switch_page("web/watch_page.py").run()
    assert not page.exception and metric(page, "Images") == "4"
    files = next(f.value for f in page.dataframe if "Why" in f.value)
    assert list(files["File"]) == ["broken.png"]


def test_the_scenarios_belong_to_the_demo(page, monkeypatch, tiny_workspace):
    monkeypatch.setenv("KINDRED_WORKSPACE", str(tiny_workspace))
    watch_page(page)
    assert "belong to the demo" in said(page)
    assert not [b for b in page.button if b.key == "watch-start"]


def test_a_store_that_cannot_be_opened_says_why(page, monkeypatch, tmp_path):
    (tmp_path / "broken.sqlite").write_bytes(b"no database " * 100)
    monkeypatch.setenv("KINDRED_WATCH", f"sqlite:///{tmp_path / 'broken.sqlite'}")
    page.run()
    page.switch_page("web/watch_page.py").run()
    assert not page.exception and "damaged" in said(page)
