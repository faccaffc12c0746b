import io
import json
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from sqlalchemy import event, text

from app import watching
from app.watch_replay import Replay
from app.watch_store import WatchStore
from app.watching import (
    OtherNumbers,
    RecordError,
    RefusedFile,
    StoreError,
    Watch,
    arrivals_of,
    replayed,
    with_own_seed,
)
from models.images import ImageRefused
from ood.monitoring.monitor import Monitor
from ood.monitoring.payoffs import Answer
from ood.monitoring.settings import Settings, Strategy
from tests.app.watch_helpers import (
    RED,
    SETTINGS,
    WORKSPACE,
    arrivals,
    events,
    metadata,
    told,
    world,
)
from tests.conftest import ROOT


@pytest.fixture
def path(tmp_path):
    return tmp_path / "watch.sqlite"


@pytest.fixture
def store(path):
    return WatchStore.open(f"sqlite:///{path}")


@pytest.fixture
def watch(store):
    return Watch.create(store, WORKSPACE, "door", SETTINGS)


def play(watch, scores, unknown, start=0, at_once=10):
    """Batches of arrivals, and all questions answered after each."""
    for begin in range(start, len(scores), at_once):
        decided = watch.arrive(arrivals(scores[begin : begin + at_once], begin))
        watch.answer_all({d.item: told(unknown[d.item - 1]) for d in decided if d.asked}, "Ada")


def same_state(a, b):
    first, second = a.state(), b.state()
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def test_it_says_what_the_monitor_alone_would_say(watch):
    scores, unknown = world(300)
    monitor = Monitor(SETTINGS, WORKSPACE.calibration_scores["some"].astype(float))
    for begin in range(0, 300, 10):
        mine = [monitor.decide(float(score)) for score in scores[begin : begin + 10]]
        assert watch.arrive(arrivals(scores[begin : begin + 10], begin)) == mine
        for one in mine:
            if one.asked:
                monitor.answer(one.item, told(unknown[one.item - 1]))
                assert watch.answer(one.item, told(unknown[one.item - 1]), "Ada")
    same_state(replayed(watch.record()), monitor)
    assert watch.alarms() == monitor.alarms
    for name, value in vars(monitor.report().misses).items():
        np.testing.assert_array_equal(vars(watch.report().misses)[name], value)


@pytest.mark.parametrize("strategy", Strategy)
def test_a_record_replays_to_the_same_numbers_bit_for_bit(store, strategy):
    watch = Watch.create(
        store, WORKSPACE, strategy, Settings(strategy=strategy, thresholds=40, budget=1_000)
    )
    scores, unknown = world(150)
    play(watch, scores, unknown)
    watch.arrive(arrivals(scores[:7]))  # some of them wait
    monitor = replayed(watch.record())
    assert monitor.items == 157 and monitor.report().asked == watch.report().asked
    again = Watch.open(store, WORKSPACE, watch.number)
    assert again.record() == watch.record() and again.settings == watch.settings


def test_a_restart_goes_on_from_a_snapshot_to_the_same_numbers(store, watch, monkeypatch):
    monkeypatch.setattr(watching, "_SNAPSHOT_EVERY", 100)
    scores, unknown = world(400)
    play(watch, scores, unknown)
    with store.engine.connect() as connection:
        (at,) = connection.scalars(text("SELECT event_id FROM snapshots"))
    assert at > 300
    read = []
    monkeypatch.setattr(
        Replay, "repeat", lambda self, e, repeat=Replay.repeat: (read.append(e), repeat(self, e))
    )
    again = Watch.open(store, WORKSPACE, watch.number)
    same_histories(again.history(), watch.history())
    assert 0 < len(read) < 150 and again.record() == watch.record()
    # Without it, or with a damaged one, everything is read again.
    for damage in ("DELETE FROM snapshots", "UPDATE snapshots SET state = x'0011'"):
        with store.engine.begin() as connection:
            connection.execute(text(damage))
        again = Watch.open(store, WORKSPACE, watch.number)
        same_histories(again.history(), watch.history())
        assert again.record() == watch.record()


def test_a_state_of_another_version_or_of_other_settings_is_not_gone_on_with(monkeypatch):
    calibration = WORKSPACE.calibration_scores["some"].astype(float)
    stored = Replay(SETTINGS, calibration).state()
    assert Replay(SETTINGS, calibration).restore(7, stored)
    for others in (
        Replay(replace(SETTINGS, error=0.01), calibration),
        Replay(SETTINGS, np.nextafter(calibration, 9.0)),  # other thresholds, by one bit
    ):
        assert not others.restore(7, stored) and others.event == 0
    without = {k: v for k, v in safetensors.numpy.load(stored).items() if k != "version"}
    assert not Replay(SETTINGS, calibration).restore(7, safetensors.numpy.save(without))
    monkeypatch.setattr("app.watch_replay._STATE_VERSION", 99)
    assert not Replay(SETTINGS, calibration).restore(7, stored)


