"""Whole-network influence and large last layers: the command, the page, the trust panel."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr

import app.influence_fitting
from app import network_fitting
from app.__main__ import main
from app.fitting import Materials
from app.influence_fitting import fit_influence
from app.influences import INFLUENCE_FILE
from app.manifest import WorkspaceError, all_digests
from app.network_fitting import TrainingPixels
from app.networks import Agreement, NetworkAnswer, ask_networks
from app.web.network_list import network_sentence
from app.web.trust import agreement_words, check_sentences
from app.workspace import Workspace
from explain import network_fit, projection
from explain.kfac import KFACInfluence
from models.architectures import small_resnet
from models.bank import TuningSet
from models.imagesets import ImageFolder
from tests.app.screens import sample, texts, upload


@pytest.fixture(scope="module", autouse=True)
def small_fits(tiny_workspace):
    """Few numbers an image, from few images, so that fitting takes little time; two shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_fit, "BASIS_IMAGES", 8)
        patch.setattr(network_fit, "CURVATURE_IMAGES", 64)
        patch.setattr(projection, "LARGEST_SIZE", 150)
        patch.setattr(network_fit, "SHARD", 64)
        patch.setattr(network_fitting, "ASKED", 6)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # two of them wait for each other where cores are busy
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint(tiny_weights, tmp_path_factory):
    """A network near the workspace's own, as a later epoch would be."""
    torch.manual_seed(1)
    state, other = load_file(tiny_weights), small_resnet(num_classes=3).state_dict()
    state = {k: t if "num" in k else t + 0.1 * other[k] for k, t in state.items()}
    path = tmp_path_factory.mktemp("checkpoints") / "later.safetensors"
    save_file(state, path)
    return path


def network(workspace, train, *more):
    arguments = ["network", "--workspace", str(workspace), "--train", str(train)]
    return main([*arguments, *map(str, more)])


@pytest.fixture(scope="module")
def with_networks(tiny_workspace, tiny_folders, checkpoint, tmp_path_factory):
    """The tiny workspace with its own network and another; to be looked at only."""
    target = tmp_path_factory.mktemp("networks") / "tiny"
    shutil.copytree(tiny_workspace, target)
    assert network(target, tiny_folders / "train") == 0
    assert Agreement.read(target).between is None and len(Workspace.open(target).networks) == 1
    # Another can come later, and none is fitted twice.
    assert network(target, tiny_folders / "train", "--checkpoint", checkpoint, checkpoint) == 0
    return target


@pytest.fixture
def copy(tiny_workspace, tmp_path):
    shutil.copytree(tiny_workspace, tmp_path / "w")
    return tmp_path / "w"


def ask(workspace, pixels, networks=None):
    seen = workspace.classifier.observe(pixels[None])
    against, target = (int(c) for c in np.argsort(seen.logits[0])[-2:])
    found = ask_networks(
        networks or workspace.networks, workspace.influence, seen.features[0], pixels, target,
        against, 6,
    )  # fmt: skip
    return found, (seen.features[0], target, against)


def test_every_network_is_fitted_at_its_own_weights(with_networks, checkpoint, fashion_test):
    workspace = Workspace.open(with_networks)
    own, other = workspace.networks
    assert len(own.lengths) == len(other.lengths) == 120
    assert own.network.classifier is workspace.classifier
    for name, tensor in other.network.classifier.network.state_dict().items():
        torch.testing.assert_close(tensor.cpu(), load_file(checkpoint)[name])
    assert not np.allclose(own.network.head.theta, other.network.head.theta)
    for found in (own, other):
        assert found.network.head.l2 == 3e-2
    for folder in (with_networks / "network").glob("[0-9]*"):
        assert load_file(folder / "head.safetensors")["gradient_norm"] < 1e-8


def test_the_answer_is_the_mean_and_says_how_far_they_agree(with_networks, fashion_test):
    workspace, pixels = Workspace.open(with_networks), fashion_test[0][7]
    answer, (features, target, against) = ask(workspace, pixels)
    each = [n.on_margin(pixels, target, against) for n in workspace.networks]
    np.testing.assert_allclose(answer.influence, np.mean(each, axis=0), rtol=1e-6)
    assert answer.between == pytest.approx(spearmanr(*each).statistic)
    of_head = workspace.influence.on_margin(features, target, against)
    assert answer.with_head == pytest.approx(spearmanr(answer.influence, of_head).statistic)
    own = np.mean([n.lengths**2 for n in workspace.networks], axis=0)
    order = np.argsort(answer.influence / np.sqrt(own), kind="stable")[:6]
    assert answer.helpful.tolist() == order.tolist() and (answer.influence[order] < 0).all()
    taught = workspace.influence.explain(features, target, against, 6).helpful
    assert answer.shared == len(set(order.tolist()) & set(taught.tolist()))
    alone, _ = ask(workspace, pixels, workspace.networks[:1])
    assert alone.between is None
    np.testing.assert_array_equal(alone.influence, each[0])


