import pickle
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from models.architectures import small_resnet
from models.loading import (
    WeightsRefused,
    download_weights,
    load_network,
    published_preprocessing,
    read_state_dict,
    torchvision_weights,
)


@pytest.fixture
def state():
    torch.manual_seed(1)
    return small_resnet(num_classes=3).state_dict()


def loaded(state, classes=3):
    return load_network("models.architectures:small_resnet", state, classes, "weights")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    ],
)
def test_state_dicts_are_read_as_people_save_them(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pt")
    network = loaded(read_state_dict(tmp_path / "w.pt"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), state.values(), strict=True)
    )


def test_safetensors_are_read(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    assert read_state_dict(tmp_path / "w.safetensors").keys() == state.keys()


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_code_in_weights_is_never_run(tmp_path):
    torch.save({"x": Bomb()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsRefused, match="more than tensors"):
        read_state_dict(tmp_path / "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsRefused):
        read_state_dict(tmp_path / "evil.pkl")


@pytest.mark.parametrize("name", ["garbage.pt", "garbage.safetensors"])
def test_garbage_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(WeightsRefused):
        read_state_dict(tmp_path / name)
    with pytest.raises(WeightsRefused, match="does not exist"):
        read_state_dict(tmp_path / "absent.pt")


def test_what_does_not_fit_is_said(state):
    with pytest.raises(WeightsRefused, match=r"do not match the head's size"):
        loaded(state, classes=5)
    with pytest.raises(WeightsRefused, match=r"1 tensors are missing \(0.weight\)"):
        loaded({k: v for k, v in state.items() if k != "0.weight"})
    with pytest.raises(WeightsRefused, match=r"1 are unknown to it \(extra\)"):
        loaded(state | {"extra": torch.zeros(1)})


def test_published_weights_come_with_their_preprocessing():
    entry = torchvision_weights("resnet50", "IMAGENET1K_V2")
    preprocessing = published_preprocessing(entry)
    assert (preprocessing.image_size, preprocessing.resize) == (224, 232)
    with pytest.raises(WeightsRefused, match="IMAGENET1K_V1"):
        torchvision_weights("resnet50", "BEST")


def test_a_machine_without_access_is_told_what_to_fetch(monkeypatch):
    entry = torchvision_weights("resnet18", "DEFAULT")

    def refuse(self, *args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(type(entry), "get_state_dict", refuse)
    with pytest.raises(WeightsRefused, match=r"could not be downloaded from https://.*--weights"):
        download_weights(entry)
