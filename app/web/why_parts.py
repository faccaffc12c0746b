"""What each kind of detector sees in a flagged image."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import streamlit as st

from app.web.charts import score_histogram
from app.web.pictures import gallery
from app.web.wording import out_of, plain
from app.workspace import Workspace
from ood.decision import Decision
from ood.directions import ClassDistance, Direction
from ood.quantiles import BEYOND
from ood.reasons import (
    ChannelReason,
    EvidenceParts,
    EvidenceReason,
    LayerReason,
    NeighbourReason,
)

_SMALL = 64
_DEPTHS = ("edges", "textures", "parts", "shapes", "whole objects")
_ODD = 0.05
_EVIDENCE = {
    (True, True): "It moves features that training images leave still, and little speaks for any "
    "class.",
    (True, False): "It moves features that training images leave still, though enough speaks for "
    "a class.",
    (False, True): "Little speaks for any class, though it moves nothing that training images "
    "leave still.",
    (False, False): "Nothing odd here: it moves what training images move, and enough speaks for "
    "a class.",
}


def show_nearest(
    workspace: Workspace, reason: NeighbourReason, level: float, *, numbers: bool
) -> None:
    """The neighbours that set the kNN distance."""
    last = _ordinal(int(reason.ranks[-1]))
    normal = _normal_images(reason.as_far, len(workspace.calibration))
    meaning = (
        "Even the training images most like it are far away."
        if reason.as_far <= level
        else "The training images most like it are no further away than usual."
    )
    st.markdown(f"**{meaning}** {normal} as far from theirs.")
    st.caption(f"What counts is the {last} nearest, so that a few chance look-alikes do not.")
    captions = []
    for label, rank, distance in zip(
        _labels(workspace, reason.rows), reason.ranks, reason.distances, strict=True
    ):
        captions.append(f"{_ordinal(int(rank))}: {label}")
        if numbers:
            captions[-1] += f"  \n{distance:.3f}"
    captions[-1] = f"**{captions[-1]}**" if not numbers else captions[-1]
    gallery(workspace, reason.rows, captions)
    if numbers:
        st.caption(
            f"Numbers: distance between features of length one. To the {last} nearest it is "
            f"{reason.distances[-1]:.3f} here and {reason.usual:.3f} for the median normal image."
        )


def show_distance(
    workspace: Workspace,
    distance: ClassDistance,
    directions: Sequence[Direction],
    *,
    far: bool,
    numbers: bool,
) -> None:
    """The class that dominates Mahalanobis++, and the directions that do."""
    nearest = plain(workspace.classes[distance.nearest])
    times = float(np.sqrt(distance.distance / max(distance.usual, 1e-30)))
    meaning = "far from every class" if far else "not unusually far from every class"
    st.markdown(
        f"**It is {meaning}.** {nearest} is the nearest, and it is {times:,.1f} times as far from "
        "it as the median normal image is from its nearest class."
    )
    runner_up = ""
    if distance.runner_up is not None:
        runner_up = plain(workspace.classes[distance.runner_up])
    if numbers:
        to_next = f", to {runner_up} {distance.runner_up_distance:,.1f}" if runner_up else ""
        st.caption(
            f"Numbers: squared distance, in standard deviations, to {nearest} "
            f"{distance.distance:,.1f}{to_next}; of the median normal image to its nearest class "
            f"{distance.usual:,.1f}."
        )
    next_nearest = f"Next nearest is {runner_up}. " if runner_up else ""
    if directions:
        st.caption(
            f"{next_nearest}This image differs most from {nearest} in the ways below. They have no "
            "names: see what the training images at either end have in common."
        )
    for number, direction in enumerate(directions, start=1):
        _show_direction(workspace, number, nearest, direction, numbers=numbers)


def _show_direction(
    workspace: Workspace, number: int, nearest: str, direction: Direction, *, numbers: bool
) -> None:
    if direction.beyond == 0:
        place = f"further along than any of {direction.compared:,} training images of {nearest}"
    else:
        place = f"as far along: {out_of(direction.beyond)} training images of {nearest}"
    parts = [f"**Way {number}**: {place}"]
    if numbers:
        parts.append(
            f"{direction.share:.1%} of the squared distance; {direction.deviations:,.1f} standard "
            "deviations from the class"
        )
    st.markdown("  \n".join(parts))
    for column, rows, title in zip(
        st.columns(2, gap="large"),
        (direction.along, direction.opposite),
        ("Training images furthest its way", "Training images furthest the other way"),
        strict=True,
    ):
        with column:
            st.caption(title)
            gallery(workspace, rows, _labels(workspace, rows), _SMALL)


def show_evidence(
    workspace: Workspace,
    reason: EvidenceReason,
    normal: EvidenceParts,
    decision: Decision,
    *,
    numbers: bool,
) -> None:
    """ViM's two parts, each among those of normal images."""
    size = len(workspace.calibration)
    moved, weak = reason.as_moved <= decision.level, reason.as_weak <= decision.level
    st.markdown(f"**{_EVIDENCE[moved, weak]}**")
    named = [plain(workspace.classes[c]) for c in reason.classes]
    left, right = st.columns(2, gap="large")
    with left:
        st.caption(
            "How much it moves features that training images leave still (the residual). "
            f"{_normal_images(reason.as_moved, size)} as odd in this."
        )
        _show_part("residual", normal.residual, reason.residual, decision)
    with right:
        st.caption(
            f"How little speaks for any class; most speaks for {', then '.join(named)}. "
            f"{_normal_images(reason.as_weak, size)} as odd in this."
        )
        _show_part("evidence", -normal.energy, -reason.energy, decision)
    if numbers:
        logits = ", ".join(f"{n} {v:.2f}" for n, v in zip(named, reason.logits, strict=True))
        st.caption(
            f"Numbers: residual {reason.residual:.2f} less energy {reason.energy:.2f} is a score "
            f"of {reason.residual - reason.energy:.2f}. Logits: {logits}."
        )


