import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import get_model

import app.influence_fitting
import app.observing
import app.prepare
from app.__main__ import main
from app.manifest import Manifest, WorkspaceError
from app.workspace import Workspace
from explain.kfac import KFACInfluence
from models.architectures import decomposed_resnet
from models.classifier import Classifier
from models.images import pixel_digest
from ood.decision import Rule
from ood.temperature import fit_temperature
from tests.conftest import ROOT, prepare_arguments


@pytest.fixture
def folders(tiny_folders, tmp_path):
    copy = tmp_path / "images"
    shutil.copytree(tiny_folders, copy)
    return copy


def test_a_prepared_workspace_opens_and_inspects(tiny_workspace, fashion_test):
    workspace = Workspace.open(tiny_workspace)
    assert workspace.classes == ("Coat", "Sandal", "Trouser")
    assert len(workspace.bank.images) == 120
    assert len(workspace.calibration.images) == 60 and workspace.manifest.tuning == 30
    inspection = workspace.inspect(fashion_test[0][:5], influences=True)
    assert len(inspection) == 5 and len(inspection.influences) == 5
    assert [path.name for path in workspace.samples] == [
        "01 Coat.webp",
        "02 Sandal.webp",
        "03 Trouser.webp",
    ]
    assert workspace.manifest.skipped == () and workspace.manifest.leaked == 0
    assert not list(tiny_workspace.parent.glob(".*"))


def test_a_part_of_the_demo_prepared_again_is_the_same(demo):
    """The training images are in the workspace, lossless: observe 300 of them again."""
    rows = np.random.default_rng(0).choice(len(demo.bank.images), 300, replace=False)
    images = demo.bank.images.take(rows)
    pixels = []
    for row in range(300):
        with Image.open(io.BytesIO(images.thumbnails[row])) as image:
            assert pixel_digest(image.convert("RGB")) == images.sha256(row)
            pixels.append(demo.manifest.preprocessing.pixels(image.convert("RGB")))
    seen = demo.classifier.observe(np.stack(pixels))
    for found, kept in (
        (seen.features, images.activations.features),
        (seen.logits, images.activations.logits),
    ):
        np.testing.assert_allclose(found, kept, rtol=2e-3, atol=2e-3)  # float16


def test_the_demos_calibration_scores_are_those_of_its_detectors(demo):
    rows = np.arange(0, len(demo.calibration.images), 20)
    activations = demo.bank.locate(demo.calibration.images.activations.take(rows))
    for name, scores in demo.panel.score(activations).items():
        np.testing.assert_allclose(
            scores, demo.calibration_scores[name][rows], rtol=1e-3, atol=1e-4
        )


def test_the_demos_temperature_is_that_of_its_calibration_images(demo):
    images = demo.calibration.images
    again = fit_temperature(images.activations.logits, images.labels)
    assert demo.manifest.temperature == pytest.approx(again, rel=1e-6)


def test_a_refit_detector_is_the_demos(demo):
    kept = demo.panel.detectors["mds++"]
    again = type(kept).fit(demo.bank, None)
    np.testing.assert_allclose(again.means, kept.means, rtol=1e-2, atol=1e-2)


