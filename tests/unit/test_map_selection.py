import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.map_selection import in_polygon, inside

POINTS = np.random.default_rng(0).uniform(-2, 2, (3_000, 2))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), corners=st.integers(3, 12))
def test_a_convex_polygon_holds_what_is_left_of_all_its_edges(seed, corners):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    x, y = np.cos(angles), np.sin(angles)
    left = [
        (x1 - x0) * (POINTS[:, 1] - y0) - (y1 - y0) * (POINTS[:, 0] - x0) > 0
        for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True)
    ]
    np.testing.assert_array_equal(in_polygon(x, y, POINTS), np.all(left, axis=0))


def test_a_bay_is_outside():
    xs, ys = [0, 4, 4, 3, 3, 1, 1, 0], [0, 0, 3, 3, 1, 1, 3, 3]  # a U
    asked = np.array([[0.5, 2], [2, 2], [3.5, 2], [2, 0.5], [5, 1]])
    assert in_polygon(xs, ys, asked).tolist() == [True, False, True, True, False]


def test_lassos_and_boxes_add_up_and_nothing_drawn_is_nothing():
    drawn = {
        "lasso": [{"x": [-2, -1, -1, -2], "y": [-2, -2, -1, -1]}],
        "box": [{"x": [1, 0], "y": [0, 1]}],
    }
    x, y = POINTS.T
    expected = ((x < -1) & (y < -1)) | ((x >= 0) & (x <= 1) & (y >= 0) & (y <= 1))
    np.testing.assert_array_equal(inside(drawn, POINTS), np.flatnonzero(expected))
    assert len(inside({}, POINTS)) == len(inside({"lasso": [], "box": []}, POINTS)) == 0