def _show_part(name: str, normal: np.ndarray, own: float, decision: Decision) -> None:
    st.plotly_chart(
        score_histogram(np.sort(normal), np.inf, own, decision.verdict),
        key=f"why-{name}",
        config={"displayModeBar": False},
        alt=f"The {name} of this image among those of normal images held out from training",
    )


def show_layers(
    workspace: Workspace, reason: LayerReason, shares: np.ndarray | None, *, numbers: bool
) -> None:
    """Which layers find it odd, and the oddest channels by what excites them."""
    names = [layer_name(n, len(reason.p_values)) for n in range(len(reason.p_values))]
    compared = _compared(workspace, reason)
    st.markdown(f"**{layers_sentence(reason.p_values, names)}**")
    st.caption(
        f"Each layer is compared with what {compared} do there. Its name goes by depth: first "
        "layers mostly answer to edges, last ones to whole objects."
    )
    if shares is not None and shares.any():
        where = _listed(list(dict.fromkeys(names[n] for n in most_of(shares))))
        st.markdown(
            f"Weighed together, the layers for {where} make up most of its distance to the nearest "
            "class."
        )
    if numbers:
        table = {"Layer": names, "p-value": [f"{p:.2g}" for p in reason.p_values]}
        if shares is not None:
            table["Part of the distance (Mahalanobis over layers)"] = [f"{s:.1%}" for s in shares]
        st.dataframe(pd.DataFrame(table), hide_index=True, width="content")
        if shares is not None and shares.min() < 0:
            st.caption("A negative part: given the other layers, this one is more as expected.")
    st.caption("The oddest channels, each with the training images that excite it most:")
    grid = st.grid("auto", min_column_width=300, gap=("large", "small"))
    for channel in reason.channels:
        with grid.cell():
            st.markdown(channel_sentence(channel, names[channel.layer], compared, reason.size))
            if numbers:
                st.caption(
                    f"Channel {channel.channel} of layer {channel.layer + 1} ({channel.kind}); "
                    f"p-value {channel.p_value:.2g}"
                )
            gallery(workspace, channel.exciting, _labels(workspace, channel.exciting), _SMALL)


def most_of(shares: np.ndarray) -> np.ndarray:
    """The fewest of (L,) shares that make up more than a half, the largest first: their places."""
    order = np.argsort(-shares, kind="stable")
    return order[: 1 + int(np.argmax(np.cumsum(shares[order]) > 0.5))]


def layer_name(layer: int, count: int) -> str:
    """What a layer mostly answers to, by how deep it lies among `count`."""
    depth = round(layer / (count - 1) * (len(_DEPTHS) - 1)) if count > 1 else -1
    return _DEPTHS[depth]


def layers_sentence(p_values: np.ndarray, names: Sequence[str]) -> str:
    """Which layers are odd, in plain words."""
    odd = list(dict.fromkeys(n for n, p in zip(names, p_values, strict=True) if p <= _ODD))
    if not odd:
        return "No layer on its own answers oddly to it."
    if len(odd) == len(set(names)):
        return "Every layer answers oddly to it, from edges to whole objects."
    usual = [n for n in dict.fromkeys(names) if n not in odd]
    return f"Odd: {_listed(odd)}. As usual: {_listed(usual)}."


def channel_sentence(channel: ChannelReason, layer: str, compared: str, size: int) -> str:
    """How one channel answers, against `size` training images that are `compared`."""
    way = "more strongly" if channel.stronger else "more weakly"
    if channel.p_value * (size + 1) < 2 * BEYOND:
        return f"A channel for {layer} answers {way} than to any of {size:,} {compared}."
    return (
        f"A channel for {layer} answers {way} than usual; so far from usual: "
        f"{out_of(channel.p_value)} {compared}."
    )


def _compared(workspace: Workspace, reason: LayerReason) -> str:
    if reason.label is None:
        return "training images"
    return f"training images of {plain(workspace.classes[reason.label])}"


def _normal_images(share: float, size: int) -> str:
    """How many normal images are so, to be followed by how they are."""
    if share * size < 0.5:
        return f"Not one of {size:,} normal images is"
    return f"{out_of(share)} normal images are"


def _labels(workspace: Workspace, rows: Iterable[int]) -> list[str]:
    return [plain(workspace.classes[workspace.bank.images.labels[row]]) for row in rows]


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _ordinal(n: int) -> str:
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"
