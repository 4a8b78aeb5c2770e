"""Latents to frames, handed out as they come, with the stock decoder's numbers.

Stock `vae.decode` returns the whole video as one tensor, then it is copied, scaled and copied
again: 81 frames of 1280 x 720 are 0.9 GB in float32, several times over. Here a frame is at most
four frames away from the file it goes to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange

Frame = npt.NDArray[np.uint8]


def decode_stream(vae: Any, latents: torch.Tensor, device: str) -> Iterator[list[Frame]]:
    """The frames of each latent frame: 1 for the first, 4 for each further one.

    The operations of VideoVAE_.decode, WanVideoVAE.single_decode and vae_output_to_video, in the
    same order and on the same numbers, so the frames are identical.

    Args:
        vae: a WanVideoVAE.
        latents: (1, C, T, h, w).
        device: where the VAE computes.
    """
    model = vae.model
    model.clear_cache()
    try:
        x = _prepare(vae, latents, device)
        for index in range(x.shape[2]):
            yield frames_of(_decode_one(model, x[:, :, index : index + 1]))
    finally:
        model.clear_cache()  # else it keeps the last feature maps, gigabytes at 720p


def decode_tiled(
    vae: Any,
    latents: torch.Tensor,
    device: str,
    *,
    tile_size: tuple[int, int],
    tile_stride: tuple[int, int],
) -> Iterator[list[Frame]]:
    """The same for tiles, which are whole in time: decoded by the stock code, then frame by frame.

    Args:
        vae: a WanVideoVAE.
        latents: (1, C, T, h, w).
        device: where the VAE computes.
        tile_size: (height, width) in latent pixels.
        tile_stride: (height, width) in latent pixels, smaller than tile_size.
    """
    with torch.no_grad():
        video = vae.tiled_decode(latents.cpu(), device, tile_size, tile_stride)
    vae.model.clear_cache()
    for index in range(video.shape[2]):
        yield frames_of(video[:, :, index : index + 1])


def frames_of(video: torch.Tensor) -> list[Frame]:
    """Pixels of (1, 3, T, H, W) in [-1, 1] as T arrays (H, W, 3), as vae_output_to_video does."""
    frames = rearrange(video, "1 c t h w -> t h w c")
    return [
        ((frame + 1) * (255 / 2)).clip(0, 255).to(device="cpu", dtype=torch.uint8).numpy()
        for frame in frames
    ]


@torch.no_grad()
def _prepare(vae: Any, latents: torch.Tensor, device: str) -> torch.Tensor:
    z = latents.to("cpu").to(device)
    mean, inverse_std = (part.to(dtype=z.dtype, device=z.device) for part in vae.scale)
    z = z / inverse_std.view(1, -1, 1, 1, 1) + mean.view(1, -1, 1, 1, 1)
    x: torch.Tensor = vae.model.conv2(z)
    return x


@torch.no_grad()
def _decode_one(model: Any, x: torch.Tensor) -> torch.Tensor:
    model._conv_idx = [0]
    out, model._feat_map, model._conv_idx = model.decoder(
        x, feat_cache=model._feat_map, feat_idx=model._conv_idx
    )
    pixels: torch.Tensor = out.clamp_(-1, 1)
    return pixels
