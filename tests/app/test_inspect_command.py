import csv
import io
import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.__main__ import main
from app.records import spreadsheet_safe, to_csv
from models.classifier import Classifier, NonFiniteOutput
from tests.conftest import png, run_app

FIELDS = {
    "file", "sha256", "predicted", "confidence", "verdict", "p_value", "detector", "scores",
    "neighbours", "influences", "map", "error",
}  # fmt: skip


@pytest.fixture
def images(tmp_path, test_png):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(test_png("Trouser"))
    (folder / "b.png").write_bytes(test_png("Bag", 3))
    return folder


def inspected(images, tmp_path, format="json", *more) -> bytes:
    out = tmp_path / f"out.{format}"
    assert main(["inspect", str(images), "--format", format, "--out", str(out), *more]) == 0
    return out.read_bytes()


def test_json_lines_hold_everything(images, tmp_path, demo):
    first, second = map(json.loads, inspected(images, tmp_path).splitlines())
    assert first.keys() >= FIELDS and second.keys() >= FIELDS
    assert first["predicted"] == "Trouser" and first["verdict"] == "known"
    assert second["verdict"] in ("unknown", "unsure")
    assert set(first["scores"]) == set(demo.panel.infos) - {"odin"}
    assert first["detector"] == "fisher"
    assert first["p_value"] == first["scores"]["fisher"]["p_value"]
    assert len(first["neighbours"]) == 8
    assert {"id", "label", "distance"} <= first["neighbours"][0].keys()
    assert all(i["influence"] < 0 for i in first["influences"]["helpful"])
    assert all(i["influence"] > 0 for i in first["influences"]["harmful"])
    assert len(first["map"]) == 2 and first["error"] is None


def test_csv_and_parquet_say_the_same(images, tmp_path):
    as_json = [json.loads(line) for line in inspected(images, tmp_path).splitlines()]
    as_csv = list(csv.DictReader(io.StringIO(inspected(images, tmp_path, "csv").decode())))
    as_parquet = pq.read_table(io.BytesIO(inspected(images, tmp_path, "parquet"))).to_pylist()
    assert as_parquet == as_json
    for row, record in zip(as_csv, as_json, strict=True):
        assert float(row["p_value"]) == record["p_value"]
        assert float(row["knn_score"]) == record["scores"]["knn"]["score"]
        assert json.loads(row["neighbours"]) == record["neighbours"]
        assert float(row["map_x"]) == record["map"][0]


def test_alpha_moves_the_verdict(images, tmp_path):
    p_value = json.loads(inspected(images, tmp_path).splitlines()[0])["p_value"]
    for alpha, verdict in ((p_value * 0.99, "known"), (min(p_value * 1.01, 0.9999), "unsure")):
        lines = inspected(images, tmp_path, "json", "--alpha", str(alpha)).splitlines()
        assert json.loads(lines[0])["verdict"] == verdict


def test_refused_files_are_rows_and_the_status_says_so(images, tmp_path):
    (images / "c.png").write_bytes(b"broken")
    out = tmp_path / "out.json"
    assert main(["inspect", str(images), "--out", str(out)]) == 1
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["error"] is None for record in records] == [True, True, False]
    assert records[2]["file"].endswith("c.png") and records[2]["verdict"] is None
    assert main(["inspect", str(images), "--format", "parquet", "--out", str(out)]) == 1
    assert pq.read_table(out).num_rows == 3


def test_the_output_may_lie_among_the_images_and_names_may_be_any(images, demo):
    (images / "a.png").rename(images / os.fsdecode(b"caf\xe9.png"))
    out = images / "out.json"
    assert main(["inspect", str(images), "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 2
    assert not list(images.glob(".*"))


def test_the_command_as_people_type_it(images):
    done = run_app("inspect", str(images / "a.png"), timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predicted"] == "Trouser"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect"], "required"),
        (["inspect", "/nowhere/at/all.png"], "No such file"),
        (["inspect", ".", "--alpha", "2"], "not between 0 and 1"),
        (["inspect", "README.md", "--workspace", "no-such-workspace"], "not a workspace"),
        (["inspect", "README.md", "--format", "xml"], "invalid choice"),
        (["dance"], "invalid choice"),
    ],
)
def test_wrong_usage_is_status_2_and_a_sentence(arguments, message):
    done = run_app(*arguments, timeout=120)
    assert done.returncode == 2
    assert message in done.stderr.decode() and "Traceback" not in done.stderr.decode()


