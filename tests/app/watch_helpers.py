"""Streams without a network: scores, and who knows what they are of."""

import io
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from app.watching import Arrival
from models.images import thumbnail_webp
from ood.monitoring.payoffs import Answer
from ood.monitoring.settings import Settings

RED = thumbnail_webp(Image.new("RGB", (8, 8), "red"), 64)
SETTINGS = Settings(thresholds=40, budget=1_000)
WORKSPACE = SimpleNamespace(
    manifest=SimpleNamespace(name="made", detector="some"),
    key="/anywhere 0123",
    calibration_scores={"some": np.random.default_rng(9).normal(size=500).astype(np.float32)},
)


def world(items: int, seed: int = 0, shift: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and which are of unknown images."""
    rng = np.random.default_rng(seed)
    unknown = rng.uniform(size=items) < 0.3
    return rng.normal(size=items) + shift * unknown, unknown


def told(unknown: bool) -> Answer:
    return Answer.UNKNOWN if unknown else Answer.KNOWN


def arrivals(scores, start=0, **changed) -> list[Arrival]:
    return [
        Arrival(
            **{
                "name": f"{start + n}.png", "sha256": f"{start + n:064}", "score": float(score),
                "p_value": 0.5, "predicted": 1, "picture": RED,
            } | changed
        )
        for n, score in enumerate(scores)
    ]  # fmt: skip


def events(record: bytes) -> list[dict]:
    """Rows of a record, without what the clock and other streams say."""
    rows = pq.read_table(io.BytesIO(record)).to_pylist()
    return [{k: v for k, v in row.items() if k not in ("id", "created")} for row in rows]


def metadata(record: bytes) -> dict:
    return pq.read_schema(io.BytesIO(record)).metadata
