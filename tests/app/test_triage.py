import multiprocessing

import pytest

from app.triage import Action, Mark, Triage


@pytest.fixture
def triage(monkeypatch, tmp_path):
    monkeypatch.setenv("KINDRED_HOME", str(tmp_path))
    return Triage.of("fashion", "ann")


def test_the_latest_decision_counts_and_survives_a_restart(triage):
    triage.mark(Mark("a", Action.REMOVE))
    triage.mark(Mark("b", Action.RELABEL, "Shirt", "see the collar"))
    triage.mark(Mark("a", Action.KEEP))
    marks = Triage.of("fashion", "ann").marks()
    assert marks["a"].action is Action.KEEP and marks["b"].label == "Shirt"
    assert marks["b"].note == "see the collar" and marks["a"].at
    assert Triage.of("fashion", "bob").marks() == {} == Triage.of("other", "ann").marks()


def test_an_undone_decision_is_gone(triage):
    triage.mark(Mark("a", Action.REMOVE))
    triage.mark(Mark("a", Action.UNDO))
    assert triage.marks() == {}


def test_a_line_cut_short_loses_itself_only(triage):
    triage.mark(Mark("a", Action.REMOVE))
    with triage.path.open("a") as file:
        file.write('{"sha256": "b", "act')
    triage.mark(Mark("c", Action.UNSURE))
    assert set(triage.marks()) == {"a", "c"}


def test_names_do_not_lead_out_of_the_folder(triage, tmp_path):
    for name in ("../../evil", "/etc/passwd", "..", "", "a" * 300):
        path = Triage.of(name, name).path
        assert path.resolve().is_relative_to(tmp_path.resolve() / "triage")
        Triage(path).mark(Mark("a", Action.KEEP))


def _mark_many(path, who):
    for number in range(50):
        Triage(path).mark(Mark(f"{who}-{number}", Action.KEEP))


def test_two_at_once_lose_nothing(triage):
    workers = [
        multiprocessing.get_context("spawn").Process(target=_mark_many, args=(triage.path, who))
        for who in "xy"
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(triage.marks()) == 100