def test_an_empty_folder_is_wrong_usage(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2
    assert "no files" in capsys.readouterr().err


def test_a_full_disk_is_a_sentence(images, capsys):
    assert main(["inspect", str(images), "--format", "csv", "--out", "/dev/full"]) == 1
    assert "No space left" in capsys.readouterr().err


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_text_that_a_spreadsheet_would_run_is_disarmed(start):
    assert spreadsheet_safe(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"
    assert spreadsheet_safe(-0.5) == -0.5
    text = to_csv([{"file": f"{start}1+1.png", "p_value": -1.5}]).decode()
    assert list(csv.reader(io.StringIO(text, newline="")))[1] == [f"'{start}1+1.png", "-1.5"]


def test_two_hundred_copies_are_inspected_in_order(tmp_path, test_png):
    for n in range(300):
        (tmp_path / f"{n:03d}.png").write_bytes(test_png("Coat", n % 40))
    out = tmp_path.parent / "many.json"
    assert main(["inspect", str(tmp_path), "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["file"][-7:] for r in records] == [f"{n:03d}.png" for n in range(300)]
    np.testing.assert_allclose(
        [r["p_value"] for r in records[:40]], [r["p_value"] for r in records[40:80]], atol=5e-3
    )


def test_the_rate_can_hold_by_class_and_for_this_calibration_set(demo, test_png, tmp_path):
    from app.__main__ import main

    for n in range(20):
        (tmp_path / f"{n}.png").write_bytes(test_png("Shirt", n))
    found = {}
    for name, options in {
        "plain": [], "class": ["--by-class"], "sure": ["--conditional", "monte_carlo"],
        "both": ["--by-class", "--conditional", "dkw"],
    }.items():  # fmt: skip
        out = tmp_path / f"{name}.jsonl"
        images = [str(path) for path in sorted(tmp_path.glob("*.png"))]
        assert main(["inspect", *images, "--out", str(out), *options]) == 0
        found[name] = [json.loads(line) for line in out.read_text().splitlines()]
    sizes = {name: {r["calibration_size"] for r in records} for name, records in found.items()}
    assert sizes["plain"] == sizes["sure"] == {len(demo.calibration.images)}
    assert all(size < 1000 for size in sizes["class"]) and sizes["class"] == sizes["both"]
    for plain, sure in zip(found["plain"], found["sure"], strict=True):
        assert sure["p_value"] >= plain["p_value"]
        assert sure["realised"][1] <= 0.05 < plain["realised"][1]


def test_an_image_that_the_classifier_cannot_answer_is_a_row_with_its_reason(
    images, tmp_path, monkeypatch
):
    observe = Classifier.observe

    def nan_for_black_images(self, pixels):
        if (pixels.reshape(len(pixels), -1).max(axis=1) == 0).any():
            raise NonFiniteOutput("The network answered NaN")
        return observe(self, pixels)

    monkeypatch.setattr(Classifier, "observe", nan_for_black_images)
    (images / "a-black.png").write_bytes(png(np.zeros((28, 28))))
    out = tmp_path / "out.json"
    assert main(["inspect", str(images), "--out", str(out)]) == 1
    records = [json.loads(line) for line in out.read_text().splitlines()]
    errors = {record["file"].rsplit("/", 1)[-1]: record["error"] for record in records}
    assert "NaN or infinity" in errors.pop("a-black.png")
    assert len(errors) == 2 and not any(errors.values())
