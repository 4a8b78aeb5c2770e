"""Edges for the Canny controlnet."""

from __future__ import annotations

import numpy as np
from PIL import Image

from core.media.edges import canny
from tests.support.pictures import gradient


def test_an_edge_is_white_where_two_colours_meet_and_all_else_is_black() -> None:
    picture = Image.new("RGB", (40, 30), "navy")
    picture.paste("orange", (20, 0, 40, 30))
    edges = canny(picture)
    assert (edges.mode, edges.size) == ("RGB", picture.size)
    columns = np.asarray(edges)[..., 0].max(axis=0)
    assert columns[18:22].max() == 255
    assert set(np.unique(columns)) == {0, 255}
    assert not columns[:17].any() and not columns[23:].any()


def test_a_gradient_has_no_edges() -> None:
    assert not np.asarray(canny(gradient(256, 256))).any()


def test_any_mode_of_picture_is_taken() -> None:
    picture = Image.new("L", (16, 16), 0)
    picture.paste(255, (8, 0, 16, 16))
    assert np.asarray(canny(picture)).any()
