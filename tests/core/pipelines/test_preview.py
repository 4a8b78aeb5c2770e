"""Previews: right colours, a picture, and never larger than the wire allows."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.pipelines import preview
from core.pipelines.wan_video import WanVideo
from core.protocol import PREVIEW_MAX_BYTES


def opened(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.mark.parametrize("size", [(8, 8), (104, 60), (160, 90), (18, 320)])
def test_even_noise_stays_below_the_limit_and_keeps_its_shape(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    uri = preview.data_uri(Image.fromarray(noise))
    assert uri is not None
    assert len(uri) <= PREVIEW_MAX_BYTES
    shown = opened(uri)
    assert shown.width / shown.height == pytest.approx(size[0] / size[1], rel=0.05)


def test_nothing_is_shown_when_nothing_fits() -> None:
    assert preview.data_uri(Image.new("RGB", (64, 64)), max_bytes=100) is None


def test_the_middle_frame_is_shown_and_broken_numbers_are_survived() -> None:
    latents = torch.zeros(1, 16, 5, 4, 6)
    latents[:, 14, 2] = 2.0  # a channel that brightens
    colours = preview.wan21_colours()
    bright = np.asarray(colours.picture(latents)).mean()
    latents[:, 14, 2] = 0.0
    assert np.asarray(colours.picture(latents)).mean() < bright
    latents[:] = float("nan")
    assert colours.picture(latents).size == (6, 4)


def test_measured_colours_show_what_was_encoded(wan: WanVideo) -> None:
    pipe: Any = wan._pipe
    red = torch.full((3, 1, 64, 64), -0.8)
    red[0] = 0.8
    parameter = next(pipe.vae.parameters())
    latents = pipe.vae.encode([red.to(parameter)], device=parameter.device.type)
    shown = np.asarray(wan._colours.picture(latents)).mean(axis=(0, 1))
    assert shown[0] > 180
    assert max(shown[1], shown[2]) < 90
