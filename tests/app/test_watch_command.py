import json
import platform
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from app import watch_folder, watch_running
from app.__main__ import main
from app.watch_scores import read_scores
from app.watching import replayed
from ood.monitoring.settings import Settings, Strategy
from tests.app.test_watch_folder import put
from tests.app.watch_helpers import events, world
from tests.conftest import ROOT

FIELDS = {
    "stream", "items", "threshold", "flagged", "misses", "false_alarms", "certified", "proposed",
    "asked", "waiting", "alarms", "batch", "problems", "audit_rate",
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KINDRED_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KINDRED_WATCH", raising=False)


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "calibration.csv"
    scores = np.random.default_rng(9).normal(size=500)
    pd.DataFrame({"score": scores}).to_csv(path, index=False)
    return path


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "scores.csv"
    values, unknown = world(180)
    pd.DataFrame({"score": values, "unknown": unknown.astype(int)}).to_csv(path, index=False)
    return path


def run(capsysbinary, *arguments, status=0):
    """The records that a command prints."""
    assert main(["watch", *map(str, arguments)]) == status
    return [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]


def test_a_file_of_scores_is_watched_exported_and_replayed(
    capsysbinary, scores, calibration, tmp_path
):
    out = tmp_path / "record.parquet"
    records = run(
        capsysbinary, "mine", "--scores", scores, "--calibration", calibration, "--export", out,
        "--seed", 0,
    )  # fmt: skip
    assert [record["batch"]["items"] for record in records] == [50, 50, 50, 30]
    assert all(record.keys() >= FIELDS for record in records)
    last = records[-1]
    assert last["items"] == 180 and last["waiting"] == 0 and last["asked"] == last["answered"] > 20
    assert last["stream"] == "mine" and last["misses"]["state"] in ("not proven", "certified")
    rows, unknown = events(out.read_bytes()), world(180)[1]
    answers = {row["item"]: row["answer"] for row in rows if row["kind"] == "answer"}
    assert all((answer == 2) == unknown[item - 1] for item, answer in answers.items())
    (again,) = run(capsysbinary, "--replay", out)
    assert again["replayed"] == "bit for bit" and again["items"] == 180
    assert {k: again[k] for k in ("threshold", "misses", "drift")} == {
        k: last[k] for k in ("threshold", "misses", "drift")
    }
    monitor = replayed(out.read_bytes())
    assert monitor.settings == Settings(seed=0) and monitor.items == 180


def test_a_second_run_takes_only_what_is_new(capsysbinary, scores, calibration):
    arguments = ("mine", "--scores", scores, "--calibration", calibration)
    assert [r["batch"]["passed_over"] for r in run(capsysbinary, *arguments)] == [0, 0, 0, 0]
    (record,) = run(capsysbinary, *arguments)
    assert record["items"] == 180 and not record["batch"]["items"]
    assert record["batch"]["passed_over"] == 180
    longer = pd.concat([pd.read_csv(scores), pd.DataFrame({"score": [1.0], "unknown": [""]})])
    longer.to_csv(scores, index=False)
    (record,) = run(capsysbinary, *arguments)
    assert record["items"] == 181 and record["batch"]["items"] == 1
    assert record["batch"]["passed_over"] == 180


def test_another_file_of_the_same_name_is_new_even_where_scores_repeat(
    capsysbinary, calibration, tmp_path
):
    """Scores that saturate are the same in many rows; labels go to the images of their own day."""
    days = [("monday", [9.0, 1.0, 8.0, 1.0], [1, 0, 1, 0]), ("tuesday", [8.5, 1.0, 8.0], [0, 1, 0])]
    asked = (
        "--audit-rate",
        "0.999999:0.999999",
        "--seed",
        0,
        "--budget",
        1_000,
        "--calibration",
        calibration,
    )
    for day, values, unknown in days:
        path = tmp_path / day / "scores.csv"
        path.parent.mkdir()
        pd.DataFrame({"score": values, "unknown": unknown}).to_csv(path, index=False)
        out = tmp_path / "record.parquet"
        (record,) = run(capsysbinary, "d", "--scores", path, *asked, "--export", out)
        assert record["batch"]["items"] == len(values) and not record["batch"]["passed_over"]
    answers = {r["item"]: r["answer"] for r in events(out.read_bytes()) if r["kind"] == "answer"}
    assert [answers[item] - 1 for item in range(1, 8)] == [1, 0, 1, 0, 0, 1, 0]


def test_labels_that_are_filled_in_later_and_names_like_numbers_change_no_source(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("score,name\n1,007\n2,8\n")
    before = read_scores(path)
    assert before.names == ("007", "8") and not before.answers
    path.write_text("score,name,unknown\n1.0,007,1\n2,8,\n3,,0\n")
    after = read_scores(path)
    assert after.sources[:2] == before.sources and after.names[2] == ""
    assert list(after.answers) == [after.sources[0], after.sources[2]]
    path.write_text("score,name\n1,006\n2,8\n")
    assert not set(read_scores(path).sources) & set(before.sources)


def test_streams_without_a_seed_share_no_coins(capsysbinary, scores, calibration, tmp_path):
    out, source = tmp_path / "record.parquet", ("--scores", scores, "--calibration", calibration)
    seeds = set()
    for name in "ab":
        run(capsysbinary, name, *source, "--export", out)
        seeds.add(replayed(out.read_bytes()).settings.seed)
    assert len(seeds - {0}) == 2 and max(seeds) < 2**63
    (record,) = run(capsysbinary, "b", *source)  # goes on with its own
    assert record["batch"]["passed_over"] == 180


def test_parquet_names_and_labels_where_they_are_known(capsysbinary, calibration, tmp_path):
    path, out = tmp_path / "scores.parquet", tmp_path / "record.parquet"
    labels = ["unknown", None, "known", "", "1"]
    frame = pd.DataFrame(
        {"score": [9.0, 8.0, 7.0, 6.0, 5.0], "unknown": labels, "name": list("abcde")}
    )
    frame.to_parquet(path)
    (record,) = run(
        capsysbinary, "p", "--scores", path, "--calibration", calibration, "--export", out
    )
    assert record["asked"] == 5 and record["answered"] == 3 and record["waiting"] == 2
    assert [row["name"] for row in events(out.read_bytes())][:5] == list("abcde")


def test_the_settings_are_those_of_the_stream_for_good(capsysbinary, scores, calibration, tmp_path):
    out = tmp_path / "record.parquet"
    source = ("--scores", scores, "--calibration", calibration)
    options = (
        "--miss-limit", "0.05", "--false-alarm-limit", "0.2", "--error", "0.01", "--strategy",
        "constant-product", "--audit-rate", "0.1:0.5", "--budget", "900", "--seed", "7",
    )  # fmt: skip
    run(capsysbinary, "s", *source, *options, "--export", out)
    settings = replayed(out.read_bytes()).settings
    assert settings == Settings(
        strategy=Strategy.CONSTANT_PRODUCT, miss_limit=0.05, miss_target=settings.miss_target,
        false_alarm_limit=0.2, error=0.01, audit_floor=0.1, audit_ceiling=0.5, budget=900, seed=7,
    )  # fmt: skip
    assert abs(settings.miss_target - 0.04) < 1e-12
    (record,) = run(capsysbinary, "s", *source, "--seed", "7")
    assert not record["batch"]["items"]
    assert main(["watch", "s", *map(str, source), "--seed", "8"]) == 2
    assert "another seed, 7, for good" in capsysbinary.readouterr().err.decode()


def test_a_record_that_differs_is_said(capsysbinary, scores, calibration, tmp_path):
    out = tmp_path / "record.parquet"
    source = ("--scores", scores, "--calibration", calibration, "--seed", 0)
    run(capsysbinary, "m", *source, "--export", out)
    table = pq.read_table(out)
    changed = table.schema.metadata[b"kindred.watch"].replace(b'"seed": 0', b'"seed": 1')
    pq.write_table(table.replace_schema_metadata({b"kindred.watch": changed}), out)
    assert main(["watch", "--replay", str(out)]) == 1
    said = capsysbinary.readouterr().err.decode()
    assert "replays to" in said and "another version of Kindred" in said
    assert "another processor" in said and f"this is {platform.machine()}" in said
    assert said.count(f"NumPy {np.__version__}") == 2


def test_a_folder_is_watched(capsysbinary, tmp_path, demo, test_png, monkeypatch):
    folder = tmp_path / "camera"
    folder.mkdir()
    put(folder, "a.png", test_png("Trouser"))
    put(folder, "b.png", b"broken", age=50)
    monkeypatch.setattr(watch_folder, "_QUIET_S", 0.3)
    put(folder, "c.png", test_png("Bag"), age=-600)  # waited for, from when it is seen
    first, second = run(capsysbinary, "cam", "--folder", folder, "--once", status=1)
    assert first["batch"]["items"] == 1
    (refused,) = first["batch"]["refused"]
    assert refused["file"] == "b.png" and refused["reason"]
    assert second["items"] == 2 and not second["batch"]["refused"]
    assert run(capsysbinary, "cam", "--folder", folder, "--once") == []
    out = tmp_path / "record.parquet"
    assert run(capsysbinary, "cam", "--export", out) == []
    assert replayed(out.read_bytes()).items == 2


def test_a_killed_watch_goes_on_where_it_was(capsysbinary, tmp_path, demo, test_png):
    folder = tmp_path / "camera"
    folder.mkdir()
    put(folder, "a.png", test_png("Trouser"))
    arguments = ["cam", "--folder", str(folder), "--every", "0.1"]
    first = subprocess.Popen(
        [sys.executable, "-m", "app", "watch", *arguments], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert json.loads(first.stdout.readline())["items"] == 1
    put(folder, "b.png", test_png("Coat"))
    assert json.loads(first.stdout.readline())["items"] == 2
    first.kill()
    first.communicate()
    put(folder, "c.png", test_png("Coat", 1))
    (record,) = run(capsysbinary, *arguments, "--once")
    assert record["items"] == 3 and record["batch"]["items"] == 1


def test_a_stopped_watch_still_exports(capsysbinary, tmp_path, demo, test_png, monkeypatch):
    folder, out = tmp_path / "camera", tmp_path / "record.parquet"
    folder.mkdir()
    put(folder, "a.png", test_png("Trouser"))

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch_running.time, "sleep", stop)
    assert main(["watch", "cam", "--folder", str(folder), "--export", str(out)]) == 0
    assert "everything so far is kept" in capsysbinary.readouterr().err.decode()
    assert replayed(out.read_bytes()).items == 1


def test_alarms_are_sent_and_said_once(capsysbinary, calibration, tmp_path):
    path, got = tmp_path / "scores.csv", tmp_path / "got"
    drifted = np.random.default_rng(3).normal(-1.5, 1, 400)
    pd.DataFrame({"score": drifted}).to_csv(path, index=False)
    program = f'{sys.executable} -c \'open("{got}", "a").write(input())\''
    source = ("a", "--scores", path, "--calibration", calibration, "--seed", 0)
    records = run(capsysbinary, *source, "--command", program)
    alarms = [alarm for record in records for alarm in record["alarms"]]
    assert [alarm["kind"] for alarm in alarms] == ["drift"]
    assert json.loads(got.read_text())["kind"] == "drift"
    (record,) = run(capsysbinary, *source, "--command", program)
    assert not record["batch"]["items"] and not record["alarms"]
    assert len(got.read_text().splitlines()) == 1
    longer = pd.concat([pd.read_csv(path), pd.DataFrame({"score": [0.0]})])
    longer.to_csv(path, index=False)
    failed, record = run(capsysbinary, *source, "--command", "no-such-program", status=1)
    assert "no-such-program" in failed["problems"][0] and not failed["batch"]["items"]
    assert record["items"] == 401 and not record["problems"]  # tried again in half a minute


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give the stream's NAME"),
        (["a"], "Give the stream's NAME"),
        (["a", "--folder", "/nowhere/at/all"], "no folder"),
        (["a", "--scores", "/nowhere.csv"], "cannot be read"),
        (["a", "--scores", "README.md"], "README.md"),
        (["a", "--export", "x.parquet"], "no stream a"),
        (["a", "--folder", ".", "--calibration", "x.csv"], "--calibration is for scores"),
        (["a", "--folder", ".", "--workspace", "no-such"], "not a workspace"),
        (["a", "--folder", ".", "--webhook", "ftp://x"], "http:// or https://"),
        (["a", "--folder", ".", "--webhook", ""], "http:// or https://"),
        (["a", "--folder", ".", "--command", "'"], "quotation"),
        (["a", "--folder", ".", "--command", " "], "name a program"),
        (["a", "--folder", ".", "--command", ""], "name a program"),
        (["a", "--folder", ".", "--command", "'' x"], "name a program"),
        (["--replay", "/nowhere"], "cannot be read"),
        (["--replay", "README.md"], "no record"),
        (["a", "--folder", ".", "--once", "--audit-rate", "0.5:0.1"], "Audit rates"),
    ],
)
def test_wrong_usage_is_status_2_and_a_sentence(arguments, message, capsys):
    assert main(["watch", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scores\n1\n", "no column score"),
        ("score\n1\ntall\n", "row 2 is tall"),
        ("score\n1\ninf\n", "row 2 is inf"),
        ("score,unknown\n1,maybe\n", "row 1 is maybe"),
        ("", "cannot be read"),
    ],
)
def test_scores_that_make_no_sense_are_refused(text, message, tmp_path, calibration, capsys):
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    arguments = ["watch", "a", "--scores", str(path), "--calibration", str(calibration)]
    assert main(arguments) == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--strategy", "luck"],
        ["--miss-limit", "2"],
        ["--every", "0"],
        ["--seed", "99999999999999999999"],
        ["--seed", str(2**63)],
        ["--seed", "9" * 5_000],
        ["--seed", "-1"],
        ["--seed", "x"],
        ["--folder", ".", "--scores", "x"],
    ],
)
def test_options_that_make_no_sense_are_refused(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["watch", "a", *arguments])
    assert stopped.value.code == 2


def test_the_name_of_a_recorded_scenario_is_refused(scores, calibration, capsys):
    """The page would play images of the demo into it."""
    name = "A camera fault - take 1"
    arguments = ["watch", name, "--scores", str(scores), "--calibration", str(calibration)]
    assert main(arguments) == 2
    assert "recorded scenario" in capsys.readouterr().err
