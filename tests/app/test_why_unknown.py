"""Why an image is unknown, as the Inspect page tells it."""

import numpy as np
import pytest

from app.web.why_parts import channel_sentence, layer_name, layers_sentence
from app.web.why_patches import place_sentence, stands_out
from app.web.why_unknown import agreement_sentence
from ood.detectors import DETECTORS
from ood.patches import PatchMap
from ood.reasons import ChannelReason
from tests.app.test_screens import page, sample, texts

__all__ = ["page"]  # a fixture

INFOS = {name: DETECTORS[name].info for name in ("layers", "knn", "msp", "energy", "vim")}


def patch_map(p_values) -> PatchMap:
    p_values = np.asarray(p_values, float)
    return PatchMap(p_values, np.zeros(p_values.shape, int))


def test_a_flagged_image_gets_every_part_with_its_meaning(page):
    found = texts(sample(page, "Bag"))
    assert "Why it is unknown" in found and "detectors flag it" in found
    assert "##### Where" in found and "The most similar place" in found
    labels = [tab.label for tab in page.tabs]
    assert labels == [
        "Nearest images", "Distance to classes", "Features and evidence", "Layers and channels",
    ]  # fmt: skip
    assert "training images most like it are" in found and "1st: " in found and "50th: " in found
    assert "from every class" in found and "Way 3" in found
    assert "features that training images leave still" in found
    assert "Each layer is compared with what training images of" in found
    assert "A channel for" in found


def test_a_known_image_gets_none_of_it(page):
    found = texts(sample(page, "Trouser"))
    assert "Why it" not in found and "detectors flag it" not in found and not page.tabs


def test_numbers_are_there_only_when_asked_for(page):
    signs = ("Numbers: squared distance", "p-value of the boxed place", "Numbers: residual",
             "to the 50th nearest", "standard deviations from the class", "); p-value")  # fmt: skip
    found = texts(sample(page, "Bag"))
    shown = [sign for sign in signs if sign.lower() in found.lower()]
    assert not shown
    page.toggle(key="numbers").set_value(True).run()
    found = texts(page)
    assert [sign for sign in signs if sign.lower() not in found.lower()] == []
    assert not page.exception


@pytest.mark.parametrize(
    ("flagged", "sentence"),
    [
        (("layers", "knn", "msp", "energy", "vim"), "**5 of 5 detectors flag it**: they agree."),
        (
            ("layers", "knn", "msp"),
            "**3 of 5 detectors flag it**: all 1 that look into its layers, all 1 that measure how "
            "far it is from training images, 1 of 2 that look only at how sure its answer is, none "
            "of 1 that weigh its features together with its answer.",
        ),
    ],
)
def test_agreement_says_who_disagrees(flagged, sentence):
    assert agreement_sentence(INFOS, {name: name in flagged for name in INFOS}) == sentence


def test_a_place_stands_out_only_beyond_the_oddest_of_so_many():
    usual = np.linspace(0.01, 1, 100).reshape(10, 10)  # what normal images have too
    assert not stands_out(patch_map(usual))
    assert "it is the whole" in place_sentence(patch_map(usual), 10_000)
    usual[3, 3] = 2e-4
    assert stands_out(patch_map(usual))
    assert "only 2 in 10,000 places" in place_sentence(patch_map(usual), 50_000)
    assert "not one of 999 places" in place_sentence(patch_map(usual), 999)
    assert "100% of all its places" in place_sentence(patch_map(np.full((5, 5), 1e-6)), 999)
    assert "but 100% of the places" in place_sentence(patch_map(np.full((5, 5), 0.01)), 999)


def test_layers_are_named_by_depth():
    assert [layer_name(n, 5) for n in range(5)] == [
        "edges", "textures", "parts", "shapes", "whole objects",
    ]  # fmt: skip
    assert [layer_name(n, 2) for n in range(2)] == ["edges", "whole objects"]
    assert layer_name(0, 1) == "whole objects"


def test_layers_are_odd_or_as_usual():
    names = ["edges", "textures", "whole objects"]
    assert layers_sentence(np.array([0.5, 0.5, 0.5]), names).startswith("No layer")
    assert layers_sentence(np.array([0.01, 0.01, 0.01]), names).startswith("Every layer")
    assert layers_sentence(np.array([0.5, 0.01, 0.02]), names) == (
        "Odd: textures and whole objects. As usual: edges."
    )


def test_channels_say_no_more_than_their_training_images_do():
    rare = ChannelReason(0, 3, "mean", 1e-9, True, np.zeros(4, int))
    some = ChannelReason(0, 3, "mean", 0.02, False, np.zeros(4, int))
    compared = "training images of Coat"
    assert channel_sentence(rare, "edges", compared, 5_000) == (
        "A channel for edges answers more strongly than to any of 5,000 training images of Coat."
    )
    assert "more weakly than usual; so far from usual: 2 in 100 training images of Coat" in (
        channel_sentence(some, "edges", compared, 5_000)
    )