def same_histories(a, b):
    for name, column in vars(a).items():
        np.testing.assert_array_equal(column, vars(b)[name], err_msg=name)


def test_streams_of_a_workspace_are_listed_and_names_are_used_once(store, watch):
    watch.arrive(arrivals([0.0, 9.0]))
    other = SimpleNamespace(**vars(WORKSPACE) | {"key": "/anywhere ffff"})
    Watch.create(store, other, "door", SETTINGS)
    (info,) = Watch.streams(store, WORKSPACE)
    assert (info.number, info.name, info.items) == (watch.number, "door", 2)
    assert info.settings == SETTINGS and info.created.endswith("+00:00")
    for name, wrong in (("door ", "already"), (" ", "needs a name"), ("a" * 65, "at most")):
        with pytest.raises(ValueError, match=wrong):
            Watch.create(store, WORKSPACE, name, SETTINGS)
    with pytest.raises(ValueError, match="budget"):
        Watch.create(store, WORKSPACE, "gate", Settings(budget=5_000))
    with pytest.raises(ValueError, match="no stream"):
        Watch.open(store, other, watch.number)
    assert len(Watch.streams(store, WORKSPACE)) == 1


def test_a_deleted_stream_is_gone_with_its_pictures(store, watch):
    watch.arrive(arrivals([9.0]))
    store.delete(watch.number)
    with store.engine.connect() as connection:
        for table in ("events", "pictures", "snapshots", "deliveries"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0
    with pytest.raises(StoreError, match="deleted"):
        watch.arrive(arrivals([9.0]))


def test_questions_come_oldest_first_with_their_pictures(watch):
    watch.arrive([*arrivals([9.0, 8.0, 7.0]), *arrivals([6.0], 3, picture=b"", sha256="")])
    first, second, third, fourth = watch.questions(10)
    assert [q.item for q in (first, second, third, fourth)] == [1, 2, 3, 4]
    assert first.picture == RED and first.flagged and first.score == 9.0 and first.predicted == 1
    assert fourth.picture == b"" and len(watch.questions(2)) == 2
    assert watch.answer(2, Answer.DO_NOT_KNOW, "Ada")
    assert watch.answer(1, Answer.UNKNOWN, "Ada")
    assert not watch.answer(1, Answer.KNOWN, "Bob")
    assert [q.item for q in watch.questions(10)] == [3, 4]
    assert watch.report().settled == 2 and watch.report().answered == 2
    assert [row["by"] for row in events(watch.record()) if row["kind"] == "answer"] == ["Ada"] * 2


def test_what_does_not_fit_is_refused_and_the_stream_is_as_it_was(watch):
    scores, unknown = world(60)
    play(watch, scores, unknown)
    before = watch.record()
    with pytest.raises(ValueError, match="finite"):
        watch.arrive([*arrivals([0.0]), *arrivals([float("nan")])])
    with pytest.raises(ImageRefused):
        watch.arrive([*arrivals([9.0]), *arrivals([9.0], 1, picture=b"no picture")])
    asked = {row["item"] for row in events(before) if row["asked"]}
    open_item = next(item for item in range(1, 61) if item not in asked)
    if open_item > watch.report().settled:
        with pytest.raises(ValueError, match="not asked"):
            watch.answer(open_item, Answer.KNOWN, "Ada")
    with pytest.raises(ValueError, match="no image 99"):
        watch.answer_all({99: Answer.KNOWN}, "Ada")
    assert watch.record() == before and watch.report().items == 60
    assert replayed(before).items == 60


def test_a_source_comes_once_and_a_refused_file_is_a_row(watch):
    refused = [RefusedFile("notes.txt", "It is no image.", "notes")]
    taken = watch.arrive(arrivals([1.0], source="a") + arrivals([2.0], source="b"), refused)
    assert len(taken) == 2
    again = watch.arrive(arrivals([1.0], source="a") + arrivals([3.0], source="c"), refused)
    assert [one.item for one in again] == [3]
    assert watch.taken(["a", "c", "d", "notes", ""]) == {"a", "c", "notes"}
    (row,) = watch.refused(10)
    assert (row.name, row.reason) == ("notes.txt", "It is no image.")
    kinds = [row["kind"] for row in events(watch.record())]
    assert kinds.count("refused") == 1 and kinds.count("arrival") == 3
    assert replayed(watch.record()).items == 3


def test_answers_by_source_are_given_where_they_are_asked_for(watch):
    watch.arrive(arrivals([9.0], source="a") + arrivals([8.0], source="b"))
    answers = {"a": Answer.UNKNOWN, "b": Answer.KNOWN, "elsewhere": Answer.KNOWN}
    assert watch.answer_sources(answers, "file") == 2
    assert watch.answer_sources(answers, "file") == 0


def test_the_history_has_few_rows_and_the_last_is_now(store, monkeypatch):
    monkeypatch.setattr("app.watch_history._ROWS", 64)
    watch = Watch.create(store, WORKSPACE, "long", SETTINGS)
    assert watch.history().items.tolist() == [0]
    scores, unknown = world(500)
    play(watch, scores, unknown)
    history, report = watch.history(), watch.report()
    assert 32 <= len(history) <= 65 and len(history.thresholds) <= 64
    assert history.items[-1] == 500 and (np.diff(history.items) >= 0).all()
    assert history.deployed[-1] == report.deployed and history.answered[-1] == report.answered
    np.testing.assert_allclose(history.prices.sum(axis=1), 1, rtol=1e-4)
    assert history.log_violation.shape == (len(history), len(history.thresholds))
    assert history.needed.shape == (len(history), 2, len(history.thresholds))
    assert abs(history.flagged_share[-1] - report.flagged / 500) < 1e-12


def test_what_is_no_record_or_was_changed_is_said(watch):
    scores, unknown = world(80)
    play(watch, scores, unknown)
    table = pq.read_table(io.BytesIO(watch.record()))
    about = json.loads(table.schema.metadata[b"kindred.watch"])

    def written(table, **changed):
        sink = io.BytesIO()
        text = json.dumps(about | changed).encode()
        pq.write_table(table.replace_schema_metadata({b"kindred.watch": text}), sink)
        return sink.getvalue()

    assert replayed(written(table)).items == 80
    scores = table.column("score").to_pylist()
    asked = table.column("asked").to_pylist().index(True)
    scores[asked] = np.nextafter(scores[asked], 99.0)  # one bit
    column = table.schema.get_field_index("score")
    with pytest.raises(OtherNumbers, match=r"state at the end|replays"):
        replayed(written(table.set_column(column, "score", [scores])))
    with pytest.raises(OtherNumbers, match="Item"):
        replayed(written(table, calibration=[score + 1 for score in about["calibration"]]))
    with pytest.raises(OtherNumbers, match="state at the end"):
        replayed(written(table.slice(0, 70)))
    for wrong in (b"", b"no Parquet", written(table.select(["id"])), written(table, format=99)):
        with pytest.raises(RecordError):
            replayed(wrong)


def test_a_log_that_another_version_made_is_not_gone_on_with(store, watch):
    watch.arrive(arrivals([9.0, 0.0]))
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE events SET threshold = threshold + 1"))
    with pytest.raises(StoreError, match=r"cannot go on.*Begin a new one"):
        Watch.open(store, WORKSPACE, watch.number).report()


def test_rounding_of_another_processor_stops_no_stream_but_an_exact_replay(store, watch):
    scores, unknown = world(120)
    play(watch, scores, unknown)
    with store.engine.begin() as connection:
        factor = "probability * 1.0000000000002, threshold = threshold * 0.9999999999999"
        connection.execute(text(f"UPDATE events SET probability = {factor}"))
    again = Watch.open(store, WORKSPACE, watch.number)
    assert again.report().items == 120 and again.arrive(arrivals([0.0]))[0].item == 121
    with pytest.raises(OtherNumbers, match=r"another processor.*made on .*NumPy.*this is"):
        replayed(again.record())
    # What was decided is the record's, whatever rounds.
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE events SET asked = NOT asked WHERE item = 60"))
    with pytest.raises(StoreError, match=r"cannot go on.*another processor.*Begin a new one"):
        Watch.open(store, WORKSPACE, watch.number).report()


def test_a_stream_may_have_a_seed_of_its_own():
    seeds = {with_own_seed(SETTINGS).seed for _ in range(3)}
    assert len(seeds) == 3 and all(0 <= seed < 2**62 for seed in seeds)
    assert replace(with_own_seed(SETTINGS), seed=0) == SETTINGS


def test_a_full_disk_says_so_and_memory_is_not_ahead_of_it(store, watch):
    scores, unknown = world(40)
    play(watch, scores, unknown)
    before = watch.record()

    def limit(connection):
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")

    event.listen(store.engine, "begin", limit)
    with pytest.raises(StoreError, match=r"full.* Make room"):
        watch.arrive(arrivals(np.zeros(2_000)))
    event.remove(store.engine, "begin", limit)
    assert watch.record() == before
    with store.engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count = 1000000"))
    assert watch.arrive(arrivals([0.0]))[0].item == 41


def test_places_where_no_store_can_be(tmp_path, monkeypatch):
    monkeypatch.setenv("KINDRED_WATCH", f"sqlite:///{tmp_path}")
    with pytest.raises(StoreError, match=r"unable to open.*KINDRED_WATCH"):
        WatchStore.open()
    monkeypatch.setenv("KINDRED_WATCH", "")
    monkeypatch.setenv("KINDRED_HOME", str(tmp_path / "home"))
    WatchStore.open()
    assert (tmp_path / "home" / "watch.sqlite").exists()


def test_inspected_images_arrive_by_the_default_detector():
    images = [SimpleNamespace(name=f"{n}.png", sha256=f"{n}", picture=RED) for n in range(2)]
    inspection = SimpleNamespace(
        scores={"some": np.float32([0.1, 0.2]), "other": np.float32([8, 9])},
        p_values={"some": np.array([0.3, 0.4]), "other": np.array([0.1, 0.1])},
        predicted=np.array([5, 6]),
    )
    first, second = arrivals_of(WORKSPACE, images, inspection)
    assert (first.score, first.p_value, first.predicted) == (float(np.float32(0.1)), 0.3, 5)
    assert (second.name, second.sha256, second.picture) == ("1.png", "1", RED)


def once_each(watch):
    """What any number of operators leave behind: everything asked is answered, once."""
    rows = events(watch.record())
    asked = [row["item"] for row in rows if row["asked"]]
    answered = [row["item"] for row in rows if row["kind"] == "answer"]
    assert sorted(answered) == asked
    same_state(replayed(watch.record()), replayed(Watch.open(watch.store, WORKSPACE, 1).record()))
    return len(answered)


def test_two_operators_in_threads_lose_and_double_nothing(store, watch):
    scores, unknown = world(200)
    watches = [watch, *(Watch.open(store, WORKSPACE, watch.number) for _ in range(2))]
    watch.arrive(arrivals(scores[:100]))

    def operate(number):
        mine, taken, chance = watches[number % 3], 0, random.Random(number)
        while questions := mine.questions(4):
            item = chance.choice(questions).item
            taken += mine.answer(item, told(unknown[item - 1]), f"operator {number}")
        return taken

    with ThreadPoolExecutor(6) as pool:
        found = [pool.submit(operate, number) for number in range(4)]
        for begin in range(100, 200, 10):
            watch.arrive(arrivals(scores[begin : begin + 10], begin))
        taken = sum(future.result() for future in found)
    taken += operate(0)
    assert taken == watch.report().asked == watch.report().answered == once_each(watch)


# A process that plays a stream from wherever it stands: a batch, then an answer at a time.
_PLAYING = """
import sys
from app.watch_store import WatchStore
from app.watching import Watch
from tests.app.watch_helpers import WORKSPACE, arrivals, told, world
url, items, role = sys.argv[1], int(sys.argv[2]), sys.argv[3]
scores, unknown = world(items)
watch = Watch.open(WatchStore.open(url), WORKSPACE, 1)
taken = 0
while True:
    while questions := watch.questions(3):
        item = questions[0 if role == "play" else -1].item
        taken += watch.answer(item, told(unknown[item - 1]), role)
        print(item, flush=True)
    start = watch.report().items
    if start >= items:
        break
    if role == "play":
        watch.arrive(arrivals(scores[start : start + 10], start))
print("taken", taken)
"""


def playing(path, items, role="play") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", _PLAYING, f"sqlite:///{path}", str(items), role],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_processes_lose_and_double_nothing(watch, path):
    workers = [playing(path, 150, role) for role in ("play", "help")]
    said = [worker.communicate(timeout=100)[0].split() for worker in workers]
    taken = [int(words[-1]) for words in said]
    assert watch.report().items == 150
    assert sum(taken) == watch.report().asked == once_each(watch)


def test_a_killed_process_goes_on_to_the_state_of_one_that_was_not(store, watch, path, tmp_path):
    items, chance = 250, random.Random(0)
    for _ in range(3):
        worker = playing(path, items)
        for _ in range(chance.randint(1, 20)):
            worker.stdout.readline()
        time.sleep(chance.uniform(0, 0.03))
        worker.kill()
        worker.wait()
        worker.stdout.close()
    between = watch.report()
    assert 0 < between.items < items
    assert playing(path, items).communicate(timeout=100)[0]
    calm = Watch.create(
        WatchStore.open(f"sqlite:///{tmp_path / 'calm.sqlite'}"), WORKSPACE, "door", SETTINGS
    )
    assert playing(tmp_path / "calm.sqlite", items).communicate(timeout=100)[0]
    with store.engine.connect() as connection:
        assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
    assert events(watch.record()) == events(calm.record())
    assert metadata(watch.record()) == metadata(calm.record())  # with the digest of the state
    same_histories(watch.history(), calm.history())
    assert once_each(watch) == watch.report().asked > 50
