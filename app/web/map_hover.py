"""The picture of the dot below the pointer. Plotly has none: its hover texts hold no images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

from app.map_layers import LAYERS, VERDICTS, Dots
from app.map_selection import Origins
from app.web.map_data import thumbnails
from app.web.pictures import data_url

_SCRIPT = """
export default function ({ data, parentElement, setTriggerValue }) {
  let card = parentElement.querySelector("#card");
  let plot = null, timer = null;
  const hide = () => { clearTimeout(timer); parentElement.asked = null; card.hidden = true; };
  const ask = (event) => {
    hide();
    const { x, y } = event.points[0];
    timer = setTimeout(() => {
      parentElement.asked = { x, y, left: event.event.clientX, top: event.event.clientY };
      setTriggerValue("over", [x, y]);
    }, 120);
  };
  const attach = () => {
    const found = document.querySelector(".st-key-map-chart .js-plotly-plot");
    if (!found || found === plot || !found.on) return;
    plot = found;
    plot.on("plotly_hover", ask);
    plot.on("plotly_unhover", hide);
  };
  attach();
  const watch = setInterval(attach, 500);
  const asked = parentElement.asked;
  if (data && asked && data.x === asked.x && data.y === asked.y) {
    card.querySelector("img").src = data.picture;
    card.querySelector("div").textContent = data.text;
    card.style.left = `${asked.left + 18}px`;
    card.style.bottom = `${window.innerHeight - asked.top + 16}px`;  // above the text
    card.hidden = false;
  }
  return () => {
    clearInterval(watch);
    clearTimeout(timer);
    if (plot && plot.removeListener) {
      plot.removeListener("plotly_hover", ask);
      plot.removeListener("plotly_unhover", hide);
    }
  };
}
"""
_PAGE = '<div id="card" hidden><img alt="" width="96" /><div></div></div>'
_STYLE = """
#card { position: fixed; z-index: 1000; width: 96px; padding: 6px; pointer-events: none;
        background: white; border: 1px solid #dfe4ea; border-radius: 8px; font-size: 12px;
        font-family: var(--st-font); color: #1f2937; overflow-wrap: anywhere; }
#card img { image-rendering: pixelated; display: block; border-radius: 4px; }
"""
_card = st.components.v2.component("map_hover", html=_PAGE, css=_STYLE, js=_SCRIPT)


@st.fragment
def show_hover(origins: Origins, dots: Dots, visible: np.ndarray) -> None:
    """Waits for the pointer to rest on a dot, and answers with its picture."""
    over = st.session_state.get("map-hover", {}).get("over")
    _card(
        key="map-hover",
        data=hover_card(origins, dots, visible, over) if over else None,
        on_over_change=lambda: None,
        height=1,
    )


def hover_card(
    origins: Origins, dots: Dots, visible: np.ndarray, over: tuple[float, float]
) -> Mapping[str, Any] | None:
    """Picture and words of the visible image at a place; None where its picture is gone.

    Args:
        origins: where the images come from.
        dots: M images.
        visible: (n,) rows that can be pointed at.
        over: its coordinates on the map.
    """
    if not len(visible):
        return None
    row = int(visible[np.square(dots.places[visible] - np.asarray(over)).sum(axis=1).argmin()])
    found = thumbnails(origins, dots, [row])
    if row not in found:
        return None
    words = [origins.workspace.classes[dots.classes[row]], LAYERS[dots.layers[row]].value.lower()]
    if (place := int(dots.verdicts[row])) >= 0:
        words.append(f"{VERDICTS[place]}, p = {dots.p_values[row]:.3g}")
    if not np.isnan(dots.losses[row]):
        words.append(f"loss {dots.losses[row]:.2g}")
    return {"x": over[0], "y": over[1], "picture": data_url(found[row]), "text": ", ".join(words)}
