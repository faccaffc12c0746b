"""Every state of the Detectors page, without a browser."""

import time

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.comparison import Contender, LeakCheck, compare
from app.web.detector_charts import agreement_map, two_histograms
from app.web.detector_sets import OutlierSet, own_session, set_title
from app.web.job import InspectionJob
from app.web.resources import inference_executor, open_workspace
from app.web.state import Session
from tests.conftest import ROOT

AUROC = "AUROC"


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setenv("KINDRED_WORKSPACE", "fashion")
    app = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    app.run()
    return app.switch_page("web/detectors_page.py")


def texts(page) -> str:
    parts = [page.markdown, page.caption, page.error, page.info, page.warning]
    return "\n".join(str(element.value) for group in parts for element in group)


def compared(page):
    (table,) = [frame.value for frame in page.dataframe if AUROC in frame.value]
    return table


def choose(page, group) -> AppTest:
    page.session_state["group"] = group
    page.run()
    assert not page.exception
    return page


def own_state(page) -> Session:
    (key,) = [k for k in page.session_state._state.filtered_state if k.startswith("detectors ")]
    return page.session_state[key]


def upload(page, files) -> AppTest:
    choose(page, "Your own")
    for name, data in files:
        page.file_uploader[0].upload(name, data)
    page.run()
    deadline = time.monotonic() + 60
    job = own_state(page).job
    while job.running and time.monotonic() < deadline:
        time.sleep(0.02)
    page.run()
    assert not page.exception
    return page


def test_at_first_all_detectors_are_compared_on_an_unknown_class(page, demo):
    page.run()
    assert not page.exception
    table, said = compared(page), texts(page)
    title = demo.panel.infos[demo.manifest.detector].title
    assert len(table) == len(demo.panel.infos) and table[AUROC].is_monotonic_decreasing
    assert f"★ {title}" in table["Detector"].tolist()
    assert f"**{title}** decides in this workspace" in said and "never on yours" in said
    assert "**Unknown class: Ankle boot** (1,000 images)" in said
    assert "of these images are flagged** (" in said and "where 5% of known images are" in said
    assert "Who agrees with whom" in said and len(page.get("plotly_chart")) == 2
    assert all(check.startswith("✓") for check in table["Leak check"])
    labels = [button.label for button in page.get("download_button")]
    assert labels == ["CSV", "Markdown", "LaTeX"]


def test_the_numbers_are_every_measure_with_its_interval(page):
    page.run()
    page.toggle(key="numbers").set_value(True).run()
    table = compared(page)
    for column in (AUROC, "Unknown missed", "Known flagged", "AUPR known", "AUPR unknown"):
        assert table[column].str.fullmatch(r"[01]\.\d{3} \[[01]\.\d{3}, [01]\.\d{3}\]").all()


def test_damage_has_a_severity(page, demo):
    choose(page, "Damaged pictures")
    assert "**Grain, severity 3 of 5** (500 images)" in texts(page)
    mild = compared(page).set_index("Detector")[AUROC]
    page.slider[0].set_value(5).run()
    assert "**Grain, severity 5 of 5** (500 images)" in texts(page)
    assert "has not been chosen on" in texts(page)  # it helped to choose
    assert compared(page).set_index("Detector")[AUROC].mean() > mild.mean()


@pytest.mark.parametrize(
    ("group", "said"),
    [("Other pictures", "Handwritten digits"), ("Mixed-up pictures", "Two classes blended")],
)
def test_ready_made_sets_are_there(page, group, said):
    assert f"**{said}** (500 images)" in texts(choose(page, group))


def test_every_ready_made_set_has_a_title(demo):
    titles = [set_title(name) for name in demo.outliers]
    assert len(set(titles)) == len(titles)
    assert {"Unknown class: Bag", "Noise", "Blur, severity 3 of 5"} <= set(titles)
    assert set_title(
        "unknown-[x](http://evil)"
    ) == r"Unknown class: \[x\]\(http\:\/\/evil\)".replace(r"\/", "/")


def test_another_detector_is_shown_when_picked(page, demo):
    page.run()
    (box,) = [box for box in page.selectbox if box.label == "Detector"]
    box.set_value("msp").run()
    assert not page.exception
    assert f"*{demo.panel.infos['msp'].question}*" in texts(page)


