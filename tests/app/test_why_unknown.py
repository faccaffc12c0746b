"""Why an image is unknown, as the Inspect page tells it."""

import numpy as np
import pytest

from app.web.why_parts import channel_sentence, layer_name, layers_sentence, most_of
from app.web.why_patches import place_sentence, stands_out
from app.web.why_unknown import agreement_sentence
from ood.combination import COMBINATIONS
from ood.decision import Rule
from ood.detectors import DETECTORS, SPECIAL
from ood.gradient import ODIN
from ood.patches import PatchMap
from ood.quantiles import QuantileTable
from ood.reasons import ChannelReason
from tests.app.screens import sample, texts

INFOS = {name: DETECTORS[name].info for name in ("layers", "knn", "msp", "energy", "vim")}
RULE = Rule(0.05)


def patch_map(p_values) -> PatchMap:
    p_values = np.asarray(p_values, float)
    return PatchMap(p_values, np.zeros(p_values.shape, int))


def test_a_flagged_image_gets_every_part_with_its_meaning(page):
    found = texts(sample(page, "Bag"))
    assert "Why it is unknown" in found and "detectors flag it" in found
    assert "##### Where" in found and "The most similar** of 16,000" in found
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
    assert agreement_sentence(INFOS, {name: name in flagged for name in INFOS}, RULE) == sentence


def test_every_detector_is_counted_for_what_it_does():
    kinds = [*COMBINATIONS.values(), *DETECTORS.values(), *SPECIAL.values(), ODIN]
    infos = {kind.info.name: kind.info for kind in kinds}
    by_kind = {
        info.kind: {n for n, i in infos.items() if i.kind == info.kind} for info in infos.values()
    }
    assert by_kind["shaped"] == {"react", "ash", "scale", "dice"}
    assert by_kind["layers"] == {"layers", "maxima", "masf"}
    assert by_kind["distance"] == {"mds", "mds++", "rmds", "rmds++", "knn", "residual", "corp"}
    opinions = {name: name in by_kind["shaped"] for name in infos}
    sentence = agreement_sentence(infos, opinions, RULE)
    assert "all 4 that reshape its features and look at the answer then" in sentence
    assert "none of 7 that measure how far it is from training images" in sentence


@pytest.mark.parametrize(
    ("rule", "sense"),
    [
        (RULE, ""),
        (Rule(0.05, by_class=True), " (over all classes)"),
        (Rule(0.05, method="dkw"), " (on average over calibration sets)"),
        (Rule(0.05, True, "dkw"), " (over all classes, on average over calibration sets)"),
    ],
)
def test_agreement_says_when_the_decision_is_in_another_sense(rule, sense):
    sentence = agreement_sentence(INFOS, dict.fromkeys(INFOS, True), rule)
    assert sentence == f"**5 of 5 detectors flag it**{sense}: they agree."


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


def test_not_one_place_means_not_one():
    """Beyond the second largest distance there is still the largest."""
    seen = np.arange(1_000.0)[:, None]
    upper = QuantileTable.fit(seen).upper(np.array([[998.5], [999.0], [1_020.0]]))
    between, at, beyond = (
        place_sentence(patch_map(np.append(np.ones(9), p).reshape(2, 5)), 1_000)
        for p in upper[:, 0]
    )
    assert "only 1 in 1,000 places" in between and "only 1 in 1,000 places" in at
    assert "not one of 1,000 places" in beyond


def test_stronger_than_to_any_means_any():
    table = QuantileTable.fit(np.arange(1_000.0)[:, None])
    p_values = table.two_sided(np.array([[998.5], [999.0], [1_020.0]]))[:, 0]
    between, at, beyond = (
        channel_sentence(
            ChannelReason(0, 3, "mean", p, True, np.zeros(4, int)), "edges", "images", 1_000
        )
        for p in p_values.tolist()
    )
    assert "than usual" in between and "than usual" in at and "than to any of 1,000" in beyond


@pytest.mark.parametrize(
    ("shares", "most"),
    [
        ((0.13, 0.28, 0.13, 0.12, 0.12, 0.12, 0.10), [1, 0, 2]),  # 28%, and no half before 54%
        ((0.1, 0.6, 0.3), [1]),
        ((0.5, 0.5), [0, 1]),  # a half is not most
        ((-0.4, 0.7, 0.7), [1]),
    ],
)
def test_most_is_more_than_a_half(shares, most):
    assert most_of(np.array(shares)).tolist() == most


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
