"""Previews: a linear map from latents to colours, then a small JPEG as a data URI.

Good enough to see where a video is going, and about a thousand times cheaper than decoding it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from PIL import Image

from core.protocol import PREVIEW_MAX_BYTES

_SCALE: Final = 8
_LONG_SIDE: Final = 416
_QUALITIES: Final = (80, 60, 40, 20)

# Red, green, blue for each of the 16 channels of Wan 2.1's VAE, and what is added, for colours in
# [-1, 1]. Source: ComfyUI, comfy/latent_formats.py, class Wan21 (GPL-3.0 project; published
# numbers). Wan 2.2 A14B has the same VAE; Qwen Image has one with the same latent statistics, which
# ComfyUI shows by the same numbers.
_WAN21: Final = (
    (-0.1299, -0.1692, 0.2932),
    (0.0671, 0.0406, 0.0442),
    (0.3568, 0.2548, 0.1747),
    (0.0372, 0.2344, 0.1420),
    (0.0313, 0.0189, -0.0328),
    (0.0296, -0.0956, -0.0665),
    (-0.3477, -0.4059, -0.2925),
    (0.0166, 0.1902, 0.1975),
    (-0.0412, 0.0267, -0.1364),
    (-0.1293, 0.0740, 0.1636),
    (0.0680, 0.3019, 0.1128),
    (0.0032, 0.0581, 0.0639),
    (-0.1251, 0.0927, 0.1699),
    (0.0060, -0.0633, 0.0005),
    (0.3477, 0.2275, 0.2950),
    (0.1984, 0.0913, 0.1861),
)
_WAN21_BIAS: Final = (-0.1835, -0.0868, -0.3360)


@dataclass(frozen=True, slots=True)
class LatentColours:
    """The map of one VAE: `factors` (C, 3) and `bias` (3,), float32 on the CPU, to [-1, 1]."""

    factors: torch.Tensor
    bias: torch.Tensor

    def picture(self, latents: torch.Tensor) -> Image.Image:
        """The middle frame of latents (1, C, T, h, w) or (1, C, h, w), one pixel a latent, RGB."""
        frame = latents[0] if latents.ndim == 4 else latents[0, :, latents.shape[2] // 2]
        middle = frame.float().cpu()
        colours = torch.einsum("chw,cr->hwr", middle, self.factors) + self.bias
        pixels = ((colours + 1) * 127.5).nan_to_num().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(pixels.numpy())


def wan21_colours() -> LatentColours:
    """The published map of the Wan 2.1 VAE."""
    return LatentColours(torch.tensor(_WAN21), torch.tensor(_WAN21_BIAS))


@torch.no_grad()
def measured_colours(encode: Callable[[torch.Tensor], torch.Tensor]) -> LatentColours:
    """The map of any VAE that is quick to run, by least squares over one picture of colours.

    Args:
        encode: gives the latents (C, …) of one picture (3, H, W) in [-1, 1], float32 on the CPU; a
            latent is 8 x 8 pixels.
    """
    side = 16
    rng = np.random.default_rng(0)
    cells = torch.from_numpy(rng.uniform(-1, 1, (3, side, side)).astype(np.float32))
    picture = cells.repeat_interleave(_SCALE, dim=1).repeat_interleave(_SCALE, dim=2)
    latents = encode(picture).float().cpu()
    inputs = latents.reshape(latents.shape[0], -1).T
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    # Ridge, because some channels may carry no colour at all.
    gram = inputs.T @ inputs + 1e-3 * torch.eye(inputs.shape[1])
    solution = torch.linalg.solve(gram, inputs.T @ cells.reshape(3, -1).T)
    return LatentColours(solution[:-1], solution[-1])


def data_uri(picture: Image.Image, max_bytes: int = PREVIEW_MAX_BYTES) -> str | None:
    """A JPEG data URI of at most `max_bytes`; None if even a small one is larger."""
    long_side = max(picture.size)
    for side in (_LONG_SIDE, _LONG_SIDE // 2):
        scale = side / long_side
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        shown = picture.resize(size, Image.Resampling.BICUBIC)
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            shown.save(buffer, "JPEG", quality=quality)
            uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
            if len(uri) <= max_bytes:
                return uri
    return None