def test_agreement_is_measured_and_kept(with_networks):
    found = Agreement.read(with_networks)
    assert found.networks == 2 and found.images == 6
    assert -1 <= found.between <= 1 and -1 <= found.with_head <= 1
    names = sorted(path.name for path in (with_networks / "network").iterdir())
    assert names == ["0", "1", "agreement.json"]
    assert Agreement.read(with_networks / "nowhere") is None


def test_a_workspace_without_has_none(tiny_workspace):
    assert Workspace.open(tiny_workspace).networks == []


def test_a_run_that_is_cut_off_goes_on_to_the_same_bytes(
    copy, with_networks, tiny_folders, monkeypatch, capsys
):
    read, calls = TrainingPixels.read, []

    def failing(self, rows):
        calls.append(rows)
        if len(calls) == 4:  # after bases, curvature and the first shard of gradients
            raise OSError(28, "No space left on device")
        return read(self, rows)

    monkeypatch.setattr(TrainingPixels, "read", failing)
    assert network(copy, tiny_folders / "train") == 1
    assert "run it again to go on" in capsys.readouterr().err
    assert Workspace.open(copy).networks == []  # half a fit is none
    calls.clear()
    calls += [None] * 4
    assert network(copy, tiny_folders / "train") == 0
    assert len(calls) == 5  # one shard was left
    for name in ("directions.npy", "lengths.npy", "whitening.safetensors"):
        again, before = (w / "network" / "0" / name for w in (copy, with_networks))
        assert again.read_bytes() == before.read_bytes()
    network(copy, tiny_folders / "train")
    assert len(calls) == 5  # nothing is left to do
    assert "0 networks to fit, at most 0.00 GB" in capsys.readouterr().out


def test_other_images_are_refused(copy, tiny_folders, tmp_path, capsys):
    assert network(copy, tiny_folders / "calibration") == 1
    assert "lacks 120 of 120 training images (first: Coat/" in capsys.readouterr().err
    assert network(copy, tmp_path / "nothing") == 1
    assert "no training images" in capsys.readouterr().err
    assert network(tmp_path / "nothing", tiny_folders / "train") == 2
    assert not (copy / "network").exists()
    shutil.copytree(tiny_folders / "train", tmp_path / "train")
    path = next((tmp_path / "train" / "Coat").iterdir())
    with Image.open(path) as picture:
        picture.rotate(90).save(path)
    assert network(copy, tmp_path / "train") == 1
    assert f"{path} is not the image" in capsys.readouterr().err
    path.write_bytes(b"broken")
    assert network(copy, tmp_path / "train") == 1
    assert "could be read before, and now cannot" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_refused_before_any_work(copy, tiny_folders, tmp_path, capsys):
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    assert (
        network(copy, tiny_folders / "train", "--checkpoint", tmp_path / "other.safetensors") == 1
    )
    assert "is not a state dict of" in capsys.readouterr().err and not (copy / "network").exists()


def test_a_full_disk_is_said_before_any_work(copy, tiny_folders, monkeypatch, capsys):
    free = shutil._ntuple_diskusage(10**9, 10**9 - 10_000, 10_000)
    monkeypatch.setattr(network_fitting.shutil, "disk_usage", lambda path: free)
    assert network(copy, tiny_folders / "train") == 1
    assert "only 0.00 GB free" in capsys.readouterr().err and not (copy / "network").exists()


def test_a_folder_that_may_not_be_written_to_is_said(copy, tiny_folders, capsys):
    (copy / "network").write_text("in the way")
    assert network(copy, tiny_folders / "train") == 1
    assert str(copy / "network") in capsys.readouterr().err


def test_a_changed_network_is_not_used_and_the_rest_still_opens(
    with_networks, tmp_path, page, monkeypatch, test_png
):
    shutil.copytree(with_networks, tmp_path / "w")
    path = tmp_path / "w" / "network" / "1" / "lengths.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WorkspaceError, match=r"lengths\.npy has changed"):
        _ = Workspace.open(tmp_path / "w").networks
    monkeypatch.setenv("KINDRED_WORKSPACE", str(tmp_path / "w"))
    upload(page, [("a.png", test_png("Coat"))])
    toggle(page, "Ask the whole network").set_value(True).run()
    found = texts(page)
    assert "delete that folder" in found and "These taught it to say so" in found
    (tmp_path / "w" / "network" / "agreement.json").write_text("{")
    with pytest.raises(WorkspaceError, match="is damaged"):
        Agreement.read(tmp_path / "w")


def toggle(page, label):
    return next(toggle for toggle in page.toggle if toggle.label == label)