def test_ones_own_images_are_compared_with_a_warning_when_few(page, test_png):
    choose(page, "Your own")
    assert "Bring images of things that the classifier does not know" in page.info[0].value
    files = [(f"bag-{n}.png", test_png("Bag", n)) for n in range(12)] + [("=bad*.png", b"broken")]
    said = texts(upload(page, files))
    assert "**Your images** (12 images)" in said and "Only 12 images" in said
    assert page.table[0].value["File"].tolist() == ["` =bad*.png `"]
    assert compared(page)[AUROC].max() > 0.9
    assert "` =bad*.png `" not in texts(choose(page, "Other pictures"))
    assert "**Your images** (12 images)" in texts(choose(page, "Your own"))  # still there


def test_one_image_is_enough_for_an_answer(page, test_png):
    assert "Only 1 image" in texts(upload(page, [("a.png", test_png("Bag"))]))


def test_only_refused_files_are_reasons(page):
    said = texts(upload(page, [("[x](http://evil).png", b"broken")]))
    assert "Not an image Kindred can read" in said and "` [x](http://evil).png `" in said
    assert not any(AUROC in frame.value for frame in page.dataframe)


def test_own_images_stay_on_this_page(page, test_png):
    upload(page, [("a.png", test_png("Bag"))])
    assert page.session_state["kindred"].job is None


def test_while_it_runs_there_is_progress(page, demo, monkeypatch):
    monkeypatch.setattr(InspectionJob, "_step", lambda self: None)
    job = InspectionJob(demo, [("a.png", b"")] * 7, inference_executor())
    page.session_state[f"detectors {demo.key}"] = Session(job=job)
    choose(page, "Your own")
    assert "0 of 7" in str(page.get("progress")[0].proto)


def test_a_failed_job_is_a_sentence(page, demo, monkeypatch):
    def fail(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr(InspectionJob, "_inspect", fail)
    job = InspectionJob(demo, [("a.png", b"x")], inference_executor())
    while job.running:
        time.sleep(0.01)
    page.session_state[f"detectors {demo.key}"] = Session(job=job)
    choose(page, "Your own")
    assert "stopped after 0 of 1 files" in page.error[0].value and "boom" not in texts(page)


def test_a_workspace_that_does_not_open_is_a_sentence(page, monkeypatch, tmp_path):
    monkeypatch.setenv("KINDRED_WORKSPACE", str(tmp_path / "nothing"))
    page.run()
    assert "is not a workspace" in page.error[0].value and not page.exception


def test_a_tiny_workspace_without_unknown_classes(page, monkeypatch, tiny_workspace):
    monkeypatch.setenv("KINDRED_WORKSPACE", str(tiny_workspace))
    page.run()
    assert not page.exception
    assert "**Handwritten digits**" in texts(page)
    groups = page.get("button_group")[0].proto
    assert "Unknown classes" not in str(groups)
    assert len(compared(page)) == len(open_workspace(str(tiny_workspace)).panel.infos)


def test_charts_hold_whatever_the_scores(demo):
    rng = np.random.default_rng(0)
    known = rng.normal(size=500)
    for unknown in (np.full(3, 1e9), np.full(3, -1e9), np.array([known[0]]), known):
        figure = two_histograms(known, unknown, 2.0)
        for bar in figure.data:
            assert sum(bar.y) == pytest.approx(1)  # none is left out
        assert figure.data[0].y.max() < 0.6  # the known ones are not squeezed into one bar
    two_histograms(np.zeros(5), np.zeros(2), float("inf"))
    assert agreement_map(np.full((2, 2), np.nan), ["a", "a"]).data[0].z.shape == (2, 2)


def test_what_remembers_its_training_images_is_marked(monkeypatch):
    leaky = Contender("Leaky", True, 0.0, 1.0, LeakCheck(0.2, 0.19, 0.21))
    scores = {"leaky": np.arange(9.0)}

    def draw():
        import tests.app.test_detectors_page as here
        from app.web.detector_table import show_comparison

        show_comparison(*here.LEAKY, here.Session(), numbers=False)

    import tests.app.test_detectors_page as here

    found = compare({"leaky": leaky}, scores, scores, "x")
    here.LEAKY = (found, OutlierSet("x", "X", "x", scores))
    page = AppTest.from_function(draw)
    page.run()
    assert not page.exception and "give themselves away** to Leaky" in page.warning[0].value
    assert page.dataframe[0].value["Leak check"].tolist() == ["✕ 0.200"]


def test_a_session_is_kept_per_workspace(monkeypatch, demo, tiny_workspace):
    state: dict[str, object] = {}
    monkeypatch.setattr("app.web.detector_sets.st.session_state", state)
    tiny = open_workspace(str(tiny_workspace))
    assert own_session(demo) is own_session(demo)
    assert own_session(demo) is not own_session(tiny)
