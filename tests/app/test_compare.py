import csv
import io
import json
import re
import zipfile

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from app.__main__ import main
from app.commands.compare import set_names
from app.comparison import Contender, LeakCheck, agreement, compare, leak_check
from app.comparison_tables import WRITERS, comparison_record, latex_safe
from tests.conftest import run_app

FIELDS = {
    "detector", "title", "ood", "auroc", "auroc_low", "auroc_high", "fpr95_id_positive",
    "fpr95_ood_positive", "aupr_in", "aupr_out", "fit_s", "us_per_image", "leak_auroc",
}  # fmt: skip
ODD = "50% | [x](http://evil) & \\cmd_{}"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def contender(title="Energy", *, decides=False) -> Contender:
    return Contender(title, decides, 1.5, 12.25, LeakCheck(0.5, 0.48, 0.52))


@pytest.fixture
def compared(rng):
    known = {"energy": rng.normal(size=400), "knn": rng.normal(size=400)}
    unknown = {"energy": rng.normal(1, 1, 90), "knn": rng.normal(2, 1, 90)}
    among = {"energy": contender(), "knn": contender("Mahalanobis++ {50%}", decides=True)}
    return known, unknown, compare(among, known, unknown, ODD)


def test_records_say_what_sklearn_says(compared):
    known, unknown, found = compared
    assert [c.detector for c in found] == ["knn", "energy"]  # the best first
    for c in found:
        record = comparison_record(c)
        scores = np.concatenate([known[c.detector], unknown[c.detector]])
        ood = np.arange(len(scores)) >= 400
        assert record["auroc"] == pytest.approx(roc_auc_score(ood, scores))
        assert record["aupr_out"] == pytest.approx(average_precision_score(ood, scores))
        assert record["aupr_in"] == pytest.approx(average_precision_score(~ood, -scores))
        for name, positive, sign in (
            ("fpr95_ood_positive", ood, 1),
            ("fpr95_id_positive", ~ood, -1),
        ):
            fpr, tpr, _ = roc_curve(positive, sign * scores, drop_intermediate=False)
            assert record[name] == pytest.approx(fpr[np.argmax(tpr >= 0.95)])
        for name in ("auroc", "fpr95_id_positive", "fpr95_ood_positive", "aupr_in", "aupr_out"):
            assert record[f"{name}_low"] <= record[name] <= record[f"{name}_high"]
        assert record["known_images"] == 400 and record["ood_images"] == 90
        assert (record["fit_s"], record["us_per_image"]) == (1.5, 12.25)


def test_the_leak_check_tells_a_detector_that_remembers(rng):
    held_out = rng.normal(size=3000)
    assert leak_check(held_out, rng.normal(size=2000)).near_half
    remembered = leak_check(held_out, rng.normal(-1, 1, 2000))
    assert remembered.auroc < 0.3 and not remembered.near_half
    assert not leak_check(held_out, rng.normal(1, 1, 2000)).near_half
    assert leak_check(held_out, rng.normal(-0.3, 1, 5)).near_half  # five images prove nothing


def test_agreement_is_spearmans_and_puts_the_alike_together(rng):
    a, b = rng.normal(size=(2, 300))
    scores = {"a": a, "b": b, "a-like": np.exp(a + 0.1 * rng.normal(size=300)), "minus-a": -a}
    found = agreement(scores)
    for i, one in enumerate(found.names):
        for j, other in enumerate(found.names):
            rho = spearmanr(scores[one], scores[other]).statistic
            assert found.correlation[i, j] == pytest.approx(rho)
    assert abs(found.names.index("a") - found.names.index("a-like")) == 1


def test_agreement_with_a_detector_that_scores_all_alike(rng):
    scores = {"a": rng.normal(size=50), "flat": np.zeros(50), "b": rng.normal(size=50)}
    found = agreement(scores)
    flat = found.names.index("flat")
    assert np.isnan(found.correlation[flat]).all()
    assert np.isfinite(np.delete(np.delete(found.correlation, flat, 0), flat, 1)).all()


def test_json_and_csv_hold_the_same_records(compared):
    found = compared[2]
    records = [comparison_record(c) for c in found]
    assert [json.loads(line) for line in WRITERS["json"](found).splitlines()] == records
    rows = list(csv.DictReader(io.StringIO(WRITERS["csv"](found).decode())))
    for row, record in zip(rows, records, strict=True):
        assert row.keys() == record.keys()
        assert float(row["fpr95_id_positive"]) == record["fpr95_id_positive"]
        assert row["ood"] == ODD


def test_a_set_named_like_a_formula_is_disarmed(rng):
    scores = {"energy": rng.normal(size=9)}
    found = compare({"energy": contender()}, scores, scores, "=1+1")
    (row,) = csv.DictReader(io.StringIO(WRITERS["csv"](found).decode()))
    assert row["ood"] == "'=1+1"


def test_markdown_is_a_table_whatever_the_names(compared):
    lines = WRITERS["markdown"](compared[2]).decode().splitlines()
    assert len(lines) == 4 and "FPR95 (ID positive)" in lines[0]
    assert "FPR95 (OOD positive)" in lines[0]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {12}
    assert "[x](" not in lines[2] and r"50% \|" in lines[2]
    auroc = compared[2][0].metrics.auroc
    assert f"{auroc:.3f} [" in lines[2]