def test_the_page_asks_the_whole_network_when_told_to(with_networks, page, monkeypatch, test_png):
    monkeypatch.setenv("KINDRED_WORKSPACE", str(with_networks))
    found = texts(upload(page, [("a.png", test_png("Coat"))]))
    assert "These taught the whole network" not in found
    page = toggle(page, "Ask the whole network").set_value(True).run()
    found = texts(page)
    assert not page.exception and "These taught the whole network" in found
    assert "2 trainings of it, on average" in found and "taught the last layer most, too" in found
    assert "between two trainings" not in found  # numbers only when asked for
    found = texts(toggle(page, "Show the numbers").set_value(True).run())
    assert "between two trainings" in found
    assert "Two of the networks" in found  # the trust panel


def test_without_networks_there_is_nothing_to_ask(page):
    found = texts(sample(page, "Shirt"))
    assert all(toggle.label != "Ask the whole network" for toggle in page.toggle)
    assert "All layers beside the last" not in found


def test_the_trust_panel_says_what_was_checked(page, demo):
    found = texts(sample(page, "Shirt"))
    assert "Prediction and truth nearly agree, in order and in size" in found
    assert f"correlate {demo.manifest.refit['newton_pearson']:.3f} (their ranks" in found
    assert (
        f"Its penalty, {demo.manifest.refit['l2']:g}" in found
        and "Only the last layer is asked" in found
    )


@pytest.mark.parametrize(
    ("pearson", "slope", "said"),
    [(0.99, 1.05, "nearly agree"), (0.99, 1.3, "size of an effect is rough"),
     (0.9, 1.0, "size of an effect is rough"), (0.5, 1.0, "Do not rely"),
     (float("nan"), 1.0, "Do not rely")],
)  # fmt: skip
def test_the_check_is_put_in_words(pearson, slope, said):
    refit = {
        "agreement": 0.99, "l2": 0.03, "pearson": 0.97, "spearman": 0.96, "slope": 1.2,
        "newton_pearson": pearson, "newton_spearman": pearson, "newton_slope": slope,
    }  # fmt: skip
    first, second = check_sentences(refit)
    assert said in first and "correlates 0.970" in first
    assert "99.0% of the training images" in second and "is the largest with which" in second
    assert "With none do they agree for 99%" in check_sentences(refit | {"agreement": 0.98})[1]


def test_agreement_is_put_in_words():
    assert [agreement_words(r) for r in (0.9, 0.5, 0.1, float("nan"))] == [
        "agree well", "agree in part", "hardly agree", "hardly agree",
    ]  # fmt: skip

    def sentence(helpful, shared):
        answer = NetworkAnswer(np.zeros(9), np.arange(helpful), None, 0.8, shared)
        return network_sentence(answer)

    assert sentence(6, 2).startswith("Of these 6, 2 taught the last layer most, too")
    assert "none taught" in sentence(6, 0) and "all taught" in sentence(6, 6)
    assert sentence(0, 0) == "No training image is found that did."


@pytest.fixture
def large(tiny_workspace, tiny_folders, tmp_path, monkeypatch):
    """The tiny workspace, its influences fitted again as if its last layer were large."""
    monkeypatch.setattr(app.influence_fitting, "LARGEST_HEAD", 100)
    build = tmp_path / "large"
    shutil.copytree(tiny_workspace, build)
    (build / INFLUENCE_FILE).unlink()
    whole = Workspace.open(tiny_workspace)
    train = ImageFolder.open(tiny_folders / "train")
    held_out = whole.calibration.images
    on = Materials(
        build, whole.classifier, whole.bank, TuningSet(held_out, whole.bank), whole.calibration,
        train, train,
    )  # fmt: skip
    assert fit_influence(on) is None
    (build / "refit.json").unlink()
    replace(whole.manifest, refit=None, digests=all_digests(build)).write(build)
    return build


def test_a_large_last_layer_has_its_lists_and_nothing_that_needs_refits(
    large, tiny_folders, page, monkeypatch, test_png, capsys
):
    workspace = Workspace.open(large)
    assert isinstance(workspace.influence, KFACInfluence) and workspace.refits is None
    assert "factors.safetensors" in workspace.manifest.digests
    monkeypatch.setenv("KINDRED_WORKSPACE", str(large))
    found = texts(upload(page, [("a.png", test_png("Coat"))]))
    assert "These taught it to say so" in found and "too large to be refitted" in found
    assert "None." not in found and "What if it had not learned from them?" not in found
    assert "Not checked." in found and "is an estimate, the sizes" in found
    page = page.switch_page("web/training_page.py").run()
    for view in ("Groups that hurt", "Hurting the classifier"):
        page.session_state["view"] = view
        page.run()
        assert not page.exception and "too large to be refitted" in texts(page)
    assert network(large, tiny_folders / "train") == 1
    assert "too large" in capsys.readouterr().err
