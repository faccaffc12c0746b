import io

import numpy as np
import pytest
from PIL import Image

from app.artefacts import artefacts, normal_statistics


@pytest.fixture(scope="module")
def normal(demo):
    return normal_statistics(demo)


def coats(demo, change):
    """Calibration coats, their pixels changed."""
    images = demo.calibration.images
    rows = np.flatnonzero(np.asarray(images.labels) == demo.classes.index("Coat"))[:20]
    files = []
    for row in rows:
        pixels = np.asarray(Image.open(io.BytesIO(images.thumbnails[row])).convert("L"), float)
        buffer = io.BytesIO()
        Image.fromarray(np.clip(change(pixels), 0, 255).astype(np.uint8)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def test_normal_images_are_no_artefacts(demo, normal):
    assert artefacts(coats(demo, lambda x: x), normal) == []


def test_faults_are_named(demo, normal):
    assert "brighter" in artefacts(coats(demo, lambda x: x * 0.2 + 200), normal)
    noise = np.random.default_rng(0)
    assert "noisier" in artefacts(
        coats(demo, lambda x: 255 * (noise.random(x.shape) < 0.5)), normal
    )