def test_latex_is_a_tabular_whatever_the_names(compared):
    text = WRITERS["latex"](compared[2]).decode()
    assert text.startswith("\\begin{tabular}{llrrrrrrrr}\n\\hline\n")
    assert text.endswith("\\hline\n\\end{tabular}\n")
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {9}
    assert r"Mahalanobis++ \{50\%\}" in text and r"\textbackslash{}cmd\_\{\}" in text
    assert "µ" not in text


def test_latex_specials():
    assert latex_safe("a_b & 5% #1 $x$ {y} ~ ^ \\") == (
        r"a\_b \& 5\% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )


def test_sets_are_named_by_the_last_part_of_their_path(tmp_path):
    a, b = tmp_path / "a" / "test", tmp_path / "b" / "test"
    assert set_names([tmp_path / "bags", a], taken=[]) == {"bags": tmp_path / "bags", "test": a}
    assert list(set_names([a, b, a], taken=[])) == [str(a), str(b)]
    assert list(set_names([tmp_path / "digits"], taken=["digits"])) == [str(tmp_path / "digits")]


@pytest.fixture
def bags(tmp_path, test_png):
    folder = tmp_path / "bags" / "nested"
    folder.mkdir(parents=True)
    for n in range(6):
        (folder / f"{n}.png").write_bytes(test_png("Bag", n))
    with zipfile.ZipFile(tmp_path / "bags" / "more.zip", "w") as archive:
        for n in range(6, 10):
            archive.writestr(f"{n}.png", test_png("Bag", n))
    return tmp_path / "bags"


def test_the_command_gives_a_record_per_detector_and_set(bags, tmp_path, demo, test_png):
    boot = tmp_path / "boot.png"
    boot.write_bytes(test_png("Ankle boot"))
    out = tmp_path / "out.jsonl"
    assert main(["compare", "--ood", str(bags), str(boot), "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(record.keys() >= FIELDS for record in records)
    detectors = set(demo.panel.infos)
    for name, count in (("bags", 10), ("boot.png", 1)):
        mine = [r for r in records if r["ood"] == name]
        assert {r["detector"] for r in mine} == detectors and len(mine) == len(detectors)
        assert {r["ood_images"] for r in mine} == {count}
        assert [r["auroc"] for r in mine] == sorted((r["auroc"] for r in mine), reverse=True)
    assert {r["detector"] for r in records if r["decides"]} == {demo.manifest.detector}
    assert max(r["auroc"] for r in records if r["ood"] == "bags") > 0.9
    assert all(0.4 < r["leak_auroc"] < 0.6 and r["us_per_image"] > 0 for r in records)
    fit = {r["detector"]: r["fit_s"] for r in records}
    members = ("layers", "maxima", "energy", "masf")
    assert fit["fisher"] == pytest.approx(sum(fit[m] for m in members))
    assert not list(tmp_path.glob(".*"))


def test_ready_made_sets_and_what_the_screen_shows_are_the_same(demo, tmp_path):
    out = tmp_path / "out.csv"
    assert main(["compare", "--ready", "--format", "csv", "--out", str(out)]) == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert {row["ood"] for row in rows} == set(demo.outliers)
    row = next(r for r in rows if (r["ood"], r["detector"]) == ("unknown-Bag", "knn"))
    ood = demo.outliers["unknown-Bag"]["knn"]
    scores = np.concatenate([demo.calibration_scores["knn"], ood])
    labels = np.arange(len(scores)) >= len(scores) - len(ood)
    assert float(row["auroc"]) == pytest.approx(roc_auc_score(labels, scores))


def test_refused_files_are_counted_and_the_status_says_so(bags, tmp_path, capsys):
    (bags / "broken.png").write_bytes(b"broken")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out.md"
    folders = ["--ood", str(bags), str(tmp_path / "empty")]
    assert main(["compare", *folders, "--format", "markdown", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "bags: files that could not be read: 1" in said and "broken.png" in said
    assert "empty: no images in there, left out" in said
    assert "| bags |" in out.read_text() and "empty" not in out.read_text()


def test_nothing_to_compare_on_leaves_no_file(tmp_path, capsys):
    folder, out = tmp_path / "folder", tmp_path / "out.json"
    folder.mkdir()
    assert main(["compare", "--ood", str(folder), "--out", str(out)]) == 2
    (folder / "broken.png").write_bytes(b"broken")
    assert main(["compare", "--ood", str(folder), "--out", str(out)]) == 2
    assert "There are no images to compare on." in capsys.readouterr().err
    assert not out.exists()


def test_a_full_disk_is_a_sentence(bags, capsys):
    arguments = ["compare", "--ood", str(bags), "--format", "latex", "--out", "/dev/full"]
    assert main(arguments) == 1
    assert "No space left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --ood DIR or --ready"),
        (["--ood"], "expected at least one argument"),
        (["--ood", "/nowhere/at/all"], "No such file"),
        (["--ready", "--workspace", "no-such-workspace"], "not a workspace"),
        (["--ready", "--format", "xml"], "invalid choice"),
    ],
)
def test_wrong_usage_is_status_2_and_a_sentence(arguments, message):
    done = run_app("compare", *arguments, timeout=120)
    assert done.returncode == 2
    assert message in done.stderr.decode() and "Traceback" not in done.stderr.decode()