def test_a_killed_prepare_leaves_nothing_that_opens_and_resumes(folders, tiny_weights, tmp_path):
    target, build = tmp_path / "w", tmp_path / ".w.preparing"
    arguments = prepare_arguments(folders, tiny_weights, target)
    command = [sys.executable, "-m", "app", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (build / "bank").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    with pytest.raises(WorkspaceError, match="not a workspace"):
        Workspace.open(build)
    seen = (build / "bank" / "features.npy").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (target / "bank" / "features.npy").stat().st_mtime_ns == seen  # not observed again
    Workspace.open(target)


def test_a_run_that_stops_between_shards_keeps_them(folders, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(app.observing, "SHARD", 50)
    observe, calls = Classifier.observe, []

    def failing(self, pixels):
        calls.append(len(pixels))
        if len(calls) == 4:  # after two images of noise, by which a changed network is noticed
            raise OSError(28, "No space left on device")
        return observe(self, pixels)

    monkeypatch.setattr(Classifier, "observe", failing)
    arguments = prepare_arguments(folders, tiny_weights, tmp_path / "w")
    assert main(arguments) == 1
    assert main(arguments) == 0
    assert calls[:8] == [2, 50, 50, 20, 2, 20, 50, 40]  # then the made-up outliers
    assert len(Workspace.open(tmp_path / "w").bank.images) == 120


def test_other_inputs_start_afresh(folders, tiny_weights, tmp_path, monkeypatch):
    arguments = prepare_arguments(folders, tiny_weights, tmp_path / "w")
    with monkeypatch.context() as patch:
        patch.setattr(app.prepare, "fit_the_map", lambda *_: (_ for _ in ()).throw(OSError(5, "x")))
        assert main(arguments) == 1
    next((folders / "train" / "Coat").iterdir()).unlink()
    assert main(arguments) == 0
    assert len(Workspace.open(tmp_path / "w").bank.images) == 119


def test_unreadable_images_are_listed_skipped_and_counted(folders, tiny_weights, tmp_path, capsys):
    (folders / "train" / "Coat" / "bad.png").write_bytes(b"no image")
    (folders / "calibration" / "Sandal" / "worse.jpg").write_bytes(b"")
    assert main(prepare_arguments(folders, tiny_weights, tmp_path / "w")) == 0
    manifest = Manifest.read(tmp_path / "w")
    assert [(s.folder, s.name) for s in manifest.skipped] == [
        ("train", "Coat/bad.png"), ("calibration", "Sandal/worse.jpg"),
    ]  # fmt: skip
    assert "2 files skipped" in capsys.readouterr().out


def test_training_images_among_the_calibration_images_are_left_out(folders, tiny_weights, tmp_path):
    leak = next((folders / "train" / "Coat").iterdir())
    shutil.copy(leak, folders / "calibration" / "Coat" / "other-name.png")
    assert main(prepare_arguments(folders, tiny_weights, tmp_path / "w")) == 0
    workspace = Workspace.open(tmp_path / "w")
    assert workspace.manifest.leaked == 1
    assert len(workspace.calibration.images) + workspace.manifest.tuning == 90


def refused(arguments, capsys, status=1) -> str:
    assert main(arguments) == status
    return capsys.readouterr().err


def test_no_calibration_images_is_an_error(folders, tiny_weights, tmp_path, capsys):
    arguments = prepare_arguments(folders, tiny_weights, tmp_path / "w")
    shutil.rmtree(folders / "calibration")
    assert "no calibration images" in refused(arguments, capsys)
    shutil.copytree(folders / "train", folders / "calibration")
    assert "every one of them is a training image" in refused(arguments, capsys)
    for path in (folders / "calibration").rglob("*.png"):
        path.write_bytes(b"broken")
    assert "Not one image" in refused(arguments, capsys)
    assert not (tmp_path / "w").exists()


def test_classes_that_do_not_match_are_an_error(folders, tiny_weights, tmp_path, capsys):
    arguments = prepare_arguments(folders, tiny_weights, tmp_path / "w")
    for folder in ("train", "calibration"):
        shutil.copytree(folders / folder / "Coat", folders / folder / "Hat")
    assert "do not match the head's size" in refused(arguments, capsys)
    for folder in ("train", "calibration"):
        shutil.rmtree(folders / folder / "Hat")
    shutil.move(folders / "calibration" / "Coat", tmp_path / "Coat")
    assert "no calibration folder: Coat" in refused(arguments, capsys)
    shutil.move(tmp_path / "Coat", folders / "calibration" / "Coat")
    shutil.copytree(folders / "calibration" / "Coat", folders / "calibration" / "Hat")
    assert "calibration folder has classes that the model does not: Hat" in refused(
        arguments, capsys
    )


def test_a_classes_file_gives_the_heads_order(folders, tiny_weights, tmp_path, capsys):
    names = tmp_path / "classes.txt"
    names.write_text("Trouser\nCoat\nSandal\n")
    arguments = prepare_arguments(folders, tiny_weights, tmp_path / "w")
    assert main([*arguments, "--classes", str(names)]) == 0
    workspace = Workspace.open(tmp_path / "w")
    assert workspace.classes == ("Trouser", "Coat", "Sandal")
    images = workspace.bank.images
    assert all(images.name(r).startswith(workspace.classes[images.labels[r]]) for r in range(120))
    names.write_text("Trouser\nCoat\nSandal\nHat\n")
    arguments[2] = str(tmp_path / "w2")
    assert "1 classes of the model have no training folder: Hat" in refused(
        [*arguments, "--classes", str(names)], capsys
    )


def test_nan_logits_are_an_error(folders, tiny_weights, tmp_path, capsys):
    state = load_file(tiny_weights)
    name = next(key for key in state if key.endswith("bias") and state[key].shape == (3,))
    state[name][0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    arguments = prepare_arguments(folders, tmp_path / "nan.safetensors", tmp_path / "w")
    assert "NaN or infinity" in refused(arguments, capsys)


def test_wrong_usage_is_said(folders, tiny_weights, tmp_path, capsys):
    arguments = prepare_arguments(folders, tiny_weights, tmp_path / "w")
    assert "No detector 'best'" in refused([*arguments, "--detector", "best"], capsys, 2)
    assert "give both one" in refused([*arguments, "--std", "1", "1", "1"], capsys, 2)
    absent = prepare_arguments(folders, tmp_path / "absent.pt", tmp_path / "w")
    assert "does not exist" in refused(absent, capsys, 2)
    (tmp_path / "w").mkdir()
    assert "exists already" in refused(arguments, capsys)


@pytest.fixture
def copy_of_tiny(tiny_workspace, tmp_path):
    shutil.copytree(tiny_workspace, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_changed_file_does_not_open(copy_of_tiny):
    path = copy_of_tiny / "calibration_scores.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WorkspaceError, match="has changed since it was prepared"):
        Workspace.open(copy_of_tiny)


def test_a_missing_file_does_not_open(copy_of_tiny):
    (copy_of_tiny / "map.npy").unlink()
    with pytest.raises(WorkspaceError, match=r"incomplete: map\.npy is missing"):
        Workspace.open(copy_of_tiny)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 99}'])
def test_a_damaged_manifest_does_not_open(copy_of_tiny, text):
    (copy_of_tiny / "manifest.json").write_text(text)
    with pytest.raises(WorkspaceError, match=r"damaged|format"):
        Workspace.open(copy_of_tiny)


def test_a_workspace_from_before_a_detector_existed_opens(copy_of_tiny):
    manifest = json.loads((copy_of_tiny / "manifest.json").read_text())
    del manifest["fit_seconds"]["gen"]
    (copy_of_tiny / "manifest.json").write_text(json.dumps(manifest))
    infos = Workspace.open(copy_of_tiny).panel.infos
    assert "gen" not in infos and "energy" in infos and "fisher" in infos


def test_odd_names_and_sample_files_do_no_harm(folders, tiny_weights, tmp_path):
    odd = os.fsdecode(b"caf\xe9.png")
    shutil.copy(next((folders / "train" / "Coat").iterdir()), folders / "train" / "Coat" / odd)
    samples = tmp_path / "samples"
    samples.mkdir()
    (samples / ".DS_Store").write_bytes(b"x")
    shutil.copy(next((folders / "train" / "Coat").iterdir()), samples / "1 Coat.png")
    arguments = prepare_arguments(folders, tiny_weights, tmp_path / "w")
    assert main([*arguments, "--samples", str(samples)]) == 0
    workspace = Workspace.open(tmp_path / "w")
    names = [workspace.bank.images.name(row) for row in range(len(workspace.bank.images))]
    assert any("caf" in name for name in names)
    assert [path.name for path in workspace.samples] == ["1 Coat.webp"]


def test_odin_is_fitted_when_asked_for_and_decides_when_told_to(
    folders, tiny_weights, tmp_path, fashion_test
):
    pixels = fashion_test[0][:5]
    arguments = prepare_arguments(folders, tiny_weights, tmp_path / "w")
    assert main([*arguments, "--odin"]) == 0
    workspace = Workspace.open(tmp_path / "w")
    odin = workspace.panel.odin
    assert odin is not None and workspace.manifest.detector != "odin"
    assert "odin" in workspace.panel.infos and "odin" in workspace.manifest.chosen_by
    assert "odin" not in workspace.inspect(pixels).scores  # five passes are not asked for unasked
    inspection = workspace.inspect(pixels, gradients=True)
    expected = odin.score(workspace.classifier, pixels)
    np.testing.assert_array_equal(inspection.scores["odin"], expected)
    # The scores it is calibrated with are those of the calibration images, in their order.
    images = workspace.calibration.images
    files = [folders / "calibration" / images.name(row) for row in range(len(images))]
    held_out = np.stack([np.array(Image.open(file))[None] for file in files])
    np.testing.assert_allclose(
        odin.score(workspace.classifier, held_out), workspace.calibration_scores["odin"], rtol=1e-4
    )
    assert set(workspace.outliers["digits"]) == set(workspace.calibration_scores)
    assert set(workspace.training_scores) == set(workspace.calibration_scores)

    arguments[2] = str(tmp_path / "w2")
    assert main([*arguments, "--detector", "odin"]) == 0
    workspace = Workspace.open(tmp_path / "w2")
    (first, *_) = workspace.decide(workspace.inspect(pixels), Rule(0.05))
    assert first.detector == "odin"


def test_the_head_says_which_detectors_it_allows(
    folders, tiny_weights, tmp_path, capsys, fashion_test
):
    arguments = prepare_arguments(folders, tiny_weights, tmp_path / "w")
    said = refused([*arguments, "--detector", "godin"], capsys)
    assert "does not allow the detector 'godin'; choose of fisher, " in said
    assert said.count("\n") == 1 and not list(tmp_path.glob(".w*"))  # before any work
    torch.manual_seed(0)
    save_file(decomposed_resnet(3, channels=1).state_dict(), tmp_path / "divided.safetensors")
    arguments = prepare_arguments(folders, tmp_path / "divided.safetensors", tmp_path / "w")
    arguments[arguments.index("--model") + 1] = "models.architectures:decomposed_resnet"
    assert "does not allow the detector 'vim'" in refused([*arguments, "--detector", "vim"], capsys)
    assert main([*arguments, "--detector", "godin"]) == 0
    workspace = Workspace.open(tmp_path / "w")
    (first, *_) = workspace.decide(workspace.inspect(fashion_test[0][:2]), Rule(0.05))
    assert first.detector == "godin" and "vim" not in workspace.panel.infos


def test_a_large_head_has_influences_and_no_refits(
    folders, tiny_weights, tmp_path, monkeypatch, test_png
):
    monkeypatch.setattr(app.influence_fitting, "LARGEST_HEAD", 100)
    assert main(prepare_arguments(folders, tiny_weights, tmp_path / "w")) == 0
    workspace = Workspace.open(tmp_path / "w")
    assert isinstance(workspace.influence, KFACInfluence) and workspace.refits is None
    (tmp_path / "a.png").write_bytes(test_png("Coat"))
    out = tmp_path / "out.json"
    assert (
        main(
            [
                "inspect",
                str(tmp_path / "a.png"),
                "--workspace",
                str(tmp_path / "w"),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert json.loads(out.read_text())["influences"]["helpful"]


def test_a_torchvision_network_on_photographs(tmp_path, capsys):
    """The main job for anyone's model: colour, a state dict as torch.save writes it."""
    rng = np.random.default_rng(0)
    for folder, count in (("train", 12), ("calibration", 8)):
        for name in ("red", "blue"):
            (tmp_path / folder / name).mkdir(parents=True)
            for n in range(count):
                pixels = rng.integers(0, 90, (40, 60, 3), np.uint8)
                pixels[..., 0 if name == "red" else 2] += 150
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{n}.jpg")
    torch.manual_seed(0)
    torch.save(get_model("resnet18", num_classes=2).state_dict(), tmp_path / "w.pt")
    arguments = [
        "--train", tmp_path / "train", "--calibration", tmp_path / "calibration",
        "--model", "resnet18", "--weights", tmp_path / "w.pt", "--image-size", 64,
    ]  # fmt: skip
    assert main(["prepare", "--name", str(tmp_path / "w"), *map(str, arguments)]) == 0
    workspace = Workspace.open(tmp_path / "w")
    assert workspace.bank.images.activations.features.shape == (24, 512)
    found = workspace.inspect(rng.integers(0, 255, (3, 3, 64, 64), np.uint8), influences=True)
    assert all(np.isfinite(scores).all() for scores in found.scores.values())


def test_samples_that_are_no_folder_are_said_at_once(folders, tiny_weights, tmp_path, capsys):
    arguments = prepare_arguments(folders, tiny_weights, tmp_path / "w")
    assert "no samples" in refused([*arguments, "--samples", str(tmp_path / "none")], capsys)


def test_a_network_whose_code_has_changed_starts_afresh(
    folders, tiny_weights, tmp_path, monkeypatch
):
    arguments = prepare_arguments(folders, tiny_weights, tmp_path / "w")
    with monkeypatch.context() as patch:
        patch.setattr(app.prepare, "fit_the_map", lambda *_: (_ for _ in ()).throw(OSError(5, "x")))
        assert main(arguments) == 1
    features = tmp_path / ".w.preparing" / "bank" / "features.npy"
    before = features.stat().st_mtime_ns
    observe = Classifier.observe

    def changed(self, pixels):
        seen = observe(self, pixels)
        return replace(seen, logits=seen.logits + 1)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "observe", changed)
        patch.setattr(app.prepare, "fit_the_map", lambda *_: (_ for _ in ()).throw(OSError(5, "x")))
        assert main(arguments) == 1
    assert features.stat().st_mtime_ns != before
